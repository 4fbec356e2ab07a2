"""Accuracy against multiply-adds on megapixel MNIST: the focus model and dense baselines.

The focus model is run with fewer and more patches than in training. The dense baselines use its
trained patch encoder, because training on full images would take 16 billion multiply-adds per image
and step, an hour per epoch on two cores. For one of them every patch of a gapless grid is encoded
once, and attention, initialised from the focus model's, is trained on these vectors; for the other
a head is trained on the encoder's maximum over all locations. A small CNN on the downsampled image
is trained from scratch. Results are for test images, after the last epoch.

    FOVEAL_DATA=... python benchmarks/experiments/highres_accuracy.py [--model NAME]
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from highres import DOWNSAMPLED_SIDE, encode_all, load, multiply_adds
from selection import LargeSet, labels_of
from torch import Tensor, nn

from foveal.datasets import load_large
from foveal.foundation.files import write_json
from foveal.images.geometry import from_px
from foveal.metrics.accuracy import correct
from foveal.models import FocusNet, SmallCNN
from foveal.plotting import colour, new_figure
from foveal.training.objectives.ranking.objective import task_losses

SIDE = 1500
PATCHES = (4, 8, 12, 20)  # the focus model is trained with 12
HEAD_EPOCHS, GRID_EPOCHS, LR, BATCH = 60, 15, 2e-3, 50
# Function of the indices (B,) of images that returns the logits (B, T, classes) of T tasks.
Predict = Callable[[Tensor], Tensor]


@torch.inference_mode()
def accuracies(predict: Predict, images: LargeSet, batch: int) -> dict[str, float]:
    """Return the accuracy of each task, and their mean."""
    hits = []
    for indices in torch.arange(len(images)).split(batch):
        pairs = zip(predict(indices).unbind(dim=1), labels_of(images, indices), strict=True)
        hits.append(torch.stack([correct(*pair) for pair in pairs], dim=1))
    means = torch.cat(hits).float().mean(dim=0).tolist()
    by_task = {task: round(mean, 4) for task, mean in zip(images.tasks, means, strict=True)}
    return by_task | {"mean": round(sum(means) / len(means), 4)}


def focus_predictor(focus: FocusNet, images: LargeSet) -> Predict:
    """Return a function that predicts from the detector's locations."""

    def predict(indices: Tensor) -> Tensor:
        return focus.observe(focus.view(images.images, indices)).task_logits

    return predict


def grid_of(focus: FocusNet) -> Tensor:
    """Return the keypoints (1, K, 2) of a gapless grid of patches."""
    side = focus.patch_size
    centres = torch.arange(SIDE // side) * side + (side - 1) / 2
    grid = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1).flatten(0, 1)
    return from_px(grid, (SIDE, SIDE))[None]


@torch.inference_mode()
def grid_vectors(focus: FocusNet, images: LargeSet) -> Tensor:
    """Return the vectors (N, K, D) of every patch of the grid, in half precision."""
    vectors = []
    for index in torch.arange(len(images)).split(1):
        pixels = focus.view(images.images, index).thumbnail(1)
        vectors.append(encode_all(focus.head.encoder, pixels, focus.patch_size).half())
    return torch.stack(vectors)


class GridAttention(nn.Module):
    """Attention like the focus model's, over the vectors of all patches of the grid."""

    def __init__(self, focus: FocusNet):
        super().__init__()
        self.attention = copy.deepcopy(focus.head.attention)
        self.grid = grid_of(focus)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return logits (B, T * classes) of vectors (B, K, D)."""
        return self.attention(vectors.float(), self.grid.expand(len(vectors), -1, -1))[0].flatten(1)


@torch.inference_mode()
def maximum_features(focus: FocusNet, images: LargeSet) -> Tensor:
    """Return the encoder's maxima (N, C) over all locations of full images."""
    maxima = []
    for index in torch.arange(len(images)).split(1):
        pixels = focus.view(images.images, index).thumbnail(1)
        with torch.autocast("cpu", torch.bfloat16):
            features = focus.head.encoder.features(
                pixels.contiguous(memory_format=torch.channels_last)
            )
        maxima.append(features.amax(dim=(-2, -1)).float())
    return torch.cat(maxima)


def train_net(
    net: nn.Module, inputs: Tensor, images: LargeSet, epochs: int, lr: float
) -> nn.Module:
    """Return a net (B, ...) -> (B, T * classes), trained on inputs (N, ...)."""
    torch.manual_seed(0)
    steps = epochs * -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, pct_start=0.2)
    net.train()
    for _ in range(epochs):
        for indices in torch.randperm(len(images)).split(BATCH):
            logits = net(inputs[indices]).unflatten(1, (len(images.tasks), -1))
            loss, _ = task_losses(logits, labels_of(images, indices))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def predictor(net: nn.Module, inputs: Tensor, images: LargeSet) -> Predict:
    """Return a function that predicts with a network from `train_net`."""
    return lambda indices: net(inputs[indices]).unflatten(1, (len(images.tasks), -1))


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy against multiply-adds."""
    figure = new_figure(8.5, 3.6)
    axes = figure.subplots()
    for number, row in enumerate(rows):
        axes.plot(row["macs"], row["mean"], "o", color=colour(number), ms=7, label=row["way"])
    axes.set(xscale="log", ylim=(0, 1))
    axes.set_xlabel("multiply-adds for one image of 1,500 x 1,500 pixels", fontsize=9)
    axes.set_ylabel("mean accuracy of four tasks", fontsize=9)
    axes.grid(color="#E4E8EB", lw=0.8)
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="megapixel-mnist-focus")
    parser.add_argument(
        "--train", type=int, default=2000, help="images that the heads are trained on"
    )
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument(
        "--epochs", type=int, default=8, help="epochs of the CNN on downsampled images"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmarks/results/highres_accuracy.json")
    )
    parser.add_argument("--plot", type=Path, default=Path("docs/images/highres-accuracy.png"))
    options = parser.parse_args()
    focus = load(options.model).eval()
    train, test = (
        load_large("megapixel-mnist", split, limit=limit).of(focus.tasks)
        for split, limit in (("train", options.train), ("test", options.test))
    )
    outputs = len(focus.tasks) * focus.num_classes
    rows: list[dict[str, Any]] = []

    def add_row(way: str, macs: int, results: dict[str, float]) -> None:
        rows.append({"way": way, "macs": macs, **results})
        print(rows[-1], flush=True)

    macs = {
        name: multiply_adds(name, load(options.model), SIDE)
        for name in (
            "focus, image in memory",
            "all patches",
            "downsampled image",
            "full resolution",
        )
    }
    trained_keypoints = focus.keypoints
    patch_macs = macs["all patches"] // (SIDE // focus.patch_size) ** 2
    for count in PATCHES:
        focus.keypoints = count
        results = accuracies(focus_predictor(focus, test), test, BATCH)
        # The cost of the detector is constant; each patch more or less changes that of the head.
        cost = macs["focus, image in memory"] + (count - trained_keypoints) * patch_macs
        add_row(f"focus, {count} patches", cost, results)
    vectors, test_vectors = grid_vectors(focus, train), grid_vectors(focus, test)
    attention_net = train_net(GridAttention(focus), vectors, train, GRID_EPOCHS, LR / 4)
    add_row(
        "every patch of a grid",
        macs["all patches"],
        accuracies(predictor(attention_net, test_vectors, test), test, BATCH),
    )
    shrink = SIDE // DOWNSAMPLED_SIDE
    train_small, test_small = (
        (images.images.thumbnails(torch.arange(len(images)), shrink) - focus.mean) / focus.std
        for images in (train, test)
    )
    cnn = train_net(
        SmallCNN(focus.in_channels, outputs), train_small, train, options.epochs, 5 * LR
    )
    cnn_macs = macs["downsampled image"]
    add_row(
        "small CNN, downsampled image",
        cnn_macs,
        accuracies(predictor(cnn, test_small, test), test, BATCH),
    )
    vectors, test_vectors = maximum_features(focus, train), maximum_features(focus, test)
    width = vectors.shape[1]
    head = nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, outputs)
    )
    head_net = train_net(head, vectors, train, HEAD_EPOCHS, LR)
    add_row(
        "full resolution",
        macs["full resolution"],
        accuracies(predictor(head_net, test_vectors, test), test, BATCH),
    )
    write_json(
        options.out, {"model": options.model, "train": len(train), "test": len(test), "rows": rows}
    )
    plot(rows, options.plot)


if __name__ == "__main__":
    main()
