"""A process that decodes clients' images, and that the server can kill.

Image decoders are C code that reads untrusted bytes: they may crash, use all memory, or need hours
for a few megabytes (a JPEG with many scans), and only killing the process stops them. The process
does not import PyTorch, so that a new one starts in a tenth of a second. It reads one request at a
time from stdin and writes the response to stdout. The server's side is in `decoding.py`.
"""

import struct
import sys
import warnings
from functools import partial
from typing import BinaryIO

from foveal.foundation.errors import UserError
from foveal.images.decode import read_pixels
from foveal.images.sizing import ShortSide, Sizing

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
READY = b"!"  # written once the process can receive requests
# Length of the file, height, width, short side, channels, max_pixels, max_side, crop. Height, width
# and short side are 0 if the model does not have them. The file follows.
REQUEST = struct.Struct("!IIIIIII?")
# Whether the image was decoded, and the length of what follows: shape and pixels, or an error.
RESPONSE = struct.Struct("!?I")
SHAPE = struct.Struct("!III")  # channels, height, width
MEMORY_BYTES = 1_000_000_000  # 25 million colour pixels take 300 MB with their copies


def _limit_memory() -> None:
    """Limit the memory of this process, where the system supports that."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def _decode(data: bytes, options: tuple[int, int, int, int, int, int, bool]) -> bytes:
    """Return the shape and the pixels (C, H, W) of an image, packed into bytes.

    Args:
        data: content of the image file.
        options: values of `REQUEST`, without the first.
    """
    height, width, short_side, channels, max_pixels, max_side, crop = options
    size: Sizing | None = (height, width) if height and width else None
    if short_side:
        size = ShortSide(short_side)
        crop = False
    read = partial(read_pixels, max_pixels=max_pixels, formats=FORMATS)
    pixels = read(data, size, channels, crop=crop).values
    if size is None and max(pixels.shape[:2]) > max_side:  # read again at a smaller size
        scale = max_side / max(pixels.shape[:2])
        size = (max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
        pixels = read(data, size, channels).values
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return SHAPE.pack(*planes.shape) + planes.tobytes()


def serve(requests: BinaryIO, responses: BinaryIO) -> None:
    """Signal that the process is ready, then process requests until the input ends."""
    responses.write(READY)
    responses.flush()
    while header := requests.read(REQUEST.size):
        length, *options = REQUEST.unpack(header)
        data = requests.read(length)
        try:
            is_decoded, body = True, _decode(data, tuple(options))
        except (UserError, MemoryError) as error:
            is_decoded, body = False, (str(error) or "takes too much memory").encode()
        responses.write(RESPONSE.pack(is_decoded, len(body)) + body)
        responses.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _limit_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
