"""Parquet shards in the Hugging Face image layout."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from foveal.data.decoding import decode_all
from foveal.data.images import ImageSet
from foveal.data.splits import rest, stratified
from foveal.errors import UserError

_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")


def shards_of(folder: Path, split: str) -> list[Path]:
    """Return a folder's shards of a split, by the Hub's names (`train-00000-of-00001.parquet`)."""
    shards = sorted(p for p in folder.rglob("*.parquet") if p.is_file())
    names = ("validation", "val") if split == "val" else (split,)
    return [p for p in shards if p.name.startswith(names) or p.parent.name in names]


def load_parquet_folder(
    folder: Path, split: str, size: tuple[int, int] | None, channels: int | None
) -> ImageSet:
    """Return one split of a folder of shards; a missing one is split off the training images."""
    shards = shards_of(folder, split)
    if shards and split != "train":
        return load_parquet(shards, folder.name, split, None, size, channels)
    own = shards_of(folder, "train") or sorted(folder.rglob("*.parquet"))
    images = load_parquet(own, folder.name, split, None, size, channels)
    tenth = max(1, len(images) // 10)
    none = torch.tensor([]).long()
    test = none if shards_of(folder, "test") else stratified(images.labels, tenth, seed=0)
    free = rest(len(images), test)
    val = none
    if not shards_of(folder, "val"):
        val = free[stratified(images.labels[free], tenth, seed=1)]
    held = {"test": test, "val": val}
    return images.subset(held.get(split, rest(len(images), torch.cat([test, val]))))


def load_parquet(
    shards: Sequence[Path],
    name: str,
    split: str,
    classes: tuple[str, ...] | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
) -> ImageSet:
    """Return the images of shards with a column of images and a column of labels.

    Raises:
        UserError: a shard cannot be read, has other columns, or a label out of range.
    """
    sources, labels, numbers = [], [], []
    for shard in shards:
        table, image_column, label_column = _read(shard)
        names = classes or _class_names(table.schema, label_column)
        for row, value in enumerate(table.column(label_column).to_pylist()):
            numbers.append(_checked(value, names, shard, row))
        for row, cell in enumerate(table.column(image_column).to_pylist()):
            sources.append((f"{shard}#{row}", _bytes_of(cell)))
    labels = numbers
    images, kept, problems = decode_all(sources, size, channels)
    if not kept:
        raise UserError(f"No image in the shards of {name} could be read.")
    found = names or tuple(str(i) for i in range(max(labels) + 1))
    return ImageSet(
        name=name,
        split=split,
        images=images,
        labels=torch.tensor(labels)[kept],
        classes=tuple(found),
        paths=tuple(sources[i][0] for i in kept),
        problems=tuple(problems),
    )


def _read(shard: Path) -> tuple[Any, str, str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(shard)
        image = next((c for c in _IMAGE_COLUMNS if c in schema.names), None)
        label = next((c for c in _LABEL_COLUMNS if c in schema.names), None)
        if image is None or label is None:
            raise UserError(
                f"{shard}: expected a column image (or img) and a column label, "
                f"but got {', '.join(schema.names)}."
            )
        return pq.read_table(shard, columns=[image, label]), image, label
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:160]
        raise UserError(f"Cannot read the shard {shard}: {reason}") from None


def _class_names(schema: Any, label: str) -> tuple[str, ...] | None:
    """Return the class names that `datasets` writes into the schema, if it did."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(raw)["info"]["features"][label]["names"]
        return tuple(str(name) for name in names)
    except (TypeError, KeyError, ValueError):
        return None


def _checked(value: Any, names: Sequence[str] | None, shard: Path, row: int) -> int:
    top = len(names) if names else 100_000
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < top:
        raise UserError(
            f"{shard}, row {row}: expected a label from 0 to {top - 1}, but got {value!r}."
        )
    return value


def _bytes_of(cell: Any) -> Any:
    content = cell.get("bytes") if isinstance(cell, dict) else cell

    def read() -> bytes:
        return content if isinstance(content, bytes) else b""

    return read
