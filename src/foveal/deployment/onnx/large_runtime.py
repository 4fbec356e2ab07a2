"""Parts of focus models run by ONNX Runtime, in the places of PyTorch's."""

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
    """What runs a graph, see `Graph.run`."""

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `wanted` for those given."""


class OnnxScores(nn.Module):
    """The scores of a thumbnail's cells, computed by a graph that normalises it by itself."""

    def __init__(self, graph: Runs):
        super().__init__()
        self.graph = graph

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a thumbnail (B, C, h, w) in [0, 1]."""
        return self.graph.run({THUMBNAIL: thumbnail}, [SCORES])[SCORES]


class OnnxHead(Head):
    """A head of any tasks, computed by a graph that normalises the patches by itself.

    Args:
        graph: that runs.
        like: the head that it was, without weights.
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
        """Return the arguments of the head that it was."""
        return self.kept


def as_large(
    about: About, graph: "ModelProto", beside: Mapping[str, "ModelProto"], threads: int
) -> FocusNet:
    """Return the model that graphs of `large_graphs` were made of, run by ONNX Runtime.

    Args:
        about: what the first graph says.
        graph: the first.
        beside: the others.
        threads: of the processor that one call may use.

    Raises:
        UserError: they are not all of one model, or ONNX Runtime is not installed.
    """
    if not beside:
        raise UserError(
            "This is a part of a high-resolution model: give the file beside it that "
            f"has no -{PATCHES} or -{REGIONS} in its name."
        )
    detector, head = parts_of(planned(about))
    if set(beside) != ({PATCHES, REGIONS} if detector.regions else {PATCHES}):
        raise UserError("The ONNX file's metadata are damaged: they name other parts than needed.")
    _check_fits(head, beside[PATCHES])
    protos = {SCORES: graph, **beside}
    return run_by(about, {part: Graph(proto, threads) for part, proto in protos.items()})


def run_by(about: About, graphs: Mapping[str, Runs]) -> FocusNet:
    """Return a model whose parts are run by graphs.

    Args:
        about: what the first graph says.
        graphs: the first by the name of what it returns, `scores`, the others by their parts.
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
    """Return the model that an export was made of, without weights: it takes no memory.

    Raises:
        UserError: the settings are of no such model.
    """
    with torch.device("meta"):
        plan = build_model(about.config)
    if type(plan) is not FocusNet or type(plan.detector) is not HighResDetector:
        raise UserError("The ONNX file's metadata are damaged: its settings are of another model.")
    return plan


def _check_fits(head: Head, proto: "ModelProto") -> None:
    """Raise UserError unless patches are what their graph reads: settings are only a text."""
    side = head.patch_size
    expected = [head.keypoints, head.in_channels, side, side]
    for taken in proto.graph.input:
        if taken.name == PATCHES:
            shape = [length.dim_value for length in taken.type.tensor_type.shape.dim]
            if shape[1:] == expected:
                return
    raise UserError("The ONNX file's metadata are damaged: its patches are of another shape.")
