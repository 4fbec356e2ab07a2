"""High-resolution models that ONNX Runtime runs: it scores and reads, patches are cut here."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from foveal.errors import UserError
from foveal.export.about import About
from foveal.export.large_graphs import (
    KEYPOINTS,
    LOGITS,
    PATCHES,
    REGIONS,
    SCORES,
    THUMBNAIL,
    WEIGHTS,
)
from foveal.export.session import Graph
from foveal.models import HighResFocusNet, build_model
from foveal.models.large_model import LargeFocusModel


class Runs(Protocol):
    """What runs a graph, see `Graph.run`."""

    def run(self, given: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `wanted` for those given."""


class OnnxLargeFocus(LargeFocusModel):
    """A high-resolution model run by ONNX Runtime, which reads no more of an image than another.

    Args:
        about: what the first graph says of the model.
        plan: the model that it was, without weights.
        graphs: the first by the name of what it returns, `scores`, the others by their parts.
    """

    name = "onnx-high-res"

    def __init__(self, about: About, plan: HighResFocusNet, graphs: Mapping[str, Runs]):
        super().__init__(
            plan.in_channels,
            plan.num_classes,
            about.inputs,
            shrink=plan.shrink,
            keypoints=plan.keypoints,
            patch_size=plan.patch_size,
            tasks=plan.tasks,
            regions=plan.regions,
            thumbnail_side=plan.thumbnail_side,
        )
        self.about, self.graphs = about, dict(graphs)

    def score(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a thumbnail (B, C, h, w) in [0, 1]."""
        return self.graphs[SCORES].run({THUMBNAIL: thumbnail}, [SCORES])[SCORES]

    def score_coarsely(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a coarser thumbnail (B, C, h, w) in [0, 1]."""
        return self.graphs[REGIONS].run({THUMBNAIL: thumbnail}, [SCORES])[SCORES]

    def read(
        self, patches: Tensor, keypoints: Tensor, scores: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Answer all tasks from patches (B, K, C, P, P) in [0, 1] at keypoints (B, K, 2)."""
        given = {PATCHES: patches, KEYPOINTS: keypoints}
        found = self.graphs[PATCHES].run(given, [LOGITS, WEIGHTS])
        return found[LOGITS], found[WEIGHTS]


def as_large(about: About, graph: Any, beside: Mapping[str, Any], threads: int) -> OnnxLargeFocus:
    """Return the model that graphs of `large_graphs` were made of.

    Args:
        about: what the first graph says.
        graph: the first, an `onnx.ModelProto`.
        beside: the others.
        threads: of the processor that one call may use.

    Raises:
        UserError: they are not all of one model, or ONNX Runtime is not installed.
    """
    plan = planned(about)
    if not beside:
        raise UserError(
            "This is a part of a high-resolution model: give the file beside it that "
            f"has no -{PATCHES} or -{REGIONS} in its name."
        )
    if set(beside) != ({PATCHES, REGIONS} if plan.regions else {PATCHES}):
        raise UserError("The ONNX file's metadata are damaged: they name other parts than needed.")
    _check_fits(plan, beside[PATCHES])
    protos = {SCORES: graph, **beside}
    graphs = {part: Graph(proto, threads) for part, proto in protos.items()}
    return OnnxLargeFocus(about, plan, graphs)


def planned(about: About) -> HighResFocusNet:
    """Return the model that an export was made of, without weights: it takes no memory.

    Raises:
        UserError: the settings are of no such model.
    """
    with torch.device("meta"):
        plan = build_model(about.config)
    if not isinstance(plan, HighResFocusNet):
        raise UserError("The ONNX file's metadata are damaged: its settings are of another model.")
    return plan


def _check_fits(plan: HighResFocusNet, proto: Any) -> None:
    """Raise UserError unless patches are what their graph reads: settings are only a text."""
    side = plan.patch_size
    expected = [plan.keypoints, plan.in_channels, side, side]
    for taken in proto.graph.input:
        if taken.name == PATCHES:
            shape = [length.dim_value for length in taken.type.tensor_type.shape.dim]
            if shape[1:] == expected:
                return
    raise UserError("The ONNX file's metadata are damaged: its patches are of another shape.")
