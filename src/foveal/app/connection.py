"""Connections that a client cannot hold for nothing."""

import asyncio
import json
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foveal.app.limits import Limits


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol with bounds on connections and on the time and size of headers.

    uvicorn waits for a request's headers as long as it takes, however slowly they drip, and takes
    them however long they are.
    """

    limits: ClassVar[Limits]
    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Refuse a connection that is one too many; wait for the others' first request."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._end(429, "The server has as many connections as it takes.")
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes, unless headers do not end."""
        if self.transport.is_closing():
            return
        if self._idle():
            self._wait_for_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._idle() and self._head_bytes > self.limits.head_bytes:
            self._end(431, f"Expected headers of at most {self.limits.head_bytes:,} bytes.")

    def on_headers_complete(self) -> None:
        """Begin a request: its headers are there."""
        self._rest()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Cut a connection that asks nothing more.

        Not closed, as that waits until its client has read all, which may be never.
        """
        self.transport.abort()

    def _idle(self) -> bool:
        """Return whether no request is being received or answered."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        if self._late is None:
            seconds = self.limits.head_seconds
            self._late = self.loop.call_later(seconds, self._end, 408, "Too slow.")

    def _rest(self) -> None:
        self._head_bytes = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self, status: int, detail: str) -> None:
        self._rest()
        if self.transport.is_closing():
            return
        body = json.dumps({"detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def protocol(limits: Limits) -> type[Bounded]:
    """Return the protocol of connections with these limits."""
    return type("Limited", (Bounded,), {"limits": limits})
