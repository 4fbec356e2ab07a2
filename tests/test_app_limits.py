"""How much at a time: what is too much is refused at once, and nothing hangs."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from foveal.app import answering
from foveal.app.auth import Credentials
from foveal.app.limits import Limits
from foveal.app.served import Models
from foveal.cli import main
from foveal.errors import UserError
from studio_server import digits, encoded, running


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return encoded(digits(1)[0][0], tmp_path_factory.mktemp("digits"))


@pytest.fixture
def held(monkeypatch):
    """Hold the model's answers until the event is set."""
    event, real = threading.Event(), answering.answer

    def wait(tasks):
        event.wait(30)
        return real(tasks)

    monkeypatch.setattr("foveal.app.api.answer", wait)
    yield event
    event.set()


def test_overload_is_refused_with_429_at_once_and_who_waits_is_answered(good, held):
    limits = Limits(waiting=4)
    with running(limits=limits) as server, ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(server.explain, good) for _ in range(20)]
        deadline = time.monotonic() + 30
        while sum(one.done() for one in asked) < 15 and time.monotonic() < deadline:
            time.sleep(0.05)
        refused = [one for one in asked if one.done()]  # while the model is held
        held.set()
        replies = [one.result(60) for one in asked]
        statuses = [reply.status for reply in replies]
        assert statuses.count(429) == len(refused)
        assert set(statuses) == {200, 429}
        assert 4 <= statuses.count(200) <= 5  # one was being answered
        busy = next(reply for reply in replies if reply.status == 429)
        assert busy.headers["retry-after"] == "1"
        assert "wait already" in busy.json["detail"]


def test_requests_above_the_number_are_refused_and_health_is_told(good, held):
    with running(limits=Limits(requests=2)) as server, ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(server.explain, good) for _ in range(2)]
        deadline = time.monotonic() + 20
        while (reply := server.get("/healthz")).status == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert reply.status == 429
        held.set()
        assert [one.result(60).status for one in asked] == [200, 200]
        assert server.get("/healthz").status == 200


def test_a_request_that_takes_too_long_is_given_up(good, held):
    with running(limits=Limits(request_seconds=0.5)) as server:
        reply = server.explain(good)
        assert reply.status == 429
        assert "longer than 0.5 s" in reply.json["detail"]
        held.set()
        deadline = time.monotonic() + 20
        while (reply := server.explain(good)).status != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert reply.status == 200


def test_a_slow_method_does_not_hold_up_quick_answers(good, monkeypatch):
    event = threading.Event()
    monkeypatch.setattr(answering, "explain_by", lambda *_: event.wait(30) and 1 / 0)
    with running("mnist-cnn") as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(server.explain, good, model="mnist-cnn", method="rise")
        assert server.explain(good, model="mnist-cnn").status == 200
        assert not slow.done()
        event.set()
        assert slow.result(30).status == 500  # our own fault, and told as such
        assert server.explain(good, model="mnist-cnn").status == 200


def test_uploads_that_are_held_have_a_bound_together(good):
    with running(limits=Limits(held_bytes=1000)) as server:
        assert server.explain(good).status == 200
        reply = server.explain(good + bytes(1000))
        assert reply.status == 429
        assert "uploads" in reply.json["detail"]
        assert server.explain(good).status == 200


def test_connections_have_a_bound(good):
    with running(limits=Limits(connections=3)) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
        time.sleep(0.2)
        assert server.get("/healthz").status == 429
        for one in held:
            one.close()
        time.sleep(0.2)
        assert server.explain(good).status == 200


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
    with pytest.raises(UserError, match="Cannot read"):
        Credentials.read(tmp_path / "nowhere")


def test_a_page_of_another_site_may_not_ask(good):
    with running() as server:
        assert server.explain(good, headers={"sec-fetch-site": "cross-site"}).status == 403
        assert server.explain(good, headers={"sec-fetch-site": "same-origin"}).status == 200
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "[::2]", ""):
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
