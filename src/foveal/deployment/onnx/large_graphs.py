"""Export of high-resolution focus models as several ONNX graphs: detector and head."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from foveal.deployment.onnx.about import About, write_about
from foveal.deployment.onnx.files import Exported, digest
from foveal.deployment.onnx.graph import export_graph
from foveal.detectors import HighResDetector, Located
from foveal.foundation.errors import UserError
from foveal.heads import AttentionHead
from foveal.metrics.efficiency import parameters
from foveal.metrics.observing import evaluating
from foveal.models.focus import FocusNet

if TYPE_CHECKING:
    from onnx import ModelProto

THUMBNAIL, SCORES = "thumbnail", "scores"  # inputs and outputs of the detector's graphs
PATCHES, KEYPOINTS, LOGITS, WEIGHTS = (
    "patches",
    "keypoints",
    "logits",
    "weights",
)  # and of the head's
REGIONS = "regions"  # the graph of coarse scores, which select regions of larger images
_SIDES = (24, 32)  # height and width of the example for tracing; any size works


def large_graphs(model: FocusNet) -> Exported:
    """Return a high-resolution focus model as graphs, for any number of images of any size.

    The main graph reads a `thumbnail` (B, C, h, w), floats in [0, 1], and returns the `scores`
    (B, h // 2, w // 2) of its cells. The graph `patches` reads `patches` (B, K, C, P, P) in
    [0, 1] and their `keypoints` (B, K, 2) in grid units, and returns the `logits`
    (B, T, classes) of all tasks and the patches' `weights` (B, T, K). If the model selects
    regions first, the graph `regions` scores the coarser thumbnail of larger images. The metadata
    of each graph hold the model's settings.

    Args:
        model: has a `HighResDetector` and an `AttentionHead`; exported in evaluation mode.

    Raises:
        UserError: onnx is not installed, or the model has other parts.
    """
    detector, head = detector_and_head(model)
    about = partial(
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
        write_about(beside[PATCHES], about(names=head_names))
        if detector.coarse is not None:
            beside[REGIONS] = _score_graph(model, detector.coarse)
            write_about(beside[REGIONS], about(names=score_names))
    write_about(graph, about(names=score_names, beside=checksums(beside)))
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
    def __init__(self, model: FocusNet, scores: nn.Module):
        super().__init__()
        self.model, self.scores = model, scores

    def forward(self, thumbnail: Tensor) -> Tensor:
        scores: Tensor = self.scores((thumbnail - self.model.mean) / self.model.std)
        return scores


class _HeadModule(nn.Module):
    def __init__(self, model: FocusNet, head: AttentionHead):
        super().__init__()
        self.model, self.head = model, head

    def forward(self, patches: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        normalised = (patches - self.model.mean[:, None]) / self.model.std[:, None]
        output = self.head(normalised, Located(keypoints))
        return output.task_logits, output.task_weights


def _score_graph(model: FocusNet, scores: nn.Module) -> "ModelProto":
    example = torch.zeros(3, model.in_channels, *_SIDES).to(model.mean)
    height, width = (torch.export.Dim(name, min=4) for name in ("height", "width"))
    dynamic_dims = {0: torch.export.Dim("batch"), 2: height, 3: width}
    return export_graph(_ScoreModule(model, scores), {THUMBNAIL: example}, [SCORES], [dynamic_dims])


def _head_graph(model: FocusNet, head: AttentionHead) -> "ModelProto":
    sides = (model.patch_size, model.patch_size)
    patches = torch.zeros(3, head.keypoints, model.in_channels, *sides).to(model.mean)
    examples = {PATCHES: patches, KEYPOINTS: torch.zeros(3, head.keypoints, 2).to(model.mean)}
    batch = {0: torch.export.Dim("batch")}
    return export_graph(_HeadModule(model, head), examples, [LOGITS, WEIGHTS], [batch, batch])
