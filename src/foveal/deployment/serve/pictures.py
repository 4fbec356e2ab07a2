"""Images as data URLs of PNGs, for JSON."""

import base64
import io

from PIL import Image
from torch import Tensor

from foveal.explanation import Explanation
from foveal.images.values import as_uint8


def data_url(image: Tensor) -> str:
    """Return an image (C, H, W) in [0, 1] with 1 or 3 channels as a data URL of a PNG."""
    levels = as_uint8(image.detach().float().clamp(0, 1))
    pixels = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def pictures(explanation: Explanation) -> dict[str, object]:
    """Return the images of an explanation of one image, as data URLs.

    They are the input, and the patches, the thumbnail and the rebuilt image if there are any.
    """
    urls: dict[str, object] = {"image": data_url(explanation.images[0])}
    if explanation.patches is not None:
        urls["patches"] = [data_url(patch) for patch in explanation.patches[0]]
    if explanation.thumbnail is not None:
        urls["thumbnail"] = data_url(explanation.thumbnail[0])
    if explanation.rebuilt is not None:
        urls["rebuilt"] = data_url(explanation.rebuilt[0])
    return urls
