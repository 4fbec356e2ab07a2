"""Checks of arguments against their annotations, which declare types, ranges and choices."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_protocol

from foveal.foundation.errors import UserError, unknown_name

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """The range of a number.

    Attributes:
        low: the minimum.
        high: the maximum.
        above: whether `low` itself is excluded.
        below: whether `high` itself is excluded.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __call__(self, name: str, value: float) -> None:
        """Raise UserError unless the value is in the range."""
        high_enough = value > self.low if self.above else value >= self.low
        low_enough = value < self.high if self.below else value <= self.high
        if not (high_enough and low_enough):
            raise UserError(f"Expected {name} {self}, but got {short_repr(value)}.")

    def __str__(self) -> str:
        if not (self.above or self.below):
            return f"from {self.low} to {self.high}"
        low = f"above {self.low}" if self.above else f"of at least {self.low}"
        return f"{low} and {'below' if self.below else 'at most'} {self.high}"


@dataclass(frozen=True)
class Length:
    """The allowed number of values in a list: from `low` to `high`."""

    low: int
    high: int

    def __call__(self, name: str, value: Sized) -> None:
        """Raise UserError unless the length of the list is in the range."""
        if not self.low <= len(value) <= self.high:
            raise UserError(
                f"Expected from {self.low} to {self.high} values in {name}, but got {len(value)}."
            )


@dataclass(frozen=True)
class OneOf:
    """The names or numbers that are allowed as a value."""

    choices: tuple[str, ...] | tuple[int, ...]

    def __call__(self, name: str, value: object) -> None:
        """Raise UserError, with the nearest name, unless the value is one of the choices."""
        if value in self.choices:
            return
        choices = [str(choice) for choice in self.choices]
        if isinstance(value, str):
            raise unknown_name(name, value, choices)
        raise UserError(
            f"Expected {name} to be {' or '.join(choices)}, but got {short_repr(value)}."
        )


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function or constructor so that each call checks its arguments by annotations.

    Example:
        >>> @checked
        ... def half(side: Annotated[int, Range(2, 64)]) -> int:
        ...     return side // 2
        >>> half(1)
        Traceback (most recent call last):
        foveal.foundation.errors.UserError: Expected side from 2 to 64, but got 1.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: P.args, **keywords: P.kwargs) -> R:
        bound = signature.bind(*arguments, **keywords).arguments
        check_values(function, bound)
        return function(*arguments, **keywords)

    return call


def check_constructor(kind: type[Any]) -> None:
    """Make the constructor that a class defines, if any, check its arguments on each call."""
    if "__init__" in vars(kind):
        kind.__init__ = checked(kind.__init__)


def check_values(
    function: Callable[..., object], values: Mapping[str, object], prefix: str = ""
) -> None:
    """Check values by the annotations of a function, constructor or dataclass.

    Args:
        function: annotated callable.
        values: values by the name of the argument or field. Those whose name has no annotation are
            not checked.
        prefix: text before each name in an error, such as `training.`.

    Raises:
        UserError: a value violates its type, range or choices.
    """
    hints = annotations(function)
    for name, value in values.items():
        if name in hints:
            check(prefix + name, hints[name], value)


@functools.cache
def annotations(function: Callable[..., object]) -> dict[str, object]:
    """Return the annotations of a function, constructor or dataclass, including ranges.

    They are empty, so that nothing is checked, if one of them is a type that is imported only for
    the type checker.
    """
    if inspect.isclass(function) and "__init__" in vars(function):
        function = function.__init__
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        return {}


def check(name: str, hint: object, value: object) -> None:
    """Check one value by its annotation.

    A value of a union must be None, if the union includes it, or of the union's first type. Other
    annotations, such as protocols and mappings, are not checked.

    Raises:
        UserError: the value violates the type, range or choices.
    """
    origin, type_arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        check(name, type_arguments[0], value)
        for rule in type_arguments[1:]:
            rule(name, value)
    elif origin in (Union, UnionType):
        if value is not None or NoneType not in type_arguments:
            check(name, type_arguments[0], value)
    elif origin in (list, tuple, Sequence):
        _check_list(name, origin, type_arguments, value)
    elif isinstance(hint, type) and not is_protocol(hint):
        _check_type(name, hint, value)


def _check_list(
    name: str, origin: object, type_arguments: tuple[object, ...], value: object
) -> None:
    """Check a list, and each of its items, by the arguments of its type, such as `list[int]`.

    Args:
        name: name of the list, for errors.
        origin: `list`, `tuple` or `Sequence`; any of them accepts any sequence.
        type_arguments: one type for all items, or one type per item of a tuple of fixed length.
        value: the list.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise UserError(f"Expected {name} to be a list, but got {short_repr(value)}.")
    has_fixed_length = origin is tuple and type_arguments[-1] is not Ellipsis
    if has_fixed_length and len(value) != len(type_arguments):
        raise UserError(
            f"Expected {len(type_arguments)} values in {name}, but got {short_repr(value)}."
        )
    hints = type_arguments if has_fixed_length else type_arguments[:1] * len(value)
    for index, (hint, item) in enumerate(zip(hints, value, strict=True)):
        check(f"{name}[{index}]", hint, item)


def _check_type(name: str, kind: type, value: Any) -> None:
    """Check the type of a value; a bool is not a number, and a float may be any real number."""
    if kind is int:
        valid = isinstance(value, Integral) and not isinstance(value, bool)
    elif kind is float:
        valid = isinstance(value, Real) and not isinstance(value, bool)
        valid = valid and abs(value) <= sys.float_info.max  # False for NaN
    else:
        valid = isinstance(value, kind)
    if not valid:
        expected = _TYPE_NAMES.get(kind, f"a {kind.__name__}")
        raise UserError(f"Expected {name} to be {expected}, but got {short_repr(value)}.")


_TYPE_NAMES = {int: "an integer", float: "a finite number", bool: "true or false", str: "text"}


def constructor_settings(part: object) -> dict[str, Any]:
    """Return the constructor arguments of a model part, read from its attributes of the same names.

    Raises:
        UserError: an argument is not an attribute.
    """
    names = [name for name in inspect.signature(type(part).__init__).parameters if name != "self"]
    for name in names:
        if getattr(part, name, inspect.Parameter.empty) is inspect.Parameter.empty:
            raise UserError(
                f"Expected {type(part).__name__} to keep its argument {name!r} as an attribute of "
                "the same name, from which it is saved and rebuilt."
            )
    return {name: getattr(part, name) for name in names}


def check_agreement(part: str, settings: Mapping[str, object], **expected: object) -> None:
    """Check that a part agrees with its model, for settings such as `in_channels`.

    Args:
        part: kind of the part, such as `head`, for the error.
        settings: settings of the part.
        **expected: the model's values by setting; a setting that the part lacks is not checked.

    Raises:
        UserError: a value differs.
    """
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise UserError(
                f"Expected {name} of the {part} to be {value}, as in the model, but got "
                f"{settings[name]}."
            )


def short_repr(value: object) -> str:
    """Return the representation of a value for errors, truncated to 100 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # too many digits, or nested too deeply
        text = f"a value of type {type(value).__name__}"
    return f"{text[:100]}…" if len(text) > 100 else text
