"""Labelled images in terms of a model's classes, which are matched by name."""

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
    """The classes that a model knows.

    Attributes:
        model: name of the model, for messages.
        names: in the order of the logits; none where the model has no names for them.
        count: how many there are.
        ids: another name for each, by which data may call it; or none.
    """

    model: str
    names: tuple[str, ...]
    count: int
    ids: tuple[str, ...] = ()

    def called_by(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names or the ids of the classes, whichever more of these names are among."""
        theirs = set(names)
        return (
            self.ids if len(theirs & set(self.ids)) > len(theirs & set(self.names)) else self.names
        )


def match_classes(
    known: Classes, data: str, names: Sequence[str], *, named: bool = True
) -> tuple[int | None, ...]:
    """Return for each class of data which of a model's classes has its name, or None.

    Without names for the model's classes, or the data's, the n-th is the n-th.

    Args:
        known: the model's classes.
        data: name of the data, for messages.
        names: of its classes.
        named: whether these are names; else they are numbers, for want of names.

    Raises:
        UserError: no name is known, one is spelled in two ways, or several classes have it; or
            the model names none and knows another number of classes.
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
    repeated = [name for name, count in Counter(mine).items() if count > 1 and name in theirs]
    if repeated:
        raise UserError(f"{known.model} has several classes named {printable(repeated[0])!r}.")
    if pair := spelled_differently(mine, theirs):
        raise UserError(
            f"{known.model} knows the class {printable(pair[0])!r}, and {data} has "
            f"{printable(pair[1])!r}: give both one name if they are one class, or leave it out of "
            "the data."
        )
    if not set(mine) & set(theirs):
        raise UserError(
            f"{data} has none of the classes of {known.model} ({some_names(mine)}), but "
            f"{some_names(theirs)}."
        )
    index = {name: number for number, name in enumerate(mine)}
    return tuple(index.get(name) for name in theirs)


def classes_of(model: ImageModel, name: str | None = None) -> Classes:
    """Return the classes of a model, which messages call `name`, or by its kind."""
    inputs = model.inputs
    return Classes(name or model.name, inputs.classes, model.num_classes, inputs.ids)


def as_known(
    images: ImageSet[Pixels], model: ImageModel, name: str | None = None
) -> tuple[ImageSet[Pixels], list[str]]:
    """Return images labelled by the indices of a model's classes, and what differs.

    Images of classes that the model does not know are left out. Of a model that knows classes
    without images, answers are still taken over all of its classes.

    Args:
        images: labelled by the indices of their own `classes`; without any, they stay as they are.
        model: of any family; of one that is no classifier, the images stay as they are.
        name: of the model, for messages; if not given, that of its kind.

    Returns:
        The images, with the model's class names, and a line for each difference.

    Raises:
        UserError: as `match_classes`, or no image is of a class that the model knows.
    """
    if not model.num_classes:
        return images, []
    known = classes_of(model, name)
    if not images.classes or images.classes == known.names:
        return images, []
    matched = match_classes(known, images.name, images.classes, named=images.named)
    notes: list[str] = []
    if not images.named or not known.names:
        who = known.model if images.named else images.name
        notes.append(f"{who} has no names for its classes: they are matched by number")
    classes = known.names or images.classes
    if matched == tuple(range(len(matched))):
        return replace(images, classes=classes), notes
    found = images.relabelled(matched, classes)
    if not len(found):
        raise UserError(
            f"{images.name} ({images.split}) has no image of a class that {known.model} knows "
            f"({some_names(known.names)})."
        )
    unknown = [name for name, index in zip(images.classes, matched, strict=True) if index is None]
    if len(found) < len(images):
        notes.append(
            f"left out {len(images) - len(found):,} images of classes that {known.model} does not "
            f"know: {some_names(unknown)}"
        )
    return found, notes


def absent_classes(images: ImageSet[object]) -> tuple[str, ...]:
    """Return the names of the classes that no image is labelled with, in the first task."""
    labels = images.labels
    present = labels.any(dim=0).nonzero() if labels.dtype == torch.bool else labels
    indices = set(present.flatten().tolist())
    return tuple(name for index, name in enumerate(images.classes) if index not in indices)


def _composed(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize("NFC", name) for name in names)
