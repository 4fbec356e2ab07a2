"""Sample digits for the page, from a dataset that is installed with a dependency."""

from foveal.datasets import load_images
from foveal.deployment.serve.pictures import data_url
from foveal.images.values import as_floats

COUNT = 20  # two per class


def samples() -> list[dict[str, object]]:
    """Return two digits per class, as data URLs of PNGs.

    They come from test images, on which no model of the zoo was trained.
    """
    digits = load_images("mnist-5k", "test").few(COUNT)
    order = digits.labels.argsort(stable=True).tolist()
    return [
        {
            "name": f"{digits.classes[int(digits.labels[index])]}-{index}.png",
            "label": digits.classes[int(digits.labels[index])],
            "image": data_url(as_floats(digits.images[index])),
        }
        for index in order
    ]
