"""SECURITY.md: the tests that its promises refer to exist."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| ([A-Z].+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)


def functions_of(file):
    """Return the names of the test functions in a test file."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_promise_refers_to_existing_tests():
    assert len(ROWS) > 10
    for promise, cell in ROWS:
        tests = re.findall(r"`(\S+?\.py)::(test_\w+)`", cell)
        assert tests, promise
        missing = [name for file, name in tests if name not in functions_of(file)]
        assert not missing, f"{promise}: {missing}"
