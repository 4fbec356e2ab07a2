"""Fuzzing of `foveal serve`: each hostile request is refused and the server stays healthy."""

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hostile_http import Raw, json_bodies, raw_requests

from studio_server import Address

from .conftest import SCALE

MEGABYTES = 300  # of memory beyond that before the first request
BODY_BYTES = 2_000_000  # of a large body
SILENCE_SECONDS = 120.0  # without a byte: the server counts as hung
JSON = {"content-type": "application/json"}


class Server:
    """A process of `foveal serve` on a free port."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "foveal", "serve", "mnist-focus", "--port", "0"],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        port = re.search(r"http://127\.0\.0\.1:(\d+)", self._process.stderr.readline())
        assert port, "the server did not print its address"
        self.address = Address(int(port[1]))

    def healthy(self) -> bool:
        """Return whether the health check succeeds."""
        return self.address.get("/healthz").status == 200

    def memory(self, field: str) -> int:
        """Return the memory in megabytes: VmRSS is the current one, VmHWM the peak."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) // 1024

    def stop(self) -> str:
        """End the server; return what it logged."""
        self._process.terminate()
        return self._process.communicate(timeout=SILENCE_SECONDS)[1]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    assert started.healthy()
    before = started.memory("VmRSS")
    yield started
    peak = started.memory("VmHWM")
    assert "Traceback" not in started.stop()
    assert peak - before <= MEGABYTES, f"{peak - before} MB for hostile requests"


def sample(cases: list, total: int) -> list:
    """Return a random sample of the cases: `total` of them at full scale."""
    return random.Random(21).sample(cases, max(10, round(total * SCALE)))


def test_hostile_json_is_refused_and_the_server_stays_healthy(server):
    bad = {}
    for name, body in sample(json_bodies(21, 250, BODY_BYTES), 60):
        reply = server.address.request("POST", "/v1/explain", body, JSON)
        if not 400 <= reply.status < 500 or not reply.json["detail"]:
            bad[name] = f"{reply.status} {reply.body[:300]!r}"
        if not server.healthy():
            bad[name] = "the server is no longer healthy"
    assert not bad


def test_hostile_http_is_refused_and_the_server_stays_healthy(server):
    def problem_with(request: Raw) -> str:
        statuses = server.address.raw(request.data, wait=SILENCE_SECONDS)
        first = statuses[0] if statuses else None
        if first not in request.expected or any(status >= 500 for status in statuses):
            return f"{request.name}: {statuses}"
        return "" if server.healthy() else f"{request.name}: no longer healthy"

    requests = sample(raw_requests(21, 400), 100)
    with ThreadPoolExecutor(32) as clients:  # most of them wait for a timeout of the server
        assert not list(filter(None, clients.map(problem_with, requests)))
