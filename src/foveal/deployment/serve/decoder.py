"""A process that decodes clients' images and can be killed.

Image decoders are C code that reads untrusted bytes: they may crash, use all memory, or need hours
for a few megabytes (a JPEG with many scans), and only killing the process stops them. The process
does not import PyTorch, so a new one starts in a tenth of a second. It handles one request at a
time, over stdin and stdout; `decoding.py` is the other end.
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
READY = b"!"
# Number of bytes, height, width, short side, channels, max_pixels, side, crop.
REQUEST = struct.Struct("!IIIIIII?")
RESPONSE = struct.Struct("!?I")  # whether the image was decoded, number of bytes
SHAPE = struct.Struct("!III")  # channels, height, width
MEMORY_BYTES = 1_000_000_000  # 25 million colour pixels take 300 MB with their copies


def _bound_memory() -> None:
    """Limit the memory of this process, where the system supports that."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def _decode(data: bytes, options: tuple[int, int, int, int, int, int, bool]) -> bytes:
    """Return the shape and the pixels (C, H, W) of an image, packed into bytes."""
    height, width, short, channels, max_pixels, side, crop = options
    size: Sizing | None = (height, width) if height and width else None
    if short:
        size, crop = ShortSide(short), False
    read = partial(read_pixels, max_pixels=max_pixels, formats=FORMATS)
    pixels = read(data, size, channels, crop=crop).values
    if size is None and max(pixels.shape[:2]) > side:
        scale = side / max(pixels.shape[:2])
        size = (max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
        pixels = read(data, size, channels).values
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return SHAPE.pack(*planes.shape) + planes.tobytes()


def serve(requests: BinaryIO, responses: BinaryIO) -> None:
    """Signal readiness, then process requests until the input ends."""
    responses.write(READY)
    responses.flush()
    while head := requests.read(REQUEST.size):
        length, *options = REQUEST.unpack(head)
        data = requests.read(length)
        try:
            decoded, body = True, _decode(data, tuple(options))
        except (UserError, MemoryError) as error:
            decoded, body = False, (str(error) or "takes too much memory").encode()
        responses.write(RESPONSE.pack(decoded, len(body)) + body)
        responses.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _bound_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
