"""The server of `foveal serve`, which runs the application with uvicorn."""

import ipaddress
import socket
import sys
from collections.abc import Callable

from foveal.foundation.errors import UserError, missing_extra

try:
    import httptools  # noqa: F401 - needed by uvicorn's protocol, our base class
    import python_multipart  # noqa: F401
    import uvicorn
    from fastapi import FastAPI  # noqa: F401
except ImportError as error:
    raise missing_extra(str(error.name), "app") from None

import torch

from foveal.deployment.serve.api import Studio, build_api
from foveal.deployment.serve.auth import Credentials
from foveal.deployment.serve.connection import protocol
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.middleware import RequestLimits
from foveal.deployment.serve.model_registry import Models
from foveal.foundation.memory import keep_freed_memory

KEEP_ALIVE_SECONDS = 15
# How long the inference thread may hold the interpreter while another thread waits for it. The
# event loop needs it ten times per request, so that Python's default of 5 ms would halve the
# throughput.
SWITCH_SECONDS = 0.0005
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")  # in Host headers


def build_app(
    models: Models, limits: Limits, credentials: Credentials | None = None
) -> RequestLimits:
    """Return the application that `serve` runs, for tests and for other ASGI servers.

    Args:
        models: the models that clients may use.
        limits: limits on requests.
        credentials: required credentials; if None, only requests to this machine are accepted.
    """
    api = build_api(Studio(models, limits))
    hosts = LOCAL_HOSTS if credentials is None else None
    return RequestLimits(api, limits, credentials, hosts)


def serve(
    models: Models,
    host: str,
    port: int,
    limits: Limits,
    credentials: Credentials | None,
    notify: Callable[[str], None],
) -> None:
    """Run the server until the process is interrupted or terminated.

    Args:
        models: the models that clients may use.
        host: name or address to bind to.
        port: port to bind to; 0 for any free port.
        limits: limits on requests.
        credentials: required credentials; None only if the host is a loopback address.
        notify: called once with a line of text that holds the address of the page.

    Raises:
        UserError: credentials are missing for a host other than loopback, or the address is in use.
    """
    if credentials is None and not _is_loopback(host):
        raise UserError(
            f"Anyone who can reach {host} could use this server: give --auth FILE with "
            "user:password or a token per line, or set FOVEAL_TOKEN."
        )
    listener = listen(host, port)
    keep_freed_memory()
    torch.set_num_threads(1)  # small models gain nothing from more threads
    sys.setswitchinterval(SWITCH_SECONDS)
    display_host = f"[{host}]" if ":" in host else host
    _, bound_port, *_ = listener.getsockname()  # an IPv6 address has further elements
    notify(f"Foveal Studio: http://{display_host}:{bound_port} (Ctrl+C to stop)")
    app = build_app(models, limits, credentials)
    uvicorn.Server(uvicorn_config(app, limits)).run(sockets=[listener])


def uvicorn_config(app: RequestLimits, limits: Limits) -> uvicorn.Config:
    """Return uvicorn's configuration: our limits, and a log of errors only."""
    return uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="error",  # a warning per malformed request would fill the log
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
        backlog=limits.connections,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a port of a host; 0 for any free port.

    Raises:
        UserError: the port is in use, or there is no such host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot listen on {host}:{port}: {reason}. Give another --port.") from None
