"""Groups of images: no split and no fold divides them."""

import json

import pytest
import torch

from foveal.datasets import load_images, load_whole, read_groups
from foveal.datasets.splits import folds, split_indices
from foveal.foundation.errors import UserError
from foveal.metrics.interval import bootstrap
from photo_folders import photos


def labelled(groups, classes=3):
    """Return labels and names of so many groups, of 1 to 6 images of one class each."""
    generator = torch.Generator().manual_seed(0)
    labels, names = [], []
    for number in range(groups):
        size = int(torch.randint(1, 7, (1,), generator=generator))
        labels += [number % classes] * size
        names += [f"g{number}"] * size
    return torch.tensor(labels), names


@pytest.mark.parametrize("count", [2, 5, 10])
def test_folds_are_even_in_every_class_and_divide_no_group(count):
    labels, groups = labelled(120)
    fold = folds(labels, count, groups)
    for name in set(groups):
        assert len({int(f) for f, group in zip(fold, groups, strict=True) if group == name}) == 1
    for label in range(3):
        counts = torch.bincount(fold[labels == label], minlength=count)
        assert counts.max() - counts.min() <= 6
    assert torch.equal(fold, folds(labels, count, groups))
    assert not torch.equal(fold, folds(labels, count, groups, seed=1))


def test_folds_without_groups_differ_by_one_image_of_a_class_at_most():
    labels = torch.tensor([0] * 13 + [1] * 7 + [2] * 2)
    fold = folds(labels, 5)
    for label in range(3):
        counts = torch.bincount(fold[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_splits_by_groups_train_every_class():
    labels, groups = labelled(9)
    parts = {
        split: split_indices(labels, split, own_val=False, own_test=False, groups=groups)
        for split in ("train", "val", "test")
    }
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(len(labels)))
    named = {split: {groups[i] for i in part} for split, part in parts.items()}
    assert not named["train"] & named["val"]
    assert not named["train"] & named["test"]
    assert set(labels[parts["train"]].tolist()) == {0, 1, 2}


@pytest.fixture
def folder(tmp_path):
    return photos(tmp_path / "photos", {"a": 24, "b": 24}, side=8)


def test_a_table_of_groups_keeps_each_in_one_split(folder, tmp_path):
    table = tmp_path / "groups.csv"
    rows = [f"{name}/{i}.png,{name}{i // 3}" for name in "ab" for i in range(24)]
    table.write_text("file,group\n" + "\n".join(rows) + "\n")
    found = read_groups(str(table))
    sets = {split: load_images(folder, split, groups=found) for split in ("train", "val", "test")}
    assert sum(len(images) for images in sets.values()) == 48
    named = [set(images.groups) for images in sets.values()]
    assert not named[0] & named[1]
    assert not named[0] & named[2]
    assert not named[1] & named[2]
    assert sets["test"].groups[0] == sets["test"].subset(torch.tensor([0])).groups[0]


def test_an_expression_names_groups_by_its_parenthesis_or_its_match(folder):
    for text, expected in ((r"([ab])/\d", {"a", "b"}), (r"\d$|\d\.", None)):
        found = read_groups(text)
        names = set(found.of(folder, sorted(folder.rglob("*.png"))))
        assert expected is None or names == expected


def test_a_group_that_trains_is_left_out_of_the_users_own_test(tmp_path):
    folder = photos(tmp_path / "photos" / "train", {"a": 12, "b": 12}, side=8).parent
    photos(folder / "test", {"a": 4, "b": 4}, side=9)
    photos(folder / "val", {"a": 4, "b": 4}, side=10)
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
def test_a_table_that_does_not_say_all_is_one_sentence(folder, tmp_path, text, expected):
    table = tmp_path / "groups.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        load_images(folder, "train", groups=read_groups(str(table)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["(", "nothere.csv", "x" * 501])
def test_what_is_neither_a_table_nor_an_expression_is_one_sentence(text):
    with pytest.raises(UserError):
        read_groups(text)


def test_groups_are_for_folders_alone():
    with pytest.raises(UserError, match="Expected a folder of image files for groups"):
        load_images("mnist-5k", "train", groups=read_groups("x"))


def test_all_images_of_a_folder_are_read_once(folder):
    (folder / "a" / "again.png").write_bytes((folder / "a" / "0.png").read_bytes())
    images = load_whole(folder)
    assert len(images) == 48
    assert any(p.reason == "a copy of another image" for p in images.problems)


def test_the_interval_is_wider_for_groups_and_holds_the_mean():
    labels, groups = labelled(60)
    generator = torch.Generator().manual_seed(1)
    by_group = {name: float(torch.rand((), generator=generator) < 0.7) for name in set(groups)}
    right = torch.tensor([by_group[name] for name in groups])
    alone, grouped = bootstrap(right, labels), bootstrap(right, labels, groups=groups)
    assert alone.value == grouped.value == pytest.approx(float(right.mean()))
    assert grouped.low < alone.low < alone.value < alone.high < grouped.high


def test_a_balanced_mean_counts_each_class_alike():
    labels = torch.tensor([0] * 90 + [1] * 10)
    right = torch.tensor([1.0] * 90 + [0.0] * 10)
    assert bootstrap(right, labels, balanced=True).value == 0.5
    assert bootstrap(right, labels).value == 0.9


def test_folds_of_a_recipe_test_every_image_once_and_go_on(tmp_path, run):
    folder = photos(tmp_path / "photos", {"a": 15, "b": 15}, side=12)
    out = tmp_path / "folds"
    words = ["train", "baseline", "--data", folder, "--out", out, "--quiet", "epochs=1"]
    done = run(*words, "--folds", "3")
    assert done.returncode == 0, done.stderr
    assert "30 images by 3 folds: accuracy" in done.stderr
    result = json.loads((out / "folds.json").read_text())
    assert result["images"] == 30
    again = run(*words, "--folds", "3")
    assert again.returncode == 1
    assert "holds a run already" in again.stderr
    resumed = run(*words, "--folds", "3", "--resume")
    assert resumed.returncode == 0
    assert json.loads((out / "folds.json").read_text()) == result
    assert run(*words, "--folds", "1").returncode == 1


def test_a_run_that_was_trained_by_groups_is_measured_by_them_alone(tmp_path, run):
    folder = photos(tmp_path / "photos", {"a": 15, "b": 15}, side=12)
    out, groups = tmp_path / "run", r"\w/\d"
    done = run(
        "train",
        "baseline",
        "--data",
        folder,
        "--out",
        out,
        "--quiet",
        "epochs=1",
        "--groups",
        groups,
    )
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
