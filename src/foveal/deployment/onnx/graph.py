"""Export of a model as a single ONNX graph that computes logits and explanations."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from foveal.deployment.onnx.about import About, write_about
from foveal.deployment.onnx.split_points import SPLIT_PREFIX, export_module
from foveal.foundation.errors import UserError, missing_extra
from foveal.metrics.efficiency import macs, parameters
from foveal.metrics.observing import evaluating
from foveal.models.abilities import Ability
from foveal.models.image_model import ImageModel

if TYPE_CHECKING:
    from onnx import ModelProto

IMAGES = "images"  # name of the graph's input
EXAMPLE_COUNT = 3  # images in the traced example; the exporter would fix a batch size of 0 or 1


def onnx_graph(model: ImageModel, size: tuple[int, int] | None = None) -> "ModelProto":
    """Return a model as a graph for any number of images of one size.

    The graph reads `images` (B, C, H, W), floats in [0, 1], and returns `logits` and the other
    parts of an `Explanation` that the model has: `keypoints`, `patches`, `scales`, `maps`,
    `rebuilt`, `thumbnail`. Its metadata hold the model's settings and the names of the split points
    (see `split_points`).

    Args:
        model: exported in evaluation mode, and left unchanged.
        size: height and width of the images in pixels. By default, the size that the model expects;
            for a model that keeps the aspect ratio of images, a square of its short side.

    Raises:
        UserError: onnx is not installed, the size is unknown, or the model needs several graphs.
    """
    size = _export_size(model, size)
    with evaluating(model):
        module = export_module(model)
        shape = (EXAMPLE_COUNT, model.in_channels, *size)
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(model.mean)
        names = module.names(images)
        outputs = list(dict.fromkeys(names.values()))
        batch = {0: torch.export.Dim("batch")}
        proto = export_graph(module, {IMAGES: images}, outputs, [batch])
    _hide_split_points(proto, names)
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


def _export_size(model: ImageModel, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return the height and width of the images to export a model for.

    Raises:
        UserError: the size is unknown, or the model needs several graphs.
    """
    if Ability.IN_PART in model.abilities:
        raise UserError(
            "A high-resolution model reads its image in part and cannot be exported as a single "
            "graph; use foveal.deployment.onnx.large_graphs."
        )
    size = size or model.inputs.usual_size
    if size is None:
        raise UserError("This model accepts any image size; pass size=(H, W) for export.")
    return size


def export_graph(
    module: nn.Module,
    examples: Mapping[str, Tensor],
    outputs: Sequence[str],
    dynamic_dims: Sequence[Mapping[int, torch.export.Dim]],
) -> "ModelProto":
    """Return a module as a graph.

    Args:
        module: in evaluation mode.
        examples: example inputs by their names in the graph.
        outputs: names of the outputs, in order.
        dynamic_dims: for each input, the dimensions whose length may vary, by index.

    Raises:
        UserError: onnx is not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing_extra("onnx and onnxscript", "onnx") from None
    # The exporter cannot use inference tensors, which the clones would be in inference mode.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*shares the same shape constraints")
        program = torch.onnx.export(
            module.eval(),
            tuple(example.clone() for example in examples.values()),
            dynamo=True,
            input_names=list(examples),
            output_names=list(outputs),
            dynamic_shapes=tuple(dict(dims) for dims in dynamic_dims),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _strip_debug_metadata(proto)
    return proto


def _hide_split_points(proto: "ModelProto", names: Mapping[str, str]) -> None:
    """Turn the split points from outputs into internal tensors of a graph, in place.

    Other programs compute all outputs of a graph, and need only the parts of the explanation.
    """
    graph = proto.graph
    outputs = {tensor for name, tensor in names.items() if not name.startswith(SPLIT_PREFIX)}
    internal = [output for output in graph.output if output.name not in outputs]
    for value in internal:
        graph.output.remove(value)
    graph.value_info.extend(internal)


def _strip_debug_metadata(proto: "ModelProto") -> None:
    """Remove the exporter's debug metadata, such as paths of source files, in place."""
    graph = proto.graph
    for message in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del message.metadata_props[:]
        message.doc_string = ""
