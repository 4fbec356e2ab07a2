"""Groups of images that belong together, such as those of one patient.

A group is never divided between splits, or between the folds of a cross-validation.
"""

import json
from collections import defaultdict

import pytest
import torch

from foveal.datasets import load_images, load_whole, read_groups
from foveal.datasets.splits import folds, split_indices
from foveal.foundation.errors import UserError
from foveal.metrics.interval import bootstrap
from photo_folders import write_photos


def random_groups(count, classes=3):
    """Return the label and the group of each image; a group is 1 to 6 images of one class."""
    generator = torch.Generator().manual_seed(0)
    labels, names = [], []
    for group in range(count):
        image_count = int(torch.randint(1, 7, (1,), generator=generator))
        labels += [group % classes] * image_count
        names += [f"g{group}"] * image_count
    return torch.tensor(labels), names


@pytest.mark.parametrize("fold_count", [2, 5, 10])
def test_folds_are_balanced_per_class_and_divide_no_group(fold_count):
    labels, groups = random_groups(120)
    fold_indices = folds(labels, fold_count, groups)
    folds_of_group = defaultdict(set)
    for fold, group in zip(fold_indices.tolist(), groups, strict=True):
        folds_of_group[group].add(fold)
    assert all(len(group_folds) == 1 for group_folds in folds_of_group.values())
    for label in range(3):
        counts = torch.bincount(fold_indices[labels == label], minlength=fold_count)
        assert counts.max() - counts.min() <= 6  # images in the largest group
    assert torch.equal(fold_indices, folds(labels, fold_count, groups))
    assert not torch.equal(fold_indices, folds(labels, fold_count, groups, seed=1))


def test_folds_without_groups_differ_by_at_most_one_image_per_class():
    labels = torch.tensor([0] * 13 + [1] * 7 + [2] * 2)
    fold_indices = folds(labels, 5)
    for label in range(3):
        counts = torch.bincount(fold_indices[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_splits_by_group_have_training_images_of_every_class():
    labels, groups = random_groups(9)
    indices = {
        split: split_indices(labels, split, own_val=False, own_test=False, groups=groups)
        for split in ("train", "val", "test")
    }
    assert sorted(torch.cat(list(indices.values())).tolist()) == list(range(len(labels)))
    groups_of_split = {
        split: {groups[index] for index in split_members}
        for split, split_members in indices.items()
    }
    assert not groups_of_split["train"] & groups_of_split["val"]
    assert not groups_of_split["train"] & groups_of_split["test"]
    assert set(labels[indices["train"]].tolist()) == {0, 1, 2}


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path / "photos", {"a": 24, "b": 24}, side=8)


def test_groups_from_a_table_are_kept_in_one_split(folder, tmp_path):
    table = tmp_path / "groups.csv"
    # Groups of three images.
    rows = [f"{name}/{index}.png,{name}{index // 3}" for name in "ab" for index in range(24)]
    table.write_text("file,group\n" + "\n".join(rows) + "\n")
    groups = read_groups(str(table))
    sets = {split: load_images(folder, split, groups=groups) for split in ("train", "val", "test")}
    assert sum(len(images) for images in sets.values()) == 48
    train_groups, val_groups, test_groups = (set(images.groups) for images in sets.values())
    assert not train_groups & val_groups
    assert not train_groups & test_groups
    assert not val_groups & test_groups
    assert sets["test"].groups[0] == sets["test"].subset(torch.tensor([0])).groups[0]


def test_group_is_what_the_parentheses_or_else_the_whole_expression_match(folder):
    for text, expected in ((r"([ab])/\d", {"a", "b"}), (r"\d$|\d\.", None)):
        groups = read_groups(text)
        names = set(groups.of(folder, sorted(folder.rglob("*.png"))))
        assert expected is None or names == expected


def test_group_that_is_also_in_the_train_folder_is_skipped_in_the_test_folder(tmp_path):
    folder = write_photos(tmp_path / "photos" / "train", {"a": 12, "b": 12}, side=8).parent
    write_photos(folder / "test", {"a": 4, "b": 4}, side=9)
    write_photos(folder / "val", {"a": 4, "b": 4}, side=10)
    groups = read_groups(r"\w+/([ab]/[0-2])\.|\w+/\w+/\d+")
    images = load_images(folder, "test", size=8, groups=groups)
    assert sorted(path[-7:] for path in images.paths) == ["a/3.png", "b/3.png"]
    assert any("its group a/0 is also in train" in p.reason for p in images.problems)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("file,group\na/0.png,x\n", "gives none for .* and 46 others"),
        ("file,patient\n", "'group' is missing"),
        ("file,group\na/0.png,x\na/0.png,y\n", "line 3: a second group"),
        ("file,group\na/0.png,\n", "line 2: no group"),
    ],
)
def test_incomplete_group_table_gives_a_one_line_error(folder, tmp_path, text, expected):
    table = tmp_path / "groups.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=expected) as error:
        load_images(folder, "train", groups=read_groups(str(table)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["(", "nothere.csv", "x" * 501])
def test_invalid_groups_argument_is_an_error(text):
    with pytest.raises(UserError):
        read_groups(text)


def test_groups_require_a_folder():
    with pytest.raises(UserError, match="Expected a folder of image files for groups"):
        load_images("mnist-5k", "train", groups=read_groups("x"))


def test_load_whole_reads_each_image_once(folder):
    (folder / "a" / "again.png").write_bytes((folder / "a" / "0.png").read_bytes())
    images = load_whole(folder)
    assert len(images) == 48
    assert any(p.reason == "a copy of another image" for p in images.problems)


def test_confidence_interval_is_wider_with_groups_and_contains_the_mean():
    labels, groups = random_groups(60)
    generator = torch.Generator().manual_seed(1)
    correct_by_group = {
        name: float(torch.rand((), generator=generator) < 0.7) for name in set(groups)
    }
    correct = torch.tensor([correct_by_group[name] for name in groups])
    ungrouped, grouped = bootstrap(correct, labels), bootstrap(correct, labels, groups=groups)
    assert ungrouped.value == grouped.value == pytest.approx(float(correct.mean()))
    assert grouped.low < ungrouped.low < ungrouped.value < ungrouped.high < grouped.high


def test_balanced_mean_weights_classes_equally():
    labels = torch.tensor([0] * 90 + [1] * 10)
    correct = torch.tensor([1.0] * 90 + [0.0] * 10)
    assert bootstrap(correct, labels, balanced=True).value == 0.5
    assert bootstrap(correct, labels).value == 0.9


def test_cross_validation_tests_every_image_once_and_resumes(tmp_path, run):
    folder = write_photos(tmp_path / "photos", {"a": 15, "b": 15}, side=12)
    out = tmp_path / "folds"
    arguments = ["train", "baseline", "--data", folder, "--out", out, "--quiet", "epochs=1"]
    done = run(*arguments, "--folds", "3")
    assert done.returncode == 0, done.stderr
    assert "30 images in 3 folds: accuracy" in done.stderr
    result = json.loads((out / "folds.json").read_text())
    assert result["images"] == 30
    repeated = run(*arguments, "--folds", "3")
    assert repeated.returncode == 1
    assert "holds a run already" in repeated.stderr
    resumed = run(*arguments, "--folds", "3", "--resume")
    assert resumed.returncode == 0
    assert json.loads((out / "folds.json").read_text()) == result
    assert run(*arguments, "--folds", "1").returncode == 1


def test_run_trained_with_groups_is_evaluated_only_with_them(tmp_path, run):
    folder = write_photos(tmp_path / "photos", {"a": 15, "b": 15}, side=12)
    out = tmp_path / "run"
    groups = r"\w/\d"  # the class and the first digit of the name
    options = ["--data", folder, "--out", out, "--groups", groups, "--quiet"]
    done = run("train", "baseline", *options, "epochs=1")
    assert done.returncode == 0, done.stderr
    done = run("evaluate", out, "--data", folder)
    assert done.returncode == 1
    assert "was trained with the groups" in done.stderr
    done = run("evaluate", out, "--data", folder, "--groups", groups, "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads((out / "card.json").read_text())
    assert json.loads(done.stdout)["images"] == card["figures"]["images"]
    assert json.loads(done.stdout)["accuracy"] == card["figures"]["accuracy"]
    done = run("compare", out, "--data", folder, "--out", tmp_path / "comparison")
    assert done.returncode == 1
    assert "was trained with the groups" in done.stderr
