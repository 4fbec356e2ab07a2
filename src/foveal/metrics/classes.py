"""Matching of a dataset's classes with a model's classes, by name."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from foveal.datasets import ImageSet
from foveal.datasets.images import Pixels
from foveal.datasets.names import some_names, spelled_differently
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.models.image_model import ImageModel


@dataclass(frozen=True)
class Classes:
    """Classes of a model.

    Attributes:
        model: name of the model, for messages.
        names: class names in the order of the logits, or empty if the model has none.
        count: number of classes.
        ids: alternative name of each class that data may use, or empty.
    """

    model: str
    names: tuple[str, ...]
    count: int
    ids: tuple[str, ...] = ()

    def best_matching_names(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names or the ids of the classes, whichever match more of the given names."""
        unique = set(names)
        matched_ids, matched_names = unique & set(self.ids), unique & set(self.names)
        return self.ids if len(matched_ids) > len(matched_names) else self.names


def match_classes(
    classes: Classes, data: str, names: Sequence[str], *, named: bool = True
) -> tuple[int | None, ...]:
    """Return for each class of a dataset the index of the model's class of that name, or None.

    None stands for a class that the model does not have. If the model's or the dataset's classes
    have no names, they are matched by index.

    Args:
        classes: the model's classes.
        data: name of the dataset, for messages.
        names: names of the dataset's classes.
        named: whether these are real names rather than indices.

    Raises:
        UserError: no name matches, a name is ambiguous or spelled differently, or the model has no
            class names and a different number of classes.
    """
    if not named and len(names) <= classes.count:
        return tuple(range(len(names)))
    if not classes.names:
        if len(names) == classes.count:
            return tuple(range(classes.count))
        raise UserError(
            f"{classes.model} has {classes.count} classes without names, but {data} has "
            f"{len(names)}: they cannot be matched."
        )
    model_names, data_names = _normalise(classes.best_matching_names(names)), _normalise(names)
    if model_names == data_names:
        return tuple(range(classes.count))
    _check_names(classes.model, data, model_names, data_names)
    indices = {name: index for index, name in enumerate(model_names)}
    return tuple(indices.get(name) for name in data_names)


def _check_names(
    model: str, data: str, model_names: Sequence[str], data_names: Sequence[str]
) -> None:
    """Raise UserError unless a model's and a dataset's class names can be matched."""
    counts = Counter(model_names)
    repeated = [name for name, count in counts.items() if count > 1 and name in data_names]
    if repeated:
        raise UserError(f"{model} has several classes named {printable(repeated[0])!r}.")
    if pair := spelled_differently(model_names, data_names):
        model_name, data_name = map(printable, pair)
        raise UserError(
            f"{model} has the class {model_name!r}, and {data} has {data_name!r}: give both the "
            "same name if they are one class, or remove it from the data."
        )
    if not set(model_names) & set(data_names):
        raise UserError(
            f"Expected {data} to contain classes of {model} ({some_names(model_names)}), but its "
            f"classes are different: {some_names(data_names)}."
        )


def classes_of(model: ImageModel, name: str | None = None) -> Classes:
    """Return the classes of a model; `name` is its name in messages, by default its kind."""
    inputs = model.inputs
    return Classes(name or model.name, inputs.classes, model.num_classes, inputs.ids)


def with_model_classes(
    images: ImageSet[Pixels], model: ImageModel, name: str | None = None
) -> tuple[ImageSet[Pixels], list[str]]:
    """Return images labelled by the indices of a model's classes, and the differences.

    Images of classes that the model does not have are skipped. If the images lack some of the
    model's classes, predictions are still made over all of its classes.

    Args:
        images: images labelled by the indices of `images.classes`. If that is empty, they are
            returned unchanged.
        model: a model of any family. If it is not a classifier, the images are returned unchanged.
        name: name of the model for messages, by default its kind.

    Returns:
        The images, with the model's class names, and one line per difference.

    Raises:
        UserError: the classes cannot be matched (see `match_classes`), or no image belongs to one
            of the model's classes.
    """
    if not model.num_classes:
        return images, []
    classes = classes_of(model, name)
    if not images.classes or images.classes == classes.names:
        return images, []
    indices = match_classes(classes, images.name, images.classes, named=images.named)
    notes: list[str] = []
    if not images.named or not classes.names:
        unnamed = classes.model if images.named else images.name
        notes.append(f"{unnamed} has no class names: classes are matched by index")
    names = classes.names or images.classes
    if indices == tuple(range(len(indices))):
        return replace(images, classes=names), notes
    relabelled, skip_notes = _relabel(images, classes, indices, names)
    return relabelled, notes + skip_notes


def _relabel(
    images: ImageSet[Pixels],
    classes: Classes,
    indices: tuple[int | None, ...],
    names: tuple[str, ...],
) -> tuple[ImageSet[Pixels], list[str]]:
    """Return the images of matched classes, relabelled, and a list with a note if any are skipped.

    Args:
        images: images of a dataset.
        classes: classes of a model.
        indices: for each class of the dataset the index of the model's class, or None.
        names: class names of the result.
    """
    relabelled = images.relabelled(indices, names)
    if not len(relabelled):
        raise UserError(
            f"Expected images of classes of {classes.model} ({some_names(classes.names)}), but "
            f"{images.name} ({images.split}) has none."
        )
    if len(relabelled) == len(images):
        return relabelled, []
    unknown = [name for name, index in zip(images.classes, indices, strict=True) if index is None]
    note = (
        f"skipped {len(images) - len(relabelled):,} images of classes that {classes.model} does "
        f"not have: {some_names(unknown)}"
    )
    return relabelled, [note]


def absent_classes(images: ImageSet[object]) -> tuple[str, ...]:
    """Return the names of the classes of the main task that no image belongs to."""
    labels = images.labels
    present = labels.any(dim=0).nonzero() if labels.dtype == torch.bool else labels
    indices = set(present.flatten().tolist())
    return tuple(name for index, name in enumerate(images.classes) if index not in indices)


def _normalise(names: Sequence[str]) -> tuple[str, ...]:
    """Return names in Unicode's normal form C, in which equal accented letters are equal text."""
    return tuple(unicodedata.normalize("NFC", name) for name in names)
