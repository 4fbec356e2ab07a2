"""The base class of model parts: checks constructor arguments and keeps them as attributes."""

from abc import ABC

from torch import nn

from foveal.foundation.arguments import check_constructor, constructor_settings


class Part(nn.Module, ABC):
    """A part of a model, such as a detector, which is rebuilt from its settings.

    A subclass keeps each argument as an attribute of the same name, which `settings` returns.
    Arguments are checked by their annotations (`foveal.foundation.ranges`).
    """

    def __init_subclass__(cls, **options: object) -> None:
        check_constructor(cls)
        super().__init_subclass__(**options)

    def settings(self) -> dict[str, object]:
        """Return the arguments that rebuild this part."""
        return constructor_settings(self)
