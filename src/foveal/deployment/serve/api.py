"""The FastAPI application: the HTTP API and the web page."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import Receive, Scope, Send

from foveal import __version__
from foveal.deployment.serve import openapi
from foveal.deployment.serve.batching import BatchQueue
from foveal.deployment.serve.decoding import Decoders
from foveal.deployment.serve.inference import Result, Task, explain_batch
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.model_registry import Models
from foveal.deployment.serve.refusal import Refused, refuse
from foveal.deployment.serve.samples import samples
from foveal.deployment.serve.schemas import ExplainRequest, from_form, from_json
from foveal.deployment.serve.upload import Budget, Reservation, read_form, receive_body
from foveal.foundation.files import json_text
from foveal.models.abilities import Ability

MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# A body of at most this size is parsed by the event loop itself: waking a thread takes longer.
INLINE_BYTES = 65_536
# Telemetry of FastAPI stays off, even if environment variables enable it.
NO_TELEMETRY: Any = {"auto_configure": False, "tracing": False, "metrics": False, "logs": False}


class Studio:
    """State of the server: models, decoders, a thread for JSON, and two inference queues.

    A model's own explanations are computed in the quick queue. Post-hoc methods, which need many
    forward passes, are computed in the slow queue, so that they do not delay the others.

    Args:
        models: the models that clients may use.
        limits: limits on requests.
    """

    def __init__(self, models: Models, limits: Limits):
        self.models = models
        self.limits = limits
        self.uploads = Budget(limits.held_bytes, "uploads")
        self.images = Budget(limits.decoded_bytes, "images")
        self.decoders = Decoders(limits, count=min(2, os.cpu_count() or 1))
        self.json_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foveal-json")
        self.quick = BatchQueue(explain_batch, limits.waiting)
        self.slow = BatchQueue(explain_batch, limits.slow_waiting)

    async def explain(self, request: Request) -> str:
        """Return the explanations of a request's images, as `foveal explain --json` prints them.

        Raises:
            Refused: the request is invalid or over a limit.
        """
        with self.uploads.reservation() as upload_bytes, self.images.reservation() as image_bytes:
            body = await receive_body(request, self.limits, upload_bytes)
            explain_request = await self._read(request, body)
            results = await self._explain(explain_request, image_bytes)
        if "maps" not in explain_request.options.show:
            return _to_json(explain_request, results)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.json_thread, _to_json, explain_request, results)

    async def _read(self, request: Request, body: bytes) -> ExplainRequest:
        """Parse a body; a large one is parsed in a thread, to keep the event loop free."""
        content_type = request.headers.get("content-type", "")
        if len(body) <= INLINE_BYTES:
            return _parse_request(content_type, body, self.limits)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self.json_thread, _parse_request, content_type, body, self.limits
        )

    async def _explain(self, request: ExplainRequest, reservation: Reservation) -> list[Result]:
        """Decode the images of a request and return their explanations."""
        options = request.options
        model = self.models[options.model]
        if not model.is_ready:
            await asyncio.to_thread(model.load)
        channels = model.network.in_channels
        reads_only_parts = Ability.IN_PART in model.abilities
        max_side = self.limits.large_side if reads_only_parts else self.limits.side
        tasks = []
        for name, data in request.files:
            try:
                image = await self.decoders.decode(
                    data, channels, model.inputs, crop=options.fit == "crop", max_side=max_side
                )
            except Refused as refused:
                raise Refused(refused.status, f"{name[:80]}: {refused.detail}") from None
            reservation.reserve(image.nbytes)
            tasks.append(Task(model, image, options))
        queue = self.slow if tasks[0].is_slow else self.quick
        return await queue.run(tasks)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Start the decoders, run the application, and then stop all processes and threads."""
        await self.decoders.start()
        yield
        await self.decoders.stop()
        self.json_thread.shutdown(wait=False, cancel_futures=True)
        self.quick.stop()
        self.slow.stop()


def _parse_request(content_type: str, body: bytes, limits: Limits) -> ExplainRequest:
    """Return the request in a form or a JSON object.

    Raises:
        Refused: the request is invalid, over a limit, or of another content type.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        return from_form(read_form(body, content_type), limits)
    if media_type == "application/json":
        return from_json(body, limits)
    raise Refused(415, "Expected multipart/form-data or application/json.")


def _to_json(request: ExplainRequest, results: list[Result]) -> str:
    """Return the response as JSON.

    Images are formatted one at a time, because no other thread can run while a text is formatted,
    and the map of one image may already have a million numbers.
    """
    images = [
        json_text({"path": name, **result})
        for (name, _), result in zip(request.files, results, strict=True)
    ]
    return f'{{"model": {json_text(request.options.model)}, "images": [{", ".join(images)}]}}'


def build_api(studio: Studio) -> FastAPI:
    """Return the application: the API, its description and the page."""
    app = FastAPI(
        title="Foveal Studio",
        version=__version__,
        description=openapi.API,
        docs_url=None,  # FastAPI's page loads scripts from another site
        redoc_url=None,
        lifespan=studio.lifespan,
        telemetry=NO_TELEMETRY,
    )
    app.add_exception_handler(Refused, _handle_refusal)
    _add_endpoints(app, studio)
    _add_page(app)
    return app


def _add_endpoints(app: FastAPI, studio: Studio) -> None:
    @app.post("/v1/explain", summary="Explain images", **openapi.EXPLAIN)
    async def explain(request: Request) -> Response:
        return Response(await studio.explain(request), media_type="application/json")

    @app.get("/v1/models", summary="List the models with their figures")
    async def models() -> Response:
        return _json({"models": [model.describe() for model in studio.models.by_name.values()]})

    @app.get("/v1/samples", summary="Sample digits")
    async def some_samples() -> Response:
        return _json({"samples": _samples()})

    @app.get("/healthz", summary="Health check")
    async def healthz() -> Response:
        return _json({"status": "ok"})


_samples = functools.cache(samples)  # encoded once, on the first request


def _add_page(app: FastAPI) -> None:
    # All files are read in advance, so that no path from a client is ever opened.
    folder = resources.files("foveal.deployment.serve") / "static"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    head = files.pop("head.html")  # prepended to every page
    files |= {name: head + body for name, body in files.items() if name.endswith(".html")}

    def file_response(name: str) -> Response:
        if name not in files:
            raise Refused(404, "Page not found.")
        media_type = MEDIA_TYPES.get(name[name.rfind(".") :], "application/octet-stream")
        return Response(files[name], media_type=media_type, headers={"cache-control": "no-cache"})

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return file_response("index.html")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return file_response("docs.html")

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        return file_response(name)


def _json(value: object) -> Response:
    return Response(json_text(value), media_type="application/json")


async def _handle_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _RefusalResponse(error)


class _RefusalResponse(Response):
    """The response to a refused request; the rest of a body that is being sent is discarded."""

    def __init__(self, refused: Refused):
        super().__init__(status_code=refused.status)
        self.refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await refuse(self.refused, scope["foveal.receiver"], send)
