"""Digits to try a model with: a few of those that a dependency carries."""

from foveal.datasets import load_images
from foveal.deployment.serve.pictures import data_url
from foveal.images.values import as_floats

COUNT = 20


def samples() -> list[dict[str, object]]:
    """Return two digits of each class that no model of the zoo was trained on, as PNG data URLs."""
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
