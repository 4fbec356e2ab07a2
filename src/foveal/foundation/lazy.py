"""Lazy imports: names of a package that are imported when first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Return a package's `__getattr__`, which imports a name from its module and keeps it.

    The package also lists the names in `__all__`, and imports them under `TYPE_CHECKING` for type
    checkers. A name must differ from those of the package's other modules: importing such a
    module would overwrite the name.

    Args:
        package: `__name__` of the package.
        modules: for each name, the module that defines it. If the name is itself that of a
            submodule, the submodule.
    """

    def import_name(name: str) -> object:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(modules[name])
        value = module if module.__name__.endswith(f".{name}") else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return import_name
