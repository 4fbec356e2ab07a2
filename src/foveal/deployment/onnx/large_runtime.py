"""Detector and head of high-resolution focus models, run by ONNX Runtime."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from foveal.deployment.onnx.about import About
from foveal.deployment.onnx.large_graphs import (
    KEYPOINTS,
    LOGITS,
    PATCHES,
    REGIONS,
    SCORES,
    THUMBNAIL,
    WEIGHTS,
    parts_of,
)
from foveal.deployment.onnx.session import Graph
from foveal.detectors import HighResDetector, Located
from foveal.foundation.errors import UserError
from foveal.heads import AttentionHead, Head, HeadOutput
from foveal.heads.attention import of_tasks
from foveal.models import FocusNet, build_model

if TYPE_CHECKING:
    from onnx import ModelProto


class Runs(Protocol):
    """Interface for running a graph, see `Graph.run`."""

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `wanted`, computed from those given."""


class OnnxScores(nn.Module):
    """Scores of a thumbnail's cells, computed by a graph that includes the normalisation."""

    def __init__(self, graph: Runs):
        super().__init__()
        self.graph = graph

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a thumbnail (B, C, h, w) in [0, 1]."""
        return self.graph.run({THUMBNAIL: thumbnail}, [SCORES])[SCORES]


class OnnxHead(Head):
    """A head for any number of tasks, computed by a graph that includes the normalisation.

    Args:
        graph: the graph to run.
        like: the exported head, without weights.
    """

    def __init__(self, graph: Runs, like: AttentionHead):
        super().__init__()
        self.graph, self.keypoints, self.patch_size = graph, like.keypoints, like.patch_size
        self.in_channels, self.num_classes = like.in_channels, like.num_classes
        self.tasks, self.kept = like.tasks, like.settings()

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the logits of all tasks for patches (B, K, C, P, P) in [0, 1]."""
        given = {PATCHES: patches, KEYPOINTS: located.xy}
        found = self.graph.run(given, [LOGITS, WEIGHTS])
        return of_tasks(found[LOGITS], found[WEIGHTS])

    def settings(self) -> dict[str, object]:
        """Return the arguments of the exported head."""
        return self.kept


def as_large(
    about: About, graph: "ModelProto", beside: Mapping[str, "ModelProto"], threads: int
) -> FocusNet:
    """Return the model of graphs of `large_graphs`, run by ONNX Runtime.

    Args:
        about: metadata of the main graph.
        graph: the main graph.
        beside: the other graphs, by part.
        threads: CPU threads per call.

    Raises:
        UserError: the graphs are not of one model, or ONNX Runtime is not installed.
    """
    if not beside:
        raise UserError(
            "Expected the main file of a high-resolution model, but got one of its parts: give "
            f"the file without -{PATCHES} or -{REGIONS} in its name."
        )
    detector, head = parts_of(planned(about))
    if set(beside) != ({PATCHES, REGIONS} if detector.regions else {PATCHES}):
        raise UserError("The ONNX file's metadata are damaged: they name the wrong parts.")
    _check_fits(head, beside[PATCHES])
    protos = {SCORES: graph, **beside}
    return run_by(about, {part: Graph(proto, threads) for part, proto in protos.items()})


def run_by(about: About, graphs: Mapping[str, Runs]) -> FocusNet:
    """Return a model whose parts are run by graphs.

    Args:
        about: metadata of the main graph.
        graphs: the main graph under the name of its output, `scores`, and the others by part.
    """
    detector, head = parts_of(planned(about))
    scores: dict[str, nn.Module] = {
        name: OnnxScores(graphs[part])
        for name, part in (("fine", SCORES), ("coarse", REGIONS))
        if part in graphs
    }
    for name, part in scores.items():
        setattr(detector, name, part)
    replaced = OnnxHead(graphs[PATCHES], head)
    model = FocusNet(detector, replaced, head.patch_size, inputs=about.inputs)
    model.about = about
    return model.eval()


def planned(about: About) -> FocusNet:
    """Return the exported model without weights, on the meta device.

    Raises:
        UserError: the settings are for a different kind of model.
    """
    with torch.device("meta"):
        plan = build_model(about.config)
    if type(plan) is not FocusNet or type(plan.detector) is not HighResDetector:
        raise UserError(
            "The ONNX file's metadata are damaged: the settings are for a different kind of model."
        )
    return plan


def _check_fits(head: Head, proto: "ModelProto") -> None:
    """Raise a UserError unless the graph reads patches of the shape that the settings give."""
    side = head.patch_size
    expected = [head.keypoints, head.in_channels, side, side]
    for taken in proto.graph.input:
        if taken.name == PATCHES:
            shape = [length.dim_value for length in taken.type.tensor_type.shape.dim]
            if shape[1:] == expected:
                return
    raise UserError("The ONNX file's metadata are damaged: the patches have another shape.")
