"""A server in this process, for tests over real connections."""

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvicorn
from PIL import Image

from foveal.datasets import load_images
from foveal.deployment.serve.auth import Credentials
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.model_registry import Models
from foveal.deployment.serve.server import build_app, listen, uvicorn_config

BOUNDARY = "boundary-of-the-tests"


class Reply(NamedTuple):
    """The response of the server; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Address(NamedTuple):
    """The address of a server on this machine, with methods that send requests to it."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict | None = None
    ) -> Reply:
        """Send one request; its path is sent as it is, without normalisation."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Reply(
                response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
            )
        finally:
            connection.close()

    def get(self, path: str, headers: dict | None = None) -> Reply:
        return self.request("GET", path, headers=headers)

    def raw(self, data: str | bytes, wait: float = 300) -> list[int]:
        """Send bytes; return the statuses of all responses until the connection is closed.

        Args:
            data: one or more requests, the last with `connection: close` unless the server closes
                the connection itself.
            wait: timeout in seconds for each byte from the server.
        """
        content = data.encode("latin-1") if isinstance(data, str) else data
        received = bytearray()
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as stream:
            with suppress(BrokenPipeError, ConnectionResetError):
                stream.sendall(content)
            with suppress(ConnectionResetError):
                while chunk := stream.recv(65_536):
                    received += chunk
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]

    def explain(
        self, *files: bytes, name: str = "digit.png", headers: dict | None = None, **fields: Any
    ) -> Reply:
        """Send image files to `/v1/explain`; further keywords are fields of the form."""
        body = form({"model": "mnist-focus", **fields}, [(name, data) for data in files])
        content_type = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        return self.request("POST", "/v1/explain", body, {**content_type, **(headers or {})})


def form(fields: dict[str, Any], files: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the body of a multipart form.

    Args:
        fields: values by the name of their field.
        files: name and content of each image file.
    """
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    for name, data in files:
        header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{name}"'
        parts.append(header.encode() + b"\r\nContent-Type: image/png\r\n\r\n" + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Wait until a condition holds.

    The limit is so long that only a server that hangs exceeds it, and not a slow one.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition does not hold after {seconds:g} s"
        time.sleep(0.02)


@contextmanager
def running_server(
    *models: str, limits: Limits = Limits(), credentials: Credentials | None = None
) -> Iterator[Address]:
    """Serve models, by default mnist-focus, from a thread until the context ends."""
    app = build_app(Models(models or ("mnist-focus",)), limits, credentials)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn_config(app, limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    assert server.started
    try:
        yield Address(listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(300)
        assert not thread.is_alive()


def digits(count: int) -> tuple[np.ndarray, list[str]]:
    """Return test digits (N, 28, 28) uint8 and their class names."""
    subset = load_images("mnist-5k", "test").few(count)
    return subset.images[:, 0].numpy(), [subset.classes[int(label)] for label in subset.labels]


def encode_image(pixels: np.ndarray, folder: Path, kind: str = "png") -> bytes:
    """Return the content of an image file, whose format is given by its extension `kind`."""
    path = folder / f"picture.{kind}"
    Image.fromarray(pixels).save(path)
    return path.read_bytes()
