"""Layout of an image folder: which subfolders contain a split, a class, or neither."""

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

# Names of split folders, as on the Hugging Face Hub. If there are several, the first one is read.
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing", "evaluation", "eval"),
}
_SUFFIX = re.compile(r"[ _-]?(set|split|data|images)$")  # such as in training_set
_OUTPUT_FILES = (OUTPUT_MARK, "model.safetensors", "recipe.yaml", "explanations.csv")
# Reasons why folders are ignored
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
        parts: class folders of each split. Without split folders, all class folders are `train`.
        ignored: subfolders that are neither a split nor a class, with reasons.
        skipped: files that are not images.
    """

    folder: Path
    parts: Mapping[str, Part]
    ignored: tuple[Problem, ...]
    skipped: Skipped

    @property
    def split_folders(self) -> dict[str, Path]:
        """The folder of each split that has one."""
        return {
            split: part.folder for split, part in self.parts.items() if part.folder != self.folder
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes of the training images, or of all images if there are no training images."""
        parts = [self.parts["train"]] if "train" in self.parts else self.parts.values()
        return tuple(sorted({name for part in parts for name in part.classes}))

    def part(self, split: str) -> Part:
        """Return the class folders of a split, or of the training images if it has no folder.

        Raises:
            UserError: there are no class folders, or fewer than two for training.
        """
        part = self.parts.get(split) or self.parts.get("train")
        if part is not None and (len(part.classes) > 1 or split != "train"):
            return part
        description = f"only {printable(next(iter(part.classes)))!r}" if part else "none"
        splits = [
            f"{printable(path.name)} is the split {name}"
            for name, path in self.split_folders.items()
        ]
        ignored = [f"{printable(Path(p.path).name)}: {p.reason}" for p in self.ignored[:5]]
        roles = f" ({'; '.join([*splits, *ignored])})" if splits or ignored else ""
        raise UserError(
            f"Expected {printable(part.folder if part else self.folder)} to contain at least 2 "
            f"class folders with images for the split {split!r}, but found {description}{roles}."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """The summary, and a line about files that are not images if there are any."""
        return (self.summary(), str(self.skipped)) if len(self.skipped) else (self.summary(),)

    def summary(self) -> str:
        """Return one line about which folders are classes and which are splits."""
        splits = [
            f"{split} in {printable(path.name)}" for split, path in self.split_folders.items()
        ]
        summary = f"classes: {some_names(self.classes)}"
        return f"{summary}; splits: {', '.join(splits)}" if splits else summary


def split_from_name(name: str) -> str | None:
    """Return `train`, `val` or `test` if a folder or file name denotes a split, else None."""
    word = _SUFFIX.sub("", name.casefold())
    return next((split for split, names in _SPLIT_NAMES.items() if word in names), None)


def read_layout(folder: Path, extensions: Container[str] = ()) -> Layout:
    """Return which subfolders of a folder are splits, classes, or neither; no image is decoded.

    A folder named like a split is a split if its subfolders are classes and it is next to another
    split, next to nothing else, or next to folders of the same classes. Otherwise it is a class,
    such as `valid` next to `invalid`. Images in subfolders of a class folder belong to that class.
    Folders written by Foveal, empty folders, and folders that repeat the classes next to them
    (such as masks) are neither; hidden folders are skipped.

    Args:
        folder: image folder with class folders or split folders.
        extensions: further file extensions of images, in lower case.

    Raises:
        UserError: two folders for one split, or two spellings of one class.
    """
    subfolders = _classify_subfolders(folder, extensions)
    ignored, by_folder = dict(subfolders.ignored), dict(subfolders.others)
    splits = _are_splits(subfolders.candidates.values(), by_folder)
    if not splits:
        by_folder |= {
            path.name: images_below(path, subfolders.skipped.add, extensions, _is_output)
            for path in subfolders.candidates
        }
    parts, reasons = _parts(subfolders.candidates if splits else {})
    ignored |= reasons
    for name in sorted(by_folder):
        reason = _reason_ignored(folder, name, by_folder.keys(), parts.keys() if splits else None)
        if reason:
            ignored[folder / name] = reason
            del by_folder[name]
    if by_folder:
        parts["train"] = Part(folder, _with_composed_names(by_folder))
    parts, reasons = _restrict_to_training_classes(parts)
    ignored |= reasons
    problems = tuple(Problem(str(path), reason) for path, reason in sorted(ignored.items()))
    return Layout(folder, parts, problems, Skipped(subfolders.skipped))


@dataclass(frozen=True)
class _Subfolders:
    """Subfolders of an image folder, sorted by their contents.

    Attributes:
        candidates: folders that are named like a split and contain class folders.
        others: image files of the other folders, by folder name.
        ignored: folders without images and folders written by Foveal, with reasons.
        skipped: files that are not images.
    """

    candidates: dict[Path, Part]
    others: Classes
    ignored: dict[Path, str]
    skipped: set[str]


def _classify_subfolders(folder: Path, extensions: Container[str]) -> _Subfolders:
    subfolders = _Subfolders({}, {}, {}, set())
    for path in _subfolders(folder):
        if _is_output(path) or _contains_runs(path):
            subfolders.ignored[path] = _WRITTEN
        elif (
            split_from_name(path.name)
            and (part := _class_folders(path, subfolders.skipped, extensions)).classes
        ):
            subfolders.candidates[path] = part
        elif files := images_below(path, subfolders.skipped.add, extensions, _is_output):
            subfolders.others[path.name] = files
        else:
            subfolders.ignored[path] = _EMPTY
    return subfolders


def _reason_ignored(
    folder: Path, name: str, names: Collection[str], splits: Collection[str] | None
) -> str:
    """Return why a folder of images is not a class, or an empty string if it is a class.

    Args:
        folder: the image folder.
        name: name of the subfolder, which is not a split.
        names: names of all subfolders with images.
        splits: splits with their own folders, or None if the folder is not divided into splits.
    """
    if splits is not None and split_from_name(name):
        return _UNLABELLED
    if splits is not None and "train" in splits:
        return "neither a split nor a class"
    inner_names = {path.name for path in _subfolders(folder / name)}
    if len(inner_names.intersection(names) - {name}) > 1:  # such as a folder of masks
        return "repeats the classes next to it"
    return ""


def _are_splits(candidates: Collection[Part], other_names: Collection[str]) -> bool:
    """Return whether folders named like splits are splits.

    Args:
        candidates: folders named like splits that contain folders of images.
        other_names: names of all other folders of images.
    """
    splits = {split_from_name(part.folder.name) for part in candidates}
    class_names = [name for name in other_names if split_from_name(name) is None]
    if not candidates:  # images directly in train/ and test/ are unlabelled
        return len(other_names) > 1 and not class_names
    return (
        len(splits) > 1
        or not class_names
        or any(name in other_names for part in candidates for name in part.classes)
        or (splits == {"train"} and len(class_names) == 1)
    )


def _parts(candidates: Mapping[Path, Part]) -> tuple[dict[str, Part], dict[Path, str]]:
    """Return the class folders of each split, and the ignored folders with reasons."""
    parts: dict[str, Part] = {}
    ignored = {}
    for path in sorted(candidates, key=_rank):
        split = split_from_name(path.name) or ""
        first_folder = parts.setdefault(split, candidates[path]).folder
        if first_folder == path:
            continue
        if _rank(first_folder)[0] == _rank(path)[0]:
            raise UserError(
                f"Two folders for the split {split}: {printable(first_folder)} and "
                f"{printable(path)}. Keep one of them."
            )
        ignored[path] = f"the split {split} is in {printable(first_folder.name)}"
    return parts, ignored


def _rank(path: Path) -> tuple[int, str]:
    """Return the sort key of a folder named like a split; preferred names come first."""
    word = _SUFFIX.sub("", path.name.casefold())
    return [name for names in _SPLIT_NAMES.values() for name in names].index(word), path.name


def _restrict_to_training_classes(
    parts: Mapping[str, Part],
) -> tuple[dict[str, Part], dict[Path, str]]:
    """Return the parts with only the training classes, and ignored folders with reasons."""
    train = parts.get("train")
    if train is None:
        return dict(parts), {}
    restricted, ignored = {"train": train}, {}
    for split in sorted(parts.keys() - restricted.keys()):
        part = _with_training_classes(parts[split], train)
        if part.classes:
            restricted[split] = part
        else:
            ignored[part.folder] = _UNLABELLED
    return restricted, ignored


def _with_training_classes(part: Part, train: Part) -> Part:
    """Return a validation or test part with only the classes of the training images.

    If its only folder has another name, its images may be unlabelled, and no class remains.

    Raises:
        UserError: none of several folders is a training class, or one has two spellings.
    """
    if pair := spelled_differently(train.classes, part.classes):
        raise UserError(
            f"The class folders {printable(train.folder / pair[0])} and "
            f"{printable(part.folder / pair[1])} are spelled differently: give both the same name "
            "if they are one class, or remove one."
        )
    classes = {name: files for name, files in part.classes.items() if name in train.classes}
    if not classes and len(part.classes) > 1:
        raise UserError(
            f"Expected {printable(part.folder)} to contain classes of {printable(train.folder)} "
            f"({some_names(tuple(train.classes))}), but got {some_names(tuple(part.classes))}."
        )
    problems = tuple(
        Problem(str(part.folder / name), "not a class of the training images")
        for name in part.classes
        if name not in train.classes
    )
    return Part(part.folder, classes, (*part.problems, *problems))


def _with_composed_names(classes: Classes) -> Classes:
    """Return the classes sorted, with names in composed Unicode (NFC); macOS may decompose them."""
    composed: Classes = {}
    for name, files in sorted(classes.items()):
        composed.setdefault(unicodedata.normalize("NFC", name), []).extend(files)
    return composed


def _class_folders(folder: Path, skipped: set[str], extensions: Container[str]) -> Part:
    """Return subfolders with images as classes, and other subfolders as problems."""
    classes: Classes = {}
    problems = []
    for path in _subfolders(folder):
        if _is_output(path):
            problems.append(Problem(str(path), _WRITTEN))
        elif files := images_below(path, skipped.add, extensions, _is_output):
            classes[path.name] = files
        else:
            problems.append(Problem(str(path), _EMPTY))
    return Part(folder, _with_composed_names(classes), tuple(problems))


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
    return any(os.path.exists(folder / name) for name in _OUTPUT_FILES)


def _contains_runs(folder: Path) -> bool:
    """Return whether a folder is named `runs` and contains only folders."""
    return folder.name == "runs" and all(
        path.is_dir() or path.name.startswith(".") for path in folder.iterdir()
    )
