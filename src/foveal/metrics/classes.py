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

    def called_by(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names or the ids of the classes, whichever match more of the given names."""
        theirs = set(names)
        return (
            self.ids if len(theirs & set(self.ids)) > len(theirs & set(self.names)) else self.names
        )


def match_classes(
    known: Classes, data: str, names: Sequence[str], *, named: bool = True
) -> tuple[int | None, ...]:
    """Return for each class of a dataset the index of the model's class of that name, or None.

    If the model's or the dataset's classes have no names, they are matched by index.

    Args:
        known: the model's classes.
        data: name of the dataset, for messages.
        names: names of the dataset's classes.
        named: whether these are real names; otherwise they are indices.

    Raises:
        UserError: no name matches, one is spelled in two ways or ambiguous; or the model has no
            names and another number of classes.
    """
    if not named and len(names) <= known.count:
        return tuple(range(len(names)))
    if not known.names:
        if len(names) == known.count:
            return tuple(range(known.count))
        raise UserError(
            f"{known.model} has {known.count} classes without names, but {data} has {len(names)}: "
            "they cannot be matched."
        )
    mine, theirs = _composed(known.called_by(names)), _composed(names)
    if mine == theirs:
        return tuple(range(known.count))
    _check_names(known.model, data, mine, theirs)
    index = {name: number for number, name in enumerate(mine)}
    return tuple(index.get(name) for name in theirs)


def _check_names(model: str, data: str, mine: Sequence[str], theirs: Sequence[str]) -> None:
    """Raise UserError unless a model's and a dataset's class names can be matched."""
    repeated = [name for name, count in Counter(mine).items() if count > 1 and name in theirs]
    if repeated:
        raise UserError(f"{model} has several classes named {printable(repeated[0])!r}.")
    if pair := spelled_differently(mine, theirs):
        raise UserError(
            f"{model} has the class {printable(pair[0])!r}, and {data} has "
            f"{printable(pair[1])!r}: give both the same name if they are one class, or leave it "
            "out of the data."
        )
    if not set(mine) & set(theirs):
        raise UserError(
            f"Expected {data} to contain classes of {model} ({some_names(mine)}), but got "
            f"{some_names(theirs)}."
        )


def classes_of(model: ImageModel, name: str | None = None) -> Classes:
    """Return the classes of a model; `name` is its name in messages, by default its kind."""
    inputs = model.inputs
    return Classes(name or model.name, inputs.classes, model.num_classes, inputs.ids)


def as_known(
    images: ImageSet[Pixels], model: ImageModel, name: str | None = None
) -> tuple[ImageSet[Pixels], list[str]]:
    """Return images labelled by the indices of a model's classes, and the differences.

    Images of classes that the model does not have are left out. If the images lack some of the
    model's classes, predictions are still made over all of its classes.

    Args:
        images: images labelled by the indices of `images.classes`; unchanged if that is empty.
        model: a model of any family; the images are unchanged if it is not a classifier.
        name: name of the model for messages, by default its kind.

    Returns:
        The images, with the model's class names, and a line per difference.

    Raises:
        UserError: as `match_classes`, or no image has one of the model's classes.
    """
    if not model.num_classes:
        return images, []
    known = classes_of(model, name)
    if not images.classes or images.classes == known.names:
        return images, []
    matched = match_classes(known, images.name, images.classes, named=images.named)
    notes: list[str] = []
    if not images.named or not known.names:
        unnamed = known.model if images.named else images.name
        notes.append(f"{unnamed} has no class names: classes are matched by index")
    classes = known.names or images.classes
    if matched == tuple(range(len(matched))):
        return replace(images, classes=classes), notes
    found, note = _relabelled(images, known, matched, classes)
    return found, notes + note


def _relabelled(
    images: ImageSet[Pixels],
    known: Classes,
    matched: tuple[int | None, ...],
    classes: tuple[str, ...],
) -> tuple[ImageSet[Pixels], list[str]]:
    """Return the images of matched classes, relabelled, and a note if others are left out."""
    found = images.relabelled(matched, classes)
    if not len(found):
        raise UserError(
            f"{images.name} ({images.split}) has no image of a class of {known.model} "
            f"({some_names(known.names)})."
        )
    if len(found) == len(images):
        return found, []
    unknown = [name for name, index in zip(images.classes, matched, strict=True) if index is None]
    note = (
        f"left out {len(images) - len(found):,} images of classes that {known.model} does not "
        f"have: {some_names(unknown)}"
    )
    return found, [note]


def absent_classes(images: ImageSet[object]) -> tuple[str, ...]:
    """Return the names of the classes without any image, in the first task."""
    labels = images.labels
    present = labels.any(dim=0).nonzero() if labels.dtype == torch.bool else labels
    indices = set(present.flatten().tolist())
    return tuple(name for index, name in enumerate(images.classes) if index not in indices)


def _composed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", name) for name in names)
