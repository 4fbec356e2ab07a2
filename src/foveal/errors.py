"""The errors a user can make, said in one line."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, TypeVar

Built = TypeVar("Built")


class UserError(ValueError):
    """Something the caller can put right; the command line prints it without a traceback."""


def unknown_name(what: str, name: object, known: Iterable[str]) -> UserError:
    """Return the error for a `name` that is not among the `known` ones, with the nearest match."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return UserError(f"Unknown {what} {str(name)!r}.{hint} Known: {', '.join(names)}.")


def at_least_one(name: str, value: object) -> int:
    """Return the value of a named argument, an integer from 1 of any kind, as an int.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"Expected a {name} of at least 1, but got {value!r}.")
    return int(value)


def missing_extra(package: str, extra: str) -> UserError:
    """Return the error for an optional `package` that is not installed."""
    return UserError(f"This needs {package}: pip install 'foveal[{extra}]'.")


def check_named(
    what: str, known: Mapping[str, Callable[..., Any]], settings: object
) -> dict[str, Any]:
    """Return a copy of `settings`, `{"name": one of known, argument: value, ...}`, once checked.

    Raises:
        UserError: `settings` are no mapping, or their name or an argument is not known or missing.
    """
    if not isinstance(settings, Mapping):
        raise UserError(f"Expected {what} settings as 'key: value' pairs, but got {settings!r}.")
    name = settings.get("name")
    if not isinstance(name, str) or name not in known:
        raise unknown_name(what, name, known)
    arguments = {key: value for key, value in settings.items() if key != "name"}
    check_arguments(f"{what} {name!r}", known[name], arguments)
    return {"name": name, **arguments}


def build_by_name(what: str, known: Mapping[str, Callable[..., Built]], settings: object) -> Built:
    """Return what `settings`, `{"name": one of known, argument: value, ...}`, describe.

    Raises:
        UserError: the name or an argument is not known, missing or of no use.
    """
    arguments = check_named(what, known, settings)
    name = arguments.pop("name")
    return build_named(f"{what} {name!r}", known[name], arguments)


def check_arguments(what: str, build: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Check that `build(**arguments)` names only what it takes and all that it needs.

    Raises:
        UserError: an argument is not known (the nearest one is named) or missing.
    """
    takes = dict(inspect.signature(build).parameters)
    for name in arguments:
        if name not in takes:
            raise unknown_name(f"setting of {what}", name, takes)
    needed = {name for name, taken in takes.items() if taken.default is taken.empty}
    missing = sorted(needed - set(arguments))
    if missing:
        raise UserError(f"The {what} needs a setting for: {', '.join(missing)}.")


def build_named(what: str, build: Callable[..., Built], arguments: Mapping[str, Any]) -> Built:
    """Return `build(**arguments)`.

    Raises:
        UserError: an argument is of a kind or size with which it cannot be built.
    """
    try:
        return build(**arguments)
    except UserError:
        raise
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        plain = (str, int, float, list, tuple, dict)  # what is built already says little in a line
        given = ", ".join(
            f"{key}={value!r}" for key, value in arguments.items() if isinstance(value, plain)
        )
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"The {what} cannot be built with {given[:300]}: {reason}") from error
