"""Rows: what a model answered for a batch of images, as an Arrow table."""

import io
import threading
from collections.abc import Callable
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

_PLACE = pa.struct([("x", pa.float32()), ("y", pa.float32())])
_PEAK = pa.struct([("x", pa.float32()), ("y", pa.float32()), ("times_even_share", pa.float32())])
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # a byte of it that is not UTF-8 as \\xe9, see `path_text`
        ("prediction", pa.string()),  # the class' name
        ("probability", pa.float32()),  # of that class
        ("probabilities", pa.list_(pa.float32())),  # of all, in the order of the classes
        ("keypoints", pa.list_(_PLACE)),  # grid units, of models that have them
        ("attention", pa.list_(_PEAK)),  # where each map is greatest, of models that have them
        ("evidence_fraction", pa.float32()),
        ("resized", pa.bool_()),  # the image had another size than the model expects
        ("note", pa.string()),  # of how it was read, such as that its range was guessed; or null
        ("picture", pa.string()),  # beside the table, with --explain
        ("model", pa.string()),
        ("version", pa.string()),  # of Foveal
        ("error", pa.string()),  # why the image could not be read; all the rest is then empty
    ]
)
CPU_PIXELS = 2**18  # of one forward pass on a CPU: more is no faster, and takes more memory
Draw = Callable[[Explanation, int, str], bytes]  # of one image by its place and title, a PNG
_drawing = threading.Lock()  # matplotlib is not for several threads


def predict_batch(
    network: ImageModel, model: str, decoded: Decoded, draw: Draw | None = None
) -> tuple[pa.Table, dict[int, bytes]]:
    """Predict a batch; return its rows, and the pictures by the image's place in the batch.

    Args:
        network: in evaluation mode.
        model: its name.
        decoded: N images.
        draw: draws one image's explanation; None for no pictures.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(decoded.images):
        groups.setdefault(() if image is None else tuple(image.shape), []).append(index)
    tables, pictures = [], {}
    for shape, indices in groups.items():
        if not shape:
            tables.append(_table(model, decoded, indices, {}))
            continue
        same = [image for i in indices if (image := decoded.images[i]) is not None]
        images = as_floats(torch.stack(same))
        batch_size = max(1, CPU_PIXELS // (images.shape[-2] * images.shape[-1]))
        if network.mean.is_cuda:
            images = images.pin_memory()  # a GPU copies from there without a detour
            batch_size = len(images)
        try:
            found = network.explain(images, batch_size=batch_size)
        except ValueError as error:  # a size that this model cannot read, as all of the group have
            errors = list(decoded.errors)
            for index in indices:
                errors[index] = errors[index] or str(error)
            tables.append(_table(model, replace(decoded, errors=tuple(errors)), indices, {}))
            continue
        tables.append(_table(model, decoded, indices, _answers(found)))
        for place, index in enumerate(indices):
            if draw is not None and not decoded.errors[index]:
                pictures[index] = draw(found, place, decoded.paths[index])
    order = np.argsort([index for indices in groups.values() for index in indices])
    rows = pa.concat_tables(tables)
    return rows if len(groups) == 1 else rows.take(pa.array(order)), pictures


def draw(explanation: Explanation, index: int, title: str) -> bytes:
    """Return a PNG of what the model looked at in one image."""
    file = io.BytesIO()
    with _drawing:
        save_figure(explanation.figure(index, title=title.rpartition("/")[2]), file)
    return file.getvalue()


Column: TypeAlias = "list[str] | np.ndarray | pa.Array"


def _answers(found: Explanation) -> dict[str, tuple[Column, int]]:
    """Return each column's values for B images, and how many a row has: 0 for one that is none."""
    probabilities = found.probabilities.numpy()
    best = found.predictions.numpy()
    names = {index: as_unicode(found.class_name(index)) for index in set(best.tolist())}
    columns: dict[str, tuple[Column, int]] = {
        "prediction": ([names[index] for index in best.tolist()], 0),
        "probability": (probabilities[np.arange(len(best)), best], 0),
        "probabilities": (pa.array(probabilities.reshape(-1)), probabilities.shape[1]),
        "evidence_fraction": (found.evidence_fraction.numpy(), 0),
    }
    if found.keypoints is not None:
        columns["keypoints"] = (_structs(found.keypoints, _PLACE), found.keypoints.shape[1])
    if found.maps is not None:
        columns["attention"] = (_structs(found.peaks, _PEAK), found.maps.shape[1])
    return columns


def _structs(values: Tensor, kind: pa.StructType) -> pa.Array:
    """Return (B, M, fields) as B·M structs."""
    columns = [pa.array(column.numpy()) for column in values.float().flatten(0, 1).unbind(-1)]
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _table(
    model: str, decoded: Decoded, indices: list[int], answers: dict[str, tuple[Column, int]]
) -> pa.Table:
    """Return the rows of the images at `indices`; what was not read or not answered is null."""
    count = len(indices)
    bad = np.array([bool(decoded.errors[index]) for index in indices])
    columns: dict[str, object] = {
        "path": [path_text(decoded.paths[index]) for index in indices],
        "resized": pa.array([decoded.resized[index] for index in indices], mask=bad),
        "model": [as_unicode(model)] * count,
        "note": [decoded.notes[index] or None for index in indices],
        "version": [__version__] * count,
        "error": [decoded.errors[index] or None for index in indices],
    }
    for name, (values, each) in answers.items():
        if each:
            offsets = pa.array(np.arange(count + 1, dtype=np.int32) * each)
            kind = SCHEMA.field(name).type
            columns[name] = pa.ListArray.from_arrays(offsets, values, kind, mask=pa.array(bad))
        else:
            columns[name] = pa.array(values, SCHEMA.field(name).type, mask=bad)
    empty = (name for name in SCHEMA.names if name not in columns)
    columns |= {name: pa.nulls(count, SCHEMA.field(name).type) for name in empty}
    return pa.table({name: columns[name] for name in SCHEMA.names}, schema=SCHEMA)
