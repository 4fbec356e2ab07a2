"""Resident memory of `foveal serve` under requests with images of mixed sizes.

    python benchmarks/performance/serve_memory.py [--requests 10000]

A server with `imagenet` and `mnist-focus` is started on this machine; clients send JPEGs with sides
of 60 to 600 pixels to both, and one request in ten asks for pictures as well. Memory includes the
server and its decoders. The script fails if the last value exceeds 1.3 times that after 500
requests.
"""

import argparse
import http.client
import io
import itertools
import json
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image
from serve import FORM, form, resident_mb, server

MODELS = ("imagenet", "mnist-focus")
SIDES = (60, 600)  # minimum and maximum side of the images in pixels
FILE_COUNT = 300  # distinct images
INTERVAL = 500  # requests between two measurements
MAX_GROWTH = 1.3  # maximum ratio of the last to the first measurement


def photographs(seed: int = 0) -> list[bytes]:
    """Return JPEG files of blurred random colours, of random heights and widths."""
    rng = random.Random(seed)
    jpegs = []
    for _ in range(FILE_COUNT):
        coarse = Image.frombytes("RGB", (12, 12), rng.randbytes(3 * 12 * 12))
        size = (rng.randint(*SIDES), rng.randint(*SIDES))
        file = io.BytesIO()
        coarse.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
        jpegs.append(file.getvalue())
    return jpegs


class Clients:
    """Threads that send requests and record the server's memory.

    Args:
        port: port of the server.
        pid: process id of the server.
        request_count: number of requests that all threads send together.
    """

    def __init__(self, port: int, pid: int, request_count: int):
        self.port, self.pid, self.request_count = port, pid, request_count
        self.files = photographs()
        self.numbers = itertools.count()  # of requests; shared by all threads
        self.statuses: Counter[int] = Counter()
        self.memory: dict[int, float] = {}
        self._lock = threading.Lock()

    def send(self) -> None:
        """Send requests one after another, until the clients have sent all of them."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        rng = random.Random()
        while (number := next(self.numbers)) < self.request_count:
            rng.seed(number)
            fields = {"model": rng.choice(MODELS)}
            if rng.random() < 0.1:
                fields["show"] = "pictures"
            body = form(rng.choice(self.files), **fields)
            connection.request("POST", "/v1/explain", body, {"Content-Type": FORM.decode()})
            response = connection.getresponse()
            response.read()
            self._count(response.status)
        connection.close()

    def _count(self, status: int) -> None:
        """Count a response; after every INTERVAL responses, record the server's memory."""
        with self._lock:
            self.statuses[status] += 1
            done_count = self.statuses.total()
            if done_count % INTERVAL == 0:
                memory_mb = resident_mb(self.pid)
                self.memory[done_count] = memory_mb
                print(f"{done_count:,} requests: {memory_mb:,.0f} MB", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with server("torch", *MODELS) as (port, pid):
        clients = Clients(port, pid, options.requests)
        start = time.perf_counter()
        with ThreadPoolExecutor(options.clients) as threads:
            for future in [threads.submit(clients.send) for _ in range(options.clients)]:
                future.result()
        seconds = time.perf_counter() - start
    first, *_, last = clients.memory.values()
    figures = {
        "requests": clients.statuses.total(),
        "statuses": {str(status): count for status, count in clients.statuses.items()},
        "seconds": round(seconds, 1),
        "memory_mb": {str(number): mb for number, mb in clients.memory.items()},
        "last_by_first": round(last / first, 3),
    }
    print(json.dumps(figures, indent=2))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if last > MAX_GROWTH * first:
        sys.exit(f"Memory grew to {last / first:.2f} times that after {INTERVAL} requests.")


if __name__ == "__main__":
    main()
