"""Write a high-resolution model as graphs between which the runtime cuts patches."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from foveal.export.about import About, write_about
from foveal.export.files import Exported, digest
from foveal.export.graph import translated
from foveal.metrics.efficiency import parameters
from foveal.metrics.looks import evaluating
from foveal.models.large_model import LargeFocusModel

THUMBNAIL, SCORES = "thumbnail", "scores"  # of a graph that says where
PATCHES, KEYPOINTS, LOGITS, WEIGHTS = "patches", "keypoints", "logits", "weights"  # what
REGIONS = "regions"  # the part that says in which regions of larger images to look for places
_SIDES = (24, 32)  # of the example that a graph is traced by; it may have any


def large_graphs(model: LargeFocusModel) -> Exported:
    """Return a high-resolution model as graphs, for any number of images of any size.

    The first one reads a `thumbnail` (B, C, h, w), floats in [0, 1], and returns the `scores`
    (B, h // 2, w // 2) of its places. Beside it, `patches` reads `patches` (B, K, C, P, P) in
    [0, 1] and their `keypoints` (B, K, 2) in grid units, and returns `logits` (B, T, classes) of
    all tasks and the patches' `weights` (B, T, K). A model that has them also has `regions`,
    which scores the coarser thumbnail of larger images. The metadata of each hold the model's
    settings.

    Args:
        model: stays as it is; exported in evaluation mode.

    Raises:
        UserError: onnx is not installed.
    """
    about = partial(
        About,
        in_channels=model.in_channels,
        num_classes=model.num_classes,
        inputs=model.inputs,
        config=model.settings(),
        parameters=parameters(model),
        macs=0,
    )
    scoring = {name: name for name in (THUMBNAIL, SCORES)}
    reading = {name: name for name in (PATCHES, KEYPOINTS, LOGITS, WEIGHTS)}
    with evaluating(model):
        graph = _scores(model, coarse=False)
        beside = {PATCHES: _answers(model)}
        write_about(beside[PATCHES], about(names=reading))
        if model.regions:
            beside[REGIONS] = _scores(model, coarse=True)
            write_about(beside[REGIONS], about(names=scoring))
    write_about(graph, about(names=scoring, beside=sums(beside)))
    return Exported(graph, beside)


def sums(beside: Mapping[str, Any]) -> dict[str, str]:
    """Return by what sums the first graph knows the others."""
    return {part: digest(graph) for part, graph in beside.items()}


class _Scoring(nn.Module):
    def __init__(self, model: LargeFocusModel, coarse: bool):
        super().__init__()
        self.model, self.coarse = model, coarse

    def forward(self, thumbnail: Tensor) -> Tensor:
        seen = (thumbnail - self.model.mean) / self.model.std
        return self.model.score_coarsely(seen) if self.coarse else self.model.score(seen)


class _Reading(nn.Module):
    def __init__(self, model: LargeFocusModel):
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor, keypoints: Tensor) -> tuple[Tensor, Tensor]:
        seen = (patches - self.model.mean[:, None]) / self.model.std[:, None]
        return self.model.read(seen, keypoints, None)


def _scores(model: LargeFocusModel, coarse: bool) -> Any:
    example = torch.zeros(3, model.in_channels, *_SIDES).to(model.mean)
    height, width = (torch.export.Dim(name, min=4) for name in ("height", "width"))
    free = {0: torch.export.Dim("batch"), 2: height, 3: width}
    return translated(_Scoring(model, coarse), {THUMBNAIL: example}, [SCORES], [free])


def _answers(model: LargeFocusModel) -> Any:
    sides = (model.patch_size, model.patch_size)
    patches = torch.zeros(3, model.keypoints, model.in_channels, *sides).to(model.mean)
    given = {PATCHES: patches, KEYPOINTS: torch.zeros(3, model.keypoints, 2).to(model.mean)}
    batch = {0: torch.export.Dim("batch")}
    return translated(_Reading(model), given, [LOGITS, WEIGHTS], [batch, batch])
