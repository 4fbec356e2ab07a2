"""Evaluation of a model on a dataset by name, and the loading that comparisons share."""

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

Say = Callable[[str], None]
LARGE = 16  # large images per forward pass


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
    say: Say = print,
    runtime: str = "torch",
) -> dict[str, Any]:
    """Load a model and a dataset and return the model's figures on it.

    Args:
        model: a zoo name, a run folder, OWNER/NAME, or a .onnx file.
        data: a dataset, a folder, or hf:OWNER/NAME.
        split: `train`, `val` or `test`.
        data_dir: folder of the named datasets.
        judge: a model trained with `augment.hide` that judges the evidence; default: the zoo's
            for that dataset. Without one, sufficiency and necessity are left out.
        boxes: annotations of a folder's images, see `with_annotations`.
        masks: likewise; named sets of photographs have their own.
        groups: groups of images that are never split, see `read_groups`.
        seed: random seed of probes and pairs.
        say: called with what was left out.
        runtime: one of `onnx.RUNTIMES`.

    Raises:
        UserError: unknown model, runtime, dataset or split, images that the model cannot read, or
            groups are missing (see `groups_of`).
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
        return _figures(network, model, large, judge, seed, say, batch_size=LARGE)
    options: dict[str, Any] = {
        "size": network.inputs.sizing,
        "channels": network.in_channels,
        "data_dir": data_dir,
        "groups": groups_of([model], data, groups),
    }
    test = load_annotated(data, split, boxes=boxes, masks=masks, say=say, **options)
    load_train = partial(load_images, data, "train", **options)
    return _figures(network, model, test, judge, seed, say, load_train)


def _figures(
    network: "ImageModel",
    model: str,
    test: "ImageSet[Any]",
    judge: str | None,
    seed: int,
    say: Say,
    load_train: "Callable[[], ImageSet] | None" = None,
    batch_size: int = 500,
) -> dict[str, Any]:
    """Return a model's figures; those of probes only if training images can be loaded."""
    from foveal.metrics import evaluate
    from foveal.metrics.classes import as_known
    from foveal.metrics.registry import useful_for
    from foveal.metrics.subject import Given

    known = _described(test, network, model, say)
    train = None
    if load_train is not None and Given.TRAIN in useful_for(network):
        train = probe_images(lambda: as_known(load_train(), network, model)[0], say)
    found = judge_of(judge, known)
    options: dict[str, Any] = {"name": model, "batch_size": batch_size, "seed": seed}
    figures = evaluate(network, known, train, judge=found, **options)
    return figures | _onnx_figures(network, known)


def groups_of(models: Sequence[str], data: str, groups: str | None) -> "Groups | None":
    """Return the groups that a folder's splits must not divide.

    Args:
        models: models that may have been trained on the folder with groups.
        data: the folder, or another dataset.
        groups: see `read_groups`; None for no groups.

    Raises:
        UserError: a model was trained with groups, but none are given, so some training images
            would be in the test split. The groups on its card are not used, because a path from a
            file is never opened.
    """
    from foveal.datasets import read_groups

    for model in models if groups is None else ():
        try:
            card = zoo.card(model)
        except UserError:  # a .onnx file has no card
            continue
        kept = card.get("recipe", {}).get("data", {})
        trained_by = kept.get("groups") if isinstance(kept, dict) else None
        if trained_by and card.get("trained_on") == Path(data).expanduser().resolve().name:
            raise UserError(
                f"{model} was trained with the groups {printable(str(trained_by))}, which "
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
    say: Say = lambda line: None,
    **options: Any,
) -> "ImageSet":
    """Return one split of a dataset with its annotations, see `with_annotations`.

    Args:
        data: a dataset, see `load_images`.
        split: `train`, `val` or `test`.
        boxes: annotations, see `with_annotations`.
        masks: likewise.
        data_dir: folder of the named datasets.
        say: called with the annotations that do not match an image.
        options: `size`, `channels` and `groups` of `load_images`.

    Raises:
        UserError: see `load_images` and `with_annotations`.
    """
    from foveal.datasets import load_images
    from foveal.datasets.annotations import with_annotations

    images = load_images(data, split, data_dir=data_dir, **options)
    return with_annotations(images, data, boxes=boxes, masks=masks, data_dir=data_dir, say=say)


def probe_images(load: Callable[[], "ImageSet"], say: Say) -> "ImageSet | None":
    """Return the training images of the keypoint probe, or None if they cannot be loaded.

    Args:
        load: returns the images, or raises UserError.
        say: called with the reason if they cannot be loaded.
    """
    try:
        return load()
    except UserError as error:
        say(f"position_leakage is left out, as its probe has no training images: {error}")
        return None


def _described(
    images: "ImageSet[Pixels]", network: "ImageModel", model: str, say: Say
) -> "ImageSet[Pixels]":
    """Return images with a model's class indices; report differences and images left out."""
    from foveal.datasets.names import some_names
    from foveal.metrics.classes import absent_classes, as_known

    found, notes = as_known(images, network, model)
    absent = absent_classes(found)
    if absent:
        notes.append(f"no images of {some_names(absent)}")
    for line in reading_notes(images) + notes:
        say(line)
    return found


def reading_notes(images: "ImageSet[Any]") -> list[str]:
    """Return how a folder was read, and its first problems, one per line."""
    from foveal.datasets.images import problem_lines

    taken = [f"{printable(images.name)}: {note}" for note in images.notes]
    return taken + problem_lines(images.problems)


def _onnx_figures(network: "ImageModel", images: "ImageSet[Any]") -> dict[str, Any]:
    """Return the figures of an ONNX model that come from its metadata; empty for other models."""
    from foveal.deployment import onnx
    from foveal.images import LargeImages

    size = images.images.size if isinstance(images.images, LargeImages) else None
    found = onnx.cost(network, size)
    return {**found, "runtime": "onnx"} if found else {}


def judge_of(name: str | None, images: "ImageSet[Any]") -> "ImageModel | None":
    """Return the judge with a name, or the zoo's for the dataset if it has one that fits.

    Raises:
        UserError: the named judge is unknown, is not a classifier, or reads other images, or the
            images are photographs of several sizes.
    """
    from torch import Tensor

    from foveal.models import as_classifier

    chosen = name or zoo.judge_of(images.name)
    if chosen is None:
        return None
    if not isinstance(images.images, Tensor):
        raise UserError(f"The judge {chosen} needs images of one size, but these have several.")
    judge = as_classifier(
        zoo.load(chosen), f"{chosen} is not a classifier and cannot be used as a judge."
    )
    channels, size = images.images.shape[1], tuple(images.images.shape[-2:])
    fits = judge.in_channels == channels and judge.inputs.size in (None, size)
    if name is None:  # a folder may have a dataset's name
        return judge if fits and set(images.classes) <= set(judge.inputs.classes) else None
    if not fits:
        raise UserError(
            f"The judge {chosen} reads images of {judge.inputs.size} pixels and "
            f"{judge.in_channels} channel(s), but these have {size} and {channels}."
        )
    return judge


def zoo_cards() -> list[dict[str, Any]]:
    """Return name, kind (the name in `config.json`) and figures of every model in the zoo."""
    cards = ((name, zoo.card(name)) for name in zoo.names())
    return [
        {"model": name, "kind": card["recipe"]["model"]["name"], **card.get("figures", {})}
        for name, card in cards
    ]
