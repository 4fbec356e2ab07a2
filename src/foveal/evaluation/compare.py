"""Comparison of models and of their explanations on the same images, resumed if interrupted."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal import zoo
from foveal.datasets import ImageSet, load_images
from foveal.datasets.annotations import annotated
from foveal.datasets.names import some_names
from foveal.evaluation.evaluate import (
    groups_of,
    judge_of,
    load_annotated,
    probe_images,
    reading_notes,
)
from foveal.evaluation.ledger import Ledger
from foveal.explainers import CONTROLS, OWN, explainer, methods_of, post_hoc_methods
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.memory import keep_freed_memory
from foveal.images.photos import Photos, parts_of
from foveal.images.values import as_floats
from foveal.metrics import evaluate
from foveal.metrics.classes import as_known, classes_of, match_classes
from foveal.metrics.figures import measured_on_samples
from foveal.metrics.published import published as field_metrics
from foveal.metrics.registry import EXPLANATION_METRICS, METRICS, useful_for
from foveal.metrics.subject import Explained, Given, Subject
from foveal.models import ImageModel, as_classifier
from foveal.models.contributions import CONTRIBUTIONS

CHUNK = 100  # images explained at a time; bounds the memory
PIXELS = 2**20  # of them; a gradient keeps all features of an image

ANSWER, LABEL = "answer", "label"  # whose logit is explained

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True)
class Contestant:
    """One model of a comparison.

    Attributes:
        name: as it was given.
        network: the model.
        digest: of its weights, so that figures of others are not taken for its own.
    """

    name: str
    network: ImageModel
    digest: str


@dataclass(frozen=True)
class Comparison:
    """All that a comparison found.

    Attributes:
        contestants: the models.
        test: the images that were compared on, of classes that all models know.
        judge: of the evidence, or None.
        models: figures of each, as `foveal evaluate` has them.
        explanations: figures of each model's explanations, with `model` and `method`.
        explained: `answer` or `label`, whose logit the methods explained.
    """

    contestants: tuple[Contestant, ...]
    test: ImageSet
    judge: str | None
    models: tuple[dict[str, Any], ...]
    explanations: tuple[dict[str, Any], ...]
    explained: str = ANSWER

    def test_of(self, one: Contestant) -> ImageSet:
        """Return the images as one of the models counts their classes."""
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
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Measure models and their explanations on the same images; keep the figures below `out`.

    Args:
        models: zoo names, run folders or OWNER/NAME, of classifiers of the same images. They may
            know different classes: images of classes that one does not know are left out.
        data: a dataset, a folder, or hf:OWNER/NAME.
        out: folder; figures that it holds already, of the same weights, images and seed, are
            taken over.
        split: `train`, `val` or `test`.
        images: how many, of each class as many as can be; all where there are fewer.
        data_dir: where named datasets lie.
        judge: a model trained with `augment.hide`; the zoo's of that dataset if not given.
        methods: rivals to measure, of `explainers.post_hoc_methods()`; all if not given.
        published: images, some of those that are compared on, for the field's published metrics
            through Quantus (an extra); 0 for none. They take seconds an image.
        explain: the logit that methods explain, of the model's `answer` or of the true `label`;
            deletion and insertion follow the probability of the same class.
        boxes: annotations of a folder's images, as `with_annotations` takes them.
        masks: the same; named sets of photographs bring their own. Of annotated images the
            controls `centre` and `uniform` are measured too.
        groups: of images that no split divides, as `read_groups` takes them.
        seed: of the choice of images, of probes, pairs and noise.
        progress: called with every step.
        say: called with what the data was taken for and what was left out.

    Raises:
        UserError: unknown names, models of different images or without a class in common, a
            folder that cannot be written, or published metrics without Quantus or of photographs
            of several sizes.
    """
    if explain not in (ANSWER, LABEL):
        raise unknown_name("logit to explain", explain, (ANSWER, LABEL))
    rivals = _rivals(methods)
    keep_freed_memory()
    contestants = tuple(_contestant(name) for name in models)
    drawn_by = groups_of(models, data, groups)
    shape = _shape(contestants) | {"data_dir": data_dir, "groups": drawn_by}
    whole = load_annotated(data, split, boxes=boxes, masks=masks, say=say, **shape)
    test = _of_common_classes(whole, contestants, say)
    few = test.few(min(images, len(test)), seed)
    if published and isinstance(few.images, Photos):
        raise UserError("Published metrics read images of one size, not of many proportions.")
    train = None
    if any(Given.TRAIN in useful_for(one.network) for one in contestants):
        train = probe_images(lambda: load_images(data, "train", **shape), say)
    jury = judge_of(judge, few)
    judge = (judge or zoo.judge_of(few.name)) if jury is not None else None
    tests = {one.name: as_known(few, one.network, one.name)[0] for one in contestants}
    ledger = Ledger(Path(out) / "figures", _key(few, seed, judge, explain))
    controls = tuple(CONTROLS) if annotated(few).any() else ()
    jobs = [
        (one, method)
        for one in contestants
        for method in (*(m for m in methods_of(one.network) if m in rivals), *controls)
    ]
    steps = len(contestants) + len(jobs)
    figures: list[dict[str, Any]] = []
    explanations: list[dict[str, Any]] = []
    for one in contestants:
        progress(f"{one.name}: figures", len(figures), steps)
        measure = partial(_figures, one, tests[one.name], train, jury, seed)
        figures.append(ledger.get(one.name, one.digest, "figures", measure))
    for one, method in jobs:
        what = f"{one.name}: {'its own explanation' if method == OWN else method}"
        progress(what, len(figures) + len(explanations), steps)
        batches = _explained_batches(one, method, tests[one.name], jury, seed, explain)
        measure = partial(_explained, batches, tests[one.name])  # lazily, if not in the ledger
        try:
            found = ledger.get(one.name, one.digest, method, measure)
        except UserError as error:
            if methods is not None or method not in rivals:
                raise
            say(f"{one.name}: {method} is left out: {error}")
            continue
        if published:
            some = tests[one.name].few(min(published, len(few)), seed)
            measure = partial(_published, one, method, some, seed, explain)
            what = f"{method}, published, {len(some)}"
            found = found | ledger.get(one.name, one.digest, what, measure)
        explanations.append({"model": one.name, "method": method, **found})
    progress("done", steps, steps)
    return Comparison(contestants, few, judge, tuple(figures), tuple(explanations), explain)


def _rivals(methods: Sequence[str] | None) -> tuple[str, ...]:
    known = post_hoc_methods()
    for method in methods or ():
        if method not in known:
            raise unknown_name("method", method, known)
    return (OWN, CONTRIBUTIONS, *(known if methods is None else methods))


def _contestant(name: str) -> Contestant:
    network = as_classifier(zoo.load(name), f"{name} names no classes: compare classifiers.")
    weights = (zoo.folder(name) / "model.safetensors").read_bytes()
    return Contestant(name, network, hashlib.sha256(weights).hexdigest())


def _of_common_classes(
    test: ImageSet, contestants: Sequence[Contestant], say: Callable[[str], None]
) -> ImageSet:
    """Return the images of classes that all models know; say what was left out."""
    for line in reading_notes(test):
        say(line)
    known = [
        match_classes(classes_of(one.network, one.name), test.name, test.classes, named=test.named)
        for one in contestants
    ]
    shared = [
        None if None in indices else label for label, indices in enumerate(zip(*known, strict=True))
    ]
    found = test.relabelled(shared, test.classes)
    if not len(found):
        raise UserError(
            f"No image of {test.name} is of a class that all models know: "
            f"{', '.join(one.name for one in contestants)}."
        )
    if len(found) < len(test):
        unknown = [name for name, label in zip(test.classes, shared, strict=True) if label is None]
        say(
            f"left out {len(test) - len(found):,} images of classes that not all models know: "
            f"{some_names(unknown)}"
        )
    return found


def _shape(contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Return the size and channels that all models read."""
    if not contestants:
        raise UserError("Give at least one model to compare.")
    if len({one.name for one in contestants}) < len(contestants):
        raise UserError("Each model can be compared once only.")
    first, *others = (
        {"size": one.network.inputs.sizing, "channels": one.network.in_channels}
        for one in contestants
    )
    for one, other in zip(contestants[1:], others, strict=True):
        if other != first:
            raise UserError(
                f"{one.name} reads images of {other['size']} pixels and {other['channels']} "
                f"channel(s), but {contestants[0].name} of {first['size']} and "
                f"{first['channels']}: compare models of the same images."
            )
    return first


def _key(test: ImageSet, seed: int, judge: str | None, explain: str) -> dict[str, Any]:
    """Return what figures hold for."""
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


def _figures(
    one: Contestant,
    test: ImageSet,
    train: ImageSet | None,
    judge: ImageModel | None,
    seed: int,
) -> dict[str, Any]:
    found = evaluate(one.network, test, train, judge=judge, name=one.name, seed=seed)
    return found | measured_on_samples(Subject(one.network, test, train, judge, seed=seed))


def _explained(batches: Iterable[Explained], test: ImageSet) -> dict[str, Any]:
    """Return the figures of one explanation of one model, means over the images of its batches."""
    values: dict[str, list[Tensor]] = {}
    done = 0
    for batch in batches:
        for metric in EXPLANATION_METRICS.values():
            if metric.needs <= batch.meets and done < (metric.sample or len(test)):
                for key, value in metric.measure(batch).items():
                    values.setdefault(key, []).append(value.double())
        done += len(batch.test)
    means = {
        column.key: metric.pool(torch.cat(values[column.key]))
        for metric in EXPLANATION_METRICS.values()
        for column in metric.columns
        if column.key in values
    }
    return {key: value for key, value in means.items() if value == value}


def _explained_batches(
    one: Contestant,
    method: str,
    test: ImageSet,
    judge: ImageModel | None,
    seed: int,
    explain: str,
) -> Iterator[Explained]:
    for number, few in enumerate(test.batches(CHUNK, PIXELS)):
        targets = targets_of(few, explain)
        explained = partial(explainer(method), one.network, targets=targets)
        images = as_floats(few.images)
        started = time.perf_counter()
        explanation = explained(images)
        seconds = time.perf_counter() - started
        yield Explained(
            one.network, explanation, few, explained, judge, targets, seconds, seed + number
        )


def targets_of(test: ImageSet, explain: str) -> Tensor | None:
    """Return the classes (N,) that methods explain: the labels, or None for the model's answers."""
    return test.labels if explain == LABEL else None


def _published(
    one: Contestant, method: str, test: ImageSet, seed: int, explain: str
) -> dict[str, Any]:
    """Return the field's published figures of one explanation."""

    explained = explainer(method)

    def heat(model: Any, images: Tensor, targets: Tensor) -> Tensor:
        return explained(model, images, targets).heat

    targets = targets_of(test, explain)
    explanation = explained(one.network, as_floats(test.images), targets)
    found = field_metrics(
        one.network,
        explanation,
        explanation.predictions if targets is None else targets,
        masks=test.masks,
        sample=len(test),
        seed=seed,
        explain=heat,
    )
    figures = {f"published_{name}": value for name, value in found.items()}
    return {"published_images": len(test), **figures}
