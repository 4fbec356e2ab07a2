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

MAX_MEGABYTES = 300  # of memory beyond that before the first request
BODY_BYTES = 2_000_000  # of a large body
SILENCE_SECONDS = 120.0  # without a byte, after which the server counts as hung
SEED = 21
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
        match = re.search(r"http://127\.0\.0\.1:(\d+)", self._process.stderr.readline())
        assert match, "the server did not print its address"
        self.address = Address(int(match[1]))

    def is_healthy(self) -> bool:
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
    process = Server()
    assert process.is_healthy()
    before = process.memory("VmRSS")
    yield process
    peak = process.memory("VmHWM")
    assert "Traceback" not in process.stop()
    assert peak - before <= MAX_MEGABYTES, f"{peak - before} MB for hostile requests"


def sample(cases: list, total: int) -> list:
    """Return a random sample of `total` cases, or fewer unless all cases are requested."""
    return random.Random(SEED).sample(cases, max(10, round(total * SCALE)))


def test_hostile_json_is_refused_and_the_server_stays_healthy(server):
    problems = {}
    for name, body in sample(json_bodies(SEED, 250, BODY_BYTES), 60):
        reply = server.address.request("POST", "/v1/explain", body, JSON)
        if not 400 <= reply.status < 500 or not reply.json["detail"]:
            problems[name] = f"{reply.status} {reply.body[:300]!r}"
        if not server.is_healthy():
            problems[name] = "the server is no longer healthy"
    assert not problems


def test_hostile_http_is_refused_and_the_server_stays_healthy(server):
    def problem_with(request: Raw) -> str:
        statuses = server.address.raw(request.data, wait=SILENCE_SECONDS)
        first_status = statuses[0] if statuses else None
        if first_status not in request.expected or any(status >= 500 for status in statuses):
            return f"{request.name}: {statuses}"
        return "" if server.is_healthy() else f"{request.name}: no longer healthy"

    requests = sample(raw_requests(SEED, 400), 100)
    with ThreadPoolExecutor(32) as clients:  # most of them wait for a timeout of the server
        assert not list(filter(None, clients.map(problem_with, requests)))
