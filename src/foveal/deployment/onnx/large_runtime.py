"""High-resolution focus models whose detector and head are run by ONNX Runtime."""

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
    detector_and_head,
)
from foveal.deployment.onnx.session import Graph
from foveal.detectors import HighResDetector, Located
from foveal.foundation.errors import UserError
from foveal.heads import AttentionHead, Head, HeadOutput
from foveal.heads.attention import multi_task_output
from foveal.models import FocusNet, build_model

if TYPE_CHECKING:
    from onnx import ModelProto


class GraphRunner(Protocol):
    """Anything that runs a graph in the way of `Graph.run`."""

    def run(self, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> dict[str, Tensor]:
        """Return the tensors `outputs`, computed from `inputs`."""


class OnnxScores(nn.Module):
    """Scores the cells of a thumbnail by a graph, which includes the normalisation."""

    def __init__(self, graph: GraphRunner):
        super().__init__()
        self.graph = graph

    def forward(self, thumbnail: Tensor) -> Tensor:
        """Return scores (B, h // 2, w // 2) of a thumbnail (B, C, h, w) in [0, 1]."""
        return self.graph.run({THUMBNAIL: thumbnail}, [SCORES])[SCORES]


class OnnxHead(Head):
    """A head for any number of tasks that is computed by a graph, which includes the normalisation.

    Args:
        graph: the graph to run.
        head: the head that was exported; only its settings are used.
    """

    def __init__(self, graph: GraphRunner, head: AttentionHead):
        super().__init__()
        self.graph = graph
        self.keypoints = head.keypoints
        self.patch_size = head.patch_size
        self.in_channels = head.in_channels
        self.num_classes = head.num_classes
        self.tasks = head.tasks
        self.exported_settings = head.settings()

    def forward(self, patches: Tensor, located: Located) -> HeadOutput:
        """Return the logits of all tasks for patches (B, K, C, P, P) in [0, 1]."""
        inputs = {PATCHES: patches, KEYPOINTS: located.xy}
        outputs = self.graph.run(inputs, [LOGITS, WEIGHTS])
        return multi_task_output(outputs[LOGITS], outputs[WEIGHTS])

    def settings(self) -> dict[str, object]:
        """Return the arguments of the exported head."""
        return self.exported_settings


def as_large(
    about: About, graph: "ModelProto", beside: Mapping[str, "ModelProto"], threads: int
) -> FocusNet:
    """Return the model that `large_graphs` exported, run by ONNX Runtime.

    Args:
        about: metadata of the main graph.
        graph: the main graph.
        beside: the additional graphs, by part.
        threads: CPU threads per call.

    Raises:
        UserError: the graphs do not belong to one model, or ONNX Runtime is not installed.
    """
    if not beside:
        raise UserError(
            "Expected the main file of a high-resolution model, but got one of its parts: give "
            f"the file without -{PATCHES} or -{REGIONS} in its name."
        )
    detector, head = detector_and_head(model_without_weights(about))
    if set(beside) != ({PATCHES, REGIONS} if detector.regions else {PATCHES}):
        raise UserError("The ONNX file's metadata are damaged: they name the wrong parts.")
    _check_patch_shape(head, beside[PATCHES])
    protos = {SCORES: graph, **beside}
    return model_from_graphs(about, {part: Graph(proto, threads) for part, proto in protos.items()})


def model_from_graphs(about: About, graphs: Mapping[str, GraphRunner]) -> FocusNet:
    """Return a model whose detector and head are run by graphs.

    Args:
        about: metadata of the main graph.
        graphs: the main graph under the name of its output, `scores`, and the others by part.
    """
    detector, head = detector_and_head(model_without_weights(about))
    score_modules: dict[str, nn.Module] = {
        name: OnnxScores(graphs[part])
        for name, part in (("fine", SCORES), ("coarse", REGIONS))
        if part in graphs
    }
    for name, module in score_modules.items():  # replaces modules without weights
        setattr(detector, name, module)
    onnx_head = OnnxHead(graphs[PATCHES], head)
    model = FocusNet(detector, onnx_head, head.patch_size, inputs=about.inputs)
    model.about = about
    return model.eval()


def model_without_weights(about: About) -> FocusNet:
    """Return the exported model with its settings but without weights, on the meta device.

    Raises:
        UserError: the settings are for a different kind of model.
    """
    with torch.device("meta"):
        model = build_model(about.config)
    if type(model) is not FocusNet or type(model.detector) is not HighResDetector:
        raise UserError(
            "The ONNX file's metadata are damaged: the settings are for a different kind of model."
        )
    return model


def _check_patch_shape(head: Head, proto: "ModelProto") -> None:
    """Raise a UserError unless the graph reads patches of the shape in the settings."""
    side = head.patch_size
    expected = [head.keypoints, head.in_channels, side, side]
    for graph_input in proto.graph.input:
        if graph_input.name == PATCHES:
            shape = [length.dim_value for length in graph_input.type.tensor_type.shape.dim]
            if shape[1:] == expected:  # the first dimension is that of the batch
                return
    raise UserError("The ONNX file's metadata are damaged: the patches have another shape.")
