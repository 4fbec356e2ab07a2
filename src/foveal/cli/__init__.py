"""The command line. Each command imports its heavy dependencies only when it runs."""

from foveal.cli.app import app, main

# Each module registers its command; `foveal --help` lists them in this order.
from foveal.cli import (  # isort: skip
    demo,
    train,
    sweep,
    evaluate,
    explain,
    compare,
    predict,
    export,
    serve,
    models,
)

__all__ = [
    "app",
    "compare",
    "demo",
    "evaluate",
    "explain",
    "export",
    "main",
    "models",
    "predict",
    "serve",
    "sweep",
    "train",
]
