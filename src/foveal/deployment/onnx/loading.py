"""Loading of models for PyTorch or ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from foveal import zoo
from foveal.deployment.onnx.about import About, read_about
from foveal.deployment.onnx.files import Exported, read_onnx
from foveal.deployment.onnx.graph import onnx_graph
from foveal.deployment.onnx.large_graphs import large_graphs
from foveal.deployment.onnx.large_runtime import as_large, model_without_weights
from foveal.deployment.onnx.runtime import NamedGraph, OnnxModel
from foveal.deployment.onnx.session import Graph
from foveal.foundation.errors import UserError, unknown_name
from foveal.metrics.efficiency import macs
from foveal.models import abilities_of
from foveal.models.abilities import Ability
from foveal.models.focus import FocusNet
from foveal.models.image_model import ImageModel

if TYPE_CHECKING:
    from onnx import ModelProto

RUNTIMES = ("torch", "onnx")


def load(model: str | Path, runtime: str = "torch") -> ImageModel:
    """Return a trained model for a runtime.

    Args:
        model: name, run folder or Hub id as for `zoo.load`; or a .onnx file, which is always run by
            ONNX Runtime.
        runtime: `torch` or `onnx`. For `onnx`, models that are not a .onnx file are exported
            first, which takes seconds; `foveal export` does that once.

    Raises:
        UserError: the model or the runtime does not exist, or the model cannot be loaded.
    """
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    if Path(model).suffix.lower() == ".onnx":
        return load_onnx(Path(model))
    network = zoo.load(model)
    if runtime == "torch":
        return network
    graph, beside = exported(network)
    return as_onnx(graph, beside=beside)


def exported(model: ImageModel, size: tuple[int, int] | None = None) -> Exported:
    """Return the graphs of a model: one, or several for a high-resolution model.

    Args:
        model: exported in evaluation mode, and left unchanged.
        size: height and width of the images in pixels; None for the size that the model expects.

    Raises:
        UserError: onnx is not installed, the size is unknown, or a size is given for a model that
            reads images of any size.
    """
    if Ability.IN_PART not in model.abilities:
        return Exported(onnx_graph(model, size))
    if size is not None:
        raise UserError("A high-resolution model reads images of any size: omit the size.")
    return large_graphs(cast(FocusNet, model))


def load_onnx(path: Path, threads: int = 1) -> ImageModel:
    """Return the model in a file that `foveal export` wrote.

    Args:
        path: path of the file. It holds the whole model, except for a high-resolution model,
            whose other files are in the same folder.
        threads: CPU threads per call.

    Raises:
        UserError: the file is missing, was not written by Foveal, or is damaged.
    """
    graph, beside = read_onnx(path)
    try:
        return as_onnx(graph, threads, beside)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def as_onnx(
    proto: "ModelProto", threads: int = 1, beside: Mapping[str, "ModelProto"] = {}
) -> ImageModel:
    """Return the model of an exported graph, run by ONNX Runtime.

    Args:
        proto: the main graph of the export.
        threads: CPU threads per call.
        beside: the additional graphs of a high-resolution model by part, see `large_graphs`.

    Raises:
        UserError: ONNX Runtime is not installed, or the graph was not written by Foveal.
    """
    metadata = read_about(proto)
    if Ability.IN_PART in abilities_of(metadata.config):
        return as_large(metadata, proto, beside, threads)
    blocks = Ability.CROPS in abilities_of(metadata.config)
    parts = NamedGraph(Graph(proto, threads), metadata.names, blocks)
    return OnnxModel(metadata, parts).eval()


def about(model: ImageModel) -> About | None:
    """Return the metadata of a model's graph, or None for a model run by PyTorch."""
    return model.about if isinstance(model.about, About) else None


def cost(model: ImageModel, size: tuple[int, int] | None = None) -> dict[str, int]:
    """Return `parameters` and `macs` of a model run by ONNX Runtime; empty for other models.

    Both numbers are those of the model that was exported, because PyTorch cannot count the
    operators of a graph.

    Args:
        model: any model.
        size: height and width of the images in pixels. A high-resolution model needs it to count
            `macs`, which are 0 without it.
    """
    metadata = about(model)
    if metadata is None:
        return {}
    mac_count = metadata.macs
    if not mac_count and size is not None:
        mac_count = macs(model_without_weights(metadata), size)
    return {"parameters": metadata.parameters, "macs": mac_count}
