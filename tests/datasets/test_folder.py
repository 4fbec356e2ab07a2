"""Folders of images with a subfolder per class: splits, bad files, image sizes and copies.

Without split folders, each class is divided into train (80%), val (10%) and test (10%).
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.datasets import ImageSet, decoding, load_images
from foveal.datasets.copies import find_copies
from foveal.foundation.errors import UserError


def fill(folder: Path, count: int = 1, size: tuple[int, int] = (6, 6), grey: bool = True) -> None:
    """Write `count` different images, named by their index, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        seed = [*folder.as_posix().encode(), index]
        shape = size if grey else (*size, 3)
        pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    """Write 20 images of cats and 20 of dogs; return their folder."""
    for name in ("cat", "dog"):
        fill(tmp_path / "animals" / name, 20)
    return tmp_path / "animals"


def test_splits_are_disjoint_complete_stratified_and_deterministic(animals: Path) -> None:
    splits = {name: load_images(animals, name) for name in ("train", "val", "test")}
    assert {name: len(dataset) for name, dataset in splits.items()} == {
        "train": 32,
        "val": 4,
        "test": 4,
    }
    paths = [path for dataset in splits.values() for path in dataset.paths]
    assert len(set(paths)) == len(paths) == 40
    for name, dataset in splits.items():
        assert dataset.labels.bincount().tolist() == [len(dataset) // 2] * 2
        assert load_images(animals, name).paths == dataset.paths


def test_images_labels_and_paths_match(animals: Path) -> None:
    dataset = load_images(str(animals), "train")
    assert (dataset.name, dataset.split, dataset.classes) == ("animals", "train", ("cat", "dog"))
    for image, label, path in zip(dataset.images, dataset.labels, dataset.paths, strict=True):
        assert torch.equal(image[0], torch.from_numpy(np.array(Image.open(path))))
        assert Path(path).parent.name == dataset.classes[label]


def test_split_folders_define_the_splits(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("val", 3), ("test", 5)):
        for name in ("a", "b"):
            fill(tmp_path / split / name, count)
    assert [len(load_images(tmp_path, split)) for split in ("train", "val", "test")] == [40, 6, 10]


def test_val_is_a_tenth_of_train_without_a_val_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("a", "b"):
            fill(tmp_path / split / name, 10)
    assert [len(load_images(tmp_path, split)) for split in ("train", "val", "test")] == [18, 2, 20]
    assert all("/train/" in path for path in load_images(tmp_path, "val").paths)


def test_split_folders_are_never_classes(tmp_path: Path) -> None:
    for split in ("val", "test"):
        for name in ("a", "b"):
            fill(tmp_path / split / name)
    with pytest.raises(UserError, match="at least 2 class folders"):
        load_images(tmp_path, "train")


def test_class_absent_from_train_is_a_problem(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a", "test/b", "test/c"):
        fill(tmp_path / name, 4)
    dataset = load_images(tmp_path, "test")
    assert dataset.classes == ("a", "b")
    assert [Path(problem.path).name for problem in dataset.problems] == ["c"]


def test_nested_folders_are_read_and_non_image_files_are_skipped(
    animals: Path,
) -> None:
    fill(animals / "Wölfe und Füchse" / "im Wald" / "alt", 20)
    (animals / "cat" / "notes.txt").write_text("not an image")
    (animals / "cat" / "._hidden.png").write_text("not an image")
    (animals / "readme.md").write_text("not a class")
    dataset = load_images(animals, "train")
    assert dataset.classes == ("Wölfe und Füchse", "cat", "dog")
    assert dataset.labels.bincount().tolist() == [16, 16, 16]  # 80% of the 20 images per class
    assert dataset.problems == ()
    assert dataset.notes[1:] == ("2 non-image files skipped: 1 .txt, 1 hidden",)


def test_bad_images_are_reported_and_the_rest_is_read(animals: Path) -> None:
    truncated_count = 20
    for index in range(truncated_count):
        (animals / "dog" / f"bad {index}.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (animals / "cat" / "empty.png").touch()
    (animals / "cat" / "gone.png").symlink_to("nowhere.png")
    (animals / "cat" / "circle.png").symlink_to("circle.png")
    datasets = [load_images(animals, split) for split in ("train", "val", "test")]
    assert sum(len(dataset) for dataset in datasets) == 40
    problems = {Path(p.path).name: p.reason for dataset in datasets for p in dataset.problems}
    assert len(problems) == truncated_count + 3
    assert "empty" in problems["empty.png"]
    assert "No such file" in problems["gone.png"]
    assert "symbolic links" in problems["circle.png"]


def test_links_to_parent_folders_neither_hang_nor_duplicate_images(animals: Path) -> None:
    (animals / "loop").symlink_to(animals, target_is_directory=True)
    (animals / "cat" / "loop").symlink_to(animals, target_is_directory=True)
    datasets = [load_images(animals, split) for split in ("train", "val", "test")]
    assert datasets[0].classes == ("cat", "dog")
    assert sum(len(dataset) for dataset in datasets) == 40


def test_empty_class_is_dropped_and_reported(animals: Path) -> None:
    (animals / "bird").mkdir()
    dataset = load_images(animals, "train")
    assert dataset.classes == ("cat", "dog")
    assert [Path(problem.path).name for problem in dataset.problems] == ["bird"]


def test_too_few_classes_or_images_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="found none"):
        load_images(tmp_path, "train")
    fill(tmp_path / "a", 1)
    with pytest.raises(UserError, match="only 'a'"):
        load_images(tmp_path, "train")
    fill(tmp_path / "b", 1)
    assert len(load_images(tmp_path, "train")) == 2  # too few for other splits
    for split in ("val", "test"):
        with pytest.raises(UserError, match="too few images"):
            load_images(tmp_path, split)


def test_error_for_a_folder_of_bad_images_names_one_of_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(9):
            (tmp_path / name / f"{index}.png").touch()
    with pytest.raises(UserError, match=r"\.png: the file is empty"):
        load_images(tmp_path, "train")


def test_images_of_several_sizes_require_a_size(animals: Path) -> None:
    fill(animals / "fox", 20, size=(9, 5))
    with pytest.raises(UserError, match=r"is 6x6, .* is 9x5\).*size"):
        load_images(animals, "train")
    image_count = 3 * 16  # 80% of the 20 images per class
    assert load_images(animals, "train", size=(4, 7)).images.shape == (image_count, 1, 4, 7)


def test_folder_with_colour_images_is_read_in_colour_unless_grey_is_requested(
    animals: Path,
) -> None:
    fill(animals / "fox", 20, grey=False)
    assert load_images(animals, "train").images.shape[1] == 3
    assert load_images(animals, "train", channels=1).images.shape[1] == 1


def test_images_that_do_not_fit_in_memory_are_an_error(
    animals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "available_memory", lambda: 1_000)
    with pytest.raises(UserError, match=r"32 images of 6x6 need .* smaller"):
        load_images(animals, "train")


def copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def reasons(images: ImageSet) -> dict[str, str]:
    """Return why files were skipped, by the name of the file."""
    return {Path(problem.path).name: problem.reason for problem in images.problems}


def test_copies_of_training_images_are_excluded_from_val_and_test(tmp_path: Path) -> None:
    for split, count in (("Train", 20), ("dev", 4), ("Test", 5)):
        for name in ("a", "b"):
            fill(tmp_path / split / name, count)
    for split in ("dev", "Test"):
        copy_file(tmp_path / "Train/a/007.png", tmp_path / split / "a/seven.png")
    copy_file(tmp_path / "Test/b/000.png", tmp_path / "dev/b/zero.png")
    copy_file(tmp_path / "Test/b/001.png", tmp_path / "Test/b/one.png")
    train, val, test = (load_images(tmp_path, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (40, 8, 11)
    assert reasons(train) == {}
    assert set(reasons(val)) == {"seven.png", "zero.png"}
    assert reasons(test).keys() == {"seven.png"}
    assert "Train/a/007.png (train)" in reasons(test)["seven.png"]
    assert "Test/b/000.png (test)" in reasons(val)["zero.png"]


def test_val_candidate_that_copies_a_test_image_stays_in_train(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fill(tmp_path / name, 20)
        fill(tmp_path / "test" / name, 4)
    candidate = load_images(tmp_path, "val").paths[0]
    copy_file(Path(candidate), tmp_path / "test/a/copy.png")
    train, val, test = (load_images(tmp_path, split) for split in ("train", "val", "test"))
    # 10% of the 40 images are candidates for val; the one that was copied into test stays in train.
    assert candidate in train.paths
    assert candidate not in val.paths
    assert (len(train), len(val), len(test)) == (36 + 1, 4 - 1, 8)


def test_image_in_two_classes_is_skipped_in_all_splits_and_reported(
    tmp_path: Path,
) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            fill(tmp_path / split / name, 20)
    copy_file(tmp_path / "train/cat/003.png", tmp_path / "test/dog/2020/both.png")
    copy_file(tmp_path / "train/cat/004.png", tmp_path / "train/dog/cat/two.png")
    datasets = {split: load_images(tmp_path, split) for split in ("train", "val", "test")}
    reason_of = {
        name: reason for dataset in datasets.values() for name, reason in reasons(dataset).items()
    }
    assert set(reason_of) == {"003.png", "both.png", "004.png", "two.png"}
    assert set(reason_of.values()) == {"the same image is in cat and dog"}
    # Of the 80 images, the two that have a copy in another class are skipped with their copies.
    assert sum(map(len, datasets.values())) == 80 - 2


def test_folder_with_only_test_images_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path / "Test" / "a", 3)
    dataset = load_images(tmp_path, "test")
    assert (len(dataset), dataset.classes) == (3, ("a",))
    assert dataset.notes == ("classes: a; splits: test in Test",)
    for split in ("train", "val"):
        with pytest.raises(UserError, match=r"found none \(Test is the split test\)"):
            load_images(tmp_path, split)


def test_identical_files_are_grouped_and_other_kinds_of_files_are_skipped(tmp_path: Path) -> None:
    contents = {"a": b"one", "b": b"two", "c": b"one", "d": b"", "e": b"", "f": b"longer"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "g").symlink_to(tmp_path / "gone")
    for name in ("h", "i"):
        os.mkfifo(tmp_path / name)  # a pipe: reading it would block
    paths = sorted(tmp_path.iterdir())
    (tmp_path / "three").mkdir()
    assert find_copies([*paths, tmp_path / "three"]) == [[0, 2]]
