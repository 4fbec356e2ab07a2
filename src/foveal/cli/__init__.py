"""The command line: parses, calls, prints; a command imports what it needs when it runs."""

from foveal.cli.app import app, main

# Each module registers its command; `foveal --help` lists them in this order.
from foveal.cli import demo, train, sweep, evaluate, explain, compare, predict, models  # isort: skip

__all__ = [
    "app",
    "compare",
    "demo",
    "evaluate",
    "explain",
    "main",
    "models",
    "predict",
    "sweep",
    "train",
]
