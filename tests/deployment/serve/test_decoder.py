"""Protocol of the decoding process, which reads requests on a stream and writes responses."""

import io

import numpy as np
import pytest
from PIL import Image

from foveal.deployment.serve import decoder


def responses(*requests: tuple[bytes, dict[str, int | bool]]) -> list[tuple[bool, bytes]]:
    """Return the responses to (content of a file, options) pairs as (is_decoded, body) pairs."""
    defaults = {"height": 0, "width": 0, "short": 0, "channels": 1, "pixels": 10**6, "side": 100}
    request_bytes = b""
    for data, options in requests:
        values = {**defaults, "crop": False, **options}
        request_bytes += decoder.REQUEST.pack(len(data), *values.values()) + data
    stream = io.BytesIO()
    decoder.serve(io.BytesIO(request_bytes), stream)
    stream.seek(0)
    assert stream.read(1) == decoder.READY
    received = []
    while head := stream.read(decoder.RESPONSE.size):
        is_decoded, length = decoder.RESPONSE.unpack(head)
        received.append((is_decoded, stream.read(length)))
    return received


def png(height: int, width: int, mode: str = "L") -> bytes:
    """Return the file of an image whose channels have the values 7 or, in RGB, 7, 8 and 9."""
    file = io.BytesIO()
    Image.new(mode, (width, height), 7 if mode == "L" else (7, 8, 9)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "options", "shape"),
    [
        (png(20, 30), {}, (1, 20, 30)),
        (png(20, 30), {"height": 8, "width": 9}, (1, 8, 9)),
        (png(20, 30, "RGB"), {"channels": 3, "short": 64}, (3, 64, 96)),
        (png(20, 300), {}, (1, 7, 100)),  # limited to the longest side
        (png(300, 1), {}, (1, 100, 1)),
    ],
)
def test_an_image_is_returned_in_the_requested_size(data, options, shape):
    ((is_decoded, body),) = responses((data, options))
    assert is_decoded
    assert decoder.SHAPE.unpack_from(body) == shape
    pixels = np.frombuffer(body, np.uint8, offset=decoder.SHAPE.size).reshape(shape)
    assert np.array_equal(np.unique(pixels), [7, 8, 9][: shape[0]])


def test_a_refused_file_gives_a_one_line_message_and_the_next_file_is_decoded():
    received = responses((b"not an image", {}), (png(30, 30), {"pixels": 100}), (png(5, 5), {}))
    assert [is_decoded for is_decoded, _ in received] == [False, False, True]
    assert all(0 < len(body.decode().splitlines()) == 1 for _, body in received[:2])


def test_running_out_of_memory_is_reported(monkeypatch):
    def raise_memory_error(*_, **__):
        raise MemoryError

    monkeypatch.setattr(decoder, "read_pixels", raise_memory_error)
    assert responses((png(5, 5), {})) == [(False, b"takes too much memory")]
