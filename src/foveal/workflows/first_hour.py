"""Training on a folder of photos without a recipe: survey, choice of settings, evaluation."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from foveal import plotting, zoo
from foveal.datasets import ImageSet, load_images, read_groups
from foveal.datasets.location import datasets_folder
from foveal.datasets.photo_sets import PHOTO_SETS, photo_folder
from foveal.datasets.survey import Survey, survey_folder
from foveal.evaluation.evaluate import Notify
from foveal.explainers import explainer, own_method
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.model_files import write_card
from foveal.images.photos import Photos
from foveal.images.values import as_floats
from foveal.metrics import evaluate, predict_logits
from foveal.metrics.interval import bootstrap, wilson_interval
from foveal.metrics.position_leakage import MIN_PROBE_IMAGES
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

_SPLIT_TITLES = {"test": "Test", "val": "Validation"}
MIN_COUNT = 20  # images per class; with fewer, validation and test figures are uncertain
MAX_SHOWN = 10  # maximum number of correct and of wrong predictions in the gallery
MAX_INTERVAL = 0.2  # width of a confidence interval above which more test images are recommended


def plan(
    data: str,
    family: str | None,
    overrides: Sequence[str],
    notify: Notify,
    data_dir: str | Path | None = None,
) -> Recipe:
    """Return a recipe that is chosen for a folder of images, after reporting their properties.

    Args:
        data: a folder of class folders, or the name of a dataset of photographs.
        family: one of `choosing.FAMILIES`; None to choose one for the images.
        overrides: recipe keys to set, like `epochs=3`.
        notify: called with the images' properties and the reasons for the choice, line by line.
        data_dir: folder of the named datasets.

    Raises:
        UserError: the folder does not exist, or contains fewer than two classes of images.
    """
    survey = _survey(data, data_dir)
    for line in survey_lines(survey):
        notify(line)
    choice = choose(survey, family, data=data)
    if choice.alternative is not None:
        choice = _better_choice(choice, choice.alternative, data, survey, data_dir, notify)
    recipe = change_recipe(choice.recipe, list(overrides))
    for line in choice.reasons:
        notify(f"  {line}")
    if overrides:
        notify(f"  overridden by your settings: {', '.join(overrides)}")
    training = recipe.training
    notify(f"  {training.epochs} epochs, batches of {training.batch_size} images")
    return recipe


def _survey(data: str, data_dir: str | Path | None) -> Survey:
    """Return the statistics of a folder of class folders, or of a dataset of photographs."""
    folder = Path(data).expanduser()
    if data in PHOTO_SETS:
        folder = photo_folder(data, "train", datasets_folder(data_dir))
    if not folder.is_dir():
        raise UserError(
            f"{data} is not a folder: without a recipe, --data must be a folder with one folder of "
            "images per class (`foveal recipes` lists recipes for other data)."
        )
    survey = survey_folder(folder)
    if len(survey.counts) < 2:
        raise UserError(f"Expected readable images of at least 2 classes in {data}.")
    return survey


def _better_choice(
    whole_choice: Choice,
    crops_choice: Choice,
    data: str,
    survey: Survey,
    data_dir: str | Path | None,
    notify: Notify,
) -> Choice:
    """Return the choice with crops if it is no worse at equal cost, else the one without."""
    size = (survey.height, survey.width)
    comparison = compare_with_whole(
        crops_choice.recipe, whole_choice.recipe, data, size, data_dir, notify
    )
    if comparison is None:
        return whole_choice
    for line in comparison.lines():
        notify(f"  {line}")
    return crops_choice if comparison.no_worse else whole_choice


def survey_lines(survey: Survey) -> list[str]:
    """Return the properties of images that users should know, one per line."""
    names = sorted(survey.counts, key=lambda name: survey.counts[name])
    lines = [
        f"{survey.name}: {survey.images:,} images of {len(names)} classes, "
        f"{survey.counts[names[0]]:,} to {survey.counts[names[-1]]:,} per class"
    ]
    missing = [name for name in ("val", "test") if name not in survey.splits]
    if missing:
        lines.append(
            f"  no folder {' or '.join(missing)}: a tenth of the images is set aside for each"
        )
    rare = [f"{name} ({survey.counts[name]})" for name in names if survey.counts[name] < MIN_COUNT]
    if rare:
        lines.append(f"  warning: few images of {_join(rare)}: figures for them are uncertain")
    if survey.grey_classes:
        grey = _join(survey.grey_classes)
        lines.append(f"  warning: only images of {grey} are grey: a model may learn just that")
    if survey.copies:
        copied_images = _count_phrase(
            survey.copies, "image has an identical copy", "images have identical copies"
        )
        lines.append(
            f"  warning: {copied_images} (for example {' and '.join(survey.copies[0][:2])}): "
            "copies of training images are not used for testing"
        )
    untested = [name for name in names if survey.counts[name] < 3]
    if untested and "test" not in survey.splits:
        lines.append(
            f"  warning: {_join(untested)} cannot be tested: that needs 3 images per class"
        )
    if survey.problems:
        files = _count_phrase(survey.problems, "unreadable file", "unreadable files")
        lines.append(f"  warning: skipped {files}")
    return lines


def _count_phrase(items: Sequence[object], singular: str, plural: str) -> str:
    return f"1 {singular}" if len(items) == 1 else f"{len(items)} {plural}"


def _join(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def train_photos(
    recipe: Recipe, out: Path, data: str, notify: Notify, **options: Unpack[TrainOptions]
) -> Path:
    """Train a model, evaluate it on the test images, draw a gallery, and report the results.

    If no test image can be read, this is reported before training, and the validation images
    are used instead. The returned path is that of the run folder.

    Args:
        recipe: see `plan`.
        out: the run folder.
        data: the folder of photos.
        notify: called with the figures and the next step.
        options: options of `train`.

    Raises:
        UserError: see `train`.
    """
    data_dir = options.get("data_dir")
    test = _read(recipe, data, "test", data_dir, notify)
    folder = train(recipe, out, data=data, notify=notify, keep_features=True, **options)
    if not is_first_process():
        return folder
    model = zoo.load(folder)
    train_images = _train_images(model, recipe, data, data_dir, notify)
    figures = evaluate(model, test, train_images, name=recipe.name)
    predictions = predict_logits(model, test.images).argmax(dim=1)
    for line in accuracy_lines(figures, predictions, test):
        notify(line)
    baseline = _linear_baseline(recipe, data, test, folder, data_dir)
    if baseline is not None:
        figures |= {"linear_accuracy": baseline.accuracy}
        for line in baseline_lines(baseline, predictions, test):
            notify(line)
    notify(f"  {cost_line(figures)}")
    write_card(folder, {**zoo.card(folder), "figures": figures})
    picture = _gallery(model, test, predictions, folder / "gallery.png")
    notify(f"Gallery of correct and wrong predictions: {picture}")
    notify(f"Next: foveal explain {folder} IMAGE --out pictures")
    return folder


def _train_images(
    model: ImageModel, recipe: Recipe, data: str, data_dir: str | Path | None, notify: Notify
) -> ImageSet[Any] | None:
    """Return the training images, or None if no metric of the model needs them."""
    if Given.TRAIN not in useful_for(model):
        return None
    images = _read(recipe, data, "train", data_dir, notify)
    if len(images) < MIN_PROBE_IMAGES:
        notify(f"  position leakage is not measured: that needs {MIN_PROBE_IMAGES} training images")
    return images


def _read(
    recipe: Recipe, data: str, split: str, data_dir: str | Path | None, notify: Notify
) -> ImageSet[Any]:
    """Return the images of a split; for `test`, those of `val` if no test image can be read."""
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
        notify(f"  warning: no test images: {error}")
        notify("  figures are measured on the validation images, which also select the epoch")
        return read("val")


def _linear_baseline(
    recipe: Recipe,
    data: str,
    test: ImageSet[object],
    folder: Path,
    data_dir: str | Path | None,
) -> Probe | None:
    """Test a linear layer on the run's stored features, and delete these; None without features."""
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


def baseline_lines(baseline: Probe, predictions: Tensor, test: ImageSet[object]) -> list[str]:
    """Return lines that compare a model with a linear layer, and warn of near-duplicate images.

    Args:
        baseline: results of a linear layer on the same backbone, which is frozen.
        predictions: (N,) class indices predicted by the model.
        test: the images that both were tested on.
    """
    model_hits = (predictions == test.labels).double()
    baseline_hits = (baseline.predictions == test.labels).double()
    gain = bootstrap(model_hits - baseline_hits, test.labels, groups=test.groups)
    value, low, high = (100 * bound for bound in gain)
    lines = [
        f"  a linear layer on the same backbone, frozen: {baseline.accuracy:.1%}; paired "
        f"difference {value:+.1f} points (95% CI: {low:+.1f} to {high:+.1f})"
    ]
    if baseline.copies:
        test_path, train_path = (printable(path) for path in baseline.copies[0])
        lines.append(
            f"  warning: near-duplicates of training and test images ({len(baseline.copies)}), "
            f"such as {test_path} and {train_path}: the accuracy may be too high (see --groups)"
        )
    return lines


def cost_line(figures: dict[str, Any]) -> str:
    """Return the cost of a prediction, in one line."""
    return (
        f"cost per image: {figures['macs'] / 1e6:,.0f} million multiply-adds and "
        f"{figures['latency_ms']:,.1f} ms on one thread"
    )


def accuracy_lines(figures: dict[str, Any], predictions: Tensor, test: ImageSet) -> list[str]:
    """Return the accuracy and its reliability, one fact per line.

    Args:
        figures: see `metrics.evaluate`.
        predictions: (N,) class indices predicted by the model.
        test: the test images.
    """
    correct = int((predictions == test.labels).sum())
    low, high = wilson_interval(correct, len(test))
    counts = torch.bincount(test.labels, minlength=len(test.classes))
    largest = int(counts.argmax())
    recalls = {
        name: float((predictions[test.labels == label] == label).float().mean())
        for label, name in enumerate(test.classes)
        if counts[label]
    }
    worst = min(recalls, key=lambda name: recalls[name])
    lines = [
        f"{_SPLIT_TITLES[test.split]}: {correct} of {len(test)} correct, {correct / len(test):.1%} "
        f"(95% CI: {low:.0%} to {high:.0%}); always predicting "
        f"{test.classes[largest]!r} would reach {int(counts[largest]) / len(test):.1%}",
        f"  mean per-class accuracy {sum(recalls.values()) / len(recalls):.1%}; "
        f"worst: {worst!r} {recalls[worst]:.0%}",
    ]
    if high - low > MAX_INTERVAL:
        lines.append("  few test images: more of them would narrow the interval")
    leakage = figures.get("position_leakage")
    if leakage is not None:
        lines.append(
            f"  decided from {figures['evidence_fraction']:.0%} of the pixels; a probe of only "
            f"the locations reaches {leakage:.0%} (the closer to the accuracy, the less the "
            "patches explain)"
        )
    return lines


def _gallery(model: ImageModel, test: ImageSet, predictions: Tensor, path: Path) -> Path:
    """Draw correct, then wrong predictions with their explanations; return the picture's path."""
    correct = (predictions == test.labels).nonzero().flatten()
    wrong = (predictions != test.labels).nonzero().flatten()
    positions = torch.linspace(0, len(correct) - 1, min(MAX_SHOWN, len(correct))).long()
    explain = explainer(CONTRIBUTIONS)  # exact, unlike attention maps
    if Ability.KEYPOINTS in model.abilities or not explain.supports(model):
        explain = explainer(own_method(model) or "grad-cam")
    shown = torch.cat([correct[positions], wrong[:MAX_SHOWN]])  # indices of images
    explanations = [
        replace(explain(model, _image(test, int(index))), classes=test.classes) for index in shown
    ]
    plotting.save_figure(plotting.gallery(explanations, test.labels[shown]), path)
    return path


def _image(images: ImageSet[Tensor | Photos], index: int) -> Tensor:
    """Return one image (1, C, H, W) in [0, 1]."""
    (image,) = images.subset(torch.tensor([index])).images.split(1)
    return as_floats(image)
