"""Explanations of image files, for `foveal explain`."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.evaluation.evaluate import Notify
from foveal.foundation.errors import UserError, unknown_name
from foveal.foundation.file_names import unique_stems
from foveal.foundation.files import make_output_folder
from foveal.foundation.memory import keep_freed_memory

if TYPE_CHECKING:
    from torch import Tensor

    from foveal.explanation import Explanation
    from foveal.images.reading import DecodedImage
    from foveal.models import ImageModel

MAX_SIDE_PX = 1600  # maximum longer side of the originals that pictures are drawn on


def explain_files(
    model: str,
    paths: Sequence[Path],
    out: Path | None,
    notify: Notify = print,
    method: str = "model",
    runtime: str = "torch",
) -> tuple[list[dict[str, Any]], int]:
    """Explain image files; return a result for each, and the number that could not be read.

    Files are read and explained one at a time, which bounds the memory. The result of a file that
    cannot be read has an `error`; the other files are still explained.

    Args:
        model: name or path of a model (see `onnx.load`).
        paths: image files.
        out: folder for the pictures, or None.
        notify: called with notes about reading, and with errors.
        method: a name of `explainers.EXPLAINERS`; `model` for the model's own explanation
            (for models that read the whole image, its contributions, if it has them).
        runtime: one of `onnx.RUNTIMES`.

    Raises:
        UserError: unknown model, method or runtime, or the method requires PyTorch.
    """
    network = _load(model, method, runtime)
    results: list[dict[str, Any]] = []
    failed = 0
    for path, stem in zip(paths, _picture_stems(paths, out), strict=True):
        try:
            explanation = _explain(
                network, path, method, model, notify, with_original=out is not None
            )
        except UserError as error:
            failed += 1
            notify(f"{path}: {error}")
            results.append({"path": str(path), "error": str(error)})
        else:
            results.append(_result(explanation, path, out, stem))
    return results, failed


def _load(model: str, method: str, runtime: str) -> "ImageModel":
    """Return a model that can be explained by a method."""
    from foveal.deployment import onnx
    from foveal.explainers import EXPLAINERS, OWN

    if method not in EXPLAINERS:
        raise unknown_name("method", method, EXPLAINERS)
    keep_freed_memory()
    network = onnx.load(model, runtime)
    if method != OWN and onnx.about(network) is not None:
        raise UserError(f"Method {method!r} requires PyTorch; use --runtime torch.")
    return network


def _result(explanation: "Explanation", path: Path, out: Path | None, stem: str) -> dict[str, Any]:
    """Return an explanation as plain values; save its picture if there is a folder for it."""
    result = {"path": str(path), **explanation.to_dicts()[0]}
    if out is not None:
        result["picture"] = str(_save(explanation, out, stem))
    return result


def _explain(
    network: "ImageModel", path: Path, method: str, model: str, notify: Notify, with_original: bool
) -> "Explanation":
    """Return the explanation of one file, which high-resolution models read in part.

    Args:
        network: the model.
        path: path of the image.
        method: a name of `explainers.EXPLAINERS`.
        model: name of the model.
        notify: called with notes about reading.
        with_original: whether to add the original image, which pictures are drawn on.
    """
    from foveal.explainers import OWN, explainer
    from foveal.images.values import as_floats
    from foveal.models.abilities import Ability

    if Ability.IN_PART in network.abilities and method == OWN:
        return _explain_in_part(network, path, notify, with_original)
    (image, (height, width), note), original = _read(network, path, with_original)
    if note:
        notify(f"{path}: {note}")
    size = (image.shape[-2], image.shape[-1])
    if network.inputs.size and (height, width) != size:
        notify(f"{path}: resized from {height}x{width} to {size[0]}x{size[1]}, as {model} expects")
    explanation = explainer(method)(network, as_floats(image[None]))
    if original is None or (original.shape == image.shape and bool((original == image).all())):
        return explanation
    return replace(explanation, originals=(as_floats(original),))


def _read(
    network: "ImageModel", path: Path, with_original: bool
) -> tuple["DecodedImage", "Tensor | None"]:
    """Return an image in the form that a model reads, and its uint8 original (C, H, W) or None."""
    from foveal.images.reading import read_noted, read_pictured

    sizing, channels = network.inputs.sizing, network.in_channels
    if with_original:
        return read_pictured(path, size=sizing, channels=channels, longest=MAX_SIDE_PX)
    return read_noted(path, size=sizing, channels=channels), None


def _explain_in_part(
    network: "ImageModel", path: Path, notify: Notify, with_original: bool
) -> "Explanation":
    from foveal.images.pyramids import LargeFiles

    try:
        files = LargeFiles([path], network.in_channels)
        note = files.image(0).note
        if note:
            notify(f"{path} {note}")
        explanation = network.explain(files)
        if not with_original:
            return explanation
        shrink = -(-max(files.size) // MAX_SIDE_PX)  # rounded up
        return replace(explanation, originals=(files.image(0).thumbnail(shrink),))
    except UserError as error:  # `explain_files` adds the path itself
        raise UserError(str(error).removeprefix(f"{path}: ")) from None
    except ValueError as error:
        raise UserError(str(error)) from None


def _picture_stems(paths: Sequence[Path], out: Path | None) -> list[str]:
    """Return a unique file name stem for each picture that overwrites none of the images."""
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
