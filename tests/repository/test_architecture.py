"""The architecture: modules import only from their own layer or lower ones, without cycles."""

from pathlib import Path

import pytest
from package_imports import LEVEL, by_part, edges, find_cycle, upward_imports

import foveal

ROOT = Path(foveal.__file__).parent


def test_every_package_has_a_layer():
    parts = {module.split(".")[0] for module in edges(ROOT)}
    assert parts - set(LEVEL) == set(), "add its layer to LAYERS"


def test_imports_point_downwards_only():
    assert upward_imports(edges(ROOT)) == []


def test_modules_have_no_import_cycle():
    assert find_cycle(edges(ROOT)) is None


def test_packages_have_no_import_cycle():
    assert find_cycle(by_part(edges(ROOT))) is None


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
def test_an_upward_import_is_detected(tmp_path, line):
    for folder in ("models", "detectors"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "models" / "focus.py").write_text("from foveal.detectors import heatmap\n")
    (tmp_path / "detectors" / "heatmap.py").write_text("import torch\n")
    assert upward_imports(edges(tmp_path)) == []
    assert find_cycle(by_part(edges(tmp_path))) is None
    (tmp_path / "detectors" / "heatmap.py").write_text(line)
    assert len(upward_imports(edges(tmp_path))) == 1


def test_an_import_cycle_is_detected(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("from foveal.datasets.folder import read\n")
    (tmp_path / "datasets" / "folder.py").write_text("from foveal.zoo import load\n")
    (tmp_path / "zoo.py").write_text("def f():\n    from foveal.datasets import names\n")
    assert upward_imports(edges(tmp_path)) == []
    assert set(find_cycle(edges(tmp_path))) == {"datasets", "datasets.folder", "zoo"}
    assert set(find_cycle(by_part(edges(tmp_path)))) == {"datasets", "zoo"}
