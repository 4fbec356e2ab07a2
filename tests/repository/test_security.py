"""SECURITY.md: each promise names tests that exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| ([A-Z].+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def functions_of(file):
    """Return the names of the test functions in a file of tests."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_promise_names_tests_that_exist():
    assert len(ROWS) > 10
    for promise, cell in ROWS:
        named = re.findall(r"`(\S+?\.py)::(test_\w+)`", cell)
        assert named, promise
        missing = [name for file, name in named if name not in functions_of(file)]
        assert not missing, f"{promise}: {missing}"
