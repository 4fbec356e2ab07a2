"""Comparison of models and of their explanations on the same images; resumable."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from foveal import zoo
from foveal.datasets import ImageSet, load_images
from foveal.datasets.annotations import annotated
from foveal.datasets.names import some_names
from foveal.evaluation.evaluate import (
    Say,
    groups_of,
    judge_of,
    load_annotated,
    probe_images,
    reading_notes,
)
from foveal.evaluation.ledger import Ledger
from foveal.evaluation.measuring import (
    ANSWER,
    LABEL,
    Measured,
    explanation_figures,
    model_figures,
    published_figures,
)
from foveal.explainers import CONTROLS, OWN, methods_of, post_hoc_methods
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.memory import keep_freed_memory
from foveal.images.photos import Photos, parts_of
from foveal.metrics.classes import as_known, classes_of, match_classes
from foveal.metrics.registry import EXPLANATION_METRICS, METRICS, useful_for
from foveal.metrics.subject import Given
from foveal.models import ImageModel, as_classifier
from foveal.models.contributions import CONTRIBUTIONS

Progress = Callable[[str, int, int], None]  # current step as text, steps done, steps in all


@dataclass(frozen=True)
class Candidate:
    """One model of a comparison.

    Attributes:
        name: the name by which it was given.
        network: the model.
        digest: SHA-256 of its weights, which tells its figures from those of other weights.
    """

    name: str
    network: ImageModel
    digest: str


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison.

    Attributes:
        candidates: the models.
        test: the images compared on, of classes that all models know.
        judge: name of the judge of the evidence, or None.
        models: figures of each model, as `foveal evaluate` has them.
        explanations: figures of each model's explanations, with `model` and `method`.
        explained: class whose logit the methods explained: `answer` (the prediction) or `label`.
    """

    candidates: tuple[Candidate, ...]
    test: ImageSet
    judge: str | None
    models: tuple[dict[str, Any], ...]
    explanations: tuple[dict[str, Any], ...]
    explained: str = ANSWER

    def test_of(self, one: Candidate) -> ImageSet:
        """Return the images with the class indices of one of the models."""
        return as_known(self.test, one.network, one.name)[0]


def compare(
    models: Sequence[str],
    data: str,
    out: str | Path,
    *,
    split: str = "test",
    images: int = 1000,
    data_dir: Path | None = None,
    judge: str | None = None,
    methods: Sequence[str] | None = None,
    published: int = 0,
    explain: str = ANSWER,
    boxes: Path | None = None,
    masks: Path | None = None,
    groups: str | None = None,
    seed: int = 0,
    progress: Progress = lambda what, done, steps: None,
    say: Say = lambda line: None,
) -> Comparison:
    """Measure models and their explanations on the same images; keep the figures below `out`.

    Args:
        models: zoo names, run folders or OWNER/NAME of classifiers of the same images. They may
            know different classes: images of classes that one does not know are left out.
        data: a dataset, a folder, or hf:OWNER/NAME.
        out: folder; figures in it for the same weights, images and seed are reused.
        split: `train`, `val` or `test`.
        images: number of images, balanced over the classes; all if there are fewer.
        data_dir: folder of the named datasets.
        judge: a model trained with `augment.hide`; default: the zoo's for that dataset.
        methods: baselines to measure, of `explainers.post_hoc_methods()`; default: all.
        published: number of the compared images to measure published metrics on, with Quantus (an
            extra); 0 for none. They take seconds per image.
        explain: class whose logit is explained: `answer` (the prediction) or the true `label`;
            deletion and insertion follow the probability of the same class.
        boxes: annotations of a folder's images, see `with_annotations`.
        masks: likewise; named sets of photographs have their own. With annotations, the
            controls `centre` and `uniform` are measured too.
        groups: groups of images that are never split, see `read_groups`.
        seed: random seed of the choice of images, and of probes, pairs and noise.
        progress: called before every step, and at the end.
        say: called with how the data was read, and with what was left out.

    Raises:
        UserError: unknown names, models of different images or without a common class, a folder
            that cannot be written, or published metrics without Quantus or on photographs of
            several sizes.
    """
    if explain not in (ANSWER, LABEL):
        raise unknown_name("logit to explain", explain, (ANSWER, LABEL))
    compared = _compared_methods(methods)
    keep_freed_memory()
    candidates = tuple(_candidate(name) for name in models)
    inputs = _common_inputs(candidates)
    inputs |= {"data_dir": data_dir, "groups": groups_of(models, data, groups)}
    whole = load_annotated(data, split, boxes=boxes, masks=masks, say=say, **inputs)
    test = _of_common_classes(whole, candidates, say)
    test = test.few(min(images, len(test)), seed)
    if published and isinstance(test.images, Photos):
        raise UserError("Published metrics need images of one size, but these have several.")
    train = None
    if any(Given.TRAIN in useful_for(one.network) for one in candidates):
        train = probe_images(lambda: load_images(data, "train", **inputs), say)
    network = judge_of(judge, test)
    judge = (judge or zoo.judge_of(test.name)) if network is not None else None
    run = _Run(
        ledger=Ledger(Path(out) / "figures", _key(test, seed, judge, explain)),
        measured=tuple(
            _measured(one, test, train, network, seed=seed, explain=explain) for one in candidates
        ),
        methods=compared,
        controls=tuple(CONTROLS) if annotated(test).any() else (),
        optional=compared if methods is None else (),
        published=published,
        progress=progress,
        say=say,
    )
    figures, explanations = run()
    return Comparison(candidates, test, judge, figures, explanations, explain)


def _measured(
    one: Candidate,
    test: ImageSet,
    train: ImageSet | None,
    judge: ImageModel | None,
    *,
    seed: int,
    explain: str,
) -> Measured:
    known, _ = as_known(test, one.network, one.name)
    return Measured(one.name, one.network, one.digest, known, train, judge, seed, explain)


@dataclass(frozen=True)
class _Run:
    """The steps of a comparison: figures of each model, then of each of its explanations.

    Attributes:
        ledger: figures that are known already.
        measured: the models.
        methods: the methods to measure where a model supports them.
        controls: methods that need no model, measured for each.
        optional: the methods that are left out where they fail.
        published: number of images for the published metrics, or 0.
        progress: called with every step.
        say: called with what was left out.
    """

    ledger: Ledger
    measured: tuple[Measured, ...]
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    optional: tuple[str, ...]
    published: int
    progress: Progress
    say: Say

    def __call__(self) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
        """Return the figures of the models, and those of their explanations."""
        jobs = [
            (one, method)
            for one in self.measured
            for method in (*self._supported(one), *self.controls)
        ]
        steps = len(self.measured) + len(jobs)
        figures: list[dict[str, Any]] = []
        for one in self.measured:
            self.progress(f"{one.name}: figures", len(figures), steps)
            measure = partial(model_figures, one)
            figures.append(self.ledger.get(one.name, one.digest, "figures", measure))
        explanations: list[dict[str, Any]] = []
        for one, method in jobs:
            what = f"{one.name}: {'its own explanation' if method == OWN else method}"
            self.progress(what, len(figures) + len(explanations), steps)
            found = self._explained(one, method)
            if found is not None:
                explanations.append({"model": one.name, "method": method, **found})
        self.progress("done", steps, steps)
        return tuple(figures), tuple(explanations)

    def _supported(self, one: Measured) -> list[str]:
        return [method for method in methods_of(one.network) if method in self.methods]

    def _explained(self, one: Measured, method: str) -> dict[str, Any] | None:
        """Return the figures of a method, or None where it fails and is optional."""
        measure = partial(explanation_figures, one, method)
        try:
            found = self.ledger.get(one.name, one.digest, method, measure)
        except UserError as error:
            if method not in self.optional:
                raise
            self.say(f"{one.name}: {method} is left out: {error}")
            return None
        if self.published:
            images = min(self.published, len(one.test))
            measure = partial(published_figures, one, method, images)
            what = f"{method}, published, {images}"
            found = found | self.ledger.get(one.name, one.digest, what, measure)
        return found


def _compared_methods(methods: Sequence[str] | None) -> tuple[str, ...]:
    known = post_hoc_methods()
    for method in methods or ():
        if method not in known:
            raise unknown_name("method", method, known)
    return (OWN, CONTRIBUTIONS, *(known if methods is None else methods))


def _candidate(name: str) -> Candidate:
    network = as_classifier(zoo.load(name), f"{name} is not a classifier and cannot be compared.")
    weights = (zoo.folder(name) / "model.safetensors").read_bytes()
    return Candidate(name, network, hashlib.sha256(weights).hexdigest())


def _of_common_classes(test: ImageSet, candidates: Sequence[Candidate], say: Say) -> ImageSet:
    """Return the images of classes that all models know; report what was left out."""
    for line in reading_notes(test):
        say(line)
    known = [
        match_classes(classes_of(one.network, one.name), test.name, test.classes, named=test.named)
        for one in candidates
    ]
    shared = [
        None if None in indices else label for label, indices in enumerate(zip(*known, strict=True))
    ]
    found = test.relabelled(shared, test.classes)
    if not len(found):
        raise UserError(
            f"No image of {test.name} is of a class that all models know: "
            f"{', '.join(one.name for one in candidates)}."
        )
    if len(found) < len(test):
        unknown = [name for name, label in zip(test.classes, shared, strict=True) if label is None]
        say(
            f"left out {len(test) - len(found):,} images of classes that not all models know: "
            f"{some_names(unknown)}"
        )
    return found


def _common_inputs(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return the size and channels that all models read."""
    if not candidates:
        raise UserError("Expected at least 1 model to compare, but got none.")
    if len({one.name for one in candidates}) < len(candidates):
        raise UserError("Expected different models to compare, but one is given twice.")
    first, *others = (
        {"size": one.network.inputs.sizing, "channels": one.network.in_channels}
        for one in candidates
    )
    for one, other in zip(candidates[1:], others, strict=True):
        if other != first:
            raise UserError(
                f"Expected models of the same images, but {one.name} reads {other['size']} pixels "
                f"and {other['channels']} channel(s), and {candidates[0].name} reads "
                f"{first['size']} pixels and {first['channels']} channel(s)."
            )
    return first


def _key(test: ImageSet, seed: int, judge: str | None, explain: str) -> dict[str, Any]:
    """Return the key of the ledger: all that figures depend on but the model and the method."""
    return {
        "version": 3,
        "metrics": [*METRICS, *EXPLANATION_METRICS],
        "data": test.name,
        "split": test.split,
        "images": _digest(test.images),
        "masks": None if test.masks is None else _digest(test.masks),
        "labels": test.labels.tolist(),
        "classes": list(test.classes),
        "seed": seed,
        "judge": judge,
        "explain": explain,
    }


def _digest(images: Tensor | Photos) -> str:
    digest = hashlib.sha256()
    for part in parts_of(images):
        digest.update(f"{tuple(part.shape)}".encode())
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()
