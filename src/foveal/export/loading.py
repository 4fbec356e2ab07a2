"""Load a model to be run by PyTorch or by ONNX Runtime."""

from pathlib import Path
from typing import Any

from foveal import zoo
from foveal.errors import UserError, missing_extra, unknown_name
from foveal.export.about import About, read_about
from foveal.export.graph import onnx_graph
from foveal.export.runtime import (
    OnnxAttention,
    OnnxClassifier,
    OnnxFocus,
    OnnxModel,
    OnnxRebuilder,
    Parts,
)
from foveal.export.seams import KEYPOINTS, LOCAL
from foveal.export.session import Graph
from foveal.models.image_model import ImageModel

RUNTIMES = ("torch", "onnx")


def load(model: str | Path, runtime: str = "torch") -> ImageModel:
    """Return a trained model, to be run as asked for.

    Args:
        model: as `zoo.load` takes it, or a .onnx file, which ONNX Runtime runs in any case.
        runtime: `torch` or `onnx`; a model that is no .onnx file is exported for it, which takes
            seconds: `foveal export` does that once.

    Raises:
        UserError: no such model or runtime, or it cannot be loaded.
    """
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    if Path(model).suffix.lower() == ".onnx":
        return load_onnx(Path(model))
    network = zoo.load(model)
    return as_onnx(onnx_graph(network)) if runtime == "onnx" else network


def load_onnx(path: Path, threads: int = 1) -> OnnxModel:
    """Return the model in a file that `foveal export` wrote.

    Args:
        path: of the file; all of the model is in it.
        threads: of the processor that one call may use.

    Raises:
        UserError: the file is not there, not one of Foveal's, or damaged.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError:
        raise missing_extra("onnx", "onnx") from None
    try:
        # What lies outside of the file is not read: a name in it may be any path.
        proto = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from None
    except DecodeError:
        raise UserError(f"{path} is not an ONNX file, or damaged.") from None
    try:
        return as_onnx(proto, threads)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def as_onnx(proto: Any, threads: int = 1) -> OnnxModel:
    """Return the model that a graph of `onnx_graph` was made of, run by ONNX Runtime.

    Args:
        proto: an `onnx.ModelProto`.
        threads: of the processor that one call may use.

    Raises:
        UserError: ONNX Runtime is not installed, or the graph is not one of Foveal's.
    """
    said = read_about(proto)
    parts = Parts(Graph(proto, threads), said.names)
    return _kind(said)(said, parts).eval()


def about(model: ImageModel) -> About | None:
    """Return what the graph of a model says of it, or None of a model that PyTorch runs."""
    return model.about if isinstance(model, OnnxModel) else None


def _kind(said: About) -> type[OnnxModel]:
    if KEYPOINTS in said.names:
        return OnnxFocus
    if f"{LOCAL}.0" in said.names:
        return OnnxAttention
    return OnnxClassifier if said.num_classes else OnnxRebuilder
