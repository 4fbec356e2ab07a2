"""Errors for the user, whose messages are one line, and checks that raise them."""

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
    """Return the message of an error in one line of at most `length` characters.

    For an error without a message, return the name of its type.
    """
    return " ".join(str(error).split())[:length] or type(error).__name__


def unknown_name(
    what: str, name: object, known: Iterable[str], advice: str | None = None
) -> UserError:
    """Return the error for an unknown name, which suggests the nearest of the known names.

    Args:
        what: the kind of thing that the name should denote, such as `model`.
        name: the unknown name.
        known: all valid names.
        advice: what the user can give, instead of a list of the known names.
    """
    text = str(name)[:200]
    return UserError(f"Unknown {what} {text!r}.{_suggestion(text, known, advice)}")


def unknown_setting(
    owner: str, name: object, known: Iterable[str], noun: str = "setting"
) -> UserError:
    """Return the error for an unknown setting, which suggests the nearest of the known settings.

    Args:
        owner: what the setting was given for, such as `model 'focus'`.
        name: the unknown setting.
        known: all valid settings.
        noun: the word for a setting in the message, such as `key`.
    """
    text = str(name)[:200]
    subject = owner[:1].upper() + owner[1:]
    return UserError(f"{subject} has no {noun} {text!r}.{_suggestion(text, known)}")


def _suggestion(text: str, known: Iterable[str], advice: str | None = None) -> str:
    """Return the end of an error for an unknown name: the nearest known name, and all or advice."""
    names = sorted(known)
    matches = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
    hint = f" Did you mean {matches[0]!r}?" if matches else ""
    return f"{hint} {advice or 'Known: ' + ', '.join(names) + '.'}"


def at_least_one(name: str, value: object) -> int:
    """Return the value of the argument `name` as an int, if it is an integer of at least 1.

    Raises:
        UserError: the value is not such an integer.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"Expected a {name} of at least 1, but got {value!r}.")
    return int(value)


def missing_extra(package: str, extra: str) -> UserError:
    """Return the error for an optional package that is not installed.

    Args:
        package: the package that is missing.
        extra: the extra of Foveal that installs the package.
    """
    return UserError(f"This needs {package}: pip install 'foveal[{extra}]'.")


@contextmanager
def extra(package: str, name: str) -> Iterator[None]:
    """Turn a failed import of an optional package into an error that names its extra.

    Args:
        package: the package that is imported in the block, for the message.
        name: the extra of Foveal that installs the package.

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
    """Return the name and the arguments in `{"name": name, argument: value, ...}`.

    Args:
        what: the kind of thing that the settings describe, such as `model`, for errors.
        known: a mapping whose keys are the valid names.
        settings: the name and the arguments.

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
    """Build an object from settings of the form `{"name": name, argument: value, ...}`.

    Args:
        what: the kind of the object, such as `detector`, for errors.
        known: functions or classes that build an object, by name.
        settings: the name of one of them, and its arguments.

    Raises:
        UserError: the name or an argument is unknown, missing or invalid.
    """
    name, arguments = split_name(what, known, settings)
    return build_checked(f"{what} {name!r}", known[name], arguments)


def check_known(
    what: str, build: Callable[..., object], arguments: Mapping[str, object]
) -> Mapping[str, inspect.Parameter]:
    """Return the parameters of `build` by name, if it accepts all `arguments`.

    Args:
        what: what `build` builds, such as `model 'focus'`, for errors.
        build: a function or class.
        arguments: keyword arguments; required ones may be missing.

    Raises:
        UserError: an argument is unknown; the error suggests the nearest one.
    """
    parameters = inspect.signature(build).parameters
    for name in arguments:
        if name not in parameters:
            raise unknown_setting(what, name, parameters)
    return parameters


def check_arguments(
    what: str, build: Callable[..., object], arguments: Mapping[str, object]
) -> None:
    """Check that `build` accepts all `arguments` and requires no others.

    Args:
        what: what `build` builds, such as `model 'focus'`, for errors.
        build: a function or class.
        arguments: keyword arguments.

    Raises:
        UserError: an argument is unknown (the error suggests the nearest one) or missing.
    """
    parameters = check_known(what, build, arguments)
    required = {
        name for name, parameter in parameters.items() if parameter.default is parameter.empty
    }
    missing = sorted(required - set(arguments))
    if missing:
        raise UserError(f"The {what} needs a setting for: {', '.join(missing)}.")


def build_checked(what: str, build: Callable[..., Built], arguments: Mapping[str, object]) -> Built:
    """Return `build(**arguments)`, with errors as `UserError`.

    Args:
        what: what `build` builds, such as `model 'focus'`, for errors.
        build: a function or class.
        arguments: keyword arguments.

    Raises:
        UserError: an argument is unknown, missing, or of an invalid type or value.
    """
    check_arguments(what, build, arguments)
    try:
        return build(**arguments)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        plain_types = (str, int, float, list, tuple, dict)  # other objects have no short repr
        values = ", ".join(
            f"{key}={value!r}" for key, value in arguments.items() if isinstance(value, plain_types)
        )
        message = f"The {what} cannot be built with {values[:300]}: {one_line(error)}"
        raise UserError(message) from error
