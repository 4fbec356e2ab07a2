"""Refusals of requests: responses with an error status, and the reason in one sentence of JSON."""

import asyncio
import json
from collections.abc import Mapping

from starlette.types import Message, Receive, Send

from foveal.foundation.escaping import printable

DETAIL_LENGTH = 1000  # names and JSON keys of clients may be megabytes long
# Limits on the time and bytes for reading the rest of a refused request.
LINGER_SECONDS = 2.0
LINGER_BYTES = 64_000_000


class Refused(Exception):
    """Raised to refuse a request.

    Args:
        status: HTTP status, from 400.
        detail: one sentence for the client; put on one line and truncated if too long.
        headers: further headers of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None):
        self.detail = printable(detail[:DETAIL_LENGTH])
        if len(detail) > DETAIL_LENGTH:
            self.detail += "…"
        super().__init__(self.detail)
        self.status = status
        self.headers = dict(headers or {})


def busy_error(reason: str) -> Refused:
    """Return the refusal of a request for lack of capacity; it tells the client when to retry."""
    return Refused(429, f"{reason} Try again in a second.", {"retry-after": "1"})


class BodyReceiver:
    """Receives the body of a request, and records whether it has arrived completely."""

    def __init__(self, receive: Receive):
        self.receive = receive
        self.complete = False

    async def __call__(self) -> Message:
        """Receive one ASGI message."""
        message = await self.receive()
        self.complete = self.complete or not message.get("more_body", False)
        return message


async def refuse(refused: Refused, receive: BodyReceiver, send: Send) -> None:
    """Send a refusal; if the client is still sending, discard the rest and close the connection.

    The rest is read, up to a limit of time and bytes, because closing a connection with unread data
    resets it, and the client may then lose the response.
    """
    body = json.dumps({"detail": refused.detail}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **({} if receive.complete else {"connection": "close"}),
        **refused.headers,
    }
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            await _discard(receive)
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: BodyReceiver) -> None:
    discarded = 0
    while not receive.complete and discarded < LINGER_BYTES:
        discarded += len((await receive()).get("body", b""))
