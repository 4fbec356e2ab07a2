"""Explanations of image files, as `foveal explain` writes them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.evaluation.evaluate import Say
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.file_names import unique_stems
from foveal.foundation.files import make_output_folder
from foveal.foundation.memory import keep_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.explanation import Explanation
    from foveal.images.reading import DecodedImage
    from foveal.models import ImageModel

LONGEST = 1600  # pixels along the longer side of an original that pictures are drawn on


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
        model: as `onnx.load` takes it.
        paths: image files.
        out: folder for the pictures, or None.
        say: told of what is done to a file.
        method: a name of `explainers.EXPLAINERS`; `model` for the model's own explanation, which
            is its contributions where it looks everywhere and can give them.
        runtime: one of `onnx.RUNTIMES`, which runs the model.

    Raises:
        UserError: unknown model, method or runtime, or the method needs PyTorch.
    """
    from foveal.deployment import onnx
    from foveal.explainers import EXPLAINERS, OWN

    if method not in EXPLAINERS:
        raise unknown_name("method", method, EXPLAINERS)
    keep_freed_memory()
    network = onnx.load(model, runtime)
    if method != OWN and onnx.about(network) is not None:
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
    from foveal.images.values import as_floats
    from foveal.models.abilities import Ability

    if Ability.IN_PART in network.abilities and method == OWN:
        return _explained_in_part(network, path, say, drawn)
    (image, (height, width), note), original = _read(network, path, drawn)
    if note:
        say(f"{path}: {note}")
    size = (image.shape[-2], image.shape[-1])
    if network.inputs.size and (height, width) != size:
        say(f"{path}: resized from {height}x{width} to {size[0]}x{size[1]}, as {model} expects")
    explanation = explainer(method)(network, as_floats(image[None]))
    if original is None or (original.shape == image.shape and bool((original == image).all())):
        return explanation
    return replace(explanation, originals=(as_floats(original),))


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
