"""Schemas of requests: a model, images, and how to explain them."""

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foveal.deployment.serve.limits import Limits
from foveal.deployment.serve.refusal import Refused
from foveal.deployment.serve.upload import Form
from foveal.foundation.errors import UserError
from foveal.foundation.files import parse_json

MAX_VALUES = 10_000  # values per JSON text, keys included
_BEFORE_VALUE = (b",", b":", b"[", b"{")  # one of these precedes each JSON value but the first

Show = Literal["maps", "pictures", "evidence"]
Keypoint = tuple[float, float]
Schema = TypeVar("Schema", bound=BaseModel)


class ExplainOptions(BaseModel):
    """Options of a request, in a form or in JSON."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Name of a model, see GET /v1/models.")
    method: str = Field(
        "model",
        description="`model` for its own explanation, or one of the model's `methods`. Models "
        "that see the whole image have no explanation of their own; `contributions`, if among the "
        "methods, are exact.",
    )
    top: int = Field(5, ge=1, le=1000, description="Number of classes in `probabilities`.")
    fit: Literal["stretch", "crop"] = Field(
        "stretch",
        description="How an image is fitted to the model's size: stretched, as in "
        "`foveal explain`, or cropped at the centre first.",
    )
    show: list[Show] = Field(
        [],
        description="Further parts of the response: `maps` as numbers with the meaning of their "
        "`values`, `pictures` as PNG data URLs, `evidence` for the predictions from the evidence "
        "alone and from everything but the evidence.",
    )
    fraction: float = Field(
        0.2, gt=0, le=1, description="Fraction of the pixels that count as evidence of a map."
    )
    keypoints: list[Keypoint] | None = Field(
        None, description="Keypoints for a focus model, each x and y in [-1, 1], in its order."
    )
    scales: list[Annotated[float, Field(gt=0, le=1000)]] | None = Field(
        None, description="Scales of the patches at `keypoints`, in pixels per sample."
    )

    @field_validator("keypoints")
    @classmethod
    def _within_range(cls, keypoints: list[Keypoint] | None) -> list[Keypoint] | None:
        for x, y in keypoints or []:
            if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) <= 1):
                raise ValueError("each x and y must be from -1 to 1")
        return keypoints


class ExplainJson(ExplainOptions):
    """A request as one JSON object."""

    image: str | None = Field(None, description="An image file as base64 or as a data URL.")
    images: list[str] | None = Field(None, description="Several images, each like `image`.")


@dataclass(frozen=True)
class ExplainRequest:
    """A validated request.

    Attributes:
        options: model, method and further options.
        files: name and content of each image file.
    """

    options: ExplainOptions
    files: list[tuple[str, bytes]]


def from_form(form: Form, limits: Limits) -> ExplainRequest:
    """Return the request in a multipart form.

    Raises:
        Refused: a value is missing, unknown, invalid, or over a limit.
    """
    values: dict[str, object] = dict(form.values)
    if "show" in form.values:
        values["show"] = [part.strip() for part in form.values["show"].split(",") if part.strip()]
    for name in ("keypoints", "scales"):
        if name in form.values:
            values[name] = _parse_json(form.values[name].encode(), name)
    options = _validate(ExplainOptions, values)
    _check_count(len(form.files), limits)
    return ExplainRequest(options, form.files)


def from_json(body: bytes, limits: Limits) -> ExplainRequest:
    """Return the request in a JSON object.

    Raises:
        Refused: a value is missing, unknown, invalid, or over a limit, or an image is not base64.
    """
    options = _validate(ExplainJson, _parse_json(body, "the body"))
    texts = [*([options.image] if options.image is not None else []), *(options.images or [])]
    _check_count(len(texts), limits)
    names = [f"image {number}" for number in range(1, len(texts) + 1)]
    files = [(name, _decode_base64(text, name)) for name, text in zip(names, texts, strict=True)]
    # The base64 texts are dropped to save memory while the request waits.
    return ExplainRequest(options.model_copy(update={"image": None, "images": None}), files)


def _check_count(image_count: int, limits: Limits) -> None:
    if not image_count:
        raise Refused(422, "Expected an image, but got none: send it as a file named `image`.")
    if image_count > limits.images:
        raise Refused(413, f"Expected at most {limits.images} images, but got {image_count}.")


def _parse_json(text: bytes, name: str) -> object:
    # Counted before parsing, because millions of values take gigabytes and many seconds.
    if sum(map(text.count, _BEFORE_VALUE)) > MAX_VALUES:
        raise Refused(422, f"Expected at most {MAX_VALUES:,} values in {name}.")
    try:
        return parse_json(text)
    except UserError as error:
        raise Refused(422, f"Expected {name} as JSON, but it is {error}.") from None


def _decode_base64(text: str, name: str) -> bytes:
    if text.startswith("data:"):
        _, _, text = text.partition(",")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, f"{name}: not base64.") from None


def _validate(schema: type[Schema], values: object) -> Schema:
    """Return values as an instance of a schema.

    Raises:
        Refused: a value is invalid; the first such value is reported.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        details, *_ = error.errors(include_url=False, include_input=False)
        field = ".".join(str(part)[:40] for part in details["loc"]) or "the body"
        raise Refused(422, f"{field}: {details['msg']}.") from None
