"""Middleware: authentication, host check, and limits on the number and time of requests."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveal.deployment.serve.auth import Credentials
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import Received, Refused, busy, refuse

PUBLIC_PATH = "/healthz"  # the health check needs no credentials and reveals nothing
CHALLENGE = {"www-authenticate": 'Basic realm="Foveal Studio", charset="UTF-8"'}
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
# Headers that decide what is allowed. If one is sent twice, a proxy may have checked the other.
SINGLE_HEADERS = (
    b"host",
    b"authorization",
    b"content-length",
    b"content-type",
    b"sec-fetch-site",
    b"transfer-encoding",
)
# RFC 3986: a name or address, and a port
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^][:@/?#\s]+)(:[0-9]*)?")
_SECURITY_PAIRS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


class RequestLimits:
    """ASGI middleware that checks requests, limits their time, and refuses with 4xx.

    Args:
        app: the application behind it.
        limits: limits on requests and their time.
        credentials: required credentials; None for none.
        hosts: allowed host names; None for any. Another site can point its own name to 127.0.0.1
            (DNS rebinding); the Host header then has that name.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        credentials: Credentials | None = None,
        hosts: Iterable[str] | None = None,
    ):
        self.app = app
        self.limits = limits
        self.credentials = credentials
        self.hosts = None if hosts is None else frozenset(hosts)
        self.active = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sender, body = _Sender(send), Received(receive)
        if scope["method"] == "HEAD":  # processed as GET; the server omits the body
            scope = {**scope, "method": "GET"}
        scope["foveal.body"] = body
        try:
            self._check(scope)
            self.active += 1
            try:
                async with asyncio.timeout(self.limits.request_seconds):
                    await self.app(scope, body, sender)
            finally:
                self.active -= 1
        except Refused as refused:
            await refuse(refused, body, sender)
        except TimeoutError:
            if sender.started:
                raise  # closes the connection, as the response is incomplete
            seconds = f"{self.limits.request_seconds:g}"
            refusal = busy(f"The request took longer than {seconds} s: the server is busy.")
            await refuse(refusal, body, sender)

    def _check(self, scope: Scope) -> None:
        headers = _by_name(scope["headers"])
        if scope["http_version"] == "1.1" and b"host" not in headers:
            raise Refused(400, "Expected a Host header, but got none.")
        if self.hosts is not None and _host(headers.get(b"host", b"")) not in self.hosts:
            raise Refused(400, "The request is for another host.")
        if self.credentials is not None and scope["path"] != PUBLIC_PATH:
            authorization = headers.get(b"authorization")
            if authorization is None:
                raise Refused(401, "This server requires a user and a password.", CHALLENGE)
            if not self.credentials.accept(authorization):
                raise Refused(401, "The user, the password or the token is wrong.", CHALLENGE)
        if scope["method"] != "GET" and headers.get(b"sec-fetch-site") == b"cross-site":
            raise Refused(403, "Requests from other sites are not allowed.")
        if self.active >= self.limits.requests:
            raise busy("The server has reached its maximum number of requests.")


class _Sender:
    """Sends a response with security headers, and records whether it has started."""

    def __init__(self, send: Send):
        self.send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", []), *_SECURITY_PAIRS]
        await self.send(message)


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name.

    Raises:
        Refused: one of `SINGLE_HEADERS` is given twice.
    """
    headers = list(headers)
    counts = Counter(name for name, _ in headers)
    for name in SINGLE_HEADERS:
        if counts[name] > 1:
            title = name.decode().title()
            raise Refused(400, f"Expected one {title} header, but got {counts[name]}.")
    return dict(headers)


def _host(header: bytes) -> str:
    """Return the host of a Host header in lower case, without its port; "" if invalid."""
    match = _HOST.fullmatch(header.decode("latin-1").lower())
    return match[1] if match else ""
