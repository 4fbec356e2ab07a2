"""Static int8 quantisation of high-resolution models that are exported as several graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.deployment.onnx.about import read_about, write_about
from foveal.deployment.onnx.files import Exported
from foveal.deployment.onnx.int8 import MAX_LOSS, Quantised, loss_error, quantise
from foveal.deployment.onnx.large_graphs import PATCHES, SCORES, checksums
from foveal.deployment.onnx.large_runtime import GraphRunner, as_large, model_from_graphs
from foveal.deployment.onnx.session import Graph
from foveal.images import LargeImages, SomeImages
from foveal.metrics.accuracy import task_accuracies
from foveal.metrics.classes import with_model_classes
from foveal.metrics.observing import observe_all
from foveal.models.focus import FocusNet

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATION_IMAGES = 100  # fewer than for other models, because each image has many patches
BATCH_SIZE = 16  # images per forward pass


def as_int8_large(
    exported: Exported, train: ImageSet[LargeImages], val: ImageSet[LargeImages]
) -> Quantised:
    """Return the quantised graphs of a high-resolution model; the method is that of `as_int8`.

    If quantising all graphs loses too much accuracy, those of the detector stay in floats. A graph
    that is not used for any training image also stays in floats, because there is nothing to
    calibrate it on.

    Args:
        exported: graphs of `large_graphs`, which are not changed.
        train: images as the model reads them; 100 of them are used for calibration.
        val: labelled images on which the accuracy is measured, as the mean over all tasks.

    Raises:
        UserError: more than 0.2 points of accuracy are lost, or `val` lacks a task.
    """
    float_accuracy = _accuracy(exported, val)
    inputs = _recorded_inputs(exported, train)
    losses = []
    for part, quantised_names in {"all": set(inputs), "classifier": {PATCHES}}.items():
        protos = _by_part(exported)
        for name in quantised_names:
            if inputs[name]:
                protos[name] = quantise(protos[name], inputs[name])
        graphs = _join_parts(protos)
        accuracy = _accuracy(graphs, val)
        candidate = Quantised(graphs.graph, part, accuracy, float_accuracy, graphs.beside)
        if candidate.accuracy_loss <= MAX_LOSS:
            return candidate
        losses.append(candidate.accuracy_loss)
    raise loss_error(losses, f"{val.name} ({val.split})")


class _Recorder:
    """A graph that records the inputs that it is run with."""

    def __init__(self, graph: GraphRunner):
        self.graph = graph
        self.inputs: list[Mapping[str, Tensor]] = []

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        self.inputs.append(inputs)
        return self.graph.run(inputs, outputs)


def _recorded_inputs(
    exported: Exported, train: ImageSet[LargeImages]
) -> dict[str, list[Mapping[str, Tensor]]]:
    """Return the inputs that each graph is run with for the calibration images, by part."""
    recorders = {part: _Recorder(Graph(proto)) for part, proto in _by_part(exported).items()}
    model = model_from_graphs(read_about(exported.graph), recorders)
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    model.explain(SomeImages(train.images, order[:CALIBRATION_IMAGES]), batch_size=BATCH_SIZE)
    return {part: recorder.inputs for part, recorder in recorders.items()}


def _by_part(exported: Exported) -> dict[str, "ModelProto"]:
    """Return all graphs of an export; the main graph has the name of its output, `scores`."""
    return {SCORES: exported.graph, **exported.beside}


def _join_parts(graphs: Mapping[str, "ModelProto"]) -> Exported:
    """Return graphs by part as an export, with their checksums in the main graph's metadata."""
    beside = {part: graph for part, graph in graphs.items() if part != SCORES}
    main = type(graphs[SCORES])()
    main.CopyFrom(graphs[SCORES])
    write_about(main, replace(read_about(main), beside=checksums(beside)))
    return Exported(main, beside)


def _accuracy(exported: Exported, val: ImageSet[LargeImages]) -> float:
    """Return the mean accuracy over all tasks of the exported model."""
    model = _onnx_model(exported)
    labelled, _ = with_model_classes(val.of(model.tasks), model)
    accuracies = task_accuracies(observe_all(model, labelled.images, BATCH_SIZE), labelled).values()
    return sum(accuracies) / len(accuracies)


def _onnx_model(exported: Exported) -> FocusNet:
    return as_large(read_about(exported.graph), exported.graph, exported.beside, threads=1)
