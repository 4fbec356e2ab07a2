"""Static int8 quantisation of exported high-resolution models."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.datasets import ImageSet
from foveal.deployment.onnx.about import read_about, write_about
from foveal.deployment.onnx.files import Exported
from foveal.deployment.onnx.int8 import ALLOWED, Quantised, quantised, refused
from foveal.deployment.onnx.large_graphs import PATCHES, SCORES, sums
from foveal.deployment.onnx.large_runtime import Runs, as_large, run_by
from foveal.deployment.onnx.session import Graph
from foveal.images import LargeImages, SomeImages
from foveal.metrics.accuracy import task_accuracies
from foveal.metrics.classes import as_known
from foveal.metrics.observing import observe_all
from foveal.models.focus import FocusNet

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATED_ON = 100  # training images for calibration, with many patches each
BATCH = 16  # images per forward pass


def as_int8_large(
    exported: Exported, train: ImageSet[LargeImages], val: ImageSet[LargeImages]
) -> Quantised:
    """Return the quantised graphs of a high-resolution model, see `as_int8`.

    If quantising all graphs loses too much accuracy, those of the detector stay in floats. So does
    a graph that no training image uses, as there is nothing to calibrate it on.

    Args:
        exported: graphs of `large_graphs`, which are not changed.
        train: images as the model reads them; 100 of them are used for calibration.
        val: labelled images to measure the accuracy on, the mean of all tasks.

    Raises:
        UserError: more than 0.2 points of accuracy are lost, or `val` lacks a task.
    """
    exact = _accuracy(exported, val)
    inputs = _recorded_inputs(exported, train)
    lost = []
    for part, kept in {"all": (), "classifier": set(inputs) - {PATCHES}}.items():
        small = {
            name: quantised(graph, inputs[name]) if inputs[name] and name not in kept else graph
            for name, graph in _named(exported).items()
        }
        graphs = _joined(small)
        found = Quantised(graphs.graph, part, _accuracy(graphs, val), exact, graphs.beside)
        if found.lost <= ALLOWED:
            return found
        lost.append(found.lost)
    raise refused(lost, f"{val.name} ({val.split})")


class _Recorder:
    """A graph that records its inputs."""

    def __init__(self, graph: Runs):
        self.graph = graph
        self.given: list[Mapping[str, Tensor]] = []

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        self.given.append(given)
        return self.graph.run(given, wanted)


def _recorded_inputs(
    exported: Exported, train: ImageSet[LargeImages]
) -> dict[str, list[Mapping[str, Tensor]]]:
    """Return the inputs of each graph for some of the images."""
    kept = {part: _Recorder(Graph(proto)) for part, proto in _named(exported).items()}
    model = run_by(read_about(exported.graph), kept)
    drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    model.explain(SomeImages(train.images, drawn[:CALIBRATED_ON]), batch_size=BATCH)
    return {part: graph.given for part, graph in kept.items()}


def _named(exported: Exported) -> dict[str, "ModelProto"]:
    return {SCORES: exported.graph, **exported.beside}


def _joined(graphs: Mapping[str, "ModelProto"]) -> Exported:
    """Return graphs as one export, with their checksums in the metadata of the main graph."""
    beside = {part: graph for part, graph in graphs.items() if part != SCORES}
    first = type(graphs[SCORES])()
    first.CopyFrom(graphs[SCORES])
    write_about(first, replace(read_about(first), beside=sums(beside)))
    return Exported(first, beside)


def _accuracy(exported: Exported, val: ImageSet[LargeImages]) -> float:
    model = _model(exported)
    known, _ = as_known(val.of(model.tasks), model)
    fractions = task_accuracies(observe_all(model, known.images, BATCH), known).values()
    return sum(fractions) / len(fractions)


def _model(exported: Exported) -> FocusNet:
    return as_large(read_about(exported.graph), exported.graph, exported.beside, threads=1)
