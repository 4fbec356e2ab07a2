"""Export: models as ONNX graphs, and run without PyTorch's operators."""

from foveal.export.files import Exported, write_onnx
from foveal.export.graph import onnx_graph
from foveal.export.large_graphs import large_graphs
from foveal.export.loading import RUNTIMES, about, as_onnx, cost, exported, load, load_onnx

__all__ = [
    "RUNTIMES",
    "Exported",
    "about",
    "as_onnx",
    "cost",
    "exported",
    "large_graphs",
    "load",
    "load_onnx",
    "onnx_graph",
    "write_onnx",
]
