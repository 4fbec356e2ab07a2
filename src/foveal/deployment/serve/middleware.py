"""Middleware: authentication, host check, and limits on the number and time of requests."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveal.deployment.serve.auth import Credentials
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import BodyReceiver, Refused, busy_error, refuse

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
# Headers that decide whether a request is allowed. They may be sent only once: a proxy in front of
# this server may have checked one copy, and we would use the other.
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
    """ASGI middleware that refuses invalid requests with 4xx, and limits the time of the others.

    Args:
        app: the wrapped application.
        limits: limits on requests and their time.
        credentials: required credentials; None for open access.
        hosts: allowed names in the Host header; None for any. Without this check, another site
            could point its own name to 127.0.0.1 and so read responses (DNS rebinding).
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
        self.active_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sender, receiver = _Sender(send), BodyReceiver(receive)
        if scope["method"] == "HEAD":  # processed as GET; the server omits the body
            scope = {**scope, "method": "GET"}
        scope["foveal.receiver"] = receiver
        try:
            self._check(scope)
            self.active_requests += 1
            try:
                async with asyncio.timeout(self.limits.request_seconds):
                    await self.app(scope, receiver, sender)
            finally:
                self.active_requests -= 1
        except Refused as refused:
            await refuse(refused, receiver, sender)
        except TimeoutError:
            if sender.started:
                raise  # closes the connection, as the response is incomplete
            seconds = f"{self.limits.request_seconds:g}"
            refusal = busy_error(f"The request took longer than {seconds} s: the server is busy.")
            await refuse(refusal, receiver, sender)

    def _check(self, scope: Scope) -> None:
        """Check the headers of a request.

        Raises:
            Refused: the request is invalid or not allowed, or there are too many requests.
        """
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
        if self.active_requests >= self.limits.requests:
            raise busy_error("The server has reached its maximum number of requests.")


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
