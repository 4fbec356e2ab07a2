"""Write a model as one ONNX graph, with all that is needed to run and to explain by it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from foveal.errors import UserError, missing_extra
from foveal.export.about import About, write_about
from foveal.export.seams import Traced, traced
from foveal.metrics.efficiency import macs, parameters
from foveal.metrics.looks import evaluating
from foveal.models.classifier import ImageClassifier
from foveal.models.high_res import HighResFocusNet
from foveal.models.image_model import ImageModel

IMAGES = "images"  # name of the graph's input


def onnx_graph(model: ImageModel, size: tuple[int, int] | None = None) -> Any:
    """Return a model as an `onnx.ModelProto` for any number of images of one size.

    The graph reads `images` (B, C, H, W), floats in [0, 1], and returns `logits` and the other
    parts of an `Explanation` that the model has: `keypoints`, `patches`, `scales`, `maps`,
    `rebuilt`, `thumbnail`. Its metadata hold the model's settings and where it can be cut.

    Args:
        model: stays as it is; exported in evaluation mode.
        size: height and width of the images in pixels; those the model expects if not given.

    Raises:
        UserError: onnx is not installed, no size is known, or the model cannot be a graph.
    """
    if isinstance(model, HighResFocusNet):
        raise UserError("A high-res model reads its image in part, which no single graph can do.")
    size = size or model.inputs.size
    if size is None:
        raise UserError("This model expects no size of images: give one to export for.")
    with evaluating(model):
        graph = traced(model)
        images = torch.rand(3, model.in_channels, *size, generator=torch.Generator().manual_seed(0))
        images = images.to(model.mean)
        names = graph.names(images)
        proto = _translated(graph, images, names)
    _declare(proto, names)
    about = About(
        in_channels=model.in_channels,
        num_classes=model.num_classes if isinstance(model, ImageClassifier) else 0,
        inputs=replace(model.inputs, size=size),
        config=model.settings(),
        names=names,
        parameters=parameters(model),
        macs=macs(model, size),
    )
    write_about(proto, about)
    return proto


def write_onnx(proto: Any, path: Path) -> None:
    """Write a graph into one file, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(proto.SerializeToString())
        os.replace(partial, path)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None


def _translated(graph: Traced, images: torch.Tensor, names: dict[str, str]) -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise missing_extra("onnx and onnxscript", "onnx") from None
    # Inference mode would put its mark on the tensors that the exporter makes.
    with torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            graph.eval(),
            (images.clone(),),
            dynamo=True,
            input_names=[IMAGES],
            output_names=list(dict.fromkeys(names.values())),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _declare(proto: Any, names: dict[str, str]) -> None:
    """Keep what an explanation is made of as outputs, the seams inside; no trace of this machine.

    A runtime that computes all outputs would compute the seams for nobody.
    """
    graph = proto.graph
    shown = {tensor for name, tensor in names.items() if not name.startswith("seam.")}
    inside = [output for output in graph.output if output.name not in shown]
    for value in inside:
        graph.output.remove(value)
    graph.value_info.extend(inside)
    for part in (proto, graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]  # they name source files and weights, at length
        part.doc_string = ""
