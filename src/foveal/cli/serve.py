"""`foveal serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from foveal.cli.app import app, notify
from foveal.foundation.interrupts import resumable


@app.command()
@resumable("Run the same command to serve again.")
def serve(
    models: Annotated[
        list[str] | None, typer.Argument(help="Zoo names or run folders. Default: the whole zoo.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any free port.", min=0, max=65535)] = 7860,
    runtime: Annotated[str, typer.Option(help="torch, or onnx, which is faster.")] = "torch",
    auth: Annotated[
        Path | None,
        typer.Option(help="File with user:password or a token per line; FOVEAL_TOKEN adds one."),
    ] = None,
    upload_mb: Annotated[int, typer.Option(help="Maximum size of a request.", min=1)] = 10,
    queue: Annotated[int, typer.Option(help="Images that may wait for a model.", min=1)] = 128,
) -> None:
    """Serve a web page that shows what models look at, and an HTTP API.

    Example: foveal serve mnist-focus mnist-cnn
    """
    from foveal.deployment.serve.auth import Credentials
    from foveal.deployment.serve.limits import MEGABYTE, Limits
    from foveal.deployment.serve.model_registry import Models
    from foveal.deployment.serve.server import serve as run

    token = os.environ.get("FOVEAL_TOKEN")
    credentials = Credentials.read(auth) if auth is not None else None
    if token:
        credentials = (credentials or Credentials({}, [token])).with_token(token)
    limits = Limits(body_bytes=upload_mb * MEGABYTE, waiting=queue)
    run(Models(models or (), runtime), host, port, limits, credentials, notify)
