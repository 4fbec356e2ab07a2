"""Hostile requests for the tests of the server: raw HTTP, and bodies of JSON.

Known attacks come first; random variations of them follow.
"""

import json
import random
from collections.abc import Iterator
from typing import NamedTuple

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
CHUNKED = (
    b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
# Statuses that a request may get. None means that the connection is closed without a response.
BAD_REQUEST = frozenset({400})
OK = frozenset({200})
TIMED_OUT = frozenset({408})
NOT_5XX = frozenset({200, 307, *range(400, 500), None})


VARIED_ATTACKS = 60  # the first known attacks, whose heads are short, are varied at random


class Raw(NamedTuple):
    """A request as bytes.

    Attributes:
        name: description of the attack.
        data: all bytes that are sent.
        expected: statuses allowed for the first response; None is a closed connection.
    """

    name: str
    data: bytes
    expected: frozenset[int | None]


def raw_requests(seed: int, count: int) -> list[Raw]:
    """Return `count` raw requests: the known attacks first, then random variations of them."""
    requests = list(_known_requests())
    rng = random.Random(seed)
    while len(requests) < count:
        attack = rng.choice(requests[:VARIED_ATTACKS])
        data = _mutate(rng, attack.data)
        requests.append(Raw(f"{attack.name}, change {len(requests)}", data, NOT_5XX))
    return requests[:count]


def _mutate(rng: random.Random, data: bytes) -> bytes:
    """Return a request with a few bytes replaced, removed, repeated or inserted."""
    mutant = bytearray(data[:4096])  # bounds the size of long requests
    insertions = (
        b"\r\n",
        b"\n",
        b"\0",
        b":",
        b" ",
        b"\t",
        b"%00",
        b"\x80",
        b"chunked",
        b"HTTP/1.1",
    )
    for _ in range(rng.randrange(1, 5)):
        start = rng.randrange(len(mutant) + 1)
        end = min(len(mutant), start + rng.randrange(8))
        operation = rng.randrange(4)
        if operation == 0:
            mutant[start:end] = rng.randbytes(end - start)
        elif operation == 1:
            del mutant[start:end]
        elif operation == 2:
            mutant[start:start] = mutant[start:end] * 2
        else:
            mutant[start:start] = rng.choice(insertions)
    return bytes(mutant)


def _get(target: bytes = b"/healthz", *headers: bytes, version: bytes = b"1.1") -> bytes:
    """Return a GET request with additional header lines."""
    lines = [b"GET %b HTTP/%b" % (target, version), b"Host: localhost", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _post(length: bytes, body: bytes = b"{}") -> bytes:
    """Return a POST request with a given Content-Length, which need not be that of the body."""
    return (
        b"POST /v1/explain HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: " + length + b"\r\n\r\n" + body
    )


def _known_requests() -> Iterator[Raw]:
    yield from _request_lines()
    yield from _hosts()
    yield from _headers()
    yield from _content_lengths()
    yield from _chunks()
    yield from _targets()
    yield from _sizes()


def _request_lines() -> Iterator[Raw]:
    for name, data, expected in (
        ("HEAD", HEALTH.replace(b"GET", b"HEAD"), OK),
        ("an unknown method", HEALTH.replace(b"GET", b"BREW"), BAD_REQUEST),
        ("a method in lower case", HEALTH.replace(b"GET", b"get"), BAD_REQUEST),
        ("a method that is not allowed", HEALTH.replace(b"GET", b"DELETE"), {405}),
        ("TRACE", HEALTH.replace(b"GET", b"TRACE"), {405}),
        ("CONNECT", b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", BAD_REQUEST),
        ("OPTIONS *", b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", {404}),
        ("HTTP/0.9", b"GET /healthz\r\n\r\n", BAD_REQUEST),
        ("HTTP/9.9", _get(version=b"9.9"), BAD_REQUEST),
        ("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD_REQUEST),
        ("an unknown protocol", HEALTH.replace(b"HTTP", b"HTCPCP"), BAD_REQUEST),
        ("two spaces", HEALTH.replace(b"GET ", b"GET  "), NOT_5XX),
        ("a tab instead of a space", HEALTH.replace(b"GET ", b"GET\t"), BAD_REQUEST),
        ("bare line feeds", HEALTH.replace(b"\r\n", b"\n"), NOT_5XX),
        ("bare carriage returns", HEALTH.replace(b"\r\n", b"\r"), BAD_REQUEST),
        ("a NUL in the line", HEALTH.replace(b"/healthz", b"/health\0z"), BAD_REQUEST),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32), BAD_REQUEST),
        ("zeros", bytes(200), BAD_REQUEST),
        ("empty lines only", b"\r\n" * 100, TIMED_OUT),
        ("empty lines first", b"\r\n\r\n" + HEALTH, OK),
        ("a head without an end", HEALTH[:-2], TIMED_OUT),
        ("half a line", HEALTH[:9], TIMED_OUT),
    ):
        yield Raw(name, data, frozenset(expected))


def _hosts() -> Iterator[Raw]:
    for host in (
        b"[::1].evil.example",
        b"[::1]evil.example",
        b"[::1]@evil.example",
        b"[::1",
        b"::1",
        b"localhost.evil.example",
        b"localhost:80.evil.example",
        b"localhost:80:80",
        b"localhost@evil.example",
        b"evil.example#localhost",
        b"evil.example/localhost",
        b"evil.example, localhost",
        b"local\thost",
        b"127.0.0.1.evil.example",
        b"127.1",
        b"2130706433",
        b"\xffocalhost",
        b"",
    ):
        yield Raw(f"host {host!r}", HEALTH.replace(b"localhost", host), BAD_REQUEST)
    for host in (b"[::1]", b"[::1]:80", b"localhost:", b"LOCALHOST:7860"):
        yield Raw(f"host {host!r}", HEALTH.replace(b"localhost", host), OK)
    yield Raw("no host", HEALTH.replace(b"Host: localhost\r\n", b""), BAD_REQUEST)
    for header in (b"Host: evil.example", b"hOST: evil.example", b"Host: localhost"):
        yield Raw(f"a second host, {header!r}", _get(b"/healthz", header), BAD_REQUEST)
    yield Raw("an absolute target", _get(b"http://localhost/healthz"), OK)
    yield Raw("an absolute target elsewhere", _get(b"http://evil.example/healthz"), BAD_REQUEST)
    yield Raw(
        "an absolute target with a user", _get(b"http://localhost@evil.example/"), BAD_REQUEST
    )


def _headers() -> Iterator[Raw]:
    for name, header, expected in (
        ("a folded header", b"X-Folded: a\r\n b", NOT_5XX),
        ("a folded host", b"X: a\r\n\tHost: evil.example", NOT_5XX),
        ("a space before the colon", b"X-Space : a", BAD_REQUEST),
        ("a space before the name", b" Host: evil.example", NOT_5XX),
        ("no colon", b"X-None", BAD_REQUEST),
        ("no name", b": a", BAD_REQUEST),
        ("a NUL in a value", b"X-Nul: a\0b", BAD_REQUEST),
        ("a NUL in a name", b"X-\0Nul: a", BAD_REQUEST),
        ("a bare carriage return in a value", b"X: a\rHost: evil.example", BAD_REQUEST),
        ("a bare line feed in a value", b"X: a\nX-Other: b", NOT_5XX),
        ("bytes above 127", b"X: \xff\xfe", OK),
        ("an upgrade", b"Connection: Upgrade\r\nUpgrade: websocket", NOT_5XX),
        ("an upgrade to HTTP/2", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", NOT_5XX),
        ("two tokens", b"Authorization: Bearer a\r\nAuthorization: Bearer b", BAD_REQUEST),
        ("an expectation", b"Expect: 100-continue", OK),
        ("an unknown expectation", b"Expect: 200-maybe", OK),
        ("a range", b"Range: bytes=0-0,1-1", OK),
        ("another host, forwarded", b"X-Forwarded-Host: evil.example", OK),
    ):
        yield Raw(name, _get(b"/healthz", header), frozenset(expected))


def _content_lengths() -> Iterator[Raw]:
    # Python refuses to convert more than 4,300 digits to an integer.
    for length, expected in (
        (b"0" * 5_001, {413, 400}),
        (b"9" * 5_001, {413, 400}),
        (b"1" * 19, {413}),
        (b"-1", BAD_REQUEST),
        (b"+2", BAD_REQUEST),
        (b"0x2", BAD_REQUEST),
        (b"2e0", BAD_REQUEST),
        (b"2, 2", BAD_REQUEST),
        (b"2\r\nContent-Length: 2", BAD_REQUEST),
        (b"2\r\nContent-Length: 3", BAD_REQUEST),
        (b"\xb2", BAD_REQUEST),
        (b"", NOT_5XX),
        (b"2", {422}),
        (b"99999999", {413}),
        (b"3", TIMED_OUT),
        (b"2\r\nTransfer-Encoding: chunked", BAD_REQUEST),
        (b"2\r\nTransfer-Encoding: identity", NOT_5XX),
    ):
        yield Raw(f"length {length[:40]!r}", _post(length), frozenset(expected))


def _chunks() -> Iterator[Raw]:
    chunks = b"2\r\n{}\r\n0\r\n"
    for name, body, expected in (
        ("good chunks", chunks + b"\r\n", {422}),
        ("an invalid size", b"zz\r\n{}\r\n0\r\n\r\n", BAD_REQUEST),
        ("a negative size", b"-2\r\n{}\r\n0\r\n\r\n", BAD_REQUEST),
        ("a size of sixty digits", b"f" * 60 + b"\r\n{}\r\n", BAD_REQUEST),
        ("a size too small", b"1\r\n{}\r\n0\r\n\r\n", BAD_REQUEST),
        ("a size too large", b"5\r\n{}\r\n0\r\n\r\n", NOT_5XX),
        ("an extension", b'2;a="b"\r\n{}\r\n0\r\n\r\n', NOT_5XX),
        ("an extension of 100 kB", b"2;" + b"a" * 100_000 + b"\r\n{}\r\n0\r\n\r\n", NOT_5XX),
        ("chunks ended by line feeds", b"2\n{}\n0\n\n", NOT_5XX),
        ("no last chunk", b"2\r\n{}\r\n", TIMED_OUT),
        ("a host in the trailer", chunks + b"Host: evil.example\r\n\r\n", {422}),
        ("a token in the trailer", chunks + b"Authorization: Bearer a\r\n\r\n", {422}),
        ("a length in the trailer", chunks + b"Content-Length: 9\r\n\r\n", NOT_5XX),
        ("an invalid trailer", chunks + b"no colon\r\n\r\n", NOT_5XX),
        ("a thousand small chunks", b"1\r\n \r\n" * 1000 + b"0\r\n\r\n", {422}),
    ):
        yield Raw(name, CHUNKED + body, frozenset(expected))
    smuggled = CHUNKED.replace(b"chunked", b"chunked, identity") + chunks + b"\r\n"
    yield Raw("chunked, but not last", smuggled, BAD_REQUEST)
    yield Raw("chunked twice", CHUNKED.replace(b": chunked", b": chunked, chunked"), NOT_5XX)
    yield Raw("a false chunked", CHUNKED.replace(b": chunked", b": \x0bchunked"), NOT_5XX)


def _targets() -> Iterator[Raw]:
    for target, expected in (
        (b"/static/../../etc/passwd", {404}),
        (b"/static/%2e%2e/%2e%2e/etc/passwd", {404}),
        (b"/static/..%2f..%2fserver.py", {404}),
        (b"/static/%252e%252e%252fserver.py", {404}),
        (b"/static/..%5c..%5cserver.py", {404}),
        (b"/static/index.html%00.png", {404}),
        (b"/static/index.html%0d%0aX:y", {404}),
        (b"/static/%ff%fe", {404}),
        (b"/static/%c0%ae%c0%ae/", NOT_5XX),
        (b"/static/%", {404}),
        (b"/static/%zz", {404}),
        (b"//healthz", {404}),
        (b"//evil.example/healthz", {404}),
        (b"/healthz/", NOT_5XX),
        (b"/healthz?" + b"a=b&" * 5000, OK),
        (b"/healthz#fragment", NOT_5XX),
        (b"/healthz;a=b", {404}),
        (b"/" + b"a" * 60_000, {431}),
        (b"/" + b"a" * 30_000, {404}),
        (b"/\xc3\xa9", BAD_REQUEST),
        (b"healthz", BAD_REQUEST),
        (b"file:///etc/passwd", NOT_5XX),
        (b"http://", BAD_REQUEST),
        (b"http:///healthz", NOT_5XX),
        (b"http://localhost:99999999/healthz", BAD_REQUEST),
    ):
        yield Raw(f"target {target[:40]!r}", _get(target), frozenset(expected))


def _sizes() -> Iterator[Raw]:
    """Yield requests near and above the server's limits, such as 32,768 bytes per head."""
    yield Raw("a head of 32,000 bytes", _get(b"/healthz", b"X: " + b"a" * 32_000), OK)
    yield Raw("a head of 33,000 bytes", _get(b"/healthz", b"X: " + b"a" * 33_000), frozenset({431}))
    yield Raw("a head of 40 kB", _get(b"/healthz", *[b"X: " + b"a" * 95] * 400), frozenset({431}))
    yield Raw("8,000 headers", _get(b"/healthz", *[b"a:"] * 8000), frozenset({431}))
    yield Raw("a name of 40 kB", _get(b"/healthz", b"a" * 40_000 + b": b"), frozenset({431}))
    yield Raw("a head without end of 40 kB", HEALTH[:-2] + b"X: " + b"a" * 40_000, frozenset({431}))
    yield Raw("ten pipelined requests", HEALTH * 10, OK)
    yield Raw("10,000 pipelined requests", HEALTH * 10_000, NOT_5XX)
    yield Raw(
        "a request followed by non-HTTP data", HEALTH + b"not HTTP\r\n\r\n", frozenset({200, 400})
    )


MODEL = "mnist-focus"


def json_bodies(seed: int, count: int, size: int = 200_000) -> list[tuple[str, bytes]]:
    """Return (name, body) pairs of hostile JSON, each of which must be rejected with 4xx.

    Args:
        seed: seed of the random bodies, which follow the known bodies.
        count: total number of bodies.
        size: size of the large bodies in bytes.
    """
    bodies = [*_wrong_values(), *_not_json(), *_large_bodies(size)]
    rng = random.Random(seed)
    while len(bodies) < count:
        bodies.append((f"random {len(bodies)}", _random_body(rng)))
    return bodies[:count]


def large_bodies(size: int) -> list[tuple[str, bytes]]:
    """Return (name, body) pairs of about `size` bytes that are costly to parse or validate."""
    return list(_large_bodies(size))


def _wrong_values() -> Iterator[tuple[str, bytes]]:
    junk = (None, True, -1, 0.5, "", "x", [], [[]], {}, {"a": {}}, [None], ["x", 1])
    for field in ("model", "method", "top", "fit", "show", "fraction", "keypoints", "scales"):
        for value in (None, {}, [{}], "\ud800"):
            body = {"model": MODEL, "image": "", field: value}
            yield f"{field} = {value!r}", json.dumps(body).encode()
    for field in ("image", "images"):
        for value in junk:
            yield f"{field} = {value!r}", json.dumps({"model": MODEL, field: value}).encode()
    for field, text in (
        ("top", "1e999"),
        ("top", "9" * 5_000),  # above the 4,300 digits that Python converts to an integer
        ("top", "9" * 4_000),
        ("fraction", "1e999"),
        ("fraction", "NaN"),
        ("fraction", "-Infinity"),
        ("fraction", "9" * 4_000),
        ("scales", "[1e999]"),
        ("scales", f"[{'9' * 4_000}]"),
        ("keypoints", "[[1e999, 0]]"),
        ("keypoints", f"[[{'9' * 400}, 0]]"),
        ("keypoints", "[[0, 0, 0]]"),
        ("keypoints", "[[NaN, 0]]"),
        ("keypoints", "[[" * 500 + "]]" * 500),
        ("image", '"data:image/png;base64"'),
        ("image", '"data:,%00"'),
        ("image", '"====="'),
        ("image", '"YQ"'),
        ("image", '"\\u00e9\\ud83d"'),
    ):
        yield (
            f"{field} = {text[:30]}",
            f'{{"model": "{MODEL}", "image": "", "{field}": {text}}}'.encode(),
        )


def _not_json() -> Iterator[tuple[str, bytes]]:
    body = json.dumps({"model": MODEL, "image": ""}).encode()
    yield from (
        ("nothing", b""),
        ("spaces", b" " * 1000),
        ("a number", b"1"),
        ("null", b"null"),
        ("a list", b"[]"),
        ("a string", b'"model"'),
        ("cut off", body[:-1]),
        ("trailing data", body + b"}"),
        ("a comment", b"/* */" + body),
        ("a trailing comma", body[:-1] + b",}"),
        ("single quotes", body.replace(b'"', b"'")),
        ("a byte order mark", b"\xef\xbb\xbf" + body),
        ("UTF-16", body.decode().encode("utf-16")),
        ("UTF-32", body.decode().encode("utf-32")),
        ("not UTF-8", b'{"model": "\xff\xfe", "image": ""}'),
        ("a NUL", b'{"model": "\0", "image": ""}'),
        ("a key twice", b'{"model": "mnist-focus", "model": "mnist-cnn", "image": ""}'),
        ("__proto__", b'{"__proto__": {}, "model": "mnist-focus", "image": ""}'),
        ("deep lists", b"[" * 100_000),
        ("deep objects", b'{"a":' * 100_000),
    )


def _large_bodies(size: int) -> Iterator[tuple[str, bytes]]:
    """Yield (name, body) pairs of about `size` bytes."""
    for field in ("images", "keypoints", "show", "scales"):
        for item in (b"0", b"{}", b"[]", b'""', b"[0,0]", b"1e9", b"[[[]]]"):
            items = b",".join([item] * (size // (len(item) + 1)))
            body = b'{"model":"mnist-focus","%b":[%b]}' % (field.encode(), items)
            yield f"{field} of many {item.decode()}", body
    keys = b",".join(b'"%x":0' % number for number in range(size // 10))
    yield "many unknown keys", b"{" + keys + b"}"
    yield "many unknown objects", b"{" + keys.replace(b":0", b":{}") + b"}"
    yield "one long key", b'{"' + b"k" * size + b'": 0}'
    yield "a long name", b'{"model": "' + b"m" * size + b'", "image": ""}'
    yield (
        "a name of control characters",
        b'{"model": "' + b"\\u001b" * (size // 6) + b'", "image": ""}',
    )
    yield (
        "a name of wide characters",
        b'{"model": "' + "\U0001f600".encode() * (size // 4) + b'", "image": ""}',
    )
    yield "a long number", b'{"model": "mnist-focus", "top": ' + b"9" * size + b"}"
    yield "a long fraction", b'{"model": "mnist-focus", "fraction": 0.' + b"9" * size + b"}"
    yield "a long image", b'{"model": "mnist-focus", "image": "' + b"A" * (size // 4 * 4) + b'"}'
    yield (
        "a long image that is not base64",
        b'{"model": "mnist-focus", "image": "' + b"=" * size + b'"}',
    )
    yield "spaces", b" " * size + b"{}"


def _random_body(rng: random.Random) -> bytes:
    fields = (
        "model",
        "method",
        "top",
        "fit",
        "show",
        "fraction",
        "keypoints",
        "scales",
        "images",
        "x",
    )
    body = {rng.choice(fields): _random_value(rng, 4) for _ in range(rng.randrange(1, 6))}
    body["image"] = rng.choice(["", "x", "AAAA", None])  # none of these is an image
    text = bytearray(json.dumps(body).encode())
    for _ in range(rng.randrange(4)):
        text[rng.randrange(len(text))] = rng.randrange(256)
    return bytes(text)


def _random_value(rng: random.Random, depth: int) -> object:
    """Return a random JSON value, nested at most `depth` times."""
    scalars = (
        None,
        True,
        0,
        -1,
        5,
        0.5,
        1e308,
        float("nan"),
        2**64,
        "",
        "maps",
        "\0",
        MODEL,
        "rise",
    )
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(scalars)
    items = [_random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    is_list = rng.random() < 0.6
    return items if is_list else {str(number): value for number, value in enumerate(items)}
