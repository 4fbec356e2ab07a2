"""The decoding process's own code: requests in, responses out."""

import io

import numpy as np
import pytest
from PIL import Image

from foveal.deployment.serve import decoder


def responses(*requests: tuple[bytes, dict[str, int | bool]]) -> list[tuple[bool, bytes]]:
    """Return what the process answers to files and to what is wanted of them."""
    fields = {"height": 0, "width": 0, "short": 0, "channels": 1, "pixels": 10**6, "side": 100}
    sent = b""
    for data, wanted in requests:
        values = {**fields, "crop": False, **wanted}
        sent += decoder.REQUEST.pack(len(data), *values.values()) + data
    answers = io.BytesIO()
    decoder.serve(io.BytesIO(sent), answers)
    answers.seek(0)
    assert answers.read(1) == decoder.READY
    found = []
    while head := answers.read(decoder.ANSWER.size):
        done, length = decoder.ANSWER.unpack(head)
        found.append((done, answers.read(length)))
    return found


def png(height: int, width: int, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height), 7 if mode == "L" else (7, 8, 9)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "wanted", "shape"),
    [
        (png(20, 30), {}, (1, 20, 30)),
        (png(20, 30), {"height": 8, "width": 9}, (1, 8, 9)),
        (png(20, 30, "RGB"), {"channels": 3, "short": 64}, (3, 64, 96)),
        (png(20, 300), {}, (1, 7, 100)),  # no longer than the longer side may be
        (png(300, 1), {}, (1, 100, 1)),
    ],
)
def test_an_image_comes_back_in_the_size_that_is_wanted(data, wanted, shape):
    ((done, body),) = responses((data, wanted))
    assert done
    assert decoder.SHAPE.unpack_from(body) == shape
    pixels = np.frombuffer(body, np.uint8, offset=decoder.SHAPE.size).reshape(shape)
    assert np.array_equal(np.unique(pixels), [7, 8, 9][: shape[0]])


def test_a_refused_file_is_one_line_and_the_next_is_decoded():
    found = responses((b"no image", {}), (png(30, 30), {"pixels": 100}), (png(5, 5), {}))
    assert [done for done, _ in found] == [False, False, True]
    assert all(0 < len(body.decode().splitlines()) == 1 for _, body in found[:2])


def test_a_full_memory_is_said(monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr(decoder, "read_pixels", full)
    assert responses((png(5, 5), {})) == [(False, b"takes too much memory")]
