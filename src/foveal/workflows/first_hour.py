"""From a folder of photos to a trained, measured and explained model, with no recipe."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from foveal import plotting, zoo
from foveal.datasets import ImageSet, load_images, read_groups
from foveal.datasets.photo_sets import PHOTO_SETS, photo_folder
from foveal.datasets.place import data_place
from foveal.datasets.survey import Survey, survey_folder
from foveal.explainers import explainer, own_method
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.model_files import write_card
from foveal.images.photos import Photos
from foveal.images.values import as_floats
from foveal.metrics import evaluate, predict_logits
from foveal.metrics.interval import bootstrap, wilson_interval
from foveal.metrics.position_leakage import LEAST_IMAGES
from foveal.metrics.registry import useful_for
from foveal.metrics.subject import Given
from foveal.models import ImageModel
from foveal.models.abilities import Ability
from foveal.models.contributions import CONTRIBUTIONS
from foveal.training import Recipe, is_first_process, train
from foveal.training.first_hour.choosing import Choice, choose
from foveal.training.first_hour.comparing import compare_with_whole
from foveal.training.first_hour.probe import Probe, probe
from foveal.training.recipe import change_recipe
from foveal.training.run import TrainOptions
from foveal.training.run_folder import FEATURES

Say = Callable[[str], None]
_SPLITS = {"test": "Test", "val": "Validation"}
TINY = 20  # images of a class; fewer cannot say much in validation and test
SHOWN = 10  # right answers in the gallery, and as many wrong ones


def plan(
    data: str,
    family: str | None,
    overrides: Sequence[str],
    say: Say,
    data_dir: str | Path | None = None,
) -> Recipe:
    """Look at a folder, say what was found, what was chosen and why, and return the recipe.

    Args:
        data: a folder of class folders, or the name of a data set of photographs.
        family: one of `training.choosing.FAMILIES`; None for what suits the images best.
        overrides: recipe keys to set, like `epochs=3`.
        say: called with what was found and chosen.
        data_dir: where named datasets lie.

    Raises:
        UserError: no such folder, or it does not hold two classes of images.
    """
    folder = Path(data).expanduser()
    if data in PHOTO_SETS:
        folder = photo_folder(data, "train", data_place(data_dir))
    if not folder.is_dir():
        raise UserError(
            f"No folder {data}: without a recipe, --data must be a folder with one folder of "
            "images a class (foveal recipes lists what can be trained on other data)."
        )
    survey = survey_folder(folder)
    if len(survey.counts) < 2:
        raise UserError(f"{data} holds readable images of fewer than two classes.")
    for line in found(survey):
        say(line)
    choice = choose(survey, family, data=data)
    if choice.instead is not None:
        choice = _preferred(choice, choice.instead, data, survey, data_dir, say)
    recipe = change_recipe(choice.recipe, list(overrides))
    for line in choice.reasons:
        say(f"  {line}")
    if overrides:
        say(f"  as you asked, whatever is said above: {', '.join(overrides)}")
    training = recipe.training
    say(f"  {training.epochs} epochs, {training.batch_size} images in a step")
    return recipe


def _preferred(
    choice: Choice,
    crops: Choice,
    data: str,
    survey: Survey,
    data_dir: str | Path | None,
    say: Say,
) -> Choice:
    """Return the choice of crops where they are no worse than the whole image at equal cost."""
    size = (survey.height, survey.width)
    compared = compare_with_whole(crops.recipe, choice.recipe, data, size, data_dir, say)
    if compared is None:
        return choice
    say(f"  {compared.line()}")
    return crops if compared.no_worse else choice


def found(survey: Survey) -> list[str]:
    """Return what people should know of their images, a line each."""
    names = sorted(survey.counts, key=lambda name: survey.counts[name])
    lines = [
        f"{survey.name}: {survey.images:,} images of {len(names)} classes, "
        f"{survey.counts[names[0]]:,} to {survey.counts[names[-1]]:,} a class"
    ]
    missing = [name for name in ("val", "test") if name not in survey.splits]
    if missing:
        lines.append(f"  no folder {' or '.join(missing)}: a tenth of the images each is kept back")
    tiny = [f"{name} ({survey.counts[name]})" for name in names if survey.counts[name] < TINY]
    if tiny:
        lines.append(f"  warning: few images of {_some(tiny)}: what is measured on them is unsure")
    if survey.grey_classes:
        grey = _some(survey.grey_classes)
        lines.append(f"  warning: only {grey} is all grey: a model may tell it by that alone")
    if survey.copies:
        shown = " = ".join(survey.copies[0][:2])
        lines.append(
            f"  warning: {len(survey.copies)} images exist more than once, such as {shown}: "
            "copies of training images do not test"
        )
    alone = [name for name in names if survey.counts[name] < 3]
    if alone and "test" not in survey.splits:
        lines.append(f"  warning: {_some(alone)} cannot be tested: that takes 3 images of a class")
    if survey.problems:
        lines.append(f"  warning: {len(survey.problems)} files are no images, and are left out")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def train_photos(
    recipe: Recipe, out: Path, data: str, say: Say, **options: Unpack[TrainOptions]
) -> Path:
    """Train, evaluate on the test images, draw a gallery, say how far to trust it.

    Where no image can test, such as where none of a `test/` can be read, that is said before the
    training, and the validation images stand in.

    Args:
        recipe: as `plan` returns it.
        out: the run folder.
        data: the folder of photos.
        say: told the figures and what to do next.
        options: of `train`.

    Raises:
        UserError: as `train`.
    """
    data_dir = options.get("data_dir")
    test = _read(recipe, data, "test", data_dir, say)
    folder = train(recipe, out, data=data, say=say, keep_features=True, **options)
    if not is_first_process():
        return folder
    model = zoo.load(folder)
    seen = None
    if Given.TRAIN in useful_for(model):
        seen = _read(recipe, data, "train", data_dir, say)
        if len(seen) < LEAST_IMAGES:
            say(f"  where it looks is not probed: that takes {LEAST_IMAGES} training images")
    figures = evaluate(model, test, seen, name=recipe.name)
    answers = predict_logits(model, test.images).argmax(dim=1)
    for line in trust(figures, answers, test):
        say(line)
    found = _probed(recipe, data, test, folder, data_dir)
    if found is not None:
        figures |= {"linear_accuracy": found.accuracy}
        for line in beside(found, answers, test):
            say(line)
    say(f"  {cost(figures)}")
    write_card(folder, {**zoo.card(folder), "figures": figures})
    picture = _gallery(model, test, answers, folder / "gallery.png")
    say(f"Right and wrong answers: {picture}")
    say(f"Next: foveal explain {folder} IMAGE --out pictures")
    return folder


def _read(
    recipe: Recipe, data: str, split: str, data_dir: str | Path | None, say: Say
) -> ImageSet[Any]:
    """Return the images of a split; in the place of `test` those of `val` if none can be read."""
    read = partial(
        load_images,
        data,
        size=recipe.data.sizing,
        channels=recipe.data.channels,
        data_dir=data_dir,
        groups=read_groups(recipe.data.groups),
    )
    try:
        return read(split)
    except UserError as error:
        if split != "test":
            raise
        say(f"  warning: no images to test with: {error}")
        say("  what is measured is measured on the validation images, which also choose the epoch")
        return read("val")


def _probed(
    recipe: Recipe,
    data: str,
    test: ImageSet[object],
    folder: Path,
    data_dir: str | Path | None,
) -> Probe | None:
    """Return what a linear layer on the frozen backbone answers, and copies that it shows."""
    features = folder / FEATURES
    if not features.exists():
        return None
    try:
        sets = {
            split: _read(recipe, data, split, data_dir, lambda line: None)
            for split in ("train", "val")
        }
        return probe(recipe, sets | {"test": test}, features)
    finally:
        shutil.rmtree(features, ignore_errors=True)


def beside(found: Probe, answers: Tensor, test: ImageSet[object]) -> list[str]:
    """Return what the linear layer reaches beside the model, and near-copies, a line each.

    Args:
        found: of the linear layer.
        answers: (N,) class indices that the model predicts.
        test: the images that both were tested on.
    """
    gain = bootstrap(
        (answers == test.labels).double() - (found.answers == test.labels).double(),
        test.labels,
        groups=test.groups,
    )
    value, low, high = (100 * number for number in gain)
    lines = [
        f"  a linear layer on the same backbone, frozen: {found.accuracy:.1%}; paired difference "
        f"{value:+.1f} points (95 % interval {low:+.1f} to {high:+.1f})"
    ]
    if found.copies:
        one, other = (printable(path) for path in found.copies[0])
        lines.append(
            f"  warning: {len(found.copies)} test images are nearly the same as training images, "
            f"such as {one} and {other}: the accuracy may flatter (see --groups)"
        )
    return lines


def cost(figures: dict[str, Any]) -> str:
    """Return what an answer costs, in one line."""
    return (
        f"an image takes {figures['macs'] / 1e6:,.0f} million multiply-adds and "
        f"{figures['latency_ms']:,.1f} ms on one thread"
    )


def trust(figures: dict[str, Any], answers: Tensor, test: ImageSet) -> list[str]:
    """Return how far the figures can be trusted, a line each.

    Args:
        figures: as `evaluate` returns them.
        answers: (N,) class numbers that the model named.
        test: the images that it was tested on.
    """
    right = int((answers == test.labels).sum())
    low, high = wilson_interval(right, len(test))
    counts = torch.bincount(test.labels, minlength=len(test.classes))
    most = int(counts.argmax())
    recalls = {
        name: float((answers[test.labels == label] == label).float().mean())
        for label, name in enumerate(test.classes)
        if counts[label]
    }
    worst = min(recalls, key=lambda name: recalls[name])
    lines = [
        f"{_SPLITS[test.split]}: {right} of {len(test)} right, {right / len(test):.1%} "
        f"(95 % sure: {low:.0%} to {high:.0%}); always {test.classes[most]!r} would be "
        f"{int(counts[most]) / len(test):.1%}",
        f"  mean over the classes {sum(recalls.values()) / len(recalls):.1%}; "
        f"worst: {worst!r} {recalls[worst]:.0%}",
    ]
    if high - low > 0.2:
        lines.append("  too few test images to know it better: more images would")
    leakage = figures.get("position_leakage")
    if leakage is not None:
        lines.append(
            f"  decided from {figures['evidence_fraction']:.0%} of the pixels; where it looks "
            f"alone tells {leakage:.0%}: the nearer to the accuracy, the less the patches explain"
        )
    return lines


def _gallery(model: ImageModel, test: ImageSet, answers: Tensor, path: Path) -> Path:
    """Draw right answers, then the wrong ones, with what the model looked at."""
    right = (answers == test.labels).nonzero().flatten()
    wrong = (answers != test.labels).nonzero().flatten()
    spread = right[torch.linspace(0, len(right) - 1, min(SHOWN, len(right))).long()]
    explain = explainer(CONTRIBUTIONS)  # exact, where attention is only a part of the answer
    if Ability.KEYPOINTS in model.abilities or not explain.supports(model):
        explain = explainer(own_method(model) or "grad-cam")
    shown = torch.cat([spread, wrong[:SHOWN]])
    explanations = [
        replace(explain(model, _image(test, int(index))), classes=test.classes) for index in shown
    ]
    plotting.save_figure(plotting.gallery(explanations, test.labels[shown]), path)
    return path


def _image(images: ImageSet[Tensor | Photos], index: int) -> Tensor:
    """Return one image (1, C, H, W) in [0, 1]."""
    (one,) = images.subset(torch.tensor([index])).images.split(1)
    return as_floats(one)
