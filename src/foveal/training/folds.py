"""Cross-validation: a recipe trained and tested by folds, beside a linear layer."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from foveal.datasets import ImageSet, load_whole, read_groups
from foveal.datasets.images import problem_lines
from foveal.datasets.splits import folds, share_of
from foveal.foundation.errors import UserError
from foveal.foundation.files import read_json, write_json
from foveal.foundation.memory import keep_freed_memory
from foveal.metrics import predict_logits
from foveal.metrics.interval import Interval, bootstrap
from foveal.models import ImageModel, as_classifier, build_model
from foveal.training.feature_files import with_features
from foveal.training.features import Features, predicted
from foveal.training.first_weights import start_on_features, take_first_weights, whiten
from foveal.training.linear import fit_linear, labelled
from foveal.training.run_folder import FEATURES, run_folder
from foveal.training.sets import model_settings
from foveal.training.settings import Recipe

if TYPE_CHECKING:
    from foveal.training.fitting import Options

RESULT = "folds.json"


@dataclass(frozen=True)
class CrossValidation:
    """What folds found.

    Attributes:
        accuracy: of the recipe, over all images, each tested by the model that had not seen it.
        balanced: the mean over the classes of their accuracies.
        linear: accuracy of a linear layer on the frozen backbone, or None without one.
        linear_balanced: the mean over the classes of its accuracies, or None.
        gain: paired difference of the accuracies, or None.
        balanced_gain: paired difference of the balanced ones, or None.
        by_fold: accuracy of the recipe in each fold.
        images: how many.
        groups: of images that stayed together; 0 for none.
    """

    accuracy: Interval
    balanced: Interval
    linear: Interval | None
    linear_balanced: Interval | None
    gain: Interval | None
    balanced_gain: Interval | None
    by_fold: tuple[float, ...]
    images: int
    groups: int


def cross_validate(
    recipe: Recipe,
    out: Path,
    count: int,
    options: "Options",
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> CrossValidation:
    """Train and test a recipe by stratified folds, of which no group is divided.

    Each fold tests a model that is trained on the others, of which a tenth validates. What a
    fold found is kept as soon as it is known, so that the same call with `options.resume` goes on.

    Args:
        recipe: of a classifier.
        out: folder for what the folds found.
        count: of folds, at least 2.
        options: of the training.
        data: a folder, or a data set of one, in place of the recipe's.
        data_dir: where named datasets lie.
        say: called with a line on each fold.

    Raises:
        UserError: it is no folder, has too few images, or as `train`.
    """
    keep_freed_memory()
    source = data or recipe.data.name
    with run_folder(out, recipe, options.resume, options.say):
        images = load_whole(
            source,
            size=recipe.data.sizing,
            channels=recipe.data.channels,
            data_dir=data_dir,
            groups=read_groups(recipe.data.groups),
        )
        for line in problem_lines(images.problems):
            say(f"  warning: {line}")
        fold = folds(images.labels, count, images.groups, seed=recipe.training.seed)
        if len(fold.unique()) < count:
            raise UserError(f"{images.name} has too few images or groups for {count} folds.")
        settings = model_settings(recipe, images)
        if recipe.training.cache:
            images = with_features(
                _new_model(recipe, settings),
                recipe,
                {"all": images},
                out / FEATURES,
                progress=options.progress,
                say=options.say,
            )["all"]
        key = _key(recipe, images, fold)
        answers = torch.full((2, len(images)), -1)
        for number in range(count):
            tested = (fold == number).nonzero().flatten()
            path = out / f"fold-{number + 1}.json"
            found = _kept(path, key, len(tested))
            if found is None:
                rest = (fold != number).nonzero().flatten()
                found = _one(recipe, settings, images, rest, tested, out / "fold", options)
                write_json(path, {"key": key, "answers": found.tolist()})
            answers[:, tested] = found
            say(f"  fold {number + 1} of {count}: {_said(found, images.labels[tested])}")
        result = _summed_up(answers, images, fold, recipe.training.balance > 0)
        write_json(out / RESULT, _plain(result))
        shutil.rmtree(out / FEATURES, ignore_errors=True)
    return result


def _new_model(recipe: Recipe, settings: dict[str, object]) -> ImageModel:
    torch.manual_seed(recipe.training.seed)
    built = build_model(settings)
    model = as_classifier(built, f"Folds are for classifiers, but {recipe.name} is {built.name!r}.")
    take_first_weights(model, recipe)
    return model


def _one(
    recipe: Recipe,
    settings: dict[str, object],
    images: ImageSet[Any],
    rest: Tensor,
    tested: Tensor,
    out: Path,
    options: "Options",
) -> Tensor:
    """Return the answers (2, M) to the tested images: of the recipe, and of the linear layer."""
    from foveal.training.fitting import fit

    groups = [images.groups[i] for i in rest.tolist()] if images.groups else []
    labels = images.labels[rest]
    parts = {
        split: images.subset(
            rest[share_of(labels, split, own_val=False, own_test=True, groups=groups)]
        )
        for split in ("train", "val")
    }
    model: Any = _new_model(recipe, settings)
    if isinstance(parts["train"].images, Tensor):
        whiten(model, parts["train"])
    start_on_features(model, recipe, parts)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    kept = fit(model, recipe, parts, out, replace(options, resume=False, time_left=None))
    model.load_state_dict(kept.weights())
    test = images.subset(tested)
    if isinstance(test.images, Features):
        ours = predicted(model, test.images).argmax(dim=1)
        train, val = (labelled(parts[split]) for split in ("train", "val"))
        linear = fit_linear(train, val, len(images.classes), recipe.training.balance)
        theirs = linear(test.images.whole[:, 0]).argmax(dim=1)
    else:
        ours = predict_logits(model, test.images).argmax(dim=1)
        theirs = torch.full_like(ours, -1)
    shutil.rmtree(out, ignore_errors=True)
    return torch.stack([ours, theirs])


def _key(recipe: Recipe, images: ImageSet[object], fold: Tensor) -> str:
    said = [recipe.to_dict(), images.labels.tolist(), fold.tolist(), list(images.paths)]
    return hashlib.sha256(json.dumps(said).encode("utf-8", "surrogateescape")).hexdigest()


def _kept(path: Path, key: str, count: int) -> Tensor | None:
    with suppress(UserError, ValueError, TypeError, KeyError):
        found = read_json(path)
        answers = torch.tensor(found["answers"], dtype=torch.long)
        if found["key"] == key and answers.shape == (2, count):
            return answers
    return None


def _said(answers: Tensor, labels: Tensor) -> str:
    ours, linear = ((one == labels).float().mean().item() for one in answers)
    beside = "" if (answers[1] < 0).all() else f", a linear layer {linear:.1%}"
    return f"{ours:.1%} of {len(labels)} right{beside}"


def _summed_up(
    answers: Tensor, images: ImageSet[object], fold: Tensor, balanced: bool
) -> CrossValidation:
    right = (answers == images.labels).double()
    interval = partial(bootstrap, labels=images.labels, groups=images.groups)
    linear = not bool((answers[1] < 0).any())
    plain, even = (
        [interval(values, balanced=even) for values in (*right, right[0] - right[1])]
        for even in (False, True)
    )
    return CrossValidation(
        accuracy=plain[0],
        balanced=even[0],
        linear=plain[1] if linear else None,
        linear_balanced=even[1] if linear else None,
        gain=plain[2] if linear else None,
        balanced_gain=even[2] if linear else None,
        by_fold=tuple(float(right[0][fold == number].mean()) for number in fold.unique().tolist()),
        images=len(images),
        groups=len(set(images.groups)),
    )


def _plain(found: CrossValidation) -> dict[str, object]:
    values = dict(vars(found))
    return {k: v._asdict() if isinstance(v, Interval) else v for k, v in values.items()}


def lines(found: CrossValidation) -> list[str]:
    """Return what folds found, a line each."""
    said = [
        f"{found.images:,} images by {len(found.by_fold)} folds"
        + (f" of {found.groups:,} groups" if found.groups else "")
        + f": accuracy {_percent(found.accuracy)}, mean over classes {_percent(found.balanced)}"
    ]
    if found.linear is not None and found.linear_balanced is not None:
        said.append(
            f"  a linear layer on the frozen backbone: {_percent(found.linear)}, mean over "
            f"classes {_percent(found.linear_balanced)}"
        )
    if found.gain is not None and found.balanced_gain is not None:
        said.append(
            f"  paired difference: {_points(found.gain)}, mean over classes "
            f"{_points(found.balanced_gain)}"
        )
    return said


def _percent(interval: Interval) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:.1f} % (95 % interval {low:.1f} to {high:.1f})"


def _points(interval: Interval) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
