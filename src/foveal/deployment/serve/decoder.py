"""A process that decodes what clients send, and may be ended or die of it.

A decoder is C that reads bytes by a stranger: it may crash, take all memory, or need hours for a
few megabytes (a JPEG of many scans), and then only ending its process helps. It imports no
PyTorch, so that a new one is there in a tenth of a second. One request and one answer at a time,
over stdin and stdout; `decoding.py` is the other end.
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
# Bytes, height, width, short side, channels, max_pixels, side, crop.
REQUEST = struct.Struct("!IIIIIII?")
ANSWER = struct.Struct("!?I")  # decoded?, bytes
SHAPE = struct.Struct("!III")  # channels, height, width
MEMORY_BYTES = 1_000_000_000  # 25 million pixels of colour take 300 MB with their copies


def _bound_memory() -> None:
    """Have this process fail where it takes too much, on systems that can."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def _decoded(data: bytes, wanted: tuple[int, int, int, int, int, int, bool]) -> bytes:
    """Return the shape and the pixels (C, H, W) of an image, as bytes."""
    height, width, short, channels, max_pixels, side, crop = wanted
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


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Say that all is imported, then answer requests until there are no more."""
    answers.write(READY)
    answers.flush()
    while head := requests.read(REQUEST.size):
        length, *wanted = REQUEST.unpack(head)
        data = requests.read(length)
        try:
            done, body = True, _decoded(data, tuple(wanted))
        except (UserError, MemoryError) as error:
            done, body = False, (str(error) or "takes too much memory").encode()
        answers.write(ANSWER.pack(done, len(body)) + body)
        answers.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _bound_memory()
    serve(sys.stdin.buffer, sys.stdout.buffer)
