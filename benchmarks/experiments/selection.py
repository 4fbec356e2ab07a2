"""Methods of training a detector to select patches, from image labels only.

All start from the same weights, trained on small images only, and take the same number of steps on
megapixel MNIST. Measured on validation images: the fraction of the digits that a patch shows
completely (their boxes are not used in training), and the accuracy of all four tasks.

- `fixed`: the detector is not trained; it selects locations where the thumbnail varies.
- `weights`: the scores are trained by the gradient of the patches' weights.
- `attention-sampling`: the weights are the softmax of the scores only, which are trained like
  attention over sampled locations (Katharopoulos & Fleuret 2019, arXiv:1905.03711).
- `perturbed-top-k`: expected patches under noise on the scores, and their gradient (Cordonnier et
  al. 2021, arXiv:2104.03059), over the best 64 locations.
- `ranked`: the scores are trained to rank like the patches' weights (a teacher without gradient, as
  in Bergner et al. 2023, arXiv:2210.13007); the method of `foveal train`.

    FOVEAL_DATA=... python benchmarks/experiments/selection.py [--first 150 --steps 150]
"""

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import ImageSet, load_large
from foveal.datasets.generated.megapixel import TASKS, TILE
from foveal.detectors import Located
from foveal.detectors.score_map import CELL, best_cells
from foveal.foundation.files import write_json
from foveal.heads import HeadOutput
from foveal.images import LargeImages, View
from foveal.images.geometry import corners_px, from_px, snap, to_px
from foveal.metrics.accuracy import correct
from foveal.models import FocusNet
from foveal.models.presets import high_res
from foveal.training.objectives.losses import ranking_loss
from foveal.training.objectives.ranking.objective import task_losses

BATCH = 16  # images per training step
CANDIDATES, SAMPLES, SIGMA = 64, 100, 0.5  # locations, samples and noise of the perturbed top-k
LargeSet = ImageSet[LargeImages]
# Function of a model, a set and indices (B,) that returns the logits (B, T, classes) of T tasks and
# the loss of the selection, which is added to the loss of the logits.
Step = Callable[[FocusNet, LargeSet, Tensor], tuple[Tensor, Tensor]]


def labels_of(images: LargeSet, indices: Tensor) -> list[Tensor]:
    """Return the labels (B,) or (B, classes) of each task."""
    return [labels[indices] for labels in images.tasks.values()]


def head_output(model: FocusNet, view: View, located: Located) -> HeadOutput:
    """Return the head's output for the patches at given locations."""
    return model.head(*model.cut(view, located))


def ranked_step(model: FocusNet, images: LargeSet, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits; the loss ranks the scores like the weights of the patches."""
    view = model.view(images.images, indices)
    located = model.locate(view)
    output = head_output(model, view, located)
    return output.task_logits, ranking_loss(located.score, output.task_weights)


def weights_step(model: FocusNet, images: LargeSet, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits; the scores receive the gradient of the weights."""
    logits, _ = ranked_step(model, images, indices)
    return logits, torch.zeros(())


def fixed_step(model: FocusNet, images: LargeSet, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits; the scores receive no gradient."""
    view = model.view(images.images, indices)
    return head_output(model, view, Located(model.locate(view).xy)).task_logits, torch.zeros(())


def sampling_step(model: FocusNet, images: LargeSet, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits with patches weighted by the scores."""
    view = model.view(images.images, indices)
    logits, _ = weighted_by_scores(model, view, model.locate(view))
    return logits, torch.zeros(())


def weighted_by_scores(model: FocusNet, view: View, located: Located) -> tuple[Tensor, Tensor]:
    """Return logits (B, T, classes) with patches weighted only by their scores, and keypoints."""
    patches, located = model.cut(view, located)
    head = model.head
    vectors = head.encoder(patches.flatten(0, 1)).unflatten(0, patches.shape[:2])
    attention = copy.copy(head.attention)
    attention._modules = {**attention._modules, "key": _Zeros(len(model.tasks) * attention.heads)}
    return attention(vectors, located.xy, located.score)[0], located.xy


class _Zeros(torch.nn.Module):
    """Zeros instead of the attention's logits, so that only the scores determine the weights."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, tokens: Tensor) -> Tensor:
        """Return zeros (B, K, width)."""
        return tokens.new_zeros(*tokens.shape[:2], self.width)


class ExpectedTopK(torch.autograd.Function):
    """Expected top-k indicators under noise, and their gradient (Cordonnier 2021, eq. 4)."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, count: int) -> Tensor:
        """Return expected indicators (B, K, N) for scores (B, N)."""
        noise = torch.randn(SAMPLES, *scores.shape)
        selected = (scores + SIGMA * noise).topk(count, dim=-1).indices.sort(dim=-1).values
        indicators = F.one_hot(selected, scores.shape[-1]).float()  # (S, B, K, N)
        ctx.save_for_backward(indicators, noise)
        return indicators.mean(dim=0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the scores."""
        indicators, noise = ctx.saved_tensors
        inner = torch.einsum("sbkn,bkn->sb", indicators, grads[0])
        return torch.einsum("sb,sbn->bn", inner, noise) / (SAMPLES * SIGMA), None


def perturbed_step(model: FocusNet, images: LargeSet, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits of expected patches at expected locations."""
    view = model.view(images.images, indices)
    detector, head = model.detector, model.head
    scores = detector.fine(view.thumbnail(detector.shrink))
    candidates = best_cells(scores.detach()[:, None], CANDIDATES).sort(dim=1).values
    width = scores.shape[-1]
    cells = torch.stack([candidates % width, candidates // width], dim=-1)
    centres = from_px((cells + 0.5) * CELL * detector.shrink - 0.5, view.size)
    centres = snap(centres, model.patch_size, view.size)
    patches = view.crops(corners_px(centres, model.patch_size, view.size), model.patch_size)
    indicators = ExpectedTopK.apply(scores.flatten(1).gather(1, candidates), detector.keypoints)
    mixed = torch.einsum("bkn,bncij->bkcij", indicators, patches)
    vectors = head.encoder(mixed.flatten(0, 1)).unflatten(0, mixed.shape[:2])
    logits, _ = head.attention(vectors, indicators @ centres)
    return logits, torch.zeros(())


ESTIMATORS: dict[str, Step] = {
    "fixed": fixed_step,
    "weights": weights_step,
    "attention-sampling": sampling_step,
    "perturbed-top-k": perturbed_step,
    "ranked": ranked_step,
}


def train_detector(
    model: FocusNet, images: LargeSet, step: Step, steps: int, lr: float
) -> FocusNet:
    """Return the model after training for a number of steps."""
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.2)
    for _ in range(steps):
        indices = torch.randint(len(images), (BATCH,))
        with torch.autocast("cpu", torch.bfloat16):
            logits, selection_loss = step(model, images, indices)
        loss = task_losses(logits.float(), labels_of(images, indices))[0] + selection_loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def figures(model: FocusNet, images: LargeSet, by_scores: bool) -> dict[str, float]:
    """Return the accuracy and the fraction of digits that a patch shows completely."""
    hits, shown = [], []
    for indices in torch.arange(len(images)).split(50):
        view = model.view(images.images, indices)
        located = model.locate(view)
        if by_scores:
            logits, xy = weighted_by_scores(model, view, located)
        else:
            observed = model.decide(view, located)
            logits, xy = observed.task_logits, observed.keypoints
        pairs = zip(logits.unbind(dim=1), labels_of(images, indices), strict=True)
        hits.append(torch.stack([correct(*pair) for pair in pairs], dim=1))
        centres = images.images.boxes[indices][..., :2] + (TILE - 1) / 2  # type: ignore[attr-defined]
        offsets = to_px(xy, view.size)[:, :, None] - centres[:, None]
        # A digit does not fill its tile: a margin of 2 pixels may lie outside the patch.
        inside = offsets.abs().amax(dim=-1) <= (model.patch_size - TILE) / 2 + 2
        shown.append(inside.any(dim=1).float().mean(dim=1))
    accuracies = torch.cat(hits).float().mean(dim=0).tolist()
    by_task = {task: round(value, 4) for task, value in zip(TASKS, accuracies, strict=True)}
    mean = round(sum(accuracies) / len(accuracies), 4)
    return {"digits_shown": round(float(torch.cat(shown).mean()), 4), **by_task, "mean": mean}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=600, help="steps on small images")
    parser.add_argument("--steps", type=int, default=300, help="steps on large images")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--val", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/selection.json"))
    options = parser.parse_args()
    large = load_large("megapixel-mnist", "train", limit=options.images)
    val = load_large("megapixel-mnist", "val", limit=options.val)
    small = load_large("megapixel-mnist-300", "train", limit=options.images)
    torch.manual_seed(0)
    initial_model = high_res(keypoints=7, patch_size=40, tasks=TASKS)
    initial_model = train_detector(initial_model, small, fixed_step, options.first, 2 * options.lr)
    initial_model.detector.keypoints = 12
    results: dict[str, Any] = {"initial": figures(initial_model, val, False)}
    print(json.dumps(results), flush=True)
    for name, step in ESTIMATORS.items():
        model = train_detector(copy.deepcopy(initial_model), large, step, options.steps, options.lr)
        results[name] = figures(model, val, name == "attention-sampling")
        print(json.dumps({name: results[name]}), flush=True)
    write_json(
        options.out,
        {"settings": {name: str(value) for name, value in vars(options).items()}, **results},
    )


if __name__ == "__main__":
    main()
