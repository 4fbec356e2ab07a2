"""Export of models as ONNX graphs, and models that are run by ONNX Runtime."""

from foveal.deployment.onnx.files import Exported, write_onnx
from foveal.deployment.onnx.graph import onnx_graph
from foveal.deployment.onnx.large_graphs import large_graphs
from foveal.deployment.onnx.loading import RUNTIMES, about, as_onnx, cost, exported, load, load_onnx

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
