"""Display of figures in a notebook or in windows."""

import io
import sys
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from foveal.plotting.canvas import DPI

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show(figures: Iterable["Figure"]) -> None:
    """Show figures in a notebook or in windows.

    In a notebook, each figure is shown as an image in the output of the cell, whichever backend
    matplotlib uses. In a script, each figure opens a window, and the call returns when the user has
    closed them all; pyplot does not keep the figures. In matplotlib's interactive mode, the call
    returns immediately and the windows stay open. If the backend cannot open windows, as on a
    machine without a display, a warning is issued and nothing is shown.
    """
    if _in_notebook():
        _display(figures)
    elif _opens_windows():
        _open_windows(figures)
    else:
        warnings.warn(
            "Nothing is shown: matplotlib's backend opens no windows here. Save the figures "
            "instead: explanation.save(folder).",
            stacklevel=3,
        )


def _in_notebook() -> bool:
    """Return whether the process is a Jupyter kernel.

    A kernel has imported IPython, so it need not be imported here.
    """
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def _display(figures: Iterable["Figure"]) -> None:
    """Show each figure as a PNG in the output of the notebook's cell."""
    from IPython.display import Image, display

    for figure in figures:
        file = io.BytesIO()
        figure.savefig(file, format="png")
        display(Image(data=file.getvalue(), format="png"))


def _opens_windows() -> bool:
    """Return whether matplotlib's current backend can open windows."""
    import matplotlib.pyplot as plt
    from matplotlib.backends.registry import BackendFilter, backend_registry

    non_interactive = backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE)
    return plt.get_backend().lower() not in non_interactive


def _open_windows(figures: Iterable["Figure"]) -> None:
    """Open a window for each figure, and wait until all are closed unless pyplot is interactive."""
    import matplotlib.pyplot as plt

    with plt.rc_context({"figure.max_open_warning": 0}):
        registered_figures = [_register(figure) for figure in figures]
    plt.show()
    if not plt.isinteractive():
        for figure in registered_figures:
            plt.close(figure)


def _register(figure: "Figure") -> "Figure":
    """Register an existing figure with pyplot, which gives it a window; return the figure."""
    import matplotlib.pyplot as plt

    figure.set_dpi(DPI)  # a photograph at its own resolution would exceed the screen

    def existing_figure(*_: object, **__: object) -> "Figure":
        return figure

    return plt.figure(FigureClass=cast("type[Figure]", existing_figure))
