"""Layout of an image folder: which subfolders are splits, classes, or neither."""

import os
import re
import unicodedata
from collections.abc import Collection, Container, Mapping
from dataclasses import dataclass
from pathlib import Path

from foveal.datasets.images import Problem
from foveal.datasets.names import some_names, spelled_differently
from foveal.foundation.errors import UserError
from foveal.foundation.escaping import printable
from foveal.foundation.files import OUTPUT_MARK
from foveal.images.formats import Skipped
from foveal.images.sources import images_below

# The Hugging Face Hub's names of splits; if a split has several folders, the first name is read.
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "evaluation", "eval"),
}
_SUFFIX = re.compile(r"[ _-]?(set|split|data|images)$")  # as in training_set
_OUTPUTS = (OUTPUT_MARK, "model.safetensors", "recipe.yaml", "explanations.csv")
_WRITTEN = "written by Foveal"
_UNLABELLED = "images of a split that are not in class folders"
_EMPTY = "a folder without images"

Classes = dict[str, list[Path]]  # image files by class name


@dataclass(frozen=True)
class Part:
    """The class folders of one split.

    Attributes:
        folder: parent of the class folders.
        classes: image files of each class, in a fixed order; no class is empty.
        problems: subfolders that are not classes.
    """

    folder: Path
    classes: Classes
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Layout:
    """Roles of the subfolders of an image folder: splits, classes, or neither.

    Attributes:
        folder: the image folder.
        parts: class folders by split. Without split folders, all of them are `train`.
        ignored: subfolders that are neither a split nor a class, with reasons.
        passed: files that are not images.
    """

    folder: Path
    parts: Mapping[str, Part]
    ignored: tuple[Problem, ...]
    passed: Skipped

    @property
    def own(self) -> dict[str, Path]:
        """Folders of the splits that have their own."""
        return {s: part.folder for s, part in self.parts.items() if part.folder != self.folder}

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the training images, or of all images if there are no training images."""
        parts = [self.parts["train"]] if "train" in self.parts else self.parts.values()
        return tuple(sorted({name for part in parts for name in part.classes}))

    def part(self, split: str) -> Part:
        """Return the class folders of a split: its own, or those of the training images.

        Raises:
            UserError: there are none, or fewer than two classes for training.
        """
        part = self.parts.get(split) or self.parts.get("train")
        if part is not None and (len(part.classes) > 1 or split != "train"):
            return part
        found = f"only {printable(next(iter(part.classes)))!r}" if part else "none"
        own = [f"{printable(path.name)} is the split {name}" for name, path in self.own.items()]
        left = [f"{printable(Path(p.path).name)}: {p.reason}" for p in self.ignored[:5]]
        taken = f" ({'; '.join([*own, *left])})" if own or left else ""
        raise UserError(
            f"Expected {printable(part.folder if part else self.folder)} to contain at least 2 "
            f"class folders with images for the split {split!r}, but found {found}{taken}."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The summary and the number of files that are not images, one line each."""
        return (self.summary(), *[str(self.passed)] * (len(self.passed) > 0))

    def summary(self) -> str:
        """Return the folders interpreted as classes and splits, in one line."""
        splits = [f"{split} in {printable(path.name)}" for split, path in self.own.items()]
        found = f"classes: {some_names(self.classes)}"
        return f"{found}; splits: {', '.join(splits)}" if splits else found


def split_named(name: str) -> str | None:
    """Return `train`, `val` or `test` if a folder or file name denotes a split, else None."""
    word = _SUFFIX.sub("", name.casefold())
    return next((split for split, names in _SPLIT_NAMES.items() if word in names), None)


def read_layout(folder: Path, more: Container[str] = ()) -> Layout:
    """Return which subfolders of a folder are splits, classes, or neither; no image is opened.

    A folder named like a split is a split if its subfolders are classes and it is beside another
    split, beside nothing else, or beside folders of the same classes. Otherwise it is a class,
    such as `valid` beside `invalid`. Images in subfolders of a class folder belong to that class.
    Folders written by Foveal, empty folders, and folders that repeat the classes beside them (such
    as masks) are neither; hidden folders are skipped.

    Args:
        folder: image folder with class folders or split folders.
        more: further file extensions of images, in lower case.

    Raises:
        UserError: two folders for one split, or a class that is spelled in two ways.
    """
    found = _sorted_subfolders(folder, more)
    ignored, flat = dict(found.ignored), dict(found.flat)
    splits = _are_splits(found.named.values(), flat)
    if not splits:
        passed = found.passed.add
        flat |= {path.name: images_below(path, passed, more, _is_output) for path in found.named}
    parts, others = _parts(found.named if splits else {})
    ignored |= others
    for name in sorted(flat):
        reason = _no_class(folder, name, flat.keys(), parts.keys() if splits else None)
        if reason:
            ignored[folder / name] = reason
            del flat[name]
    if flat:
        parts["train"] = Part(folder, _composed(flat))
    parts, others = _checked(parts)
    ignored |= others
    problems = tuple(Problem(str(path), reason) for path, reason in sorted(ignored.items()))
    return Layout(folder, parts, problems, Skipped(found.passed))


@dataclass(frozen=True)
class _Subfolders:
    """Subfolders of an image folder by what they contain.

    Attributes:
        named: folders of class folders that are named like a split.
        flat: image files of the other folders, by folder name.
        ignored: folders without images and folders written by Foveal, with reasons.
        passed: files that are not images.
    """

    named: dict[Path, Part]
    flat: Classes
    ignored: dict[Path, str]
    passed: set[str]


def _sorted_subfolders(folder: Path, more: Container[str]) -> _Subfolders:
    found = _Subfolders({}, {}, {}, set())
    for path in _subfolders(folder):
        if _is_output(path) or _holds_runs(path):
            found.ignored[path] = _WRITTEN
        elif split_named(path.name) and (part := _class_folders(path, found.passed, more)).classes:
            found.named[path] = part
        elif files := images_below(path, found.passed.add, more, _is_output):
            found.flat[path.name] = files
        else:
            found.ignored[path] = _EMPTY
    return found


def _no_class(
    folder: Path, name: str, names: Collection[str], splits: Collection[str] | None
) -> str:
    """Return why a folder of images is not a class, or an empty string if it is one.

    Args:
        folder: the image folder.
        name: name of the subfolder, which is not a split.
        names: names of all subfolders with images.
        splits: splits with their own folders, or None if the folder is not divided into splits.
    """
    if splits is not None and split_named(name):
        return _UNLABELLED
    if splits is not None and "train" in splits:
        return "neither a split nor a class"
    inside = {path.name for path in _subfolders(folder / name)}
    if len(inside.intersection(names) - {name}) > 1:  # as a folder of masks does
        return "repeats the classes beside it"
    return ""


def _are_splits(named: Collection[Part], flat: Collection[str]) -> bool:
    """Return whether the folders that are named like splits are splits.

    Args:
        named: folders named like splits that contain folders of images.
        flat: names of all other folders of images.
    """
    splits = {split_named(part.folder.name) for part in named}
    others = [name for name in flat if split_named(name) is None]
    if not named:  # images in train/ and test/ themselves are unlabelled
        return len(flat) > 1 and not others
    return (
        len(splits) > 1
        or not others
        or any(name in flat for part in named for name in part.classes)
        or (splits == {"train"} and len(others) == 1)
    )


def _parts(named: Mapping[Path, Part]) -> tuple[dict[str, Part], dict[Path, str]]:
    """Return the folder of each split, and reasons why others named like splits are ignored."""
    parts: dict[str, Part] = {}
    others = {}
    for path in sorted(named, key=_rank):
        split = split_named(path.name) or ""
        known = parts.setdefault(split, named[path]).folder
        if known == path:
            continue
        if _rank(known)[0] == _rank(path)[0]:
            raise UserError(
                f"Two folders for the split {split}: {printable(known)} and {printable(path)}. "
                "Keep one of them."
            )
        others[path] = f"the split {split} is in {printable(known.name)}"
    return parts, others


def _rank(path: Path) -> tuple[int, str]:
    word = _SUFFIX.sub("", path.name.casefold())
    return [name for names in _SPLIT_NAMES.values() for name in names].index(word), path.name


def _checked(parts: Mapping[str, Part]) -> tuple[dict[str, Part], dict[Path, str]]:
    """Return the parts restricted to the training classes, and reasons for those without any."""
    train = parts.get("train")
    if train is None:
        return dict(parts), {}
    checked, others = {"train": train}, {}
    for split in sorted(parts.keys() - checked.keys()):
        part = _with_known_classes(parts[split], train)
        if part.classes:
            checked[split] = part
        else:
            others[part.folder] = _UNLABELLED
    return checked, others


def _with_known_classes(part: Part, train: Part) -> Part:
    """Return a validation or test part restricted to the classes of the training images.

    A single folder with another name may contain unlabelled images; then no class remains.

    Raises:
        UserError: none of several folders is a training class, or one is spelled in two ways.
    """
    if pair := spelled_differently(train.classes, part.classes):
        raise UserError(
            f"The class folders {printable(train.folder / pair[0])} and "
            f"{printable(part.folder / pair[1])} are spelled differently: give both the same name "
            "if they are one class, or remove one."
        )
    known = {name: files for name, files in part.classes.items() if name in train.classes}
    if not known and len(part.classes) > 1:
        raise UserError(
            f"Expected {printable(part.folder)} to contain classes of {printable(train.folder)} "
            f"({some_names(tuple(train.classes))}), but got {some_names(tuple(part.classes))}."
        )
    problems = tuple(
        Problem(str(part.folder / name), "not a class of the training images")
        for name in part.classes
        if name not in train.classes
    )
    return Part(part.folder, known, (*part.problems, *problems))


def _composed(classes: Classes) -> Classes:
    """Return the classes sorted, with names in composed Unicode (NFC), as macOS may decompose."""
    found: Classes = {}
    for name, files in sorted(classes.items()):
        found.setdefault(unicodedata.normalize("NFC", name), []).extend(files)
    return found


def _class_folders(folder: Path, passed: set[str], more: Container[str]) -> Part:
    """Return the subfolders that contain images, and the others as problems."""
    found: Classes = {}
    problems = []
    for path in _subfolders(folder):
        if _is_output(path):
            problems.append(Problem(str(path), _WRITTEN))
        elif files := images_below(path, passed.add, more, _is_output):
            found[path.name] = files
        else:
            problems.append(Problem(str(path), _EMPTY))
    return Part(folder, _composed(found), tuple(problems))


def _subfolders(folder: Path) -> list[Path]:
    try:
        entries = list(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"Cannot read the folder {printable(folder)}: {error.strerror or error}."
        ) from None
    # A link to the folder itself or to a parent would contain every image again.
    return sorted(
        path
        for path in entries
        if not path.name.startswith(".")
        and path.is_dir()
        and not folder.resolve().is_relative_to(path.resolve())
    )


def _is_output(folder: Path) -> bool:
    """Return whether Foveal wrote a folder: a run, a comparison, or pictures."""
    return any(os.path.exists(folder / name) for name in _OUTPUTS)


def _holds_runs(folder: Path) -> bool:
    """Return whether a folder is named `runs` and contains only folders."""
    return folder.name == "runs" and all(
        path.is_dir() or path.name.startswith(".") for path in folder.iterdir()
    )
