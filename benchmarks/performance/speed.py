"""Training time to 98 % on MNIST: mnist-focus-plain and the original project, in one run.

The original project trains the published architecture with batches of 64 and Adadelta (learning
rate 1, multiplied by 0.7 per epoch); a DataLoader converts images to tensors one by one. Foveal
trains the recipe `mnist-focus-plain` from uint8 images in memory, a batch at a time. Accuracy is
measured on the validation images after each epoch; this time is not counted.

    FOVEAL_DATA=... python benchmarks/performance/speed.py [--epochs 20]
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from foveal.datasets import ImageSet, load_images
from foveal.foundation.memory import keep_freed_memory
from foveal.metrics.accuracy import accuracy
from foveal.models import build_model
from foveal.models.image_model import ImageModel
from foveal.training import load_recipe
from foveal.training.batches import Batches
from foveal.training.optimizers import make_optimizer
from foveal.training.run import model_settings

TARGET = 0.98


def one_by_one_loader(images: ImageSet, batch_size: int) -> torch.utils.data.DataLoader:
    """Return a loader that converts one PIL image at a time to a tensor."""
    from PIL import Image
    from torchvision import transforms

    transform = transforms.Compose([transforms.ToTensor()])

    class Digits(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            image = Image.fromarray(images.images[index, 0].numpy(), mode="L")
            return transform(image), int(images.labels[index])

    return torch.utils.data.DataLoader(Digits(), batch_size, shuffle=True)


def train_original(train: ImageSet, val: ImageSet, epochs: int) -> dict[str, float]:
    """Train the published model as in the original project."""
    recipe = load_recipe("mnist-focus-published")
    torch.manual_seed(0)
    model = build_model(model_settings(recipe, train))
    optimizer = torch.optim.Adadelta(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.7)
    loader = one_by_one_loader(train, 64)

    def epoch() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()

    return train_to_target(model, epoch, val, epochs, len(train))


def train_foveal(train: ImageSet, val: ImageSet, epochs: int) -> dict[str, float]:
    """Train `mnist-focus-plain` with its recipe and a schedule of the given number of epochs."""
    recipe = load_recipe("mnist-focus-plain", [f"epochs={epochs}"])
    torch.manual_seed(0)
    model = build_model(model_settings(recipe, train)).to(memory_format=torch.channels_last)
    epoch_index = 0
    batches = Batches(
        train.images, train.labels, recipe.training.batch_size, 0, lambda: epoch_index
    )
    optimizer = make_optimizer(model, recipe.training)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.training.lr,
        total_steps=epochs * len(batches) + 1,
        pct_start=recipe.training.warmup,
    )

    average = AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(recipe.training.average), use_buffers=True
    )

    def epoch() -> None:
        nonlocal epoch_index
        for images, labels in batches:
            floats = (images.float() / 255).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            F.cross_entropy(model(recipe.augment(floats)), labels).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.training.clip)
            optimizer.step()
            schedule.step()
            average.update_parameters(model)
        epoch_index += 1

    return train_to_target(average.module, epoch, val, epochs, len(train), trained=model)


def train_to_target(
    model: ImageModel,
    epoch: Callable[[], None],
    val: ImageSet,
    epochs: int,
    train_count: int,
    trained: ImageModel | None = None,
) -> dict[str, float]:
    """Train until the target accuracy is reached or the epochs are over; return the results.

    Args:
        model: the model that is measured on the validation images.
        epoch: function that trains for one epoch.
        val: validation images.
        epochs: maximum number of epochs.
        train_count: number of training images.
        trained: the model that `epoch` trains, if `model` is an average of its weights.
    """
    seconds, val_accuracy = 0.0, 0.0
    for number in range(1, epochs + 1):
        (trained or model).train()
        started = time.perf_counter()
        epoch()
        seconds += time.perf_counter() - started
        val_accuracy = accuracy(model, val)
        print(f"  epoch {number}: {val_accuracy:.2%} after {seconds:.0f} s", flush=True)
        if val_accuracy >= TARGET:
            break
    return {
        "seconds": round(seconds, 1),
        "epochs": number,
        "val_accuracy": round(val_accuracy, 4),
        "reached": val_accuracy >= TARGET,
        "train_images_per_second": round(train_count * number / seconds),
        "inference_images_per_second": round(inference_rate(model, val)),
    }


def inference_rate(model: ImageModel, val: ImageSet) -> float:
    """Return images per second in batches of 500, the best of three passes."""
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        accuracy(model, val)
        rates.append(len(val) / (time.perf_counter() - started))
    return max(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="maximum epochs of the original")
    parser.add_argument("--foveal-epochs", type=int, default=6, help="epochs of Foveal's schedule")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/speed.json"))
    options = parser.parse_args()
    train, val = (load_images("mnist", split) for split in ("train", "val"))
    result: dict[str, object] = {"machine": f"{platform.machine()}, {os.cpu_count()} cores"}
    print("mnist-focus-published, trained as in the original project")
    original = train_original(train, val, options.epochs)
    keep_freed_memory()  # as in `foveal.train`; it cannot be undone, so the original runs first
    print("mnist-focus-plain")
    ours = train_foveal(train, val, options.foveal_epochs)
    result |= {"torch": torch.__version__.split("+")[0], "target": TARGET}
    result |= {"mnist-focus-plain": ours, "mnist-focus-published": original}
    result["ratio"] = round(original["seconds"] / ours["seconds"], 1)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
