"""What stands before every answer: who asks, how many at a time, for how long."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from foveal.deployment.serve.auth import Credentials
from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import Received, Refused, busy, refuse

OPEN = "/healthz"  # a container's health is asked for without credentials, and tells nothing
CHALLENGE = {"www-authenticate": 'Basic realm="Foveal Studio", charset="UTF-8"'}
SECURITY = {
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
# Headers that are decided by: of two, another program on the way may have checked the other one.
SINGLE = (
    b"host",
    b"authorization",
    b"content-length",
    b"content-type",
    b"sec-fetch-site",
    b"transfer-encoding",
)
_HOST = re.compile(
    r"(\[[0-9a-f:.]+\]|[^][:@/?#\s]+)(:[0-9]*)?"
)  # RFC 3986: a name or address, a port
_SECURITY = [(name.encode(), value.encode()) for name, value in SECURITY.items()]


class Guard:
    """Lets through what may be answered, in time; refuses the rest with 4xx.

    Args:
        app: that answers.
        limits: on requests and their time.
        credentials: that are asked for, or None for nobody's.
        hosts: names that a request may be sent to, or None for any. A page elsewhere can have a
            browser here believe that its own name is 127.0.0.1 (DNS rebinding); the name tells.
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
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer, body = _Answer(send), Received(receive)
        if scope["method"] == "HEAD":  # answered as GET is; the server sends no body
            scope = {**scope, "method": "GET"}
        scope["foveal.body"] = body
        try:
            self._check(scope)
            self.running += 1
            try:
                async with asyncio.timeout(self.limits.request_seconds):
                    await self.app(scope, body, answer)
            finally:
                self.running -= 1
        except Refused as refused:
            await refuse(refused, body, answer)
        except TimeoutError:
            if answer.started:
                raise  # the connection is closed: half an answer is none
            seconds = f"{self.limits.request_seconds:g}"
            late = busy(f"This took longer than {seconds} s, as the server is busy.")
            await refuse(late, body, answer)

    def _check(self, scope: Scope) -> None:
        headers = _by_name(scope["headers"])
        if scope["http_version"] == "1.1" and b"host" not in headers:
            raise Refused(400, "Expected a Host header, but got none.")
        if self.hosts is not None and _host(headers.get(b"host", b"")) not in self.hosts:
            raise Refused(400, "The request is meant for another host.")
        if self.credentials is not None and scope["path"] != OPEN:
            given = headers.get(b"authorization")
            if given is None:
                raise Refused(401, "This server asks for a user and a password.", CHALLENGE)
            if not self.credentials.accept(given):
                raise Refused(401, "The user, the password or the token is wrong.", CHALLENGE)
        if scope["method"] != "GET" and headers.get(b"sec-fetch-site") == b"cross-site":
            raise Refused(403, "Another site's page may not ask this server.")
        if self.running >= self.limits.requests:
            raise busy("The server has as many requests as it takes.")


class _Answer:
    """Sends an answer with the headers that keep a browser from harm, and knows if it began."""

    def __init__(self, send: Send):
        self.send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message.get("headers", []), *_SECURITY]
        await self.send(message)


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by name.

    Raises:
        Refused: one that decides something is given twice.
    """
    headers = list(headers)
    counts = Counter(name for name, _ in headers)
    for name in SINGLE:
        if counts[name] > 1:
            shown = name.decode().title()
            raise Refused(400, f"Expected one {shown} header, but got {counts[name]}.")
    return dict(headers)


def _host(header: bytes) -> str:
    """Return the host of a Host header in small letters, without its port; "" if it is none."""
    found = _HOST.fullmatch(header.decode("latin-1").lower())
    return found[1] if found else ""
