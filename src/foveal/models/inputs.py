"""The images that a model expects: their size, normalisation and classes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Self

from foveal.foundation.arguments import Length, Range, check_values
from foveal.foundation.errors import UserError, check_arguments
from foveal.foundation.ranges import Side
from foveal.images.sizing import ShortSide, Sizing


@dataclass(frozen=True)
class Inputs:
    """The images that a model expects.

    Attributes:
        size: height and width in pixels of the images that the model was trained on, or None if
            these were of any size.
        mean: value per channel (or one for all) that is subtracted from images in [0, 1]; empty
            for 0.
        std: value per channel (or one for all) by which the difference is divided; empty for 1.
        classes: a unique name for each class, in the order of the logits.
        ids: a second name for each class, such as its WordNet id, which data sets may use instead.
        short_side: length in pixels to which the shorter side of images of any aspect ratio is
            resized; `size` must then be None.

    Raises:
        UserError: a value is invalid.
    """

    size: tuple[Side, Side] | None = None
    mean: tuple[Annotated[float, Range(-1, 2)], ...] = ()
    std: tuple[Annotated[float, Range(0.001, 10)], ...] = ()
    classes: Annotated[tuple[str, ...], Length(0, 100_000)] = ()
    ids: Annotated[tuple[str, ...], Length(0, 100_000)] = ()
    short_side: Annotated[int, Range(32, 4096)] | None = None

    def __post_init__(self) -> None:
        # JSON and YAML have lists instead of tuples.
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        check_values(type(self), vars(self), prefix="inputs.")
        if len(self.ids) not in (0, len(self.classes)):
            raise UserError(
                f"Expected {len(self.classes)} values in inputs.ids, one per class, but got "
                f"{len(self.ids)}."
            )
        if self.size and self.short_side:
            raise UserError("Expected inputs.size or inputs.short_side, but got both.")

    @property
    def usual_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of a typical image; None if no size is typical."""
        return self.size if self.short_side is None else (self.short_side, self.short_side)

    @property
    def sizing(self) -> Sizing | None:
        """How images must be resized for the model; None if they are not resized."""
        return self.size if self.short_side is None else ShortSide(self.short_side)

    @classmethod
    def from_settings(cls, settings: object) -> Self:
        """Build inputs from their settings in `config.json` or a recipe.

        Raises:
            UserError: the settings are not a mapping, or have an unknown key or an invalid value.
        """
        if not isinstance(settings, Mapping):
            raise UserError(f"Expected inputs as 'key: value' pairs, but got {settings!r:.100}.")
        check_arguments("section 'inputs'", cls, settings)
        return cls(**settings)


def check_inputs(inputs: Inputs, in_channels: int, num_classes: int) -> None:
    """Check that inputs match the channels and the classes of a model.

    Raises:
        UserError: they do not match.
    """
    for field, values in (("mean", inputs.mean), ("std", inputs.std)):
        if len(values) not in (0, 1, in_channels):
            raise UserError(
                f"Expected {in_channels} numbers in inputs.{field}, one per channel, "
                f"but got {len(values)}."
            )
    if len(inputs.classes) not in (0, num_classes):
        raise UserError(
            f"Expected {num_classes} names in inputs.classes, one per class, "
            f"but got {len(inputs.classes)}."
        )
