"""Export: models as ONNX graphs, and run without PyTorch's operators."""

from foveal.export.graph import onnx_graph, write_onnx
from foveal.export.loading import RUNTIMES, about, as_onnx, load, load_onnx

__all__ = ["RUNTIMES", "about", "as_onnx", "load", "load_onnx", "onnx_graph", "write_onnx"]
