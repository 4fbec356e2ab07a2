"""Connection limits: bounds on the number of connections and on the size and time of a head."""

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foveal.deployment.serve.limits import Limits

PIPELINED = 16  # requests of a connection that may wait for the answer to one before them


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol with bounds on connections and on the time and size of headers.

    uvicorn waits for a request's headers as long as it takes, however slowly they drip, and takes
    them however long they are. It takes trailers for headers, queues any number of pipelined
    requests, and passes over the host of an absolute target.
    """

    limits: ClassVar[Limits]
    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_complete = False

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
            self._end_long_head()

    def on_message_begin(self) -> None:
        """Begin to receive a head."""
        self._head_complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer, which comes after the headers have been checked."""
        if not self._head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request: its headers are there.

        Raises:
            ValueError: the connection has been ended; the parser is to read no further.
        """
        self._rest()
        self._head_complete = True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._end_long_head()
            raise ValueError("The head is too long.")
        if len(self.pipeline) >= PIPELINED:
            self.transport.abort()
            raise ValueError("Too many requests wait for the answer to one before them.")
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        super().on_headers_complete()

    def _take_host_of_target(self) -> None:
        """Have the host of an absolute target count instead of the header (RFC 9112, 3.2.2)."""
        host = httptools.parse_url(self.url).host
        if host is not None:
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
            self.headers.append((b"host", host))

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless the connection was ended for another reason."""
        self._end(400, msg)

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

    def _end_long_head(self) -> None:
        self._end(431, f"Expected headers of at most {self.limits.head_bytes:,} bytes.")

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
