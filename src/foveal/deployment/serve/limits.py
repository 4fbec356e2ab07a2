"""Limits on the requests of clients: sizes, numbers and times."""

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Limits on requests: each attribute is a maximum, and is the same for all clients.

    Attributes:
        body_bytes: bytes of a request body.
        held_bytes: bytes of all bodies that are being received or processed.
        decoded_bytes: bytes of all decoded images that wait for a model.
        pixels: number of pixels per image, checked in its header before it is decoded.
        images: number of images per request.
        waiting: number of images that wait for a model; more are refused with 429.
        slow_waiting: number of images that wait for a post-hoc method; more are refused with 429.
        requests: number of requests that are received or processed at a time; more are refused
            with 429.
        connections: number of connections that are open at a time; more are refused with 429.
        head_bytes: bytes of a request's head, which is the request line and the headers.
        head_seconds: time in which a client must send the head of a request.
        body_seconds: time in which a client must send a body.
        decode_seconds: time for decoding an image, after which the decoding process is killed.
        request_seconds: time from the headers of a request to the end of its response.
        side: maximum longer side in pixels for a model that accepts any size; larger images are
            shrunk to it.
        large_side: maximum longer side in pixels for a model that reads only parts of an image.
    """

    body_bytes: int = 10 * MEGABYTE
    held_bytes: int = 128 * MEGABYTE
    decoded_bytes: int = 256 * MEGABYTE
    pixels: int = 25_000_000
    images: int = 16
    waiting: int = 128
    slow_waiting: int = 8
    requests: int = 256
    connections: int = 1024
    head_bytes: int = 32_768
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    decode_seconds: float = 15.0
    request_seconds: float = 60.0
    side: int = 512
    large_side: int = 2048
