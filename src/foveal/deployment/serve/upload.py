"""Request bodies, held in memory only, with limits on size and time."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import Refused, busy_error

MAX_PARTS = 64  # parts of a form
MAX_VALUE_BYTES = 65_536  # bytes of a part that is not a file
MAX_LENGTH_DIGITS = 18  # digits of a Content-Length header
MAX_NAME_LENGTH = 200  # characters of a file name


@dataclass
class Form:
    """A multipart form.

    Attributes:
        values: text by name.
        files: name and content of each file; the name comes from the client, is returned to it,
            and never opened.
    """

    values: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, bytes]] = field(default_factory=list)


class Budget:
    """A limit on the bytes that all requests together may hold in memory.

    Args:
        limit: maximum number of bytes.
        contents: what the bytes are, such as `uploads`, for messages.
    """

    def __init__(self, limit: int, contents: str):
        self.limit = limit
        self.contents = contents
        self.reserved = 0

    @contextmanager
    def reservation(self) -> Iterator["Reservation"]:
        """Yield the reservation of one request; its bytes are released at the end."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.reserved -= reservation.reserved


class Reservation:
    """The bytes of a budget that are reserved for one request.

    Args:
        budget: the budget of all requests.
    """

    def __init__(self, budget: Budget):
        self.budget = budget
        self.reserved = 0

    def reserve(self, count: int) -> None:
        """Reserve `count` more bytes.

        Raises:
            Refused: the budget is exceeded.
        """
        self.reserved += count
        self.budget.reserved += count
        if self.budget.reserved > self.budget.limit:
            raise busy_error(f"The server has no memory left for more {self.budget.contents}.")


async def receive_body(request: Request, limits: Limits, reservation: Reservation) -> bytes:
    """Return the body of a request.

    Raises:
        Refused: the body is too large, too slow or incomplete, or the budget is exceeded.
    """
    length = request.headers.get("content-length", "0")
    if len(length) > MAX_LENGTH_DIGITS or not length.isdecimal() or int(length) > limits.body_bytes:
        raise _too_large(limits)
    try:
        async with asyncio.timeout(limits.body_seconds):
            return await _read_chunks(request, limits, reservation)
    except TimeoutError:
        seconds = f"{limits.body_seconds:g}"
        raise Refused(408, f"The body did not arrive within {seconds} s.") from None


async def _read_chunks(request: Request, limits: Limits, reservation: Reservation) -> bytes:
    """Return the body of a request, and reserve memory as it arrives."""
    chunks = []
    while True:
        message = await request.receive()
        if message["type"] != "http.request":
            raise Refused(400, "The client disconnected before its body was complete.")
        chunk = message.get("body", b"")
        reservation.reserve(len(chunk))
        if reservation.reserved > limits.body_bytes:
            raise _too_large(limits)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _too_large(limits: Limits) -> Refused:
    return Refused(413, f"Expected at most {limits.body_bytes / 1e6:g} MB in one request.")


def read_form(body: bytes, content_type: str) -> Form:
    """Return the parts of a multipart body.

    Raises:
        Refused: the form is malformed, has too many parts, or a value that is not text.
    """
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise Refused(400, "Expected a multipart form with a boundary.")
    collector = _FormCollector()
    try:
        parser = MultipartParser(boundary, collector.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Refused(400, f"The form is malformed: {error}") from None
    if not collector.complete:
        raise Refused(400, "The form is incomplete.")
    return collector.form


class _FormCollector:
    """Callbacks of the multipart parser, which collect the parts of a form.

    The parser calls them with a buffer, and the start and end of the new bytes in it. The bytes of
    a name or value may arrive in several calls.
    """

    def __init__(self) -> None:
        self.form = Form()
        self.complete = False
        self.part_count = 0
        self.headers: dict[bytes, bytes] = {}
        self.header_name = self.header_value = b""
        self.chunks: list[bytes] = []

    def callbacks(self) -> dict[str, object]:
        """Return the callbacks by the names that the parser uses."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self.part_count += 1
        if self.part_count > MAX_PARTS:
            raise Refused(413, f"Expected at most {MAX_PARTS} parts in a form.")
        self.headers, self.chunks = {}, []

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self.header_name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.header_value += data[start:end]

    def _header_end(self) -> None:
        self.headers[self.header_name.lower()] = self.header_value
        self.header_name = self.header_value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.chunks.append(data[start:end])

    def _part_end(self) -> None:
        """Add a part to the form, as a file if it has a file name and else as a value."""
        _, options = parse_options_header(self.headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        data = b"".join(self.chunks)
        if b"filename" in options:
            if name not in ("image", "images"):
                raise Refused(422, f"Expected files named `image`, but got {name[:40]!r}.")
            file_name = options[b"filename"].decode("utf-8", "replace")[:MAX_NAME_LENGTH]
            self.form.files.append((file_name, data))
            return
        if name in self.form.values:
            raise Refused(422, f"{name[:40]!r} is given twice.")
        if len(data) > MAX_VALUE_BYTES:
            raise Refused(413, f"{name[:40]!r} is longer than {MAX_VALUE_BYTES:,} bytes.")
        self.form.values[name] = data.decode("utf-8", "replace")

    def _end(self) -> None:
        self.complete = True
