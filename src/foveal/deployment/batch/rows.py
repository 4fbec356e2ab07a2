"""Prediction of a batch of images, with the results as rows of an Arrow table."""

import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from foveal import __version__
from foveal.deployment.batch.decoding import Decoded
from foveal.explanation import Explanation
from foveal.foundation.escaping import as_unicode, path_text
from foveal.images.values import as_floats
from foveal.models import ImageModel
from foveal.plotting import save_figure

_KEYPOINT = pa.struct([("x", pa.float32()), ("y", pa.float32())])
_PEAK = pa.struct([("x", pa.float32()), ("y", pa.float32()), ("times_even_share", pa.float32())])
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # bytes that are not UTF-8 are escaped, see `path_text`
        ("prediction", pa.string()),  # name of the predicted class
        ("probability", pa.float32()),  # of that class
        ("probabilities", pa.list_(pa.float32())),  # of all classes, in the order of the model
        ("keypoints", pa.list_(_KEYPOINT)),  # grid units, if the model has keypoints
        ("attention", pa.list_(_PEAK)),  # maximum of each map, if the model has maps
        ("evidence_fraction", pa.float32()),  # fraction of the pixels used as evidence
        ("resized", pa.bool_()),  # whether the image was resized to the model's size
        ("note", pa.string()),  # how the image was read, such as a guessed value range; or null
        ("picture", pa.string()),  # path of the picture, with --explain
        ("model", pa.string()),  # name of the model
        ("version", pa.string()),  # version of Foveal
        ("error", pa.string()),  # why the image could not be read; its prediction is null then
    ]
)
CPU_PIXELS = 2**18  # pixels per forward pass on a CPU; more take memory without being faster
Draw = Callable[[Explanation, int, str], bytes]  # explanation, index of the image, title -> PNG
_drawing_lock = threading.Lock()  # matplotlib is not thread-safe


def predict_batch(
    network: ImageModel, model: str, decoded: Decoded, draw: Draw | None = None
) -> tuple[pa.Table, dict[int, bytes]]:
    """Return the rows of a batch of images, and the drawn pictures by index of the image.

    Args:
        network: in evaluation mode.
        model: name of the model, for the rows.
        decoded: N images.
        draw: draws the explanation of an image; None for no pictures.
    """
    groups = _indices_by_shape(decoded.images)
    tables, pictures = [], {}
    for shape, indices in groups.items():
        if not shape:
            tables.append(_table(model, decoded, indices, {}))
            continue
        batch = [image for index in indices if (image := decoded.images[index]) is not None]
        images = as_floats(torch.stack(batch))
        batch_size = max(1, CPU_PIXELS // (images.shape[-2] * images.shape[-1]))
        if network.mean.is_cuda:
            images = images.pin_memory()  # pinned memory is copied to a GPU faster
            batch_size = len(images)
        try:
            explanation = network.explain(images, batch_size=batch_size)
        except ValueError as error:  # the model cannot read the size of this group
            errors = list(decoded.errors)
            for index in indices:
                errors[index] = errors[index] or str(error)
            tables.append(_table(model, replace(decoded, errors=tuple(errors)), indices, {}))
            continue
        tables.append(_table(model, decoded, indices, _prediction_columns(explanation)))
        for row, index in enumerate(indices):
            if draw is not None and not decoded.errors[index]:
                pictures[index] = draw(explanation, row, decoded.paths[index])
    rows = pa.concat_tables(tables)
    if len(groups) > 1:  # restore the order of the images
        order = np.argsort([index for indices in groups.values() for index in indices])
        rows = rows.take(pa.array(order))
    return rows, pictures


def _indices_by_shape(images: Sequence[Tensor | None]) -> dict[tuple[int, ...], list[int]]:
    """Return the indices of images by shape; the shape of an unreadable image, None, is ()."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(() if image is None else tuple(image.shape), []).append(index)
    return groups


def draw(explanation: Explanation, index: int, title: str) -> bytes:
    """Return the explanation of one image as a PNG."""
    file = io.BytesIO()
    _, _, short_title = title.rpartition("/")  # without the folder, if the title is a path
    with _drawing_lock:
        save_figure(explanation.figure(index, title=short_title), file)
    return file.getvalue()


Column: TypeAlias = "list[str] | np.ndarray | pa.Array"


def _prediction_columns(explanation: Explanation) -> dict[str, tuple[Column, int]]:
    """Return the values of each column for B images, and the number of values per image.

    The number is 0 for a column of single values, and else the length of the list in each row.
    """
    probabilities = explanation.probabilities.numpy()
    classes = explanation.predictions.numpy()
    names = {index: as_unicode(explanation.class_name(index)) for index in set(classes.tolist())}
    columns: dict[str, tuple[Column, int]] = {
        "prediction": ([names[index] for index in classes.tolist()], 0),
        "probability": (probabilities[np.arange(len(classes)), classes], 0),
        "probabilities": (pa.array(probabilities.reshape(-1)), probabilities.shape[1]),
        "evidence_fraction": (explanation.evidence_fraction.numpy(), 0),
    }
    keypoints, maps = explanation.keypoints, explanation.maps
    if keypoints is not None:
        columns["keypoints"] = (_structs(keypoints, _KEYPOINT), keypoints.shape[1])
    if maps is not None:
        columns["attention"] = (_structs(explanation.peaks, _PEAK), maps.shape[1])
    return columns


def _structs(values: Tensor, struct_type: pa.StructType) -> pa.Array:
    """Return values (B, M, F) as B·M structs with the F fields of `struct_type`."""
    columns = [pa.array(column.numpy()) for column in values.float().flatten(0, 1).unbind(-1)]
    return pa.StructArray.from_arrays(columns, fields=list(struct_type))


def _table(
    model: str, decoded: Decoded, indices: list[int], predictions: dict[str, tuple[Column, int]]
) -> pa.Table:
    """Return the rows of some images of a batch.

    Args:
        model: name of the model.
        decoded: the batch.
        indices: indices of the images in the batch.
        predictions: columns of `_prediction_columns` for these images. They are null for an image
            that could not be read, and missing columns are null for all images.
    """
    count = len(indices)
    failed = np.array([bool(decoded.errors[index]) for index in indices])
    columns: dict[str, object] = {
        "path": [path_text(decoded.paths[index]) for index in indices],
        "resized": pa.array([decoded.resized[index] for index in indices], mask=failed),
        "model": [as_unicode(model)] * count,
        "note": [decoded.notes[index] or None for index in indices],
        "version": [__version__] * count,
        "error": [decoded.errors[index] or None for index in indices],
    }
    for name, (values, length) in predictions.items():
        if length:
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * length)
            kind = SCHEMA.field(name).type
            columns[name] = pa.ListArray.from_arrays(offsets, values, kind, mask=pa.array(failed))
        else:
            columns[name] = pa.array(values, SCHEMA.field(name).type, mask=failed)
    missing = (name for name in SCHEMA.names if name not in columns)
    columns |= {name: pa.nulls(count, SCHEMA.field(name).type) for name in missing}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
