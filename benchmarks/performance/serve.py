"""Throughput and latency of `foveal serve` with 64 clients, and time from stroke to picture.

The server is started on the same machine, and the clients compete with it for the processor. They
are therefore lightweight: one process, one connection each, requests prepared in advance. Each
client sends its own images and compares every response with the model's own output. For reference,
the model is called in a loop, one image at a time, before and after. Run it on an idle machine.

    python benchmarks/performance/serve.py --out benchmarks/results/serve.json
    python benchmarks/performance/serve.py --seconds 5 --no-browser
    python benchmarks/performance/serve.py --hostile  # under attack
"""

import argparse
import asyncio
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image

from foveal import zoo
from foveal.datasets import load_images

MODEL = "mnist-focus-plain"
BOUNDARY = b"foveal-benchmark"
FORM = b"multipart/form-data; boundary=" + BOUNDARY
IMAGES_PER_CLIENT = 15
LOOP_SECONDS = 8  # for which the model is called in a loop, without a server
OVERLOAD_CLIENTS, OVERLOAD_SECONDS = 400, 5  # more clients than the server can serve
STROKES = 12  # strokes drawn on the page
P95 = 18  # index of the 95th percentile among the results of `statistics.quantiles(n=20)`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runtime", default="torch", help="torch or onnx")
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--hostile", action="store_true", help="attack with JSON of 10 MB")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures = under_attack(options.runtime) if options.hostile else under_load(options)
    print(json.dumps(figures, indent=2))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def under_attack(runtime: str) -> dict:
    """Return the results of an attack on a server that has already explained images."""
    from serve_hostile import attack

    with server(runtime) as (port, pid):
        asyncio.run(send_load(zoo.load(MODEL), port, pid, clients=1, seconds=1))
        return attack(port, lambda: resident_mb(pid))


def under_load(options: argparse.Namespace) -> dict:
    """Return statistics of the responses to the given number of clients and to too many clients."""
    torch.set_num_threads(1)
    network = zoo.load(MODEL)
    before = bare_rates(network)
    with server(options.runtime) as (port, pid):
        load = asyncio.run(send_load(network, port, pid, options.clients, options.seconds))
        overload = asyncio.run(
            send_load(network, port, pid, OVERLOAD_CLIENTS, min(OVERLOAD_SECONDS, options.seconds))
        )
        page = None if options.no_browser else picture_delays(port)
    after = bare_rates(network)
    return {
        "model": MODEL,
        "runtime": options.runtime,
        "load": {**load, "bare_model_per_s": relative_rates(load, before, after)},
        "overload": {key: overload[key] for key in ("clients", "statuses", "wrong_answers")},
        "page": page,
        "machine": {"cores": os.cpu_count(), "processor": platform.machine()},
        "torch": torch.__version__,
    }


def relative_rates(load: dict, before: dict, after: dict) -> dict:
    """Return the mean rates of the bare model, and the server's rate as a fraction of each."""
    rates = {name: (before[name] + after[name]) / 2 for name in before}
    fractions = {f"share_of_{name}": load["answers_per_s"] / rate for name, rate in rates.items()}
    return {name: round(value, 3) for name, value in {**rates, **fractions}.items()}


def bare_rates(network: torch.nn.Module) -> dict[str, float]:
    """Return images per second, without a server, of the logits and of explanations as JSON."""
    image = torch.rand(1, 1, 28, 28)
    calls = {
        "forward": lambda: network(image),
        "explain": lambda: network.explain(image).to_dicts(),
    }
    rates = {}
    for name, call in calls.items():
        count = 0
        start = time.perf_counter()
        with torch.inference_mode():
            while (elapsed := time.perf_counter() - start) < LOOP_SECONDS:
                call()
                count += 1
        rates[name] = count / elapsed
    return rates


@contextmanager
def server(runtime: str, *models: str):
    """Yield the port and the process id of a server on this machine."""
    command = [sys.executable, "-m", "foveal", "serve", *(models or [MODEL]), "--port", "0"]
    command += ["--runtime", runtime]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r":(\d+) \(", process.stderr.readline())[1])
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def explain_request(image: torch.Tensor) -> bytes:
    """Return a complete request for the explanation of a uint8 image (1, H, W)."""
    file = io.BytesIO()
    Image.fromarray(image[0].numpy()).save(file, "PNG")
    body = form(file.getvalue(), model=MODEL)
    head = (
        b"POST /v1/explain HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n"
        b"Content-Type: %b\r\n\r\n"
    )
    return head % (len(body), FORM) + body


def form(file: bytes, **fields: str) -> bytes:
    """Return the body of a request with an image file and other fields."""
    disposition = b'--%b\r\nContent-Disposition: form-data; name="%b"'
    lines = []
    for name, value in fields.items():
        lines += [disposition % (BOUNDARY, name.encode()), b"", value.encode()]
    lines += [disposition % (BOUNDARY, b"image") + b'; filename="image"', b"", file]
    return b"\r\n".join([*lines, b"--%b--\r\n" % BOUNDARY])


class Client(asyncio.Protocol):
    """A client that sends its images in turn and records the responses.

    Args:
        requests: pairs of a complete request and the expected result.
        deadline: time of `time.perf_counter` after which no request is sent.
        responses: the responses to all clients, to which those of this client are added.
    """

    def __init__(self, requests: list[tuple[bytes, dict]], deadline: float, responses: "Responses"):
        self.requests, self.deadline, self.responses = requests, deadline, responses
        self.loop = asyncio.get_running_loop()
        self.done = self.loop.create_future()
        self.sent_count = 0
        self.buffer = b""  # received bytes of an incomplete response
        self.reconnects = False  # whether the server asked to close the connection

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        self.sent_at = time.perf_counter()
        if self.sent_at > self.deadline:
            self.transport.close()
            return
        request, _ = self.requests[self.sent_count % len(self.requests)]
        self.transport.write(request)

    def data_received(self, data):
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        if len(body) < length:
            return
        self.buffer = body[length:]
        status = int(head[9:12])  # after "HTTP/1.1 "
        _, expected = self.requests[self.sent_count % len(self.requests)]
        self.responses.add(status, time.perf_counter() - self.sent_at, body[:length], expected)
        self.sent_count += 1
        self.reconnects = b"connection: close" in head
        if not self.reconnects:
            self.send()

    def connection_lost(self, error):
        if self.reconnects:
            self.reconnects = False
            self.loop.create_task(self.connect(*self.transport.get_extra_info("peername")))
            return
        if error:
            self.responses.statuses["lost"] += 1
        self.done.set_result(None)

    async def connect(self, host, port):
        await self.loop.create_connection(lambda: self, host, port)


class Responses:
    """Statuses and times of the responses to all clients, and the number of wrong results."""

    def __init__(self):
        self.statuses: Counter = Counter()
        self.seconds: list[float] = []
        self.wrong_count = 0

    def add(self, status: int, seconds: float, body: bytes, expected: dict) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
            self.wrong_count += not is_expected(json.loads(body)["images"][0], expected)


def is_expected(response: dict, expected: dict) -> bool:
    """Return whether a response is for the client's image: digit, probability and keypoints."""
    results = (response, expected)
    keypoints, expected_keypoints = (
        [(point["x"], point["y"]) for point in result["keypoints"]] for result in results
    )
    probability, expected_probability = (
        result["probabilities"][0]["probability"] for result in results
    )
    has_expected_probability = abs(probability - expected_probability) < 1e-4
    return (
        response["prediction"] == expected["prediction"]
        and has_expected_probability
        and keypoints == expected_keypoints
    )


async def send_load(network, port: int, pid: int, clients: int, seconds: float) -> dict:
    """Return statistics of the responses to `clients` concurrent clients within some seconds."""
    digits = load_images("mnist-5k", "test").images
    expected = network.explain(digits.float() / 255).to_dicts()
    requests = [
        (explain_request(image), result) for image, result in zip(digits, expected, strict=True)
    ]
    responses = Responses()
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    done_futures = []
    for number in range(clients):
        client_requests = [
            requests[(number + clients * i) % len(requests)] for i in range(IMAGES_PER_CLIENT)
        ]
        client = Client(client_requests, start + seconds, responses)
        await client.connect("127.0.0.1", port)
        done_futures.append(client.done)
    memory = []
    recorder = loop.create_task(record_memory(pid, memory))
    await asyncio.gather(*done_futures)
    elapsed = time.perf_counter() - start
    recorder.cancel()
    return {
        "clients": clients,
        "seconds": round(elapsed, 1),
        "statuses": {
            str(status): count for status, count in sorted(responses.statuses.items(), key=str)
        },
        "wrong_answers": responses.wrong_count,
        "answers_per_s": round(len(responses.seconds) / elapsed, 1),
        "p50_ms": round(1000 * statistics.median(responses.seconds), 1),
        "p95_ms": round(1000 * statistics.quantiles(responses.seconds, n=20)[P95], 1),
        "memory_mb": memory,
    }


async def record_memory(pid: int, memory: list[float], every: float = 5.0) -> None:
    """Append the resident memory of the server and its decoders in MB every few seconds."""
    while True:
        await asyncio.sleep(every)
        memory.append(resident_mb(pid))


def resident_mb(pid: int) -> float:
    """Return the resident memory of a server and its decoders."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    # The second field of statm is the number of resident pages.
    pages = sum(
        int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in [pid, *children]
    )
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def picture_delays(port: int) -> dict:
    """Return the milliseconds from a stroke to the picture that contains it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-quic", "--disable-background-networking"]
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"http://127.0.0.1:{port}/")
        page.wait_for_selector(".keypoint")
        page.evaluate("""() => { window.waits = []; document.addEventListener("foveal:shown",
            (event) => window.waits.push(performance.now() - event.detail.stroke)) }""")
        box = page.locator("#pad").bounding_box()
        for stroke in range(STROKES):
            draw_stroke(page, box, stroke)
        page.wait_for_timeout(500)
        waits = page.evaluate("window.waits")
        browser.close()
    return {
        "pictures": len(waits),
        "stroke_to_picture_median_ms": round(statistics.median(waits), 1),
        "stroke_to_picture_p95_ms": round(statistics.quantiles(waits, n=20)[P95], 1),
    }


def draw_stroke(page, box: dict, stroke: int) -> None:
    """Draw a slanted line at the speed of a hand, one point per sixtieth of a second."""
    page.click("#clear")
    left = box["x"] + box["width"] * (0.3 + 0.03 * stroke)
    page.mouse.move(left, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    for step in range(30):
        page.mouse.move(left + 2 * step, box["y"] + box["height"] * (0.2 + 0.02 * step))
        page.wait_for_timeout(16)
    page.mouse.up()


if __name__ == "__main__":
    main()
