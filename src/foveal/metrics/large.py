"""The figures of a high-resolution model on large images, as `foveal evaluate` prints them."""

from typing import Any

import torch
from torch import Tensor

from foveal.data import LargeSet
from foveal.geometry import evidence_px
from foveal.metrics.classes import as_known
from foveal.metrics.efficiency import latency_ms, macs, parameters
from foveal.metrics.looks import evaluating
from foveal.models.large_model import Answer, LargeFocusModel


def evaluate_large(
    model: LargeFocusModel,
    test: LargeSet,
    *,
    name: str | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Return a model's figures on large images; all rates are fractions from 0 to 1.

    Args:
        model: its mode stays what it was.
        test: labelled for all tasks of the model, which it was not trained on. Its classes are
            matched with the model's by name; images of others are left out.
        name: of the model; if not given, that of its kind.
        batch_size: images in one forward pass; bounds the memory.
        seed: of what is drawn at random.

    Returns:
        model, data, split, images, accuracy (of the main task; of a task of any number of classes
        the fraction of images where all are right), with several tasks accuracy_TASK for each and
        accuracy_mean, parameters, macs (of the thumbnail's convolutions and the patches'; the
        means of squares are sums alone), evidence_fraction (thumbnail and patches),
        latency_ms (median, one image in memory, one thread, the thumbnail made of it included),
        random_focus_accuracy (each image read at the keypoints of another), input_size and seed.

    Raises:
        UserError: no labels for a task of the model.
    """
    test, _ = as_known(test.of(model.tasks), model, name)
    right, elsewhere, seen = [], [], []
    with evaluating(model):
        thumbnail = model.places(model.view(test.images, torch.arange(1))).thumbnail
        coarse, size = thumbnail[0, 0].numel(), test.images.size
        places = torch.cat([_places(model, test, part) for part in _parts(test, batch_size)])
        generator = torch.Generator().manual_seed(seed)
        others = (torch.arange(len(test)) + _steps(len(test), generator)) % len(test)
        for part in _parts(test, batch_size):
            own = _answer(model, test, part, places[part])
            right.append(_right(own, test, part))
            elsewhere.append(_right(_answer(model, test, part, places[others[part]]), test, part))
            seen.append(evidence_px(own.keypoints, model.patch_size, size, thumbnail_px=coarse))
    shares = torch.cat(right).float().mean(dim=0).tolist()  # (T,)
    height, width = size
    figures = {
        "model": name or model.name,
        "data": test.name,
        "split": test.split,
        "images": len(test),
        "accuracy": shares[0],
    }
    if len(shares) > 1:
        figures |= {f"accuracy_{task}": s for task, s in zip(model.tasks, shares, strict=True)}
        figures["accuracy_mean"] = sum(shares) / len(shares)
    return figures | {
        "random_focus_accuracy": float(torch.cat(elsewhere)[:, 0].float().mean()),
        "parameters": parameters(model),
        "macs": macs(model, size),
        "evidence_fraction": float(torch.cat(seen).mean()) / (height * width),
        "latency_ms": latency_ms(model, size),
        "input_size": [height, width],
        "seed": seed,
    }


def accuracies(model: LargeFocusModel, test: LargeSet, batch_size: int = 16) -> dict[str, float]:
    """Return for each task of a model the share of images that it answers rightly.

    Args:
        model: its mode stays what it was.
        test: labelled for all tasks of the model.
        batch_size: images in one forward pass; bounds the memory.

    Raises:
        UserError: no labels for a task of the model.
    """
    test, _ = as_known(test.of(model.tasks), model)
    with evaluating(model):
        right = [
            _right(_answer(model, test, part, _places(model, test, part)), test, part)
            for part in _parts(test, batch_size)
        ]
    return dict(zip(model.tasks, torch.cat(right).float().mean(dim=0).tolist(), strict=True))


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (B,) whether answers (B, classes) are right.

    Args:
        logits: of one task.
        labels: (B,) class numbers, or (B, classes) booleans, which must all be met.
    """
    if labels.dtype == torch.bool:
        return ((logits > 0) == labels).all(dim=1)
    return logits.argmax(dim=1) == labels


def _parts(test: LargeSet, batch_size: int) -> tuple[Tensor, ...]:
    return torch.arange(len(test)).split(batch_size)


def _steps(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(1, max(count, 2), (count,), generator=generator)


def _places(model: LargeFocusModel, test: LargeSet, part: Tensor) -> Tensor:
    return model.places(model.view(test.images, part)).keypoints.cpu()


def _answer(model: LargeFocusModel, test: LargeSet, part: Tensor, places: Tensor) -> Answer:
    return model.answer(model.view(test.images, part), places.to(model.mean))


def _right(found: Answer, test: LargeSet, part: Tensor) -> Tensor:
    """Return whether each task's answer is right (B, T)."""
    logits = found.logits.float().cpu()
    answers = [
        correct(logits[:, task], labels[part]) for task, labels in enumerate(test.labels.values())
    ]
    return torch.stack(answers, dim=1)
