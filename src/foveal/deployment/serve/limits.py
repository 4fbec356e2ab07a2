"""What a client may ask of the server, and how long it may take."""

from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Bounds that hold for every client.

    Attributes:
        body_bytes: of one request's body.
        held_bytes: of all bodies that are being received or worked on.
        decoded_bytes: of all decoded images that wait for a model.
        pixels: of one image, told by its header before it is decoded.
        images: in one request.
        waiting: requests that wait for a model; more are refused with 429.
        slow_waiting: requests that wait for a post-hoc method; more are refused with 429.
        requests: that are worked on or received at a time; more are refused with 429.
        connections: that are open at a time; more are refused with 429.
        head_bytes: of a request's line and headers.
        head_seconds: that a client may take to send these.
        body_seconds: that a client may take to send a body.
        decode_seconds: that decoding may take, before its process is ended.
        request_seconds: from a request's headers to the end of its answer.
        side: pixels along the longer side of an image for a model that takes any size; a larger
            one is made smaller.
        large_side: the same for a model that reads large images in part.
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
