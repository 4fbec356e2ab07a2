"""Datasets in Parquet files, which are called shards, in the layout of Hugging Face's `datasets`.

A row has an image in a column such as `image`, and the index of its class in one such as `label`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from foveal.datasets.decoding import decode_all
from foveal.datasets.images import ImageSet
from foveal.datasets.layout import read_layout, split_from_name
from foveal.datasets.names import some_names
from foveal.datasets.splits import SPLITS, split_indices
from foveal.foundation.errors import UserError, extra
from foveal.foundation.escaping import printable
from foveal.foundation.files import open_regular, parse_json
from foveal.images.parquet import (
    IMAGE_COLUMNS,
    Cell,
    bytes_of,
    check_image_column,
    image_column,
)
from foveal.images.sources import Source

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL_COLUMNS = ("label", "labels", "fine_label")
MAX_CLASSES = 100_000  # larger integers are not considered labels


def load_parquet_folder(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    """Return one split of a folder of shards, in memory.

    If no shard belongs to the split, its images are drawn from those of the training shards.

    Raises:
        UserError: there is neither a shard of the split nor of training images, there are too few
            images to split, or the shards cannot be read.
    """
    shards = {name: shards_of(folder, name) for name in SPLITS}
    all_shards = sorted({shard for split_shards in shards.values() for shard in split_shards})
    training_shards = shards["train"]
    classes, has_names = _class_names(all_shards)
    name = folder.resolve().name
    if split != "train" and shards[split]:
        images = load_parquet(shards[split], name, split, classes, size, channels)
        return replace(images, named=has_names)
    if not training_shards:
        others = some_names([shard.name for shard in all_shards], 4)
        raise UserError(
            f"Expected a shard for the split {split!r} in {folder}, but found only {others}."
        )
    choose = partial(
        split_indices, split=split, own_val=bool(shards["val"]), own_test=bool(shards["test"])
    )
    images = load_parquet(training_shards, name, split, classes, size, channels, choose)
    return replace(images, named=has_names)


def is_parquet_folder(folder: Path) -> bool:
    """Return whether a folder consists of shards, instead of class folders next to other tables."""
    files = shards_in(folder)
    return bool(files) and (any(map(_contains_images, files)) or not read_layout(folder).parts)


def shards_of(folder: Path, split: str) -> list[Path]:
    """Return the shards of a split, whose names begin with it as on the Hub, in order.

    An example is `train-00000-of-00001.parquet`. The folder of a shard may also be named after a
    split. Shards without the name of a split are training shards.
    """
    files = shards_in(folder)
    return [path for path in files if _split_of(path.relative_to(folder)) == split]


def shards_in(folder: Path) -> list[Path]:
    """Return the Parquet files below a folder that contain images, or all if none does.

    Other tables, such as predictions, may be next to the shards or in a folder of images.
    """
    files = sorted(path for path in folder.rglob("*.parquet") if not path.is_dir())
    return [path for path in files if _contains_images(path)] or files


def _contains_images(shard: Path) -> bool:
    """Return whether a file has a column of images.

    It is True for a damaged file, so that reading it raises an error for the user.
    """
    with extra("pyarrow", "predict"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        with open_regular(shard) as file:
            return image_column(pq.read_schema(file).names) is not None
    except (pa.ArrowException, OSError, UserError):
        return True


def _split_of(path: Path) -> str:
    """Return the split that the folders of a shard or the first word of its name denote.

    It is `train` if they denote none.
    """
    words = [*path.parts[:-1], re.split(r"[-_.]", path.name)[0]]
    splits = {split_from_name(word) for word in words}
    return next((split for split in SPLITS if split in splits), "train")


def load_parquet(
    shards: Sequence[Path],
    name: str,
    split: str,
    classes: tuple[str, ...],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    choose: Callable[[Tensor], Tensor] | None = None,
) -> ImageSet:
    """Return the images of shards and their labels, in memory.

    Args:
        shards: files, in the order of the images.
        name: name of the dataset.
        split: split that the images belong to.
        classes: name of each label.
        size: height and width to resize to; None keeps the original size.
        channels: 1 for grey, 3 for colour; None keeps the original channels.
        choose: receives all labels (N,), returns the indices of the images to decode; or None.

    Raises:
        UserError: a shard cannot be read, has other columns or a label out of range, or no image
            is chosen or can be read.
    """
    sources, labels = _sources_and_labels(shards, len(classes), choose)
    if not sources:
        raise UserError(f"{name} has too few images for the split {split!r}.")
    images, kept, problems = decode_all(sources, size, channels)
    if not kept:
        first = f"{problems[0].path}: {problems[0].reason}"
        raise UserError(f"No image in the shards of {name} could be read. First error: {first}.")
    return ImageSet(
        name=name,
        split=split,
        images=images,
        labels=labels[kept],
        classes=classes,
        paths=tuple(sources[index][0] for index in kept),
        problems=tuple(problems),
    )


def _sources_and_labels(
    shards: Sequence[Path], class_count: int, choose: Callable[[Tensor], Tensor] | None
) -> tuple[list[Source], Tensor]:
    """Return the source and the label of each image, or of those that `choose` selects."""
    sources: list[Source] = []
    label_list: list[int] = []
    for shard in shards:
        for row, (cell, label) in enumerate(zip(*_read_columns(shard), strict=True)):
            label_list.append(_check_label(label, class_count, shard, row))
            sources.append((f"{shard}#{row}", partial(bytes_of, cell)))
    labels = torch.tensor(label_list, dtype=torch.long)
    if choose is None:
        return sources, labels
    chosen = choose(labels)
    return [sources[int(index)] for index in chosen], labels[chosen]


def _columns(shard: Path) -> tuple["pa.Schema", str, str]:
    """Return the schema of a shard and the names of its image and label columns."""
    with extra("pyarrow", "predict"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    try:
        with open_regular(shard) as file:
            schema = pq.read_schema(file)
    except (pa.ArrowException, OSError, UserError) as error:
        raise _unreadable(shard, error) from None
    image = image_column(schema.names)
    label = next((name for name in _LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        images, labels = (
            " or ".join(map(repr, names)) for names in (IMAGE_COLUMNS, _LABEL_COLUMNS)
        )
        raise UserError(
            f"{shard}: expected a column of images ({images}) and one of labels ({labels}), but "
            f"got {', '.join(schema.names)}."
        )
    try:
        check_image_column(schema.field(image))
    except UserError as error:
        raise UserError(f"{shard}: {error}.") from None
    label_type = schema.field(label).type
    if not pa.types.is_integer(label_type):
        raise UserError(
            f"{shard}: expected column {label!r} to hold integers, but got {label_type}."
        )
    return schema, image, label


def _read_columns(shard: Path) -> tuple[list[Cell | None], list[int | None]]:
    """Return the image cells and the labels of a shard."""
    with extra("pyarrow", "predict"):
        import pyarrow as pa
        import pyarrow.parquet as pq

    _, image, label = _columns(shard)
    try:
        with open_regular(shard) as file:
            table = pq.read_table(file, columns=[image, label], partitioning=None)
    except (pa.ArrowException, OSError, UserError) as error:
        raise _unreadable(shard, error) from None
    return table.column(image).to_pylist(), table.column(label).to_pylist()


def _unreadable(shard: Path, error: Exception) -> UserError:
    """Return the error for a shard that cannot be read."""
    reason = " ".join(str(error).split())[:160]
    return UserError(f"Cannot read the shard {shard}: {reason}")


def _class_names(shards: Sequence[Path]) -> tuple[tuple[str, ...], bool]:
    """Return the name of each class, and whether the shards define names. If not, they are indices.

    Names are read from the schema, where `datasets` writes them. The shards are those of all
    splits, so that each split has the same classes.

    Raises:
        UserError: two shards name their labels differently, or a label is too large.
    """
    with extra("pyarrow", "predict"):
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

    max_label = -1
    by_names: dict[tuple[str, ...], Path] = {}
    for shard in shards:
        schema, _, label = _columns(shard)
        names = _names_in(schema, label)
        if names:
            by_names.setdefault(names, shard)
            continue
        with open_regular(shard) as file:
            shard_max = pc.max(pq.read_table(file, columns=[label])[label]).as_py()
        max_label = max(max_label, -1 if shard_max is None else shard_max)
    if len(by_names) > 1:
        (names, shard), (others, other) = list(by_names.items())[:2]
        raise UserError(
            f"Expected the shards of one dataset to have the same class names, but "
            f"{printable(shard)} has {some_names(names)}, and {printable(other)} has "
            f"{some_names(others)}."
        )
    if by_names:
        return next(iter(by_names)), True
    if max_label >= MAX_CLASSES:
        raise UserError(
            f"{shards[0].parent}: expected labels from 0 to {MAX_CLASSES - 1}, but got {max_label}."
        )
    return tuple(str(index) for index in range(max_label + 1)), False


def _names_in(schema: "pa.Schema", label: str) -> tuple[str, ...]:
    """Return the class names in the metadata of the column `label`, or an empty tuple."""
    raw = (schema.metadata or {}).get(b"huggingface", b"")
    try:
        names = parse_json(raw)["info"]["features"][label]["names"]
        return tuple(str(name) for name in names)
    except (TypeError, KeyError, ValueError):
        return ()


def _check_label(value: int | None, class_count: int, shard: Path, row: int) -> int:
    """Return a label, or raise UserError if it is missing or not below `class_count`."""
    if value is None or not 0 <= value < class_count:
        raise UserError(
            f"{shard}, row {row}: expected a label from 0 to {class_count - 1}, but got {value}."
        )
    return value
