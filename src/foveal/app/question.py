"""What a client asks: a model, images, and how to explain them."""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from foveal.app.limits import Limits
from foveal.app.refusal import Refused
from foveal.app.upload import Form

Show = Literal["maps", "pictures", "evidence"]
Place = tuple[float, float]
Checked = TypeVar("Checked", bound=BaseModel)


class Asked(BaseModel):
    """What goes with the images, in a form or in JSON."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="A name of GET /v1/models.")
    method: str = Field(
        "model",
        description="`model` for its own explanation, or one of the model's `methods`.",
    )
    top: int = Field(5, ge=1, le=1000, description="Classes in `probabilities`.")
    fit: Literal["stretch", "crop"] = Field(
        "stretch",
        description="What becomes of an image whose size is not the model's: squeezed, as "
        "`foveal explain` does, or its middle cut out first.",
    )
    show: list[Show] = Field(
        [],
        description="More in the answer: `maps` as numbers, `pictures` as PNG data URLs, "
        "`evidence` for the answers to the evidence alone and to all but the evidence.",
    )
    share: float = Field(
        0.2, gt=0, le=1, description="Of the pixels, that count as evidence of a map."
    )
    keypoints: list[Place] | None = Field(
        None, description="Where a focus model must look, each x and y in [-1, 1], in its order."
    )
    scales: list[Annotated[float, Field(gt=0, le=1000)]] | None = Field(
        None, description="Of the patches at `keypoints`, in pixels from one sample to the next."
    )

    @field_validator("keypoints")
    @classmethod
    def _inside(cls, places: list[Place] | None) -> list[Place] | None:
        for x, y in places or []:
            if not (math.isfinite(x) and math.isfinite(y) and max(abs(x), abs(y)) <= 1):
                raise ValueError("each x and y must be from -1 to 1")
        return places


class AskedInJson(Asked):
    """All of it in one JSON object."""

    image: str | None = Field(None, description="Base64 of a file, or a data URL of it.")
    images: list[str] | None = Field(None, description="Several, each as `image`.")


@dataclass(frozen=True)
class Question:
    """One request, checked.

    Attributes:
        asked: model, method and the rest.
        files: name and bytes of each image.
    """

    asked: Asked
    files: list[tuple[str, bytes]]


def from_form(form: Form, limits: Limits) -> Question:
    """Return the question that a multipart form asks.

    Raises:
        Refused: something is missing, unknown, or too much.
    """
    values: dict[str, Any] = dict(form.values)
    if "show" in values:
        values["show"] = [part.strip() for part in values["show"].split(",") if part.strip()]
    for name in ("keypoints", "scales"):
        if name in values:
            values[name] = _json(values[name].encode(), name)
    return _question(_checked(Asked, values), form.files, limits)


def from_json(body: bytes, limits: Limits) -> Question:
    """Return the question that a JSON object asks.

    Raises:
        Refused: something is missing, unknown, not base64, or too much.
    """
    asked = _checked(AskedInJson, _json(body, "the body"))
    given = [*([asked.image] if asked.image is not None else []), *(asked.images or [])]
    names = [f"image {number}" for number in range(1, len(given) + 1)]
    files = [(name, _bytes(text, name)) for name, text in zip(names, given, strict=True)]
    return _question(asked, files, limits)


def _question(asked: Asked, files: list[tuple[str, bytes]], limits: Limits) -> Question:
    if not files:
        raise Refused(422, "There is no image: send it as a file named `image`.")
    if len(files) > limits.images:
        raise Refused(413, f"Expected at most {limits.images} images, but got {len(files)}.")
    return Question(asked, files)


def _json(text: bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(422, f"Expected {what} as JSON, but it is none.") from None


def _bytes(text: str, name: str) -> bytes:
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, f"{name}: not base64.") from None


def _checked(kind: type[Checked], values: Any) -> Checked:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise Refused(422, f"{place}: {first['msg']}.") from None
