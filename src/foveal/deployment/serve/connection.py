"""Connection limits: number of connections, and size and time of request headers."""

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foveal.deployment.serve.limits import Limits

PIPELINED = 16  # maximum requests per connection that wait for an earlier response


class Bounded(HttpToolsProtocol):
    """uvicorn's protocol with limits on connections and on the time and size of headers.

    uvicorn itself has no limits on the time and size of headers or on the number of pipelined
    requests. It also treats trailers as headers, and ignores the host of an absolute target.
    """

    limits: ClassVar[Limits]
    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _head_complete = False

    def connection_made(self, transport: Any) -> None:
        """Refuse a connection over the limit; otherwise wait for its first request."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._end(429, "The server has reached its maximum number of connections.")
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; refuse headers that are too long."""
        if self.transport.is_closing():
            return
        if self._idle():
            self._wait_for_head()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._idle() and self._head_bytes > self.limits.head_bytes:
            self._end_long_head()

    def on_message_begin(self) -> None:
        """Begin to receive a request head."""
        self._head_complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer, which comes after the headers have been checked."""
        if not self._head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request, as its headers are complete.

        Raises:
            ValueError: the connection has been closed, and the parser must stop.
        """
        self._rest()
        self._head_complete = True
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._end_long_head()
            raise ValueError("The request head is too long.")
        if len(self.pipeline) >= PIPELINED:
            self.transport.abort()
            raise ValueError("Too many pipelined requests.")
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        super().on_headers_complete()

    def _take_host_of_target(self) -> None:
        """Replace the Host header by the host of an absolute target (RFC 9112, 3.2.2)."""
        host = httptools.parse_url(self.url).host
        if host is not None:
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
            self.headers.append((b"host", host))

    def send_400_response(self, msg: str) -> None:
        """Refuse invalid HTTP, unless the connection is closing for another reason."""
        self._end(400, msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._rest()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Abort an idle connection.

        Closing it would wait until the client has read everything, which may never happen.
        """
        self.transport.abort()

    def _idle(self) -> bool:
        """Return whether no request is being received or processed."""
        return self.cycle is None or self.cycle.response_complete

    def _wait_for_head(self) -> None:
        if self._late is None:
            seconds = self.limits.head_seconds
            self._late = self.loop.call_later(
                seconds, self._end, 408, "The request head did not arrive in time."
            )

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
    """Return the protocol class for connections with these limits."""
    return type("Limited", (Bounded,), {"limits": limits})
