"""Import graph of the package, read from its syntax trees, and the layers that it must respect.

A part is a top-level package or module of Foveal, such as `models`.
"""

import ast
import graphlib
from collections.abc import Iterator, Mapping
from pathlib import Path

# From the bottom up; a part may import parts of lower layers and of its own layer.
LAYERS = (
    {"foundation"},
    {"images"},
    {"observation"},
    {"plotting"},
    {"explanation"},
    {"detectors", "backbones"},
    {"heads"},
    {"models"},
    {"metrics", "explainers", "zoo", "datasets"},
    {"training", "deployment"},
    {"evaluation"},
    {"workflows"},
    {"cli"},
    {"", "__main__"},  # "" is the package itself: `import foveal`
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

Graph = Mapping[str, set[str]]


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name below the package: `models.focus`, `models`, or "" for its root."""
    return (
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix("__init__").strip(".")
    )


def imported_modules(tree: ast.Module, module: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a syntax tree imports, at any depth."""
    package = (
        module
        if any(name.startswith(f"{module}.") for name in modules)
        else module.rpartition(".")[0]
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "foveal":
                    yield alias.name.removeprefix("foveal").strip(".")
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join(["foveal", *filter(None, parents), *filter(None, [source])])
            if source.split(".")[0] == "foveal":
                source = source.removeprefix("foveal").strip(".")
                for alias in node.names:
                    inner = f"{source}.{alias.name}".strip(".")
                    if inner != "__version__":  # a constant, defined before any import
                        yield inner if inner in modules else source


def edges(root: Path) -> dict[str, set[str]]:
    """Return the modules of the package that each module of the package at `root` imports."""
    paths = {module_name(path, root): path for path in root.rglob("*.py")}
    return {
        module: set(imported_modules(ast.parse(path.read_text(encoding="utf-8")), module, paths))
        for module, path in paths.items()
    }


def upward_imports(graph: Graph) -> list[str]:
    """Return each import that points to a higher layer, as text."""
    return [
        f"{module or 'foveal'} imports {other or 'foveal'}"
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if LEVEL[other.split(".")[0]] > LEVEL[module.split(".")[0]]
    ]


def find_cycle(graph: Graph) -> list[str] | None:
    """Return modules that form an import cycle, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def by_part(graph: Graph) -> dict[str, set[str]]:
    """Return the import graph of the parts, such as `models` for all of its modules."""
    parts: dict[str, set[str]] = {}
    for module, others in graph.items():
        part = module.split(".")[0]
        parts.setdefault(part, set()).update(other.split(".")[0] for other in others)
    return {part: others - {part} for part, others in parts.items()}
