"""Protocol of the decoding process: requests in, responses out."""

import io

import numpy as np
import pytest
from PIL import Image

from foveal.deployment.serve import decoder


def responses(*requests: tuple[bytes, dict[str, int | bool]]) -> list[tuple[bool, bytes]]:
    """Return the responses of the process to files with options."""
    fields = {"height": 0, "width": 0, "short": 0, "channels": 1, "pixels": 10**6, "side": 100}
    sent = b""
    for data, options in requests:
        values = {**fields, "crop": False, **options}
        sent += decoder.REQUEST.pack(len(data), *values.values()) + data
    stream = io.BytesIO()
    decoder.serve(io.BytesIO(sent), stream)
    stream.seek(0)
    assert stream.read(1) == decoder.READY
    received = []
    while head := stream.read(decoder.RESPONSE.size):
        done, length = decoder.RESPONSE.unpack(head)
        received.append((done, stream.read(length)))
    return received


def png(height: int, width: int, mode: str = "L") -> bytes:
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
    ((done, body),) = responses((data, options))
    assert done
    assert decoder.SHAPE.unpack_from(body) == shape
    pixels = np.frombuffer(body, np.uint8, offset=decoder.SHAPE.size).reshape(shape)
    assert np.array_equal(np.unique(pixels), [7, 8, 9][: shape[0]])


def test_a_refused_file_gives_one_line_and_the_next_is_decoded():
    received = responses((b"no image", {}), (png(30, 30), {"pixels": 100}), (png(5, 5), {}))
    assert [done for done, _ in received] == [False, False, True]
    assert all(0 < len(body.decode().splitlines()) == 1 for _, body in received[:2])


def test_running_out_of_memory_is_reported(monkeypatch):
    def raise_memory_error(*_, **__):
        raise MemoryError

    monkeypatch.setattr(decoder, "read_pixels", raise_memory_error)
    assert responses((png(5, 5), {})) == [(False, b"takes too much memory")]
