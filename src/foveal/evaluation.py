"""What the commands `evaluate`, `explain` and `models` do, for any caller."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal import zoo
from foveal.errors import UserError, unknown_name
from foveal.escaping import printable
from foveal.file_names import unique_stems
from foveal.files import make_output_folder
from foveal.memory import keep_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.data import Groups, ImageSet
    from foveal.data.images import Pixels
    from foveal.explanation import Explanation
    from foveal.images.reading import DecodedImage
    from foveal.models import ImageModel

Say = Callable[[str], None]
LARGE = 16  # large images in one forward pass
LONGEST = 1600  # pixels along the longer side of an original that pictures are drawn on


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
        runtime: one of `export.RUNTIMES`, which runs the model.

    Raises:
        UserError: unknown model, runtime, dataset or split, images that the model cannot read, or
            as `groups_of`.
    """
    from foveal import export
    from foveal.data import load_images, load_large
    from foveal.metrics import evaluate
    from foveal.metrics.classes import as_known
    from foveal.metrics.registry import useful_for
    from foveal.metrics.subject import Given
    from foveal.models.abilities import Ability

    keep_freed_memory()
    network = export.load(model, runtime)
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
    from foveal.data import read_groups

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
    from foveal.data import load_images
    from foveal.data.annotations import with_annotations

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
    from foveal.data.names import some_names
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
    from foveal.data.images import problem_lines

    taken = [f"{printable(images.name)}: {note}" for note in images.notes]
    return taken + problem_lines(images.problems)


def _by_onnx(network: "ImageModel", size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the figures that a model run by ONNX Runtime cannot be measured for; else nothing."""
    from foveal import export

    found = export.cost(network, size)
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


def explain_files(
    model: str,
    paths: Sequence[Path],
    out: Path | None,
    say: Say = print,
    method: str = "model",
    runtime: str = "torch",
) -> tuple[list[dict[str, Any]], int]:
    """Explain image files; return an answer for each and how many could not be read.

    Files are read and explained one at a time, so that any number fits; a bad one is an answer
    with an `error`, and the others go on.

    Args:
        model: as `export.load` takes it.
        paths: image files.
        out: folder for the pictures, or None.
        say: told of what is done to a file.
        method: a name of `explainers.EXPLAINERS`; `model` for the model's own explanation, which
            is its contributions where it looks everywhere and can give them.
        runtime: one of `export.RUNTIMES`, which runs the model.

    Raises:
        UserError: unknown model, method or runtime, or the method needs PyTorch.
    """
    from foveal import export
    from foveal.explainers import EXPLAINERS, OWN

    if method not in EXPLAINERS:
        raise unknown_name("method", method, EXPLAINERS)
    keep_freed_memory()
    network = export.load(model, runtime)
    if method != OWN and export.about(network) is not None:
        raise UserError(f"The method {method} needs PyTorch: use the runtime torch.")
    answers: list[dict[str, Any]] = []
    failed = 0
    for path, stem in zip(paths, _picture_stems(paths, out), strict=True):
        try:
            explanation = _explained(network, path, method, model, say, drawn=out is not None)
        except UserError as error:
            failed += 1
            say(f"{path}: {error}")
            answers.append({"path": str(path), "error": str(error)})
            continue
        answer = {"path": str(path), **explanation.to_dicts()[0]}
        if out is not None:
            answer["picture"] = str(_save(explanation, out, stem))
        answers.append(answer)
    return answers, failed


def _explained(
    network: "ImageModel", path: Path, method: str, model: str, say: Say, drawn: bool
) -> "Explanation":
    """Return the explanation of one file; a high-resolution model reads it in part.

    Args:
        network: the model.
        path: of the image.
        method: a name of `explainers.EXPLAINERS`.
        model: its name.
        say: told of what is done to the file.
        drawn: whether the explanation is to have the original, which pictures are drawn on.
    """
    from foveal.explainers import OWN, explainer
    from foveal.models.abilities import Ability

    if Ability.IN_PART in network.abilities and method == OWN:
        return _explained_in_part(network, path, say, drawn)
    (image, (height, width), note), original = _read(network, path, drawn)
    if note:
        say(f"{path}: {note}")
    size = (image.shape[-2], image.shape[-1])
    if network.inputs.size and (height, width) != size:
        say(f"{path}: resized from {height}x{width} to {size[0]}x{size[1]}, as {model} expects")
    explanation = explainer(method)(network, image[None].float() / 255)
    if original is None or (original.shape == image.shape and bool((original == image).all())):
        return explanation
    return replace(explanation, originals=(original.float() / 255,))


def _read(network: "ImageModel", path: Path, drawn: bool) -> tuple["DecodedImage", "Tensor | None"]:
    """Return an image as a model takes it, and its original (C, H, W), uint8, if it is drawn."""
    from foveal.images.reading import read_noted, read_pictured

    sizing, channels = network.inputs.sizing, network.in_channels
    if drawn:
        return read_pictured(path, size=sizing, channels=channels, longest=LONGEST)
    return read_noted(path, size=sizing, channels=channels), None


def _explained_in_part(network: "ImageModel", path: Path, say: Say, drawn: bool) -> "Explanation":
    from foveal.images.pyramids import LargeFiles

    try:
        files = LargeFiles([path], network.in_channels)
        note = files.image(0).note
        if note:
            say(f"{path} {note}")
        explanation = network.explain(files)
        if not drawn:
            return explanation
        shrink = -(-max(files.size) // LONGEST)  # rounded up
        return replace(explanation, originals=(files.image(0).thumbnail(shrink),))
    except UserError as error:  # which names the file already
        raise UserError(str(error).removeprefix(f"{path}: ")) from None
    except ValueError as error:
        raise UserError(str(error)) from None


def _picture_stems(paths: Sequence[Path], out: Path | None) -> list[str]:
    """Return a file name stem for each picture, so that it replaces no other and no image."""
    folder = None if out is None else os.path.realpath(out)
    images = [
        path.stem
        for path in paths
        if path.suffix.lower() == ".png" and os.path.realpath(path.parent) == folder
    ]
    return unique_stems([path.stem for path in paths], images)


def _save(explanation: "Explanation", out: Path, stem: str) -> Path:
    from foveal.plotting import save_figure

    try:
        make_output_folder(out)
        picture = out / f"{stem}.png"
        save_figure(explanation.figure(0, title=stem), picture)
    except OSError as error:
        raise UserError(f"Cannot write to {out}: {error.strerror or error}.") from None
    return picture


def zoo_cards() -> list[dict[str, Any]]:
    """Return name, kind (as `config.json` names it) and figures of every model in the zoo."""
    cards = ((name, zoo.card(name)) for name in zoo.names())
    return [
        {"model": name, "kind": card["recipe"]["model"]["name"], **card.get("figures", {})}
        for name, card in cards
    ]
