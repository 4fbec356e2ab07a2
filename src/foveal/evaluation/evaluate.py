"""Evaluation of a model on a dataset, both loaded by name; comparisons load data in the same way.

A figure is the value of a metric. A card is the JSON file that describes a trained model: its
recipe, versions and figures. A judge is a classifier that was trained independently, to measure how
much evidence a region of an image contains. A probe is a small classifier that is trained on the
locations of keypoints only.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal import zoo
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.memory import keep_freed_memory

if TYPE_CHECKING:
    from foveal.datasets import Groups, ImageSet
    from foveal.datasets.images import Pixels
    from foveal.models import ImageModel

Notify = Callable[[str], None]
LARGE_BATCH_SIZE = 16  # large images per forward pass


def evaluate_on(
    model: str,
    data: str,
    *,
    split: str = "test",
    data_dir: Path | None = None,
    judge: str | None = None,
    boxes: Path | None = None,
    masks: Path | None = None,
    groups: str | None = None,
    seed: int = 0,
    notify: Notify = print,
    runtime: str = "torch",
) -> dict[str, Any]:
    """Load a model and a dataset and return the model's figures on it.

    Args:
        model: a zoo name, a run folder, OWNER/NAME, or a .onnx file.
        data: a dataset, a folder, or hf:OWNER/NAME.
        split: `train`, `val` or `test`.
        data_dir: folder of the named datasets.
        judge: a model trained with `augment.hide` that judges the evidence; default: the zoo's
            for that dataset. Without one, sufficiency and necessity are skipped.
        boxes: boxes of the regions that matter in a folder's images, see `with_annotations`.
        masks: masks of these regions, instead of boxes; named photograph datasets have their own.
        groups: groups of images that are never split, see `read_groups`.
        seed: random seed of probes, and of the pairs of images that some metrics compare.
        notify: called with notes on how the data was read and on what was skipped.
        runtime: `torch` or `onnx`.

    Raises:
        UserError: the model, runtime, dataset or split is unknown, the model cannot read the
            images, or groups are missing (see `groups_of`).
    """
    from foveal.datasets import load_images, load_large
    from foveal.deployment import onnx
    from foveal.models.abilities import Ability

    keep_freed_memory()
    network = onnx.load(model, runtime)
    if Ability.IN_PART in network.abilities:
        if boxes or masks:
            raise UserError(f"{model} reads images in part and cannot use boxes or masks.")
        large = load_large(data, split, data_dir=data_dir)
        return _figures(network, model, large, judge, seed, notify, batch_size=LARGE_BATCH_SIZE)
    options: dict[str, Any] = {
        "size": network.inputs.sizing,
        "channels": network.in_channels,
        "data_dir": data_dir,
        "groups": groups_of([model], data, groups),
    }
    test = load_annotated(data, split, boxes=boxes, masks=masks, notify=notify, **options)
    load_train = partial(load_images, data, "train", **options)
    return _figures(network, model, test, judge, seed, notify, load_train)


def _figures(
    network: "ImageModel",
    model: str,
    test: "ImageSet[Any]",
    judge: str | None,
    seed: int,
    notify: Notify,
    load_train: "Callable[[], ImageSet] | None" = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Return a model's figures.

    Args:
        network: the model.
        model: name of the model.
        test: the images to measure it on.
        judge: name of a judge; None for the zoo's, if there is one for these images.
        seed: random seed of probes and pairs.
        notify: called with notes on how the data was read and on what was skipped.
        load_train: loads the training images of the probe, which is skipped if that raises
            UserError; None to skip it in any case.
        batch_size: images per forward pass.
    """
    from foveal.metrics import evaluate
    from foveal.metrics.classes import with_model_classes
    from foveal.metrics.registry import useful_for
    from foveal.metrics.subject import Given

    test = _match_classes(test, network, model, notify)
    train = None
    if load_train is not None and Given.TRAIN in useful_for(network):
        train = probe_images(lambda: with_model_classes(load_train(), network, model)[0], notify)
    judge_model = judge_of(judge, test)
    options: dict[str, Any] = {"name": model, "batch_size": batch_size, "seed": seed}
    figures = evaluate(network, test, train, judge=judge_model, **options)
    return figures | _onnx_figures(network, test)


def groups_of(models: Sequence[str], data: str, groups: str | None) -> "Groups | None":
    """Return the groups of images in a folder, whose images must be in the same split.

    Args:
        models: zoo names, run folders or OWNER/NAME of models, or .onnx files.
        data: the folder, or another dataset.
        groups: see `read_groups`; None for no groups.

    Raises:
        UserError: a model was trained on this folder with groups, but none are given, so that some
            of its training images would be in the test split. The groups on the model's card are
            not used instead, because they may be a path, and a path that was read from a file is
            never opened.
    """
    from foveal.datasets import read_groups

    models_to_check = models if groups is None else ()
    for model in models_to_check:
        try:
            card = zoo.card(model)
        except UserError:  # a .onnx file has no card
            continue
        settings = card.get("recipe", {}).get("data", {})
        training_groups = settings.get("groups") if isinstance(settings, dict) else None
        if training_groups and card.get("trained_on") == Path(data).expanduser().resolve().name:
            raise UserError(
                f"{model} was trained with the groups {printable(str(training_groups))}, which "
                "determine its test images: give --groups."
            )
    return read_groups(groups or "")


def load_annotated(
    data: str,
    split: str,
    *,
    boxes: Path | None = None,
    masks: Path | None = None,
    data_dir: Path | None = None,
    notify: Notify = lambda line: None,
    **options: Any,
) -> "ImageSet":
    """Return one split of a dataset, with masks of the regions that matter if it is annotated.

    Args:
        data: a dataset, a folder, or hf:OWNER/NAME.
        split: `train`, `val` or `test`.
        boxes: boxes of the regions that matter in a folder's images, see `with_annotations`.
        masks: masks of these regions, instead of boxes.
        data_dir: folder of the named datasets.
        notify: called with each annotation that matches no image, and the number of those that do.
        options: `size`, `channels` and `groups` of `load_images`.

    Raises:
        UserError: the images or the annotations cannot be read, as in `load_images` and
            `with_annotations`.
    """
    from foveal.datasets import load_images
    from foveal.datasets.annotations import with_annotations

    images = load_images(data, split, data_dir=data_dir, **options)
    return with_annotations(
        images, data, boxes=boxes, masks=masks, data_dir=data_dir, notify=notify
    )


def probe_images(load: Callable[[], "ImageSet"], notify: Notify) -> "ImageSet | None":
    """Return the training images of the keypoint probe, or None if they cannot be loaded.

    Args:
        load: returns the images, or raises UserError.
        notify: called with the reason if they cannot be loaded.
    """
    try:
        return load()
    except UserError as error:
        notify(f"position_leakage is skipped, because its probe has no training images: {error}")
        return None


def _match_classes(
    images: "ImageSet[Pixels]", network: "ImageModel", model: str, notify: Notify
) -> "ImageSet[Pixels]":
    """Return images with a model's class indices as labels; report what differs or is skipped."""
    from foveal.datasets.names import some_names
    from foveal.metrics.classes import absent_classes, with_model_classes

    matched, notes = with_model_classes(images, network, model)
    absent = absent_classes(matched)
    if absent:
        notes.append(f"no images of {some_names(absent)}")
    for line in reading_notes(images) + notes:
        notify(line)
    return matched


def reading_notes(images: "ImageSet[Any]") -> list[str]:
    """Return notes on how a folder was read and on its first problems, one per line."""
    from foveal.datasets.images import problem_lines

    notes = [f"{printable(images.name)}: {note}" for note in images.notes]
    return notes + problem_lines(images.problems)


def _onnx_figures(network: "ImageModel", images: "ImageSet[Any]") -> dict[str, Any]:
    """Return the figures of an ONNX model that come from its metadata; empty for other models."""
    from foveal.deployment import onnx
    from foveal.images import LargeImages

    size = images.images.size if isinstance(images.images, LargeImages) else None
    figures = onnx.cost(network, size)
    return {**figures, "runtime": "onnx"} if figures else {}


def judge_of(name: str | None, images: "ImageSet[Any]") -> "ImageModel | None":
    """Return the judge of a model's evidence.

    Args:
        name: name of a judge; None for the zoo's judge for the dataset.
        images: the images to judge.

    Returns:
        The judge; None if no name is given and the zoo has no judge that fits the images.

    Raises:
        UserError: the named judge is unknown, is not a classifier, or reads other images, or the
            images are photographs of several sizes.
    """
    from torch import Tensor

    from foveal.models import as_classifier

    judge_name = name or zoo.judge_of(images.name)
    if judge_name is None:
        return None
    if not isinstance(images.images, Tensor):
        raise UserError(f"The judge {judge_name} needs images of one size, but these have several.")
    judge = as_classifier(
        zoo.load(judge_name), f"{judge_name} is not a classifier and cannot be used as a judge."
    )
    channels, size = images.images.shape[1], tuple(images.images.shape[-2:])
    fits = judge.in_channels == channels and judge.inputs.size in (None, size)
    if name is None:
        # The zoo's judge was found by the dataset's name, which a user's folder may have too.
        return judge if fits and set(images.classes) <= set(judge.inputs.classes) else None
    if not fits:
        raise UserError(
            f"The judge {judge_name} reads images of {judge.inputs.size} pixels and "
            f"{judge.in_channels} channel(s), but these have {size} pixels "
            f"and {channels} channel(s)."
        )
    return judge


def zoo_cards() -> list[dict[str, Any]]:
    """Return `model`, `kind` (the name in `config.json`) and figures of each model in the zoo."""
    cards = ((name, zoo.card(name)) for name in zoo.names())
    return [
        {"model": name, "kind": card["recipe"]["model"]["name"], **card.get("figures", {})}
        for name, card in cards
    ]
