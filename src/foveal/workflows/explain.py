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

MAX_SIDE_PX = 1600  # maximum long side of the original images, on which pictures are drawn


def explain_files(
    model: str,
    paths: Sequence[Path],
    out: Path | None,
    notify: Notify = print,
    method: str = "model",
    runtime: str = "torch",
) -> tuple[list[dict[str, Any]], int]:
    """Explain image files; return a result for each file, and the number of failed files.

    Files are read and explained one at a time, which bounds the memory. The result of a file that
    cannot be explained has an `error`; the other files are still explained.

    Args:
        model: name or path of a model (see `onnx.load`).
        paths: image files.
        out: folder for the pictures, or None.
        notify: called with notes about reading, and with errors.
        method: a name of `explainers.EXPLAINERS`; `model` for the model's own explanation, which
            for a model that reads the whole image is its contributions, if it has them.
        runtime: `torch` or `onnx`.

    Raises:
        UserError: the model, method or runtime is unknown, or the method requires PyTorch.
    """
    network = _load(model, method, runtime)
    results: list[dict[str, Any]] = []
    failed_count = 0
    for path, stem in zip(paths, _picture_stems(paths, out), strict=True):
        try:
            explanation = _explain(
                network, path, method, model, notify, with_original=out is not None
            )
        except UserError as error:
            failed_count += 1
            notify(f"{path}: {error}")
            results.append({"path": str(path), "error": str(error)})
        else:
            results.append(_result(explanation, path, out, stem))
    return results, failed_count


def _load(model: str, method: str, runtime: str) -> "ImageModel":
    """Return a model, after checking that the method can explain it."""
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
    """Return an explanation as plain values; save its picture to `out` if that is not None."""
    result = {"path": str(path), **explanation.to_dicts()[0]}
    if out is not None:
        result["picture"] = str(_save(explanation, out, stem))
    return result


def _explain(
    network: "ImageModel", path: Path, method: str, model: str, notify: Notify, with_original: bool
) -> "Explanation":
    """Return the explanation of one file. High-resolution models read only parts of it.

    Args:
        network: the model.
        path: path of the image.
        method: a name of `explainers.EXPLAINERS`.
        model: name of the model.
        notify: called with notes about reading.
        with_original: whether to add the original image, on which pictures are drawn.
    """
    from foveal.explainers import OWN, explainer
    from foveal.images.values import as_floats
    from foveal.models.abilities import Ability

    if Ability.IN_PART in network.abilities and method == OWN:
        return _explain_in_part(network, path, notify, with_original)
    decoded, original = _read(network, path, with_original)
    image, (height, width), note = decoded
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
    """Return an image in the size and channels that a model reads, and its original or None.

    The original is uint8 (C, H, W), reduced to a long side of at most `MAX_SIDE_PX`.
    """
    from foveal.images.reading import read_noted, read_pictured

    sizing, channels = network.inputs.sizing, network.in_channels
    if with_original:
        return read_pictured(path, size=sizing, channels=channels, max_side=MAX_SIDE_PX)
    return read_noted(path, size=sizing, channels=channels), None


def _explain_in_part(
    network: "ImageModel", path: Path, notify: Notify, with_original: bool
) -> "Explanation":
    """Return a high-resolution model's explanation of a file, of which it reads only parts."""
    from foveal.images.pyramids import LargeFiles

    try:
        files = LargeFiles([path], network.in_channels)
        note = files.image(0).note
        if note:
            notify(f"{path} {note}")
        explanation = network.explain(files)
        if not with_original:
            return explanation
        factor = -(-max(files.size) // MAX_SIDE_PX)  # rounded up
        return replace(explanation, originals=(files.image(0).thumbnail(factor),))
    except UserError as error:  # the path is removed, because `explain_files` adds it again
        raise UserError(str(error).removeprefix(f"{path}: ")) from None
    except ValueError as error:
        raise UserError(str(error)) from None


def _picture_stems(paths: Sequence[Path], out: Path | None) -> list[str]:
    """Return the file name stem of each picture; no picture overwrites another or an image."""
    folder = None if out is None else os.path.realpath(out)
    image_stems = [
        path.stem
        for path in paths
        if path.suffix.lower() == ".png" and os.path.realpath(path.parent) == folder
    ]
    return unique_stems([path.stem for path in paths], image_stems)


def _save(explanation: "Explanation", out: Path, stem: str) -> Path:
    """Save the picture of an explanation in a folder, which is created if missing; return its path.

    Raises:
        UserError: the picture cannot be written.
    """
    from foveal.plotting import save_figure

    try:
        make_output_folder(out)
        picture = out / f"{stem}.png"
        save_figure(explanation.figure(0, title=stem), picture)
    except OSError as error:
        raise UserError(f"Cannot write to {out}: {error.strerror or error}.") from None
    return picture
