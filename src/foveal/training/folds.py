"""Cross-validation of a recipe, compared with a linear layer on the same backbone."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal.datasets import ImageSet, load_whole, read_groups
from foveal.datasets.images import problem_lines
from foveal.datasets.splits import folds
from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.metrics import predict_logits
from foveal.metrics.interval import Interval, bootstrap
from foveal.models import ImageModel, as_classifier
from foveal.training.cross_validation import CrossValidation
from foveal.training.feature_files import with_features
from foveal.training.features import Features, predict_features
from foveal.training.initial_model import initial_model, start_on_features
from foveal.training.linear import fit_linear, labelled_vectors
from foveal.training.options import Options
from foveal.training.run_folder import FEATURES, run_folder
from foveal.training.sets import model_settings, train_and_val
from foveal.training.settings import Recipe

RESULT = "folds.json"


@dataclass(frozen=True)
class _Plan:
    """Arguments that the folds of a cross-validation have in common.

    Attributes:
        recipe: the recipe that is tested.
        settings: complete settings of its model.
        images: all images, or their features.
        fold: (N,) fold of each image, from 0.
        options: options of the training runs.
    """

    recipe: Recipe
    settings: dict[str, object]
    images: ImageSet[Any]
    fold: Tensor
    options: Options


def cross_validate(
    recipe: Recipe,
    out: Path,
    count: int,
    options: Options,
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> CrossValidation:
    """Train and test a recipe in stratified folds that keep groups together.

    Each fold tests a model trained on the others, a tenth of which is used for validation. Results
    are saved after each fold, so the same call with `options.resume` continues after the last one.

    Args:
        recipe: a recipe for a classifier.
        out: folder for the results.
        count: number of folds, at least 2.
        options: options of the training runs.
        data: a folder, or a dataset stored as one, to use instead of the recipe's.
        data_dir: folder of named datasets.
        notify: called with a line per fold.

    Raises:
        UserError: the data is not a folder or has too few images; see also `train`.
    """
    keep_freed_memory()
    with run_folder(out, recipe, options.resume, options.notify):
        images = _read(recipe, data or recipe.data.name, data_dir, notify)
        plan = _make_plan(recipe, images, count, options)
        del images  # frees the pixels once there are features
        if recipe.training.cache:
            plan = replace(plan, images=_with_features(plan, out / FEATURES))
        result = _summary(_test_folds(plan, count, out, notify), plan)
        write_json(out / RESULT, _as_json(result))
        shutil.rmtree(out / FEATURES, ignore_errors=True)
    return result


def _read(
    recipe: Recipe, source: str, data_dir: str | Path | None, notify: Callable[[str], None]
) -> ImageSet[Any]:
    """Return all images of a folder, and report files that cannot be used."""
    images = load_whole(
        source,
        size=recipe.data.sizing,
        channels=recipe.data.channels,
        data_dir=data_dir,
        groups=read_groups(recipe.data.groups),
    )
    for line in problem_lines(images.problems):
        notify(f"  warning: {line}")
    return images


def _make_plan(recipe: Recipe, images: ImageSet[Any], count: int, options: Options) -> _Plan:
    """Divide images into folds.

    Raises:
        UserError: there are too few images or groups.
    """
    fold = folds(images.labels, count, images.groups, seed=recipe.training.seed)
    if len(fold.unique()) < count:
        raise UserError(f"{images.name} has too few images or groups for {count} folds.")
    return _Plan(recipe, model_settings(recipe, images), images, fold, options)


def _with_features(plan: _Plan, folder: Path) -> ImageSet[Features]:
    """Return the features of all images, stored in a folder."""
    model = _new_model(plan)
    options = plan.options
    return with_features(
        model,
        plan.recipe,
        {"all": plan.images},
        folder,
        progress=options.progress,
        notify=options.notify,
    )["all"]


def _new_model(plan: _Plan, images: ImageSet[Any] | None = None) -> ImageModel:
    model = initial_model(plan.recipe, plan.settings, images)
    refusal = f"Cross-validation is for classifiers, but {plan.recipe.name} is {model.name!r}."
    return as_classifier(model, refusal)


def _test_folds(plan: _Plan, count: int, out: Path, notify: Callable[[str], None]) -> Tensor:
    """Return predictions (2, N) by recipe and linear layer, reusing saved ones."""
    images, fold = plan.images, plan.fold
    key = _key(plan)
    predictions = torch.full((2, len(images)), -1)
    for number in range(count):
        indices = (fold == number).nonzero().flatten()
        path = out / f"fold-{number + 1}.json"
        result = _read_saved(path, key, len(indices))
        if result is None:
            result = _test_fold(plan, number, out / "fold")
            write_json(path, {"key": key, "answers": result.tolist()})
        predictions[:, indices] = result
        notify(f"  fold {number + 1} of {count}: {_fold_text(result, images.labels[indices])}")
    return predictions


def _test_fold(plan: _Plan, number: int, out: Path) -> Tensor:
    """Train on the other folds; return the predictions (2, M) for this one.

    The first row is the recipe's, the second that of a linear layer on the features, or -1.
    """
    from foveal.training.fitting import fit

    recipe, images = plan.recipe, plan.images
    parts = train_and_val(images, (plan.fold != number).nonzero().flatten())
    model: Any = _new_model(plan, parts["train"])
    start_on_features(model, recipe, parts)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    kept = fit(model, recipe, parts, out, replace(plan.options, resume=False, time_left=None))
    model.load_state_dict(kept.weights())
    test = images.subset((plan.fold == number).nonzero().flatten())
    if isinstance(test.images, Features):
        predictions = predict_features(model, test.images).argmax(dim=1)
        train, val = (labelled_vectors(parts[split]) for split in ("train", "val"))
        linear = fit_linear(train, val, len(images.classes), recipe.training.balance)
        baseline = linear(test.images.whole[:, 0]).argmax(dim=1)
    else:
        predictions = predict_logits(model, test.images).argmax(dim=1)
        baseline = torch.full_like(predictions, -1)
    shutil.rmtree(out, ignore_errors=True)
    return torch.stack([predictions, baseline])


def _key(plan: _Plan) -> str:
    """Return a digest of the recipe, the labels, the folds and the paths."""
    images = plan.images
    content = [
        plan.recipe.to_dict(),
        images.labels.tolist(),
        plan.fold.tolist(),
        list(images.paths),
    ]
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogateescape")).hexdigest()


def _read_saved(path: Path, key: str, count: int) -> Tensor | None:
    """Return the predictions (2, count) saved in a file; None if there are none with this key."""
    with suppress(UserError, ValueError, TypeError, KeyError):
        saved = read_json(path)
        predictions = torch.tensor(saved["answers"], dtype=torch.long)
        if saved["key"] == key and predictions.shape == (2, count):
            return predictions
    return None


def _fold_text(predictions: Tensor, labels: Tensor) -> str:
    accuracy, linear = ((row == labels).float().mean().item() for row in predictions)
    baseline = "" if (predictions[1] < 0).all() else f", a linear layer {linear:.1%}"
    return f"{accuracy:.1%} of {len(labels)} correct{baseline}"


def _summary(predictions: Tensor, plan: _Plan) -> CrossValidation:
    images, fold = plan.images, plan.fold
    correct = (predictions == images.labels).double()
    interval = partial(bootstrap, labels=images.labels, groups=images.groups)
    linear = not bool((predictions[1] < 0).any())
    overall, by_class = (
        [interval(values, balanced=balanced) for values in (*correct, correct[0] - correct[1])]
        for balanced in (False, True)
    )
    return CrossValidation(
        accuracy=overall[0],
        balanced=by_class[0],
        linear=overall[1] if linear else None,
        linear_balanced=by_class[1] if linear else None,
        gain=overall[2] if linear else None,
        balanced_gain=by_class[2] if linear else None,
        by_fold=tuple(
            float(correct[0][fold == number].mean()) for number in fold.unique().tolist()
        ),
        images=len(images),
        groups=len(set(images.groups)),
    )


def _as_json(results: CrossValidation) -> dict[str, object]:
    values = dict(vars(results))
    return {k: v._asdict() if isinstance(v, Interval) else v for k, v in values.items()}
