"""Limits and access control of the server.

Requests above a limit are refused at once, without waiting for the requests before them.
"""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice

import pytest
from PIL import Image

from foveal.cli import main
from foveal.deployment.serve import api, inference
from foveal.deployment.serve.auth import Credentials
from foveal.deployment.serve.decoding import Decoders
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.model_registry import Models
from foveal.foundation.errors import UserError
from foveal.models import Inputs
from studio_server import digits, encode_image, running_server, wait_until


@pytest.fixture(scope="module")
def digit_png(tmp_path_factory):
    """A valid PNG of a digit."""
    return encode_image(digits(1)[0][0], tmp_path_factory.mktemp("digits"))


class Gate:
    """A gate in front of a function: callers wait until it is opened."""

    def __init__(self, function):
        self.function = function
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, *arguments):
        self.reached.set()
        assert self.opened.wait(300)
        return self.function(*arguments)

    def wait_until_reached(self):
        assert self.reached.wait(300)


@pytest.fixture
def model_gate(monkeypatch):
    """Return a gate in front of the model, which blocks all explanations until it is opened."""
    gate = Gate(inference.explain_batch)
    monkeypatch.setattr("foveal.deployment.serve.api.explain_batch", gate)
    yield gate
    gate.opened.set()


def test_overload_gives_429_at_once_and_queued_requests_are_completed(digit_png, model_gate):
    with running_server(limits=Limits(waiting=4)) as server, ThreadPoolExecutor(20) as pool:
        first = pool.submit(server.explain, digit_png)
        model_gate.wait_until_reached()
        others = [pool.submit(server.explain, digit_png) for _ in range(19)]
        refused = [future.result() for future in islice(as_completed(others, timeout=300), 15)]
        assert [reply.status for reply in refused] == [429] * 15  # while the model is blocked
        assert refused[0].headers["retry-after"] == "1"
        assert "waiting already" in refused[0].json["detail"]
        model_gate.opened.set()
        statuses = [future.result().status for future in others]
        assert first.result().status == 200
        assert statuses.count(200) == 4
        assert statuses.count(429) == 15


def test_requests_above_the_limit_are_refused_including_health_checks(digit_png, model_gate):
    with running_server(limits=Limits(requests=1)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.explain, digit_png)
        model_gate.wait_until_reached()
        assert server.get("/healthz").status == 429
        model_gate.opened.set()
        assert first.result().status == 200
        wait_until(lambda: server.get("/healthz").status == 200)


def test_a_slow_request_times_out(digit_png, model_gate):
    with running_server(limits=Limits(request_seconds=2)) as server:
        reply = server.explain(digit_png)
        assert reply.status == 429
        assert "longer than 2 s" in reply.json["detail"]
        model_gate.opened.set()
        wait_until(lambda: server.explain(digit_png).status == 200)


def test_cancelling_a_request_while_decoding_does_not_end_the_decoder(digit_png):
    async def cancel_one_and_decode_another():
        decoders = Decoders(Limits(), count=1)
        await decoders.start()
        (process,) = decoders._free._queue  # the only decoding process
        process.send_signal(signal.SIGSTOP)  # decoding takes until the test continues it
        cancelled = asyncio.create_task(
            decoders.decode(digit_png, 1, Inputs(size=(28, 28)), crop=False, max_side=28)
        )
        while decoders._free.qsize():
            await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        process.send_signal(signal.SIGCONT)
        image = await decoders.decode(digit_png, 1, Inputs(size=(28, 28)), crop=False, max_side=28)
        assert process.returncode is None
        await decoders.stop()
        return image  # (1, 28, 28), uint8

    image = asyncio.run(cancel_one_and_decode_another())
    assert (image == digits(1)[0]).all()


def test_other_requests_get_responses_while_a_large_body_is_parsed(digit_png, monkeypatch):
    parser_gate = Gate(api._parse_request)
    monkeypatch.setattr(api, "_parse_request", parser_gate)
    with running_server() as server, ThreadPoolExecutor(1) as pool:
        large = pool.submit(server.explain, digit_png + bytes(api.INLINE_BYTES))
        parser_gate.wait_until_reached()
        assert server.get("/healthz").status == 200
        assert not large.done()
        parser_gate.opened.set()
        assert large.result().status == 200


def test_a_slow_method_does_not_delay_other_requests(digit_png, monkeypatch):
    method_gate = Gate(lambda *_: 1 / 0)  # raises an error after the gate is opened
    monkeypatch.setattr(inference, "explainer", lambda name: method_gate)
    with running_server("mnist-cnn") as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.explain, digit_png, model="mnist-cnn", method="rise")
        method_gate.wait_until_reached()
        assert server.explain(digit_png, model="mnist-cnn").status == 200
        assert not slow.done()
        method_gate.opened.set()
        assert slow.result().status == 500  # an internal error is reported as one
        assert server.explain(digit_png, model="mnist-cnn").status == 200


def test_the_total_size_of_uploads_in_memory_is_limited(digit_png):
    with running_server(limits=Limits(held_bytes=1000)) as server:
        assert server.explain(digit_png).status == 200
        reply = server.explain(digit_png + bytes(1000))
        assert reply.status == 429
        assert "uploads" in reply.json["detail"]
        assert server.explain(digit_png).status == 200


def test_the_total_size_of_decoded_images_is_limited(digit_png):
    with running_server(limits=Limits(decoded_bytes=2 * 28 * 28)) as server:
        for _ in range(3):  # memory is released after each request
            assert server.explain(digit_png, digit_png).status == 200
        reply = server.explain(digit_png, digit_png, digit_png)
        assert reply.status == 429
        assert "images" in reply.json["detail"]
        assert server.explain(digit_png).status == 200


def test_the_number_of_connections_is_limited(digit_png):
    with running_server(limits=Limits(connections=3)) as server:
        sockets = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        assert server.get("/healthz").status == 429  # connections are accepted in order
        for connection in sockets:
            connection.close()
        wait_until(lambda: server.get("/healthz").status == 200)
        wait_until(lambda: server.explain(digit_png).status == 200)


def test_an_image_with_too_many_pixels_is_refused_before_decoding(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (300, 300)).save(path)
    with running_server(limits=Limits(pixels=10_000)) as server:
        reply = server.explain(path.read_bytes())
        assert reply.status == 422
        assert "300x300 is more than 10,000 pixels" in reply.json["detail"]


def test_without_credentials_only_the_health_check_is_accessible(digit_png):
    credentials = Credentials({"ada": "pass:word"}, ["a-token"])
    with running_server(credentials=credentials) as server:
        for path in ("/", "/docs", "/openapi.json", "/v1/models", "/static/main.js", "/nowhere"):
            reply = server.get(path)
            assert reply.status == 401
            assert reply.headers["www-authenticate"].startswith("Basic ")
        assert server.explain(digit_png).status == 401
        assert server.get("/healthz").status == 200
        for header in INVALID:
            assert server.get("/v1/models", {"authorization": header}).status == 401, header
        for header in VALID:
            assert server.get("/v1/models", {"authorization": header}).status == 200, header
            assert server.explain(digit_png, headers={"authorization": header}).status == 200


def test_a_repeated_authorization_header_or_one_in_the_trailer_is_refused(digit_png):
    with running_server(credentials=Credentials({}, ["a-token"])) as server:
        right, wrong = (f"authorization: Bearer {token}\r\n" for token in ("a-token", "guess"))
        for headers in (right + right, right + wrong, wrong + right, right + wrong.title()):
            assert server.raw(f"GET /v1/models HTTP/1.1\r\nhost: a\r\n{headers}\r\n") == [400]
        chunked = "POST /v1/explain HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
        assert server.raw(f"{chunked}\r\n2\r\n{{}}\r\n0\r\n{right}\r\n") == [401]


VALID = (
    "Basic YWRhOnBhc3M6d29yZA==",  # ada:pass:word
    "Bearer a-token",
    "basic YW55Ym9keTphLXRva2Vu",  # anybody:a-token
)
INVALID = (
    "",
    "Basic",
    "Basic !!!",
    "Basic YWRh",  # ada
    "Basic YWRhOg==",  # ada:
    "Basic YWRhOnBhc3M=",  # ada:pass
    "Basic Ym9iOnBhc3M6d29yZA==",  # bob:pass:word
    "Bearer",
    "Bearer a-toke",
    "Bearer ada:pass:word",
    "Digest a-token",
    "a-token",
)


def test_a_credentials_file_is_read_and_an_empty_one_is_refused(tmp_path):
    path = tmp_path / "auth"
    path.write_text("# people with access\n\nada:pass:word\na-token\n", encoding="utf-8")
    credentials = Credentials.read(path)
    assert all(credentials.accept(header.encode()) for header in VALID)
    assert not any(credentials.accept(header.encode()) for header in INVALID)
    assert credentials.with_token("more").accept(b"Bearer more")
    assert not credentials.accept(b"Bearer more")
    for text in ("", "# nobody\n", "ada:\n", ":word\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError):
            Credentials.read(path)
    for name in ("nowhere", "/dev/zero"):
        with pytest.raises(UserError, match="Cannot read"):
            Credentials.read(tmp_path / name)


def test_cross_site_requests_and_foreign_host_names_are_refused(digit_png):
    with running_server() as server:
        assert server.explain(digit_png, headers={"sec-fetch-site": "cross-site"}).status == 403
        assert server.explain(digit_png, headers={"sec-fetch-site": "same-origin"}).status == 200
        for host in (
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example",
            "[::1].evil.example",
            "[::1]evil.example:80",
            "localhost:80.evil.example",
            "localhost@evil.example",
            "[::2]",
            "",
        ):
            assert server.get("/v1/models", {"host": host}).status == 400, host
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1:7860", "[::1]:7860"):
            assert server.get("/v1/models", {"host": host}).status == 200, host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_serving_beyond_loopback_requires_credentials(host, capsys, monkeypatch):
    monkeypatch.delenv("FOVEAL_TOKEN", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["serve", "mnist-focus", "--host", host, "--port", "0"])
    assert stop.value.code == 1
    assert "--auth" in capsys.readouterr().err


def test_a_port_in_use_and_an_unknown_model_are_one_line_errors(capsys):
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        for arguments in (
            ["mnist-focus", "--port", str(occupied.getsockname()[1])],
            ["mnist-focsu"],
        ):
            with pytest.raises(SystemExit) as stop:
                main(["serve", *arguments])
            assert stop.value.code == 1
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert "in use" in err or "mnist-focus" in err


def test_two_models_with_the_same_name_are_refused(tmp_path):
    from foveal import zoo

    for folder in ("a", "b"):
        (tmp_path / folder / "mine").mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            data = (zoo.folder("mnist-focus") / name).read_bytes()
            (tmp_path / folder / "mine" / name).write_bytes(data)
    served = Models([str(tmp_path / "a" / "mine"), "mnist-focus"])
    assert list(served.by_name) == ["mine", "mnist-focus"]
    with pytest.raises(UserError, match="Two models are named 'mine'"):
        Models([str(tmp_path / parent / "mine") for parent in "ab"])


def test_the_command_requires_the_token_and_stops_its_decoders(digit_png):
    environment = {**os.environ, "FOVEAL_TOKEN": "a-token"}
    command = [sys.executable, "-m", "foveal", "serve", "mnist-focus", "--host", "0.0.0.0"]
    process = subprocess.Popen(
        [*command, "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        line = process.stderr.readline()
        port = int(line.split("0.0.0.0:")[1].split()[0])
        statuses = []
        for headers in ({}, {"authorization": "Bearer a-token"}):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/v1/models", headers=headers)
            statuses.append(connection.getresponse().status)
            connection.close()
        assert statuses == [401, 200]
        path = f"/proc/{process.pid}/task/{process.pid}/children"
        with open(path) as file:
            decoders = file.read().split()
        assert decoders
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stderr.close()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in decoders)
