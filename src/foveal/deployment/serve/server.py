"""`foveal serve`: the application behind its guard, listening."""

import ipaddress
import socket
import sys
from collections.abc import Callable

from foveal.foundation.errors import UserError, missing_extra

try:
    import httptools  # noqa: F401 - uvicorn's protocol, which ours builds on, needs it
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
from foveal.deployment.serve.middleware import Guard
from foveal.deployment.serve.model_registry import Models
from foveal.foundation.memory import keep_freed_memory

KEEP_ALIVE_SECONDS = 15
# How long the thread of answers may keep the interpreter from that of requests, which takes it ten
# times for each: by Python's own 5 ms, half as many are answered.
SWITCH_SECONDS = 0.0005
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def build_app(models: Models, limits: Limits, credentials: Credentials | None = None) -> Guard:
    """Return the application that `serve` runs: for tests, and for other servers.

    Args:
        models: that are served.
        limits: on what clients ask.
        credentials: that are asked for; without any, only requests to this machine are answered.
    """
    api = build_api(Studio(models, limits))
    return Guard(api, limits, credentials, hosts=LOCAL if credentials is None else None)


def serve(
    models: Models,
    host: str,
    port: int,
    limits: Limits,
    credentials: Credentials | None,
    say: Callable[[str], None],
) -> None:
    """Listen until the process is asked to end.

    Args:
        models: that are served.
        host: name or address to bind to.
        port: 0 for any that is free.
        limits: on what clients ask.
        credentials: needed for any host but this machine's own.
        say: told of the address.

    Raises:
        UserError: nobody would be asked for credentials elsewhere, or the address is not free.
    """
    if credentials is None and not _is_loopback(host):
        raise UserError(
            f"Everybody who reaches {host} could use this server: give --auth FILE, with "
            "user:password or a token in it, or the variable FOVEAL_TOKEN."
        )
    listening = listen(host, port)
    keep_freed_memory()
    torch.set_num_threads(1)  # one for answers beside the one for requests: small models gain none
    sys.setswitchinterval(SWITCH_SECONDS)
    shown = f"[{host}]" if ":" in host else host
    say(f"Foveal Studio: http://{shown}:{listening.getsockname()[1]} (Ctrl+C ends it)")
    app = build_app(models, limits, credentials)
    uvicorn.Server(configured(app, limits)).run(sockets=[listening])


def configured(app: Guard, limits: Limits) -> uvicorn.Config:
    """Return how uvicorn runs an application within limits; it logs what is wrong, no requests."""
    return uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_level="error",  # a warning for each broken request would fill the log
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
    """Return a socket that listens on a port of a host, 0 for any port that is free.

    Raises:
        UserError: it is not free, or there is no such host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot listen on {host}:{port}: {reason}. Give another --port.") from None
