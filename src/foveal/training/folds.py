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
    """The inputs of a cross-validation, which all of its folds have in common.

    Attributes:
        recipe: the recipe whose models are tested.
        settings: complete settings of the models.
        images: all images, or their features.
        fold: (N,) index of the fold in which each image is tested, from 0.
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
    """Train models from a recipe in a cross-validation, and return their results.

    Folds are stratified by class, and images of one group are in the same fold. Each fold tests a
    model that was trained on the others, about a tenth of which is used for validation. Results are
    saved after each fold, so that the same call with `options.resume` continues with the next one.

    Args:
        recipe: a recipe for a classifier.
        out: folder for the results.
        count: number of folds, at least 2.
        options: options of the training runs.
        data: a folder, or a dataset stored as one, to use instead of the recipe's.
        data_dir: folder of named datasets.
        notify: called with a line for each fold, and for each file that cannot be used.

    Raises:
        UserError: the data is not a folder or has too few images, or a fold cannot be trained for
            one of the reasons listed in `train`.
    """
    keep_freed_memory()
    with run_folder(out, recipe, options.resume, options.warn):
        images = _read(recipe, data or recipe.data.name, data_dir, notify)
        plan = _make_plan(recipe, images, count, options)
        del images  # frees the pixels once there are features
        if recipe.training.cache:
            plan = replace(plan, images=_with_features(plan, out / FEATURES))
        results = _summarise(_test_folds(plan, count, out, notify), plan)
        write_json(out / RESULT, _as_json(results))
        shutil.rmtree(out / FEATURES, ignore_errors=True)
    return results


def _read(
    recipe: Recipe, source: str, data_dir: str | Path | None, notify: Callable[[str], None]
) -> ImageSet[Any]:
    """Return all images of a folder; `notify` is called with a line per file that is skipped."""
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
    """Assign images to folds, and complete the settings of the models.

    Raises:
        UserError: there are too few images or groups.
    """
    fold = folds(images.labels, count, images.groups, seed=recipe.training.seed)
    if len(fold.unique()) < count:
        raise UserError(f"{images.name} has too few images or groups for {count} folds.")
    return _Plan(recipe, model_settings(recipe, images), images, fold, options)


def _with_features(plan: _Plan, folder: Path) -> ImageSet[Features]:
    """Return all images as features of the frozen backbone, which are stored in a folder."""
    model = _new_model(plan)
    options = plan.options
    return with_features(
        model,
        plan.recipe,
        {"all": plan.images},
        folder,
        progress=options.progress,
        notify=options.warn,
    )["all"]


def _new_model(plan: _Plan, images: ImageSet[Any] | None = None) -> ImageModel:
    """Return a new model; `images` are those for a whitening first layer, if it has one.

    Raises:
        UserError: the model is not a classifier.
    """
    model = initial_model(plan.recipe, plan.settings, images)
    message = f"Cross-validation is for classifiers, but {plan.recipe.name} is {model.name!r}."
    return as_classifier(model, message)


def _test_folds(plan: _Plan, count: int, out: Path, notify: Callable[[str], None]) -> Tensor:
    """Return predicted class indices (2, N) for all images, each by the models of its fold.

    The first row is by the recipe's models, the second by linear layers, see `_test_fold`.
    Predictions that were saved for the same inputs are reused.
    """
    images, fold = plan.images, plan.fold
    key = _key(plan)
    predictions = torch.full((2, len(images)), -1)
    for number in range(count):
        indices = (fold == number).nonzero().flatten()
        path = out / f"fold-{number + 1}.json"
        fold_predictions = _read_saved(path, key, len(indices))
        if fold_predictions is None:
            fold_predictions = _test_fold(plan, number, out / "fold")
            write_json(path, {"key": key, "answers": fold_predictions.tolist()})
        predictions[:, indices] = fold_predictions
        text = _fold_text(fold_predictions, images.labels[indices])
        notify(f"  fold {number + 1} of {count}: {text}")
    return predictions


def _test_fold(plan: _Plan, number: int, out: Path) -> Tensor:
    """Train on all folds except one, and return the predictions (2, M) for its M images.

    The first row holds the predictions of the recipe's model, the second those of a linear layer on
    the features, or -1 if the recipe stores no features.

    Args:
        plan: the inputs of the cross-validation.
        number: index of the fold, from 0.
        out: temporary folder for the training run; deleted at the end.
    """
    from foveal.training.fitting import fit

    recipe, images = plan.recipe, plan.images
    sets = train_and_val(images, (plan.fold != number).nonzero().flatten())
    model: Any = _new_model(plan, sets["train"])
    start_on_features(model, recipe, sets)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    kept = fit(model, recipe, sets, out, replace(plan.options, resume=False, notify=None))
    model.load_state_dict(kept.weights())
    test = images.subset((plan.fold == number).nonzero().flatten())
    if isinstance(test.images, Features):
        predictions = predict_features(model, test.images).argmax(dim=1)
        train, val = (labelled_vectors(sets[split]) for split in ("train", "val"))
        linear = fit_linear(train, val, len(images.classes), recipe.training.balance)
        baseline = linear(test.images.global_vectors[:, 0]).argmax(dim=1)
    else:
        predictions = predict_logits(model, test.images).argmax(dim=1)
        baseline = torch.full_like(predictions, -1)
    shutil.rmtree(out, ignore_errors=True)
    return torch.stack([predictions, baseline])


def _key(plan: _Plan) -> str:
    """Return a digest of the recipe, labels, folds and paths, by which saved results are reused."""
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
    """Return the results of a fold as text, from the predictions (2, M) of `_test_fold`."""
    accuracy, linear = ((row == labels).float().mean().item() for row in predictions)
    linear_text = "" if (predictions[1] < 0).all() else f", a linear layer {linear:.1%}"
    return f"{accuracy:.1%} of {len(labels)} correct{linear_text}"


def _summarise(predictions: Tensor, plan: _Plan) -> CrossValidation:
    """Return accuracies with intervals, from the predictions (2, N) of `_test_folds`."""
    images, fold = plan.images, plan.fold
    recipe_correct, linear_correct = (predictions == images.labels).double()
    has_linear = not bool((predictions[1] < 0).any())
    interval = partial(bootstrap, labels=images.labels, groups=images.groups)
    values = (recipe_correct, linear_correct, recipe_correct - linear_correct)
    accuracy, linear, gain = (interval(row, balanced=False) for row in values)
    balanced, linear_balanced, balanced_gain = (interval(row, balanced=True) for row in values)
    return CrossValidation(
        accuracy=accuracy,
        balanced=balanced,
        linear=linear if has_linear else None,
        linear_balanced=linear_balanced if has_linear else None,
        gain=gain if has_linear else None,
        balanced_gain=balanced_gain if has_linear else None,
        by_fold=tuple(
            float(recipe_correct[fold == number].mean()) for number in fold.unique().tolist()
        ),
        images=len(images),
        groups=len(set(images.groups)),
    )


def _as_json(results: CrossValidation) -> dict[str, object]:
    """Return results as plain values, with a mapping for each interval."""
    values = dict(vars(results))
    return {k: v._asdict() if isinstance(v, Interval) else v for k, v in values.items()}
