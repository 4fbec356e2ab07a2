"""Load a model to be run by PyTorch or by ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from foveal import zoo
from foveal.deployment.onnx.about import About, read_about
from foveal.deployment.onnx.files import Exported, read_onnx
from foveal.deployment.onnx.graph import onnx_graph
from foveal.deployment.onnx.large_graphs import large_graphs
from foveal.deployment.onnx.large_runtime import as_large, planned
from foveal.deployment.onnx.runtime import OnnxModel, Parts
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
    if runtime == "torch":
        return network
    graph, beside = exported(network)
    return as_onnx(graph, beside=beside)


def exported(model: ImageModel, size: tuple[int, int] | None = None) -> Exported:
    """Return what a model is exported to: one graph, or several of a high-resolution model.

    Args:
        model: stays as it is; exported in evaluation mode.
        size: height and width of the images in pixels; those the model expects if not given.

    Raises:
        UserError: onnx is not installed, no size is known, or one is given to a model that reads
            images of any.
    """
    if Ability.IN_PART not in model.abilities:
        return Exported(onnx_graph(model, size))
    if size is not None:
        raise UserError("A high-resolution model reads images of any size: leave the size out.")
    return large_graphs(cast(FocusNet, model))


def load_onnx(path: Path, threads: int = 1) -> ImageModel:
    """Return the model in a file that `foveal export` wrote.

    Args:
        path: of the file; all of the model is in it, but for a high-resolution model, whose
            other files lie beside it.
        threads: of the processor that one call may use.

    Raises:
        UserError: the file is not there, not one of Foveal's, or damaged.
    """
    graph, beside = read_onnx(path)
    try:
        return as_onnx(graph, threads, beside)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def as_onnx(
    proto: "ModelProto", threads: int = 1, beside: Mapping[str, "ModelProto"] = {}
) -> ImageModel:
    """Return the model that a graph of `onnx_graph` was made of, run by ONNX Runtime.

    Args:
        proto: the first graph of the export.
        threads: of the processor that one call may use.
        beside: the other graphs of `large_graphs`, if it is one of those.

    Raises:
        UserError: ONNX Runtime is not installed, or the graph is not one of Foveal's.
    """
    said = read_about(proto)
    if Ability.IN_PART in abilities_of(said.config):
        return as_large(said, proto, beside, threads)
    blocks = Ability.CROPS in abilities_of(said.config)
    parts = Parts(Graph(proto, threads), said.names, blocks)
    return OnnxModel(said, parts).eval()


def about(model: ImageModel) -> About | None:
    """Return what the graph of a model says of it, or None of a model that PyTorch runs."""
    return model.about if isinstance(model.about, About) else None


def cost(model: ImageModel, size: tuple[int, int] | None = None) -> dict[str, int]:
    """Return `parameters` and `macs` of a model that ONNX Runtime runs; nothing of another.

    The graph's operators are not PyTorch's to count: they are counted of the model it was.

    Args:
        model: any.
        size: height and width in pixels of an image, for a high-resolution model.
    """
    said = about(model)
    if said is None:
        return {}
    counted = said.macs
    if not counted and size is not None:
        counted = macs(planned(said), size)
    return {"parameters": said.parameters, "macs": counted}
