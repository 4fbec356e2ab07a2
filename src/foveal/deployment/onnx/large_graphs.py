"""Export of high-resolution focus models as several ONNX graphs.

A high-resolution model never reads a large image completely: its detector scores the cells of a
thumbnail, and its head classifies the patches at the best cells. Detector and head are separate
graphs, and Foveal cuts the patches out of the image between them.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from foveal.deployment.onnx.about import About, write_about
from foveal.deployment.onnx.files import Exported, digest
from foveal.deployment.onnx.graph import EXAMPLE_COUNT, export_graph
from foveal.detectors import HighResDetector, Located
from foveal.foundation.errors import UserError
from foveal.heads import AttentionHead
from foveal.metrics.efficiency import parameters
from foveal.metrics.observing import evaluating
from foveal.models.focus import FocusNet

if TYPE_CHECKING:
    from onnx import ModelProto

# Inputs and outputs of the detector's graphs, and of the graph of the head.
THUMBNAIL, SCORES = "thumbnail", "scores"
PATCHES, KEYPOINTS, LOGITS, WEIGHTS = "patches", "keypoints", "logits", "weights"
REGIONS = "regions"  # the graph that selects regions of very large images by coarse scores
_EXAMPLE_SIZE = (24, 32)  # height and width of the traced example; any size works


def large_graphs(model: FocusNet) -> Exported:
    """Return a high-resolution focus model as graphs, for any number of images of any size.

    The main graph reads a `thumbnail` (B, C, h, w), floats in [0, 1], and returns the `scores`
    (B, h // 2, w // 2) of its cells of 2x2 pixels. The graph `patches` reads `patches`
    (B, K, C, P, P) in [0, 1] and their `keypoints` (B, K, 2) in grid units, and returns the
    `logits` (B, T, classes) of T tasks and the `weights` (B, T, K) of the patches. If the model
    first selects regions of very large images, the graph `regions` scores a coarser thumbnail for
    that. The metadata of each graph hold the model's settings.

    Args:
        model: must have a `HighResDetector` and an `AttentionHead`; exported in evaluation mode.

    Raises:
        UserError: onnx is not installed, or the model has other parts.
    """
    detector, head = detector_and_head(model)
    make_about = partial(
        About,
        in_channels=model.in_channels,
        num_classes=model.num_classes,
        inputs=model.inputs,
        config=model.settings(),
        parameters=parameters(model),
        macs=0,
    )
    score_names = {name: name for name in (THUMBNAIL, SCORES)}
    head_names = {name: name for name in (PATCHES, KEYPOINTS, LOGITS, WEIGHTS)}
    with evaluating(model):
        graph = _score_graph(model, detector.fine)
        beside = {PATCHES: _head_graph(model, head)}
        write_about(beside[PATCHES], make_about(names=head_names))
        if detector.coarse is not None:
            beside[REGIONS] = _score_graph(model, detector.coarse)
            write_about(beside[REGIONS], make_about(names=score_names))
    write_about(graph, make_about(names=score_names, beside=checksums(beside)))
    return Exported(graph, beside)


def detector_and_head(model: FocusNet) -> tuple[HighResDetector, AttentionHead]:
    """Return the detector and the head of a model that can be exported as graphs.

    Raises:
        UserError: the model has other parts.
    """
    kinds = {type(model.detector), type(model.head)}
    if kinds != {HighResDetector, AttentionHead}:
        raise UserError(
            "Only a high-res detector with an attention head can be exported for large images."
        )
    return cast(HighResDetector, model.detector), cast(AttentionHead, model.head)


def checksums(beside: Mapping[str, "ModelProto"]) -> dict[str, str]:
    """Return the SHA-256 of each graph, for the metadata of the main graph."""
    return {part: digest(graph) for part, graph in beside.items()}


class _ScoreModule(nn.Module):
    """Thumbnail (B, C, h, w) in [0, 1] -> scores (B, h // 2, w // 2)."""

    def __init__(self, model: FocusNet, scores: nn.Module):
        super().__init__()
        self.model, self.scores = model, scores

    def forward(self, thumbnail: Tensor) -> Tensor:
        scores: Tensor = self.scores((thumbnail - self.model.mean) / self.model.std)
        return scores


class _HeadModule(nn.Module):
    """Patches in [0, 1] and keypoints -> logits and weights of all tasks."""

    def __init__(self, model: FocusNet, head: AttentionHead):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, patches: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        normalised = (patches - self.model.mean[:, None]) / self.model.std[:, None]
        output = self.head(normalised, Located(keypoints))
        return output.task_logits, output.task_weights


def _score_graph(model: FocusNet, scores: nn.Module) -> "ModelProto":
    """Return the graph of a module that scores the cells of a thumbnail."""
    example = torch.zeros(EXAMPLE_COUNT, model.in_channels, *_EXAMPLE_SIZE).to(model.mean)
    height, width = (torch.export.Dim(name, min=4) for name in ("height", "width"))
    dynamic_dims = {0: torch.export.Dim("batch"), 2: height, 3: width}
    return export_graph(_ScoreModule(model, scores), {THUMBNAIL: example}, [SCORES], [dynamic_dims])


def _head_graph(model: FocusNet, head: AttentionHead) -> "ModelProto":
    shape = (EXAMPLE_COUNT, head.keypoints, model.in_channels, model.patch_size, model.patch_size)
    patches = torch.zeros(shape).to(model.mean)
    keypoints = torch.zeros(EXAMPLE_COUNT, head.keypoints, 2).to(model.mean)
    examples = {PATCHES: patches, KEYPOINTS: keypoints}
    batch = {0: torch.export.Dim("batch")}
    return export_graph(_HeadModule(model, head), examples, [LOGITS, WEIGHTS], [batch, batch])
