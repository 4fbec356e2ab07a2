"""The architecture: imports point downwards, and never in a circle."""

import ast
import graphlib
from pathlib import Path

import pytest

import foveal

ROOT = Path(foveal.__file__).parent

# From the bottom up; a part may import those of lower layers, and its neighbours in its own.
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


def module_name(path, root):
    """Return the dotted name below the package: `models.focus`, `models`, or "" for its root."""
    return (
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix("__init__").strip(".")
    )


def imported(tree, module, modules):
    """Yield the modules of the package that a syntax tree imports, at any depth."""
    package = (
        module if any(m.startswith(f"{module}.") for m in modules) else module.rpartition(".")[0]
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "foveal":
                    yield alias.name.removeprefix("foveal").strip(".")
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join(["foveal", *filter(None, above), *filter(None, [source])])
            if source.split(".")[0] == "foveal":
                source = source.removeprefix("foveal").strip(".")
                for alias in node.names:
                    inner = f"{source}.{alias.name}".strip(".")
                    if inner != "__version__":  # a constant, there before anything is imported
                        yield inner if inner in modules else source


def edges(root):
    """Return what each module of the package at `root` imports from the package."""
    paths = {module_name(path, root): path for path in root.rglob("*.py")}
    return {
        module: set(imported(ast.parse(path.read_text(encoding="utf-8")), module, paths))
        for module, path in paths.items()
    }


def upward(graph):
    """Return each import that points to a higher layer, as text."""
    return [
        f"{module or 'foveal'} imports {other or 'foveal'}"
        for module, others in sorted(graph.items())
        for other in sorted(others)
        if LEVEL[other.split(".")[0]] > LEVEL[module.split(".")[0]]
    ]


def circle(graph):
    """Return modules that import each other in a circle, or None."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def by_part(graph):
    """Return the graph of the parts: `models` stands for all of its modules."""
    parts = {}
    for module, others in graph.items():
        part = module.split(".")[0]
        parts.setdefault(part, set()).update(o.split(".")[0] for o in others)
    return {part: others - {part} for part, others in parts.items()}


def test_every_part_of_the_package_has_a_layer():
    parts = {module.split(".")[0] for module in edges(ROOT)}
    assert parts - set(LEVEL) == set(), "name its layer in LAYERS"


def test_imports_point_downwards_only():
    assert upward(edges(ROOT)) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circle(edges(ROOT)) is None


def test_no_parts_import_each_other_in_a_circle():
    assert circle(by_part(edges(ROOT))) is None


@pytest.mark.parametrize(
    "line",
    [
        "from foveal.models.focus import FocusNet",
        "from foveal.models import focus",
        "from foveal import models",
        "import foveal.models",
        "from ..models import focus",
        "from foveal import FocusNet",
        "def late():\n    from foveal.models import focus",
    ],
)
def test_an_upward_import_is_seen(tmp_path, line):
    for folder in ("models", "detectors"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "models" / "focus.py").write_text("from foveal.detectors import heatmap\n")
    (tmp_path / "detectors" / "heatmap.py").write_text("import torch\n")
    assert upward(edges(tmp_path)) == []
    assert circle(by_part(edges(tmp_path))) is None
    (tmp_path / "detectors" / "heatmap.py").write_text(line)
    assert len(upward(edges(tmp_path))) == 1


def test_a_circle_is_seen(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("from foveal.datasets.folder import read\n")
    (tmp_path / "datasets" / "folder.py").write_text("from foveal.zoo import load\n")
    (tmp_path / "zoo.py").write_text("def f():\n    from foveal.datasets import names\n")
    assert upward(edges(tmp_path)) == []
    assert set(circle(edges(tmp_path))) == {"datasets", "datasets.folder", "zoo"}
    assert set(circle(by_part(edges(tmp_path)))) == {"datasets", "zoo"}
