"""Hostile requests to the server: each is refused with a 4xx status and a short message."""

import io
import json
import os
import random
import socket
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hostile_http import HEALTH, json_bodies, large_bodies, raw_requests
from PIL import Image

from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import DETAIL_LENGTH, Refused
from studio_server import BOUNDARY, digits, form, running_server, wait_until

LIMITS = Limits(body_bytes=2_000_000)
SHORT_TIMEOUTS = Limits(
    body_bytes=2_000_000, head_seconds=1.0, body_seconds=1.0, decode_seconds=2.0
)


@pytest.fixture(scope="module")
def server():
    with running_server("mnist-focus", limits=LIMITS) as address:
        yield address


@pytest.fixture(scope="module")
def impatient_server():
    """A server with short timeouts, which even valid requests may exceed on a busy machine."""
    with running_server("mnist-focus", limits=SHORT_TIMEOUTS) as address:
        yield address


@pytest.fixture(scope="module")
def digit_png():
    """A valid PNG of a digit."""
    return encode(Image.fromarray(digits(1)[0][0]), "PNG")


def encode(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))


def png(width, height, data=b"", *chunks):
    """Return a PNG whose header need not match its data."""
    head = chunk(b"IHDR", struct.pack("!IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = [head, *chunks, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<html><script>fetch('http://127.0.0.1/')</script></html>"


def bombs():
    """Return decompression bombs, by name."""
    zeros = zlib.compress(bytes(1_000_000), 9)
    webp = bytearray(encode(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    # The width and height in each file's header are replaced by large ones.
    webp[21:25] = struct.pack("<I", 16382 | (16382 << 14))  # width and height less one
    gif = bytearray(encode(Image.new("P", (8, 8)), "GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    bmp = bytearray(encode(Image.new("L", (8, 8)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    jpeg = bytearray(encode(Image.new("L", (8, 8)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")  # start of frame, the segment that holds height and width
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000), 9))
    return {
        "png of 50,000 x 50,000": png(50_000, 50_000, zeros),
        "png of 2 billion pixels per side": png(2**31 - 1, 2**31 - 1, zeros),
        "png just above the limit of 25 million pixels": png(5_001, 5_000, zeros),
        "png with 80 MB of text": png(28, 28, zlib.compress(bytes(29 * 28)), text),
        "webp": bytes(webp),
        "gif": bytes(gif),
        "bmp": bytes(bmp),
        "jpeg": bytes(jpeg),
    }


def wrong_types(digit_png):
    """Return files that are not images of a supported type, by name."""
    tiff = encode(Image.new("L", (8, 8)), "TIFF")
    return {
        "empty": b"",
        "one byte": b"\x89",
        "svg with script": SVG,
        "html": HTML,
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "zip": b"PK\x03\x04" + bytes(100),
        "gzip": b"\x1f\x8b\x08" + bytes(50),
        "elf": b"\x7fELF" + bytes(100),
        "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
        "tiff": tiff,
        "ppm": b"P6 8 8 255\n" + bytes(192),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "icon": encode(Image.new("RGBA", (16, 16)), "ICO"),
        "numpy": b"\x93NUMPY\x01\x00" + bytes(100),
        "text": "Füße".encode(),
        "zeros": bytes(5000),
        "html, then a picture": HTML + digit_png,
        "svg, then a picture": SVG + digit_png,
        "jpeg's first bytes and html": b"\xff\xd8\xff\xe0" + HTML,
        "gif's first bytes and javascript": b"GIF89a/*" + b"*/=1;alert(1)" + bytes(20),
        "bmp's first bytes": b"BM" + HTML,
        "png's first bytes": b"\x89PNG\r\n\x1a\n" + HTML,
        "webp's first bytes": b"RIFF\x40\0\0\0WEBPVP8 " + HTML,
    }


def truncated_images():
    """Return images cut off within their first two thirds, by name."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    complete = {
        kind: encode(Image.fromarray(pixels), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF")
    }
    # Kept lengths: integers are bytes, floats are fractions of the file.
    cuts = [1, 4, 9, 20, 40, 70, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65]
    files = {}
    for kind, data in complete.items():
        for cut in cuts:
            length = cut if isinstance(cut, int) else int(cut * len(data))
            files[f"{kind} cut at {cut}"] = data[:length]
    return files


def garbled_images(count):
    """Return PNGs with random bytes in their header, by name."""
    random_bytes = random.Random(0)
    data = encode(Image.fromarray(digits(1)[0][0]), "PNG")
    files = {}
    for number in range(count):
        broken = bytearray(data)
        # Every byte of a PNG counts: its chunks and its compressed data have checksums.
        for _ in range(6):
            broken[random_bytes.randrange(8, 40)] = random_bytes.randrange(256)
        files[f"garbled {number}"] = bytes(broken)
    return files


def test_two_hundred_malformed_files_are_refused_and_a_valid_one_still_works(server, digit_png):
    files = {**bombs(), **wrong_types(digit_png), **truncated_images(), **garbled_images(100)}
    assert len(files) >= 200
    for name, data in files.items():
        reply = server.explain(data)
        assert 400 <= reply.status < 500, (name, reply)
        assert reply.json["detail"], name
        assert "\n" not in reply.json["detail"]
    response = server.explain(digit_png)
    assert response.status == 200
    assert response.json["images"][0]["prediction"] == digits(1)[1][0]


def test_a_script_appended_to_a_picture_does_not_appear_in_the_response(server, digit_png):
    reply = server.explain(digit_png + HTML)
    assert reply.status == 200
    assert b"<script>" not in reply.body
    assert reply.headers["content-type"] == "application/json"


def test_html_in_a_file_name_is_returned_as_json_text(server, digit_png):
    name = "<img src=x onerror=alert(1)>.png"
    reply = server.explain(digit_png, name=name)
    assert reply.json["images"][0]["path"] == name
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    refused = server.explain(HTML, name=name)
    assert refused.status == 422
    assert name in refused.json["detail"]
    assert len(server.explain(digit_png, name="x" * 1000).json["images"][0]["path"]) <= 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../pyproject.toml",
        "/static/../../../../../../etc/passwd",
        "/static/..%2f..%2fserver.py",
        "/static/%2e%2e/%2e%2e/etc/passwd",
        "/static//etc/passwd",
        "/static/....//....//etc/passwd",
        "/static/index.html%00.png",
        "/etc/passwd",
        "/..%5c..%5cetc%5cpasswd",
    ],
)
def test_static_paths_cannot_leave_their_folder(server, path):
    reply = server.get(path)
    assert reply.status == 404
    assert b"root:" not in reply.body


@pytest.mark.parametrize(
    "name",
    ["../../etc", "/etc/passwd", "./mnist-focus", "owner/name", "mnist-cnn", "", "%2e%2e", "\0"],
)
def test_only_names_of_served_models_are_accepted_not_paths_or_downloads(server, digit_png, name):
    reply = server.explain(digit_png, model=name)
    assert reply.status == 404
    assert reply.json["detail"].startswith("Unknown model")


def test_no_file_name_is_ever_opened(server, digit_png, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(digit_png)
    assert server.explain(b"", name=str(secret)).status == 422
    body = json.dumps({"model": "mnist-focus", "image": f"file://{secret}"}).encode()
    headers = {"content-type": "application/json"}
    assert server.request("POST", "/v1/explain", body, headers).status == 422


def test_uploads_are_never_written_to_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    pixels = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    large = encode(Image.fromarray(pixels), "PNG")
    assert len(large) > 1_500_000  # beyond what form parsers keep in memory
    assert server.explain(large).status == 200


FORM = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
JSON = {"content-type": "application/json"}
EXPLAIN_HEAD = (
    f"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM['content-type']}\r\n"
).encode()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (415, b"x", {"content-type": "text/plain"}),
        (415, b"x", {}),
        (400, b"x", {"content-type": "multipart/form-data"}),
        (400, b"not a form", FORM),
        (400, form({"model": "mnist-focus"}, [])[:-9], FORM),
        (422, form({"model": "mnist-focus"}, []), FORM),
        (422, form({}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "colour": "red"}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "show": "everything"}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "keypoints": "[[["}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "keypoints": "[" * 60_000}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "keypoints": "[[2, 0]]"}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "keypoints": "[[NaN, 0]]"}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "top": "-1"}, [("a.png", b"x")]), FORM),
        (422, form({"model": "mnist-focus", "fraction": "inf"}, [("a.png", b"x")]), FORM),
        (413, form({"model": "m" * 70_000}, [("a.png", b"x")]), FORM),
        (413, form({f"f{i}": "x" for i in range(100)}, []), FORM),
        (413, form({"model": "mnist-focus"}, [("a.png", b"x")] * 17), FORM),
        (422, b"{", JSON),
        (422, b"[" * 100_000, JSON),
        (422, b"[]", JSON),
        (422, b'{"model": "mnist-focus"}', JSON),
        (422, b'{"model": "mnist-focus", "image": "\xff"}', JSON),
        (422, b'{"model": "mnist-focus", "image": "not base64!"}', JSON),
        (422, b'{"model": 3, "image": ""}', JSON),
        (422, b'{"model": "mnist-focus", "image": "", "top": 1e999}', JSON),
    ],
)
def test_a_malformed_request_is_refused_with_a_message(server, status, body, headers):
    reply = server.request("POST", "/v1/explain", body, headers)
    assert reply.status == status, reply
    assert isinstance(reply.json["detail"], str)


def test_invalid_options_are_refused(server, digit_png):
    for fields in (
        {"keypoints": "[[0, 0]]"},
        {"keypoints": "[]"},
        {"keypoints": "[[0, 0], [0, 0], [0, 0]]", "scales": "[1]"},
        {"keypoints": "[[0, 0], [0, 0], [0, 0]]", "method": "rise"},
        {"method": "guess"},
        {"method": "contributions"},
    ):
        reply = server.explain(digit_png, **fields)
        assert reply.status == 422, fields
        assert reply.json["detail"]


def test_an_oversized_content_length_is_refused_before_the_body_is_sent(server):
    reply = server.request("POST", "/v1/explain", b"x", {**FORM, "content-length": "2000001"})
    assert reply.status == 413
    assert "2 MB" in reply.json["detail"]


def test_an_oversized_body_is_refused_while_it_is_being_sent(server, digit_png):
    assert server.explain(bytes(3_000_000)).status == 413
    with connect(server) as stream:
        stream.sendall(EXPLAIN_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            stream.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
        assert status(stream) == 413
    assert server.explain(digit_png).status == 200


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=300)


def status(stream):
    """Return the status of the next response, or None if the connection is closed."""
    head = stream.recv(65536)
    return int(head[9:12]) if head else None  # after "HTTP/1.1 "


def test_slow_headers_time_out(impatient_server):
    with connect(impatient_server) as stream:
        stream.sendall(b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\n")
        stream.settimeout(0.2)
        is_waiting = True
        while is_waiting:
            try:
                code = status(stream)
                is_waiting = False
            except TimeoutError:
                stream.sendall(b"X-Drip: 1\r\n")
        assert code == 408


def test_a_slow_body_times_out(impatient_server):
    with connect(impatient_server) as stream:
        stream.sendall(EXPLAIN_HEAD + b"Content-Length: 1000\r\n\r\nx")
        assert status(stream) == 408


def test_a_silent_connection_is_closed(impatient_server):
    with connect(impatient_server) as stream:
        assert status(stream) == 408
        assert stream.recv(10) == b""


def test_endless_headers_are_refused(server, digit_png):
    with connect(server) as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        line = b"X-Long: " + bytes(range(97, 123)) * 100 + b"\r\n"
        for _ in range(60):
            try:
                stream.sendall(line)
            except (BrokenPipeError, ConnectionResetError):
                break
        assert status(stream) == 431
    assert server.explain(digit_png).status == 200


def test_data_that_is_not_http_is_refused(server, digit_png):
    for data in (b"\x16\x03\x01\x02\x00\x01\x00", b"GET\r\n\r\n", b"\0" * 100 + b"\r\n\r\n"):
        with connect(server) as stream:
            stream.sendall(data)
            assert status(stream) == 400
    assert server.explain(digit_png).status == 200


def test_hostile_http_is_refused_and_a_valid_request_still_works(digit_png):
    requests = raw_requests(seed=0, count=250)
    limits = Limits(head_seconds=3.0, body_seconds=3.0)
    with running_server("mnist-focus", limits=limits) as attacked_server:
        with ThreadPoolExecutor(64) as pool:  # incomplete requests time out in parallel
            statuses = pool.map(first_status, [attacked_server] * len(requests), requests)
            for request, code in zip(requests, statuses, strict=True):
                assert code in request.expected, request
        assert attacked_server.explain(digit_png).status == 200


def first_status(server, request):
    """Return the status of the first response to a raw request; None if there is none."""
    with connect(server) as stream:
        try:
            stream.sendall(request.data)
            return status(stream)
        except (BrokenPipeError, ConnectionResetError):  # refused before everything was sent
            return None


def test_hostile_json_is_refused_with_a_short_message(server, digit_png):
    for name, body in json_bodies(seed=0, count=180):
        reply = server.request("POST", "/v1/explain", body, JSON)
        assert 400 <= reply.status < 500, name
        assert 0 < len(reply.json["detail"]) <= DETAIL_LENGTH + 1, name
        assert "\n" not in reply.json["detail"], name
    assert server.explain(digit_png).status == 200


def test_json_with_too_many_values_is_refused_before_parsing(server, monkeypatch):
    def parse(text):
        raise AssertionError("parsed")

    monkeypatch.setattr("foveal.deployment.serve.schemas.parse_json", parse)
    for name, body in large_bodies(1_000_000):
        if "many" in name:
            reply = server.request("POST", "/v1/explain", body, JSON)
            assert reply.status == 422, name
            assert "at most 10,000 values" in reply.json["detail"]
    fields = {"keypoints": "[" + "0," * 30_000 + "0]"}
    assert "at most 10,000 values" in server.explain(b"", **fields).json["detail"]


def test_pipelined_requests_get_responses_in_order_and_their_number_is_limited(server):
    closing = HEALTH.replace(b"Host", b"Connection: close\r\nHost")
    missing = HEALTH.replace(b"healthz", b"nothing")
    assert server.raw(HEALTH + missing + HEALTH + closing) == [200, 404, 200, 200]
    assert len(server.raw(HEALTH * 10_000)) < 100


def test_a_trailer_is_not_read_as_a_header(server):
    body = b"2\r\n{}\r\n0\r\nContent-Type: application/json\r\n\r\n"
    head = b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    assert server.raw(head + b"Connection: close\r\n\r\n" + body) == [415]


def test_the_header_limit_also_applies_to_a_header_sent_at_once(server):
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: \r\n\r\n"
    for length, expected in ((LIMITS.head_bytes, 200), (LIMITS.head_bytes + 100, 431)):
        padding = b"a" * (length - len(head))
        assert server.raw(head.replace(b"X: ", b"X: " + padding)) == [expected]


def test_a_refusal_message_is_one_short_line():
    refused = Refused(422, "\x1b[2J\n" + "x" * 10_000_000)
    assert refused.detail.startswith("\\x1b[2J\\nxxx")
    assert len(refused.detail) < 2 * DETAIL_LENGTH
    assert refused.detail.endswith("…")


def test_the_server_survives_clients_that_disconnect_mid_request(server, digit_png):
    for _ in range(20):
        with connect(server) as stream:
            body = form({"model": "mnist-focus"}, [("a.png", digit_png)])
            head = EXPLAIN_HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode()
            stream.sendall(head + body[:200])
    assert server.explain(digit_png).status == 200


def test_a_picture_that_decodes_too_slowly_is_refused_and_others_are_decoded(digit_png):
    with running_server("mnist-focus", limits=Limits(decode_seconds=2.0)) as server:
        for _ in range(2):
            reply = server.explain(jpeg_of_many_scans(4_900))
            assert reply.status == 422
            assert "too long" in reply.json["detail"]
        wait_until(lambda: server.explain(digit_png).status == 200)


def jpeg_of_many_scans(side):
    """Return a progressive JPEG of 1.9 MB that repeats its last scan, so that decoding is slow."""
    data = encode(Image.new("L", (side, side), 127), "JPEG", progressive=True)
    start_of_scan, end_of_image = b"\xff\xda", b"\xff\xd9"
    first = data.index(start_of_scan)
    second = data.index(start_of_scan, first + 2)
    last = data.rindex(start_of_scan)
    scan = data[last:-2]
    assert second <= last
    repeats = max(1, (1_900_000 - len(data)) // len(scan))
    return data[:-2] + scan * repeats + end_of_image


def test_a_killed_decoder_is_replaced(digit_png):
    with running_server("mnist-focus", limits=LIMITS) as server:
        killed_count = 0
        for children in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
            for pid in children.read_text().split():
                if b"foveal.deployment.serve.decoder" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(int(pid), 9)
                    killed_count += 1
        assert killed_count
        statuses = [server.explain(digit_png).status for _ in range(6)]
        assert statuses[-1] == 200
        assert set(statuses) <= {200, 422}  # 422 if the request reached a killed decoder
