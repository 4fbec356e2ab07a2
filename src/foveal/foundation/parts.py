"""The base class of model parts: it checks constructor arguments and returns them as settings."""

from abc import ABC

from torch import nn

from foveal.foundation.arguments import check_constructor, constructor_settings


class Part(nn.Module, ABC):
    """A part of a model, such as a detector, which is rebuilt from its settings.

    The constructor of a subclass must keep each argument as an attribute of the same name, from
    which `settings` returns it. Arguments are checked on each call by their annotations, such as
    those in `foveal.foundation.ranges`.
    """

    def __init_subclass__(cls, **options: object) -> None:
        check_constructor(cls)
        super().__init_subclass__(**options)

    def settings(self) -> dict[str, object]:
        """Return the arguments that rebuild this part."""
        return constructor_settings(self)
