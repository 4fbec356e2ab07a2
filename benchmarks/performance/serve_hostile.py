"""Response time and memory of a running server that is attacked with JSON that is costly to parse.

Each body of about 10 MB is sent by several clients at once, from a separate process, while
`/healthz` is requested in a loop. `benchmarks/performance/serve.py --hostile` starts the server.
"""

import http.client
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from hostile_http import large_bodies

BODY_BYTES = 9_900_000  # the server accepts 10 MB
CLIENTS = 16
JSON = {"Content-Type": "application/json"}


def attack(port: int, memory: Callable[[], float]) -> dict[str, object]:
    """Return the maximum response time of `/healthz` and the growth of memory during an attack.

    Args:
        port: port of the server on this machine.
        memory: function that returns the server's resident memory in MB.
    """
    before_mb = memory()
    worst_seconds = 0.0
    worst_mb = before_mb
    statuses = Counter[str]()
    request_count = 0  # requests of `/healthz`
    with multiprocessing.get_context("spawn").Pool(1) as attacker:
        pending = attacker.apply_async(send_all, (port,))
        while not pending.ready():
            started = time.perf_counter()
            assert status(port, "GET", "/healthz") == 200
            worst_seconds = max(worst_seconds, time.perf_counter() - started)
            worst_mb = max(worst_mb, memory())
            request_count += 1
            time.sleep(0.01)
        statuses.update(pending.get())
    return {
        "bodies": statuses.total(),
        "statuses": dict(statuses),
        "healthz_requests": request_count,
        "healthz_worst_ms": round(1000 * worst_seconds, 1),
        "memory_before_mb": before_mb,
        "memory_growth_mb": round(worst_mb - before_mb, 1),
    }


def send_all(port: int) -> list[str]:
    """Send each body from all clients at once; return the statuses."""
    return list(_statuses(port))


def _statuses(port: int) -> Iterator[str]:
    """Send each body from all clients at once; yield the status of each response as text."""
    with ThreadPoolExecutor(CLIENTS) as clients:
        for _, body in large_bodies(BODY_BYTES):
            futures = [
                clients.submit(status, port, "POST", "/v1/explain", body) for _ in range(CLIENTS)
            ]
            yield from (str(future.result()) for future in futures)


def status(port: int, method: str, path: str, body: bytes | None = None) -> int | None:
    """Return the status of a request, or None if the server closed the connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, JSON)
        return connection.getresponse().status
    except ConnectionError:
        return None
    finally:
        connection.close()
