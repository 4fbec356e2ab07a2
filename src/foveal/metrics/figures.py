"""All figures of a model on a dataset, as `foveal evaluate` prints them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from foveal.data import ImageSet
from foveal.errors import UserError, at_least_one
from foveal.metrics.accuracy import accuracy
from foveal.metrics.annotated import annotated_figures
from foveal.metrics.attention import maps_worth
from foveal.metrics.classes import as_known
from foveal.metrics.content_following import content_following
from foveal.metrics.efficiency import latency_ms, macs, parameters
from foveal.metrics.evidence import evidence_fraction, evidence_masks
from foveal.metrics.judged import Judged, judged
from foveal.metrics.looks import Looks, as_floats, look_over
from foveal.metrics.position_leakage import LEAST_IMAGES, position_leakage
from foveal.metrics.random_focus import random_focus_accuracy
from foveal.metrics.rebuilding import rebuilding
from foveal.models.attention_model import AttentionModel
from foveal.models.classifier import ImageClassifier
from foveal.models.focus_model import FocusModel
from foveal.models.image_model import ImageModel
from foveal.models.reconstructor import PatchReconstructor


@dataclass(frozen=True)
class Subject:
    """A model and the images to measure it on; it looks at the test images once for all metrics.

    Attributes:
        model: the model.
        test: labelled images that the model was not trained on.
        train: labelled images to train probes on, or None.
        judge: a classifier of the same classes that is used to greyed images, or None.
        batch_size: images in one forward pass.
        seed: of all that is drawn at random.
    """

    model: Any  # an ImageModel, of the kind that the metric is for
    test: ImageSet
    train: ImageSet | None
    judge: ImageClassifier | None
    batch_size: int
    seed: int

    @cached_property
    def looks(self) -> Looks:
        """What the model answers on the test images, and where it looks."""
        return look_over(self.model, self.test.images, self.batch_size)

    @property
    def shared(self) -> dict[str, Any]:
        """The arguments of every metric that looks at the test images."""
        return {"batch_size": self.batch_size, "looks": self.looks}


EVIDENCE_SHARES = (0.05, 0.1, 0.2, 0.5)  # of the pixels, that are taken as a map's evidence

# A metric's value is a number, a dictionary of several, or None where it cannot be measured.
Metric = Callable[[Subject], Any]

METRICS: dict[str, Metric] = {
    "parameters": lambda s: parameters(s.model),
    "macs": lambda s: macs(s.model, s.looks.size),
    "evidence_fraction": lambda s: evidence_fraction(s.model, s.test, **s.shared),
    "latency_ms": lambda s: latency_ms(s.model, s.looks.size),
    "annotations": lambda s: annotated_figures(s.model, s.test, batch_size=s.batch_size),
}


def _leakage(s: Subject) -> float | None:
    if s.train is None or len(s.train) < LEAST_IMAGES:
        return None
    return position_leakage(s.model, s.train, s.test, s.seed, **s.shared)


def _following(s: Subject) -> dict[str, float] | None:
    if len(s.test.labels.unique()) < 2:  # no pairs of different classes
        return None
    return content_following(s.model, s.test, seed=s.seed, **s.shared)._asdict()


def _judged(s: Subject, evidence: Tensor) -> Judged:
    assert s.judge is not None
    answers = s.looks.logits.argmax(dim=1)
    return judged(s.judge, s.test, evidence, answers, batch_size=s.batch_size)


def _patches_judged(s: Subject) -> dict[str, float]:
    return _judged(s, evidence_masks(s.looks, s.batch_size))._asdict()


def _maps_judged(s: Subject) -> dict[str, float]:
    """Return what the judge says of the hottest pixels, for each share of them."""
    found: dict[str, list[Tensor]] = {}
    for batch in s.test.images.split(s.batch_size):
        explanation = s.model.explain(as_floats(s.model, batch), s.batch_size)
        for share in EVIDENCE_SHARES:
            found.setdefault(f"{share:.0%}", []).append(explanation.top_evidence(share))
    return {
        f"{name}_at_{share}": value
        for share, parts in found.items()
        for name, value in _judged(s, torch.cat(parts))._asdict().items()
    }


FOCUS_METRICS: dict[str, Metric] = {
    "judged": _patches_judged,
    "position_leakage": _leakage,
    "content_following": _following,
    "random_focus_accuracy": lambda s: random_focus_accuracy(s.model, s.test, s.seed, **s.shared),
}


ATTENTION_METRICS: dict[str, Metric] = {
    "judged": _maps_judged,
    "attention": lambda s: maps_worth(s.model, s.test, s.seed, batch_size=s.batch_size)._asdict(),
}
REBUILDING_METRICS: dict[str, Metric] = {
    "rebuilding": lambda s: rebuilding(s.model, s.test, batch_size=s.batch_size)._asdict(),
    "position_leakage": _leakage,
}
METRICS_OF: dict[Any, dict[str, Metric]] = {  # kind of model -> metrics of its own
    # What it answers comes first; every model is one of these two.
    ImageClassifier: {"accuracy": lambda s: accuracy(s.model, s.test, **s.shared)},
    PatchReconstructor: REBUILDING_METRICS,
    # Where it looks.
    FocusModel: FOCUS_METRICS,
    AttentionModel: ATTENTION_METRICS,
}


def evaluate(
    model: ImageModel,
    test: ImageSet,
    train: ImageSet | None = None,
    *,
    judge: ImageClassifier | None = None,
    name: str | None = None,
    batch_size: int = 500,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Return a model's figures on a dataset; all shares are fractions from 0 to 1.

    Args:
        model: its mode, the random numbers and the number of threads stay what they were.
        test: labelled images that the model was not trained on. Their classes are matched with
            the model's by name; images of others are left out (`metrics.classes.as_known`).
        train: labelled images to train the probe of `position_leakage` on, which is left out
            without them.
        judge: a classifier of the same images that knows the test images' classes and is used to
            greyed images (`augment.hide`); without one sufficiency and necessity are left out.
        name: of the model; if not given, that of its kind.
        batch_size: images in one forward pass; bounds the memory.
        seed: of the probe and of what is drawn at random.
        progress: called with the name of each metric before it is measured.

    Returns:
        model, data, split, images, parameters, macs, evidence_fraction, latency_ms (median, one
        image, one thread), for classifiers accuracy, for focus models position_leakage,
        content_following, position_following, random_focus_accuracy, sufficiency,
        sufficiency_agreement and necessity, for attention nets shuffled_attention_accuracy,
        uniform_attention_accuracy and what the judge says of the hottest 5, 10, 20 and 50 % of
        the pixels (`sufficiency_at_10%`, …), for reconstructors
        rebuilding_mse, rebuilding_ssim and position_leakage, where images have masks and the model
        explains itself annotated_images, pointing_game, energy_inside, evidence_iou and the hits
        of the controls (centre_pointing_game, uniform_pointing_game), input_size ([height, width]
        in pixels) and seed. Plain numbers and strings, as JSON takes them.

    Raises:
        UserError: no images, labels that the model has no class for, or arguments of another kind.
    """
    _check_kinds(model, test, train)
    batch_size = at_least_one("batch_size", batch_size)
    test = _labelled_for(model, test, name)
    train = None if train is None else _labelled_for(model, train, name)
    subject = Subject(model, test, train, judge, batch_size, seed)
    figures: dict[str, Any] = {
        "model": name or model.name,
        "data": test.name,
        "split": test.split,
        "images": len(test),
    }
    metrics: dict[str, Metric] = {}
    answer, *own = (more for kind, more in METRICS_OF.items() if isinstance(model, kind))
    for more in (answer, METRICS, *own):
        metrics |= more
    if judge is None:
        metrics.pop("judged", None)
    if test.masks is None:
        metrics.pop("annotations")
    for label, measure in metrics.items():
        if progress is not None:
            progress(label)
        value = measure(subject)
        if isinstance(value, dict):
            figures.update(value)
        elif value is not None:
            figures[label] = value
    return {**figures, "input_size": list(subject.looks.size), "seed": seed}


def _check_kinds(model: ImageModel, test: ImageSet, train: ImageSet | None) -> None:
    if not isinstance(model, ImageModel):
        raise UserError(
            f"Expected a model of Foveal, as foveal.load returns, but got {type(model).__name__}."
        )
    for name, data in (("test", test), ("train", train)):
        if data is not None and not isinstance(data, ImageSet):
            raise UserError(
                f"Expected an ImageSet for {name}, as foveal.load_images returns, but got "
                f"{type(data).__name__}. A tensor of bytes makes one: "
                "ImageSet(name, split, images, labels, classes)."
            )


def _labelled_for(model: ImageModel, images: ImageSet, name: str | None) -> ImageSet:
    found, _ = as_known(images, model, name)
    _check(model, found)
    return found


def _check(model: ImageModel, data: ImageSet) -> None:
    if len(data) == 0:
        raise UserError(f"Expected images in {data.name} ({data.split}), but there are none.")
    if not isinstance(model, ImageClassifier):
        return
    least, greatest = int(data.labels.min()), int(data.labels.max())
    if least < 0 or greatest >= model.num_classes:
        raise UserError(
            f"Expected labels from 0 to {model.num_classes - 1}, the model's classes, but "
            f"{data.name} ({data.split}) has labels from {least} to {greatest}."
        )
