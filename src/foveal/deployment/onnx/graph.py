"""Write a model as one ONNX graph, with all that is needed to run and to explain by it."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.deployment.onnx.about import About, write_about
from foveal.deployment.onnx.split_points import traced
from foveal.foundation.errors import UserError, missing_extra
from foveal.metrics.efficiency import macs, parameters
from foveal.metrics.observing import evaluating
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGES = "images"  # name of the graph's input


def onnx_graph(model: ImageModel, size: tuple[int, int] | None = None) -> "ModelProto":
    """Return a model as a graph for any number of images of one size.

    The graph reads `images` (B, C, H, W), floats in [0, 1], and returns `logits` and the other
    parts of an `Explanation` that the model has: `keypoints`, `patches`, `scales`, `maps`,
    `rebuilt`, `thumbnail`. Its metadata hold the model's settings and where it can be cut.

    Args:
        model: stays as it is; exported in evaluation mode.
        size: height and width of the images in pixels; those the model expects if not given, a
            square of its short side where it keeps the images' proportions.

    Raises:
        UserError: onnx is not installed, no size is known, or the model cannot be a graph.
    """
    if Ability.IN_PART in model.abilities:
        raise UserError(
            "A high-res model reads its image in part, which no single graph can do: "
            "see foveal.deployment.onnx.large_graphs."
        )
    size = size or model.inputs.usual_size
    if size is None:
        raise UserError("This model expects no size of images: give one to export for.")
    with evaluating(model):
        graph = traced(model)
        images = torch.rand(3, model.in_channels, *size, generator=torch.Generator().manual_seed(0))
        images = images.to(model.mean)
        names = graph.names(images)
        outputs = list(dict.fromkeys(names.values()))
        batch = {0: torch.export.Dim("batch")}
        proto = translated(graph, {IMAGES: images}, outputs, [batch])
    _declare(proto, names)
    about = About(
        in_channels=model.in_channels,
        num_classes=model.num_classes,
        inputs=replace(model.inputs, size=size, short_side=None),
        config=model.settings(),
        names=names,
        parameters=parameters(model),
        macs=macs(model, size),
    )
    write_about(proto, about)
    return proto


def translated(
    module: nn.Module,
    given: Mapping[str, Tensor],
    outputs: Sequence[str],
    free: Sequence[Mapping[int, torch.export.Dim]],
) -> "ModelProto":
    """Return a module as a graph.

    Args:
        module: in evaluation mode.
        given: examples of what it takes, by the names that they have in the graph.
        outputs: names of what it returns.
        free: for each of `given`, a `torch.export.Dim` of each dimension that has any length.

    Raises:
        UserError: onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing_extra("onnx and onnxscript", "onnx") from None
    # Inference mode would put its mark on the tensors that the exporter makes.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*shares the same shape constraints")
        program = torch.onnx.export(
            module.eval(),
            tuple(example.clone() for example in given.values()),
            dynamo=True,
            input_names=list(given),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(one) for one in free),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip(proto)
    return proto


def _declare(proto: "ModelProto", names: Mapping[str, str]) -> None:
    """Keep what an explanation is made of as outputs, the seams inside.

    A runtime that computes all outputs would compute the seams for nobody.
    """
    graph = proto.graph
    shown = {tensor for name, tensor in names.items() if not name.startswith("seam.")}
    inside = [output for output in graph.output if output.name not in shown]
    for value in inside:
        graph.output.remove(value)
    graph.value_info.extend(inside)


def _strip(proto: "ModelProto") -> None:
    """Remove from a graph what tells of this machine: source files and weights, at length."""
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
