"""User errors, as one-line messages."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import TypeVar

Built = TypeVar("Built")


class UserError(ValueError):
    """An error that the caller can fix; the command line prints it without a traceback."""


def one_line(error: object, length: int = 200) -> str:
    """Return the message of an error in one line of at most `length` characters, or its type."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def unknown_name(what: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for an unknown `name`, with the nearest match among the `known` ones."""
    names = sorted(known)
    text = str(name)[:200]
    matches = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f" Did you mean {matches[0]!r}?" if matches else ""
    return UserError(f"Unknown {what} {text!r}.{hint} Known: {', '.join(names)}.")


def at_least_one(name: str, value: object) -> int:
    """Return the value of a named argument as an int, if it is an integer of at least 1.

    Raises:
        UserError: the value is not such an integer.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"Expected a {name} of at least 1, but got {value!r}.")
    return int(value)


def missing_extra(package: str, extra: str) -> UserError:
    """Return the error for an optional `package` that is not installed."""
    return UserError(f"This needs {package}: pip install 'foveal[{extra}]'.")


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Turn a failed import of an optional package into an error that names its extra.

    Args:
        package: package that is imported in the block, for the message.
        name: extra of Foveal that installs it.

    Raises:
        UserError: the package is not installed.
    """
    try:
        yield
    except ImportError:
        raise missing_extra(package, name) from None


def split_name(
    what: str, known: Mapping[str, object], settings: object
) -> tuple[str, dict[str, object]]:
    """Return the name and the arguments of `{"name": one of known, argument: value, ...}`.

    Raises:
        UserError: `settings` is not a mapping, or its name is unknown.
    """
    if not isinstance(settings, Mapping):
        raise UserError(
            f"Expected {what} settings as 'key: value' pairs, but got {settings!r:.100}."
        )
    name = settings.get("name")
    if not isinstance(name, str) or name not in known:
        raise unknown_name(what, name, known)
    return name, {key: value for key, value in settings.items() if key != "name"}


def build_by_name(what: str, known: Mapping[str, Callable[..., Built]], settings: object) -> Built:
    """Build an object from `settings`, `{"name": one of known, argument: value, ...}`.

    Raises:
        UserError: the name or an argument is unknown, missing or invalid.
    """
    name, arguments = split_name(what, known, settings)
    return build_named(f"{what} {name!r}", known[name], arguments)


def check_known(
    what: str, build: Callable[..., object], arguments: Mapping[str, object]
) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of `build`, if it accepts all `arguments`.

    Raises:
        UserError: an argument is unknown; the error names the nearest one.
    """
    parameters = inspect.signature(build).parameters
    for name in arguments:
        if name not in parameters:
            raise unknown_name(f"setting of {what}", name, parameters)
    return parameters


def check_arguments(
    what: str, build: Callable[..., object], arguments: Mapping[str, object]
) -> None:
    """Check that `build` accepts all `arguments` and requires no others.

    Raises:
        UserError: an argument is unknown (the error names the nearest one) or missing.
    """
    parameters = check_known(what, build, arguments)
    required = {
        name for name, parameter in parameters.items() if parameter.default is parameter.empty
    }
    missing = sorted(required - set(arguments))
    if missing:
        raise UserError(f"The {what} needs a setting for: {', '.join(missing)}.")


def build_named(what: str, build: Callable[..., Built], arguments: Mapping[str, object]) -> Built:
    """Return `build(**arguments)`.

    Raises:
        UserError: an argument is unknown, missing, or of an invalid type or value.
    """
    check_arguments(what, build, arguments)
    try:
        return build(**arguments)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        plain = (str, int, float, list, tuple, dict)  # other objects have no short repr
        values = ", ".join(
            f"{key}={value!r}" for key, value in arguments.items() if isinstance(value, plain)
        )
        message = f"The {what} cannot be built with {values[:300]}: {one_line(error)}"
        raise UserError(message) from error
