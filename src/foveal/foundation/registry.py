"""Registries: parts by name, from Foveal and from installed packages.

A part is whatever a registry holds, such as a class of detectors, a metric or a function.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from functools import cache
from importlib.metadata import EntryPoint, distributions
from typing import Any, Generic, Protocol, TypeVar

from foveal.foundation.errors import UserError, build_by_name, one_line

Part = TypeVar("Part")


class Named(Protocol):
    """An object with a name, such as a metric."""

    @property
    def name(self) -> str:
        """Its name in a registry."""


NamedPart = TypeVar("NamedPart", bound=Named)


class Registry(MutableMapping[str, Part], Generic[Part]):
    """A mapping from names to parts, such as detectors.

    An installed package adds a part by an entry point in the registry's group. A process imports
    the part only when its name is first looked up. Foveal's own parts take precedence over those of
    the same name in other packages.

    Args:
        group: group of the entry points, such as `foveal.detectors`.
        builtin: Foveal's parts by name.

    Example:
        >>> registry = Registry("foveal.examples", {"one": 1})
        >>> registry["two"] = 2
        >>> sorted(registry)
        ['one', 'two']
    """

    def __init__(self, group: str, builtin: Mapping[str, Part]):
        self.group = group
        self._known = dict(builtin)  # Foveal's parts, and those that have been imported

    def __getitem__(self, name: str) -> Part:
        """Return a part; if another package provides it, the part is imported first.

        Raises:
            KeyError: there is no part with that name.
            UserError: the package that provides it cannot be imported.
        """
        if name not in self._known:
            self._known[name] = self._import(self._entry_points()[name])
        return self._known[name]

    def __setitem__(self, name: str, part: Part) -> None:
        self._known[name] = part

    def __delitem__(self, name: str) -> None:
        del self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._entry_points()

    def __iter__(self) -> Iterator[str]:
        yield from self._known
        yield from (name for name in self._entry_points() if name not in self._known)

    def __len__(self) -> int:
        return len({*self._known, *self._entry_points()})

    def name_of(self, part: object) -> str | None:
        """Return the name of a part that Foveal provides or that has been imported, else None."""
        return next((name for name, known in self._known.items() if known is part), None)

    def _entry_points(self) -> Mapping[str, EntryPoint]:
        return _all_entry_points().get(self.group, {})

    def _import(self, point: EntryPoint) -> Part:
        try:
            part: Part = point.load()
        except Exception as error:  # another package may raise anything
            package = point.dist.name if point.dist else point.module
            raise UserError(
                f"The package {package} cannot be imported for {point.name!r}: {one_line(error)}"
            ) from error
        return part


class PartRegistry(Registry[type[Part]]):
    """A registry of classes of model parts, such as detectors, which are built from settings.

    Settings are `{"name": ..., argument: value, ...}`, as in config.json and recipes. A custom part
    that is not in the registry is saved under the name of its class; add the class to the registry
    under that name before loading the model.

    Args:
        what: the kind of part, such as `detector`.
        builtin: Foveal's classes by name. Each has a method `settings` that returns its arguments.
        inner: for each argument that is itself a part, such as `backbone`, the registry of such
            parts.
    """

    def __init__(
        self,
        what: str,
        builtin: Mapping[str, type[Part]],
        inner: "Mapping[str, PartRegistry[Any]] | None" = None,
    ):
        super().__init__(f"foveal.{what}s", builtin)
        self.what, self.inner = what, dict(inner or {})

    def build(self, settings: object) -> Part:
        """Build a part from its settings.

        Raises:
            UserError: the name or an argument is unknown, missing or invalid.
        """
        if isinstance(settings, Mapping):
            built = {
                name: registry.build(settings[name])
                for name, registry in self.inner.items()
                if isinstance(settings.get(name), Mapping)
            }
            settings = {**settings, **built}
        return build_by_name(self.what, self, settings)

    def settings_of(self, part: Any) -> dict[str, Any]:
        """Return the settings from which `build` rebuilds a part."""
        kind = type(part)
        settings = dict(part.settings())
        settings |= {
            name: registry.settings_of(settings[name])
            for name, registry in self.inner.items()
            if name in settings
        }
        return {"name": self.name_of(kind) or kind.__name__, **settings}


def by_name(*parts: NamedPart) -> dict[str, NamedPart]:
    """Return a mapping from the name of each part to the part, in the given order."""
    return {part.name: part for part in parts}


@cache
def _all_entry_points() -> Mapping[str, Mapping[str, EntryPoint]]:
    """Return the entry points of installed packages in Foveal's groups, by group and name.

    If several packages use the same name in a group, the first package that is found provides it.
    """
    by_group: dict[str, dict[str, EntryPoint]] = {}
    for package in distributions():
        for point in package.entry_points:
            if point.group.startswith("foveal."):
                by_group.setdefault(point.group, {}).setdefault(point.name, point)
    return by_group
