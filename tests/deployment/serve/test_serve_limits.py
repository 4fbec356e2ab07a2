"""How much at a time: what is too much is refused at once, and nothing hangs."""

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
from studio_server import digits, encoded, eventually, running


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return encoded(digits(1)[0][0], tmp_path_factory.mktemp("digits"))


class Gate:
    """A gate in front of a function: who calls it waits until the gate is opened."""

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
def model(monkeypatch):
    """Hold the model's answers until the gate is opened."""
    gate = Gate(inference.answer)
    monkeypatch.setattr("foveal.deployment.serve.api.answer", gate)
    yield gate
    gate.opened.set()


def test_overload_is_refused_with_429_at_once_and_who_waits_is_answered(good, model):
    with running(limits=Limits(waiting=4)) as server, ThreadPoolExecutor(20) as pool:
        first = pool.submit(server.explain, good)
        model.wait_until_reached()
        others = [pool.submit(server.explain, good) for _ in range(19)]
        refused = [one.result() for one in islice(as_completed(others, timeout=300), 15)]
        assert [reply.status for reply in refused] == [429] * 15  # while the model is held
        assert refused[0].headers["retry-after"] == "1"
        assert "waiting already" in refused[0].json["detail"]
        model.opened.set()
        statuses = [one.result().status for one in others]
        assert first.result().status == 200
        assert statuses.count(200) == 4
        assert statuses.count(429) == 15


def test_requests_above_the_number_are_refused_and_health_is_told(good, model):
    with running(limits=Limits(requests=1)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.explain, good)
        model.wait_until_reached()
        assert server.get("/healthz").status == 429
        model.opened.set()
        assert first.result().status == 200
        eventually(lambda: server.get("/healthz").status == 200)


def test_a_request_that_takes_too_long_is_given_up(good, model):
    with running(limits=Limits(request_seconds=2)) as server:
        reply = server.explain(good)
        assert reply.status == 429
        assert "longer than 2 s" in reply.json["detail"]
        model.opened.set()
        eventually(lambda: server.explain(good).status == 200)


def test_a_request_that_is_given_up_while_its_image_is_decoded_ends_no_decoder(good):
    async def decode_given_up_and_another():
        decoders = Decoders(Limits(), count=1)
        await decoders.start()
        (process,) = decoders._free._queue
        process.send_signal(signal.SIGSTOP)  # it decodes for as long as the test wants
        given_up = asyncio.create_task(decoders.decode(good, 1, Inputs(size=(28, 28)), False, 28))
        while decoders._free.qsize():
            await asyncio.sleep(0)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        process.send_signal(signal.SIGCONT)
        image = await decoders.decode(good, 1, Inputs(size=(28, 28)), False, 28)
        assert process.returncode is None
        await decoders.stop()
        return image

    image = asyncio.run(decode_given_up_and_another())
    assert (image == digits(1)[0]).all()


def test_a_large_body_is_read_while_others_are_answered(good, monkeypatch):
    reader = Gate(api._question)
    monkeypatch.setattr(api, "_question", reader)
    with running() as server, ThreadPoolExecutor(1) as pool:
        large = pool.submit(server.explain, good + bytes(api.INLINE_BYTES))
        reader.wait_until_reached()
        assert server.get("/healthz").status == 200
        assert not large.done()
        reader.opened.set()
        assert large.result().status == 200


def test_a_slow_method_does_not_hold_up_quick_answers(good, monkeypatch):
    method = Gate(lambda *_: 1 / 0)
    monkeypatch.setattr(inference, "explainer", lambda name: method)
    with running("mnist-cnn") as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.explain, good, model="mnist-cnn", method="rise")
        method.wait_until_reached()
        assert server.explain(good, model="mnist-cnn").status == 200
        assert not slow.done()
        method.opened.set()
        assert slow.result().status == 500  # our own fault, and told as such
        assert server.explain(good, model="mnist-cnn").status == 200


def test_uploads_that_are_held_have_a_bound_together(good):
    with running(limits=Limits(held_bytes=1000)) as server:
        assert server.explain(good).status == 200
        reply = server.explain(good + bytes(1000))
        assert reply.status == 429
        assert "uploads" in reply.json["detail"]
        assert server.explain(good).status == 200


def test_decoded_images_that_wait_have_a_bound_together(good):
    with running(limits=Limits(decoded_bytes=2 * 28 * 28)) as server:
        for _ in range(3):  # what was held is given back
            assert server.explain(good, good).status == 200
        reply = server.explain(good, good, good)
        assert reply.status == 429
        assert "images" in reply.json["detail"]
        assert server.explain(good).status == 200


def test_connections_have_a_bound(good):
    with running(limits=Limits(connections=3)) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        assert server.get("/healthz").status == 429  # accepted in the order in which they came
        for one in held:
            one.close()
        eventually(lambda: server.get("/healthz").status == 200)
        eventually(lambda: server.explain(good).status == 200)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (300, 300)).save(path)
    with running(limits=Limits(pixels=10_000)) as server:
        reply = server.explain(path.read_bytes())
        assert reply.status == 422
        assert "300x300 is more than 10,000 pixels" in reply.json["detail"]


def test_who_does_not_know_the_password_sees_nothing(good):
    known = Credentials({"ada": "pass:word"}, ["a-token"])
    with running(credentials=known) as server:
        for path in ("/", "/docs", "/openapi.json", "/v1/models", "/static/main.js", "/nowhere"):
            reply = server.get(path)
            assert reply.status == 401
            assert reply.headers["www-authenticate"].startswith("Basic ")
        assert server.explain(good).status == 401
        assert server.get("/healthz").status == 200
        for wrong in WRONG:
            assert server.get("/v1/models", {"authorization": wrong}).status == 401, wrong
        for right in RIGHT:
            assert server.get("/v1/models", {"authorization": right}).status == 200, right
            assert server.explain(good, headers={"authorization": right}).status == 200


def test_a_token_is_given_once_and_before_the_body(good):
    with running(credentials=Credentials({}, ["a-token"])) as server:
        right, wrong = (f"authorization: Bearer {token}\r\n" for token in ("a-token", "guess"))
        for headers in (right + right, right + wrong, wrong + right, right + wrong.title()):
            assert server.raw(f"GET /v1/models HTTP/1.1\r\nhost: a\r\n{headers}\r\n") == [400]
        chunked = "POST /v1/explain HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
        assert server.raw(f"{chunked}\r\n2\r\n{{}}\r\n0\r\n{right}\r\n") == [401]


RIGHT = (
    "Basic YWRhOnBhc3M6d29yZA==",  # ada:pass:word
    "Bearer a-token",
    "basic YW55Ym9keTphLXRva2Vu",  # anybody:a-token
)
WRONG = (
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


def test_a_file_of_credentials_is_read_and_an_empty_one_refused(tmp_path):
    path = tmp_path / "auth"
    path.write_text("# who may come\n\nada:pass:word\na-token\n", encoding="utf-8")
    known = Credentials.read(path)
    assert all(known.accept(one.encode()) for one in RIGHT)
    assert not any(known.accept(one.encode()) for one in WRONG)
    assert known.with_token("more").accept(b"Bearer more")
    assert not known.accept(b"Bearer more")
    for text in ("", "# nobody\n", "ada:\n", ":word\n"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError):
            Credentials.read(path)
    for name in ("nowhere", "/dev/zero"):
        with pytest.raises(UserError, match="Cannot read"):
            Credentials.read(tmp_path / name)


def test_a_page_of_another_site_may_not_ask(good):
    with running() as server:
        assert server.explain(good, headers={"sec-fetch-site": "cross-site"}).status == 403
        assert server.explain(good, headers={"sec-fetch-site": "same-origin"}).status == 200
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
def test_nobody_is_served_elsewhere_without_credentials(host, capsys, monkeypatch):
    monkeypatch.delenv("FOVEAL_TOKEN", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["serve", "mnist-focus", "--host", host, "--port", "0"])
    assert stop.value.code == 1
    assert "--auth" in capsys.readouterr().err


def test_a_port_that_is_taken_and_an_unknown_model_are_said_in_a_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for arguments in (["mnist-focus", "--port", str(taken.getsockname()[1])], ["mnist-focsu"]):
            with pytest.raises(SystemExit) as stop:
                main(["serve", *arguments])
            assert stop.value.code == 1
            said = capsys.readouterr().err
            assert said.count("\n") == 1
            assert "in use" in said or "mnist-focus" in said


def test_two_models_of_the_same_name_are_refused(tmp_path):
    from foveal import zoo

    for folder in ("a", "b"):
        (tmp_path / folder / "mine").mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):
            data = (zoo.folder("mnist-focus") / name).read_bytes()
            (tmp_path / folder / "mine" / name).write_bytes(data)
    served = Models([str(tmp_path / "a" / "mine"), "mnist-focus"])
    assert list(served.by_name) == ["mine", "mnist-focus"]
    with pytest.raises(UserError, match="Two models are named 'mine'"):
        Models([str(tmp_path / one / "mine") for one in "ab"])


def test_the_command_serves_asks_for_the_token_and_ends_with_its_decoders(good):
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
