"""Comparison of models and of their explanations on the same images; it can be resumed.

A figure is the value of a metric. A judge is a classifier that was trained independently, to
measure how much evidence a region of an image contains. A control is a map that does not depend on
the model.
"""

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
    Notify,
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
    MeasuredModel,
    explanation_figures,
    model_figures,
    published_figures,
)
from foveal.explainers import CONTROLS, OWN, methods_of, post_hoc_methods
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.memory import keep_freed_memory
from foveal.images.photos import Photos, parts_of
from foveal.metrics.classes import classes_of, match_classes, with_model_classes
from foveal.metrics.registry import EXPLANATION_METRICS, METRICS, useful_for
from foveal.metrics.subject import Given
from foveal.models import ImageModel, as_classifier
from foveal.models.contributions import CONTRIBUTIONS

Progress = Callable[[str, int, int], None]  # takes the current step, steps done, and all steps


@dataclass(frozen=True)
class Candidate:
    """One model of a comparison.

    Attributes:
        name: zoo name, run folder or OWNER/NAME, as passed to `compare`.
        network: the model.
        digest: SHA-256 of its weights; figures of other weights are not reused.
    """

    name: str
    network: ImageModel
    digest: str


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison.

    Attributes:
        candidates: the models.
        test: the images on which the models were compared; all models have their classes.
        judge: name of the judge of the evidence, or None.
        models: figures of each model, as printed by `foveal evaluate --json`.
        explanations: figures of explanations, a row for each `model` and `method`.
        explained: class whose logit was explained: `answer` (the prediction) or `label`.
    """

    candidates: tuple[Candidate, ...]
    test: ImageSet
    judge: str | None
    models: tuple[dict[str, Any], ...]
    explanations: tuple[dict[str, Any], ...]
    explained: str = ANSWER

    def test_of(self, candidate: Candidate) -> ImageSet:
        """Return the images, with class indices of one of the models as labels."""
        return with_model_classes(self.test, candidate.network, candidate.name)[0]


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
    progress: Progress = lambda step, done, total: None,
    notify: Notify = lambda line: None,
) -> Comparison:
    """Measure models and their explanations on the same images and store the figures in `out`.

    Args:
        models: zoo names, run folders or OWNER/NAME of classifiers that read the same size and
            channels. Images of classes that any of the models lacks are skipped.
        data: a dataset, a folder, or hf:OWNER/NAME.
        out: output folder; its figures for the same weights, images and seed are reused.
        split: `train`, `val` or `test`.
        images: number of images, balanced over the classes; all if there are fewer.
        data_dir: folder of the named datasets.
        judge: a model trained with `augment.hide`; default: the zoo's for that dataset.
        methods: baselines to measure, of `explainers.post_hoc_methods()`; default: all.
        published: number of the compared images to measure published metrics on, with Quantus (an
            extra); 0 for none. They take seconds per image.
        explain: class whose logit is explained: `answer` (the prediction) or the true `label`;
            deletion and insertion follow the probability of the same class.
        boxes: boxes of the regions that matter in a folder's images, see `with_annotations`.
        masks: masks of these regions, instead of boxes; named photograph datasets have their own.
            With annotations, the controls `centre` and `uniform` are measured too.
        groups: groups of images that are never split, see `read_groups`.
        seed: random seed of the choice of images, and of probes, pairs and noise.
        progress: called before each step and at the end, see `Progress`.
        notify: called with notes on how the data was read and on what was skipped.

    Raises:
        UserError: a name is unknown, the models read different images or have no common class, the
            folder cannot be written, or published metrics are requested without Quantus or for
            photographs of several sizes.
    """
    if explain not in (ANSWER, LABEL):
        raise unknown_name("logit to explain", explain, (ANSWER, LABEL))
    method_names = _method_names(methods)
    keep_freed_memory()
    candidates = tuple(_load_candidate(name) for name in models)
    inputs = _common_inputs(candidates)
    inputs |= {"data_dir": data_dir, "groups": groups_of(models, data, groups)}
    dataset = load_annotated(data, split, boxes=boxes, masks=masks, notify=notify, **inputs)
    test = _with_common_classes(dataset, candidates, notify)
    test = test.few(min(images, len(test)), seed)
    if published and isinstance(test.images, Photos):
        raise UserError(
            "Published metrics need images of one size, but these have several: omit --published "
            "(published=0)."
        )
    train = None
    if any(Given.TRAIN in useful_for(candidate.network) for candidate in candidates):
        train = probe_images(lambda: load_images(data, "train", **inputs), notify)
    judge_model = judge_of(judge, test)
    judge_name = (judge or zoo.judge_of(test.name)) if judge_model is not None else None
    run = _Run(
        ledger=Ledger(Path(out) / "figures", _key(test, seed, judge_name, explain)),
        models=tuple(
            _measured_model(candidate, test, train, judge_model, seed=seed, explain=explain)
            for candidate in candidates
        ),
        methods=method_names,
        controls=tuple(CONTROLS) if annotated(test).any() else (),
        optional=method_names if methods is None else (),
        published=published,
        progress=progress,
        notify=notify,
    )
    figures, explanations = run()
    return Comparison(candidates, test, judge_name, figures, explanations, explain)


def _measured_model(
    candidate: Candidate,
    test: ImageSet,
    train: ImageSet | None,
    judge: ImageModel | None,
    *,
    seed: int,
    explain: str,
) -> MeasuredModel:
    """Return a candidate with its images, whose labels become class indices of the candidate."""
    name, network, digest = candidate.name, candidate.network, candidate.digest
    relabelled, _ = with_model_classes(test, network, name)
    return MeasuredModel(name, network, digest, relabelled, train, judge, seed, explain)


@dataclass(frozen=True)
class _Run:
    """The steps of a comparison: figures of each model, then of each of its explanations.

    Attributes:
        ledger: figures that have been measured already.
        models: the models with their images.
        methods: methods of explanation to measure for each model that supports them.
        controls: names of the controls to measure for each model.
        optional: methods that are skipped if they fail.
        published: number of images for the published metrics, or 0.
        progress: called before each step and at the end, see `Progress`.
        notify: called with a line for each method that is skipped.
    """

    ledger: Ledger
    models: tuple[MeasuredModel, ...]
    methods: tuple[str, ...]
    controls: tuple[str, ...]
    optional: tuple[str, ...]
    published: int
    progress: Progress
    notify: Notify

    def __call__(self) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
        """Return the figures of the models and those of their explanations."""
        jobs = [
            (model, method)
            for model in self.models
            for method in (*self._supported_methods(model), *self.controls)
        ]
        steps = len(self.models) + len(jobs)
        figures: list[dict[str, Any]] = []
        for model in self.models:
            self.progress(f"{model.name}: figures", len(figures), steps)
            measure = partial(model_figures, model)
            figures.append(self.ledger.get(model.name, model.digest, "figures", measure))
        explanations: list[dict[str, Any]] = []
        for model, method in jobs:
            step = f"{model.name}: {'its own explanation' if method == OWN else method}"
            self.progress(step, len(figures) + len(explanations), steps)
            row = self._explanation_row(model, method)
            if row is not None:
                explanations.append({"model": model.name, "method": method, **row})
        self.progress("done", steps, steps)
        return tuple(figures), tuple(explanations)

    def _supported_methods(self, model: MeasuredModel) -> list[str]:
        """Return the methods to measure for a model, its own first."""
        return [method for method in methods_of(model.network) if method in self.methods]

    def _explanation_row(self, model: MeasuredModel, method: str) -> dict[str, Any] | None:
        """Return the figures of a method, or None if it fails and is optional."""
        measure = partial(explanation_figures, model, method)
        try:
            row = self.ledger.get(model.name, model.digest, method, measure)
        except UserError as error:
            if method not in self.optional:
                raise
            self.notify(f"{model.name}: {method} is skipped: {error}")
            return None
        if self.published:
            count = min(self.published, len(model.test))
            measure = partial(published_figures, model, method, count)
            measurement = f"{method}, published, {count}"
            row = row | self.ledger.get(model.name, model.digest, measurement, measure)
        return row


def _method_names(methods: Sequence[str] | None) -> tuple[str, ...]:
    """Return the models' own methods and the given post-hoc methods, or all if None are given."""
    available = post_hoc_methods()
    for method in methods or ():
        if method not in available:
            raise unknown_name("method", method, available)
    return (OWN, CONTRIBUTIONS, *(available if methods is None else methods))


def _load_candidate(name: str) -> Candidate:
    network = as_classifier(zoo.load(name), f"{name} is not a classifier and cannot be compared.")
    weights = (zoo.folder(name) / "model.safetensors").read_bytes()
    return Candidate(name, network, hashlib.sha256(weights).hexdigest())


def _with_common_classes(
    test: ImageSet, candidates: Sequence[Candidate], notify: Notify
) -> ImageSet:
    """Return the images of classes that all models have; report the others and reading notes."""
    for line in reading_notes(test):
        notify(line)
    classes = [classes_of(candidate.network, candidate.name) for candidate in candidates]
    matches = [match_classes(c, test.name, test.classes, named=test.named) for c in classes]
    labels = [  # None for a class that a model lacks
        None if None in indices else label
        for label, indices in enumerate(zip(*matches, strict=True))
    ]
    common = test.relabelled(labels, test.classes)
    if not len(common):
        raise UserError(
            f"Expected images of classes that all models have, but {test.name} has none for "
            f"{', '.join(candidate.name for candidate in candidates)}."
        )
    if len(common) < len(test):
        missing = [name for name, label in zip(test.classes, labels, strict=True) if label is None]
        notify(
            f"skipped {len(test) - len(common):,} images of classes that not all models have: "
            f"{some_names(missing)}"
        )
    return common


def _common_inputs(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return the `size` and `channels` of images that all models read, as `load_images` takes."""
    if not candidates:
        raise UserError("Expected at least 1 model to compare, but got none.")
    if len({candidate.name for candidate in candidates}) < len(candidates):
        raise UserError("Expected different models to compare, but one is listed twice.")
    first, *others = (
        {"size": c.network.inputs.sizing, "channels": c.network.in_channels} for c in candidates
    )
    for candidate, other in zip(candidates[1:], others, strict=True):
        if other != first:
            raise UserError(
                f"Expected models with the same input size and channels, but {candidate.name} "
                f"reads {other['size']} pixels and {other['channels']} channel(s), and "
                f"{candidates[0].name} reads {first['size']} pixels and {first['channels']} "
                "channel(s). Compare them separately."
            )
    return first


def _key(test: ImageSet, seed: int, judge: str | None, explain: str) -> dict[str, Any]:
    """Return the key of the ledger: all that figures depend on, except model and method."""
    return {
        "version": 3,  # increased when a metric changes, so that old figures are measured again
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
    """Return the SHA-256 of the shapes and pixels of images."""
    digest = hashlib.sha256()
    for part in parts_of(images):
        digest.update(f"{tuple(part.shape)}".encode())
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()
