"""From a folder of photos to a trained, measured and explained model, with no recipe."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from foveal import plotting, zoo
from foveal.attribution import explain_by
from foveal.backbones.timm import backbone_weights
from foveal.data import ImageSet, load_images
from foveal.data.survey import Survey, survey_folder
from foveal.errors import UserError
from foveal.metrics import evaluate, predict_logits
from foveal.metrics.interval import wilson_interval
from foveal.metrics.position_leakage import LEAST_IMAGES
from foveal.models import SmallCNN
from foveal.training import Recipe, is_first_process, train
from foveal.training.choosing import BACKBONE, Choice, choose
from foveal.training.recipe import change_recipe
from foveal.training.run import write_json

Say = Callable[[str], None]
_SPLITS = {"test": "Test", "val": "Validation"}
TINY = 20  # images of a class; fewer cannot say much in validation and test
SHOWN = 10  # right answers in the gallery, and as many wrong ones


def plan(data: str, family: str, overrides: Sequence[str], say: Say) -> Recipe:
    """Look at a folder, say what was found, what was chosen and why, and return the recipe.

    Args:
        data: a folder of class folders.
        family: one of `training.choosing.FAMILIES`.
        overrides: recipe keys to set, like `epochs=3`.
        say: told what was found and chosen.

    Raises:
        UserError: no such folder, or it does not hold two classes of images.
    """
    folder = Path(data).expanduser()
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
    weights = backbone_weights(BACKBONE) if family == "attention" else "none"
    choice: Choice = choose(survey, family, data=data, weights=weights)
    recipe = change_recipe(choice.recipe, list(overrides))
    for line in choice.reasons:
        say(f"  {line}")
    if overrides:
        say(f"  as you asked, whatever is said above: {', '.join(overrides)}")
    training = recipe.training
    say(f"  {training.epochs} epochs, {training.batch_size} images in a step")
    return recipe


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


def train_photos(recipe: Recipe, out: Path, data: str, say: Say, **options: Any) -> Path:
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
    test = _measured(recipe, data, say)
    folder = train(recipe, out, data=data, say=say, **options)
    if not is_first_process():
        return folder
    model: Any = zoo.load(folder)
    seen = load_images(data, "train", size=model.inputs.size, channels=model.in_channels)
    if len(seen) < LEAST_IMAGES:
        say(f"  where it looks is not probed: that takes {LEAST_IMAGES} training images")
    figures = evaluate(model, test, seen, name=recipe.name)
    write_json({**zoo.card(folder), "figures": figures}, folder / "card.json")
    answers = predict_logits(model, test.images).argmax(dim=1)
    for line in trust(figures, answers, test):
        say(line)
    picture = _gallery(model, test, answers, folder / "gallery.png")
    say(f"Right and wrong answers: {picture}")
    say(f"Next: foveal explain {folder} IMAGE --out pictures")
    return folder


def _measured(recipe: Recipe, data: str, say: Say) -> ImageSet:
    """Return the images to measure on: those of the test, or of the validation if none can be."""
    shape: dict[str, Any] = {"size": recipe.data.size, "channels": recipe.data.channels}
    try:
        return load_images(data, "test", **shape)
    except UserError as error:
        say(f"  warning: no images to test with: {error}")
        say("  what is measured is measured on the validation images, which also choose the epoch")
        return load_images(data, "val", **shape)


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


def _gallery(model: Any, test: ImageSet, answers: Tensor, path: Path) -> Path:
    """Draw right answers, then the wrong ones, with what the model looked at."""
    right = (answers == test.labels).nonzero().flatten()
    wrong = (answers != test.labels).nonzero().flatten()
    spread = right[torch.linspace(0, len(right) - 1, min(SHOWN, len(right))).long()]
    shown = test.subset(torch.cat([spread, wrong[:SHOWN]]))
    method = "grad-cam" if isinstance(model, SmallCNN) else "model"
    explanation = explain_by(model, shown.images.float() / 255, method)
    explanation = replace(explanation, classes=test.classes)
    plotting.save_figure(plotting.gallery(explanation, shown.labels), path)
    return path
