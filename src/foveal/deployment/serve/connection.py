"""Connection limits: the number of connections, and the size and time of request heads.

The head of a request is its request line and its headers.
"""

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from foveal.deployment.serve.limits import Limits

MAX_PIPELINED = 16  # requests of one connection that wait for the responses to earlier ones


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits on connections and on the time and size of request heads.

    uvicorn itself does not limit the time and size of heads or the number of pipelined requests.
    It also treats trailers as headers, and ignores the host of a target that is a complete URL.
    """

    limits: ClassVar[Limits]
    _head_timer: asyncio.TimerHandle | None = None  # refuses a head that takes too long
    _head_bytes = 0  # bytes received while the head is incomplete
    _head_complete = False  # whether the headers of the current request have ended

    def connection_made(self, transport: Any) -> None:
        """Refuse a connection if there are too many; else wait for its first request."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(429, "The server has reached its maximum number of connections.")
        else:
            self._start_head_timer()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; refuse headers that are too long."""
        if self.transport.is_closing():
            return
        if self._is_idle():
            self._start_head_timer()
            self._head_bytes += len(data)
        super().data_received(data)
        if self._is_idle() and self._head_bytes > self.limits.head_bytes:
            self._refuse_long_head()

    def on_message_begin(self) -> None:
        """Begin to receive a request head."""
        self._head_complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; drop a trailer, which would bypass the checks of the headers."""
        if not self._head_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin a request, as its headers are complete.

        Raises:
            ValueError: the connection has been closed, and the parser must stop.
        """
        self._reset_head_limits()
        self._head_complete = True
        separators = 4  # bytes of ": " and of the line break
        header_sizes = (len(name) + len(value) + separators for name, value in self.headers)
        size = len(self.url) + sum(header_sizes)
        if size > self.limits.head_bytes:
            self._refuse_long_head()
            raise ValueError("The request head is too long.")
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            raise ValueError("Too many pipelined requests.")
        if not self.url.startswith(b"/"):
            self._use_host_of_target()
        super().on_headers_complete()

    def _use_host_of_target(self) -> None:
        """Replace the Host header by the host of a target that is a URL (RFC 9112, 3.2.2)."""
        host = httptools.parse_url(self.url).host
        if host is not None:
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"host"]
            self.headers.append((b"host", host))

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not valid HTTP, unless the connection is closing already."""
        self._refuse(400, msg)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer of a connection that has ended."""
        self._reset_head_limits()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        """Abort an idle connection.

        Closing it instead would wait until the client has read all data, which may never happen.
        """
        self.transport.abort()

    def _is_idle(self) -> bool:
        """Return whether no request is being received or processed."""
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            seconds = self.limits.head_seconds
            self._head_timer = self.loop.call_later(
                seconds, self._refuse, 408, "The request head did not arrive in time."
            )

    def _reset_head_limits(self) -> None:
        self._head_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_long_head(self) -> None:
        self._refuse(431, f"Expected headers of at most {self.limits.head_bytes:,} bytes.")

    def _refuse(self, status: int, detail: str) -> None:
        """Send a refusal and close the connection, unless it is closing already."""
        self._reset_head_limits()
        if self.transport.is_closing():
            return
        body = json.dumps({"detail": detail}).encode()
        head = (
            f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def protocol(limits: Limits) -> type[LimitedProtocol]:
    """Return the protocol class for connections with these limits."""
    return type("Limited", (LimitedProtocol,), {"limits": limits})
