"""What the commands `evaluate`, `explain` and `models` do, for any caller."""

from collections.abc import Callable, Sequence
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
LARGE = 16  # large images in one forward pass


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
        data_dir: where named datasets lie.
        judge: of the evidence, a model trained with `augment.hide`; the zoo's of that dataset
            if not given, and without one sufficiency and necessity are left out.
        boxes: annotations of a folder's images, as `with_annotations` takes them.
        masks: the same; named sets of photographs bring their own.
        groups: of images that no split divides, as `read_groups` takes them.
        seed: of probes and pairs.
        say: told what was left out.
        runtime: one of `onnx.RUNTIMES`, which runs the model.

    Raises:
        UserError: unknown model, runtime, dataset or split, images that the model cannot read, or
            as `groups_of`.
    """
    from foveal.datasets import load_images, load_large
    from foveal.deployment import onnx
    from foveal.metrics import evaluate
    from foveal.metrics.classes import as_known
    from foveal.metrics.registry import useful_for
    from foveal.metrics.subject import Given
    from foveal.models.abilities import Ability

    keep_freed_memory()
    network = onnx.load(model, runtime)
    if Ability.IN_PART in network.abilities:
        if boxes or masks:
            raise UserError(f"{model} reads images in part: boxes and masks are not read for it.")
        large = _described(load_large(data, split, data_dir=data_dir), network, model, say)
        found = judge_of(judge, large)
        figures = evaluate(network, large, judge=found, name=model, batch_size=LARGE, seed=seed)
        return figures | _by_onnx(network, large.images.size)
    options: dict[str, Any] = {
        "size": network.inputs.sizing,
        "channels": network.in_channels,
        "data_dir": data_dir,
        "groups": groups_of([model], data, groups),
    }
    test = load_annotated(data, split, boxes=boxes, masks=masks, say=say, **options)
    images = _described(test, network, model, say)
    train = None
    if Given.TRAIN in useful_for(network):
        train = probe_images(
            lambda: as_known(load_images(data, "train", **options), network, model)[0], say
        )
    found = judge_of(judge, images)
    figures = evaluate(network, images, train, judge=found, name=model, seed=seed)
    return figures | _by_onnx(network)


def groups_of(models: Sequence[str], data: str, groups: str | None) -> "Groups | None":
    """Return the groups by which a folder's splits are drawn.

    Args:
        models: of which one may have been trained on the folder by groups.
        data: the folder, or another dataset.
        groups: as `read_groups` takes them; None for none.

    Raises:
        UserError: the splits that a model was trained on were drawn by groups, which are not given:
            some of its test images would be training images. They are not taken from its card, as
            no path is that comes from a file.
    """
    from foveal.datasets import read_groups

    for model in models if groups is None else ():
        try:
            card = zoo.card(model)
        except UserError:  # a .onnx file has none
            continue
        kept = card.get("recipe", {}).get("data", {})
        trained_by = kept.get("groups") if isinstance(kept, dict) else None
        if trained_by and card.get("trained_on") == Path(data).expanduser().resolve().name:
            raise UserError(
                f"{model} was trained with the groups {printable(str(trained_by))}, by which the "
                "test images are drawn: give --groups."
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
    """Return one split of a dataset with its annotations, as `with_annotations` finds them.

    Args:
        data: as `load_images` takes it, and `split`, `data_dir` and `options` too.
        split: `train`, `val` or `test`.
        boxes: annotations, as `with_annotations` takes them.
        masks: the same.
        data_dir: where named datasets lie.
        say: called with what did not fit.
        options: size, channels and groups.

    Raises:
        UserError: as `load_images` and `with_annotations`.
    """
    from foveal.datasets import load_images
    from foveal.datasets.annotations import with_annotations

    images = load_images(data, split, data_dir=data_dir, **options)
    return with_annotations(images, data, boxes=boxes, masks=masks, data_dir=data_dir, say=say)


def probe_images(load: Callable[[], "ImageSet"], say: Say) -> "ImageSet | None":
    """Return the images that a probe of keypoints trains on; None, and say so, if there are none.

    Args:
        load: returns them, or raises UserError.
        say: called with why there are none.
    """
    try:
        return load()
    except UserError as error:
        say(f"position_leakage is left out, its probe has no images to train on: {error}")
        return None


def _described(
    images: "ImageSet[Pixels]", network: "ImageModel", model: str, say: Say
) -> "ImageSet[Pixels]":
    """Return images labelled by a model's classes; say what differs and what was left out."""
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
    """Return what a folder was taken for, and its first problems, a line each."""
    from foveal.datasets.images import problem_lines

    taken = [f"{printable(images.name)}: {note}" for note in images.notes]
    return taken + problem_lines(images.problems)


def _by_onnx(network: "ImageModel", size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the figures that a model run by ONNX Runtime cannot be measured for; else nothing."""
    from foveal.deployment import onnx

    found = onnx.cost(network, size)
    return {**found, "runtime": "onnx"} if found else {}


def judge_of(name: str | None, images: "ImageSet[Any]") -> "ImageModel | None":
    """Return the judge of that name, or the zoo's for that dataset if there is one that fits.

    Raises:
        UserError: a judge that was named is unknown, is no classifier, or reads other images, or
            the images are photographs of several sizes.
    """
    from torch import Tensor

    from foveal.models import as_classifier

    chosen = name or zoo.judge_of(images.name)
    if chosen is None:
        return None
    if not isinstance(images.images, Tensor):
        raise UserError(f"The judge {chosen} reads images of one size, not of many proportions.")
    judge = as_classifier(zoo.load(chosen), f"{chosen} names no classes, so it cannot judge.")
    channels, size = images.images.shape[1], tuple(images.images.shape[-2:])
    fits = judge.in_channels == channels and judge.inputs.size in (None, size)
    if name is None:  # a folder may have the name of a dataset
        return judge if fits and set(images.classes) <= set(judge.inputs.classes) else None
    if not fits:
        raise UserError(
            f"The judge {chosen} reads images of {judge.inputs.size} pixels and "
            f"{judge.in_channels} channel(s), but these have {size} and {channels}."
        )
    return judge


def zoo_cards() -> list[dict[str, Any]]:
    """Return name, kind (as `config.json` names it) and figures of every model in the zoo."""
    cards = ((name, zoo.card(name)) for name in zoo.names())
    return [
        {"model": name, "kind": card["recipe"]["model"]["name"], **card.get("figures", {})}
        for name, card in cards
    ]
