"""Generated benchmarks: correct ground truth and reproducible images.

Cluttered MNIST places a digit among pieces of other digits. Planted MNIST adds a mark of 3 x 3
pixels, which correlates with the class in training only. Megapixel MNIST places five digits among
strokes in a large image. In all of them, ink means the pixels that are not black.
"""

import hashlib
import struct
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.datasets import (
    DATASETS,
    ImageSet,
    load_images,
    mosaics,
    planted_marks,
)
from foveal.datasets.fitting import fit_images
from foveal.datasets.generated.cluttered import load_cluttered_mnist
from foveal.datasets.generated.megapixel import (
    DIGITS,
    MIN_SIDE_PX,
    TILE,
    SparseImages,
    megapixel_mnist,
)
from foveal.datasets.generated.planted import PATTERNS, patterns
from foveal.foundation.errors import UserError
from foveal.training import load_recipe, train

SPLITS = ("train", "val", "test")
NAMES = ("cluttered-mnist-60", "cluttered-mnist-100", "planted-mnist")
# The remainder modulo 3 of the ink values of each split: the value of a pixel identifies the split
# that it comes from.
REMAINDER = {"train": 1, "val": 2, "test": 0}
ALL_INK, NO_INK = 0, 1  # indices of two special test images


def write_idx(folder: Path, prefix: str, images: Tensor, labels: Tensor) -> None:
    """Write images and labels in the format of MNIST's files."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape)
        content = header + values.to(torch.uint8).numpy().tobytes()
        (folder / f"{prefix}-{kind}-ubyte").write_bytes(content)


def random_digits(count: int, seed: int) -> Tensor:
    """Return images (count, 28, 28), each with a rectangle of random values from 1 to 84."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for image in images:
        x, y, width, height = torch.randint(2, 13, (4,), generator=generator).tolist()
        ink = torch.randint(1, 85, (height, width), generator=generator)
        image[y : y + height, x : x + width] = ink
    return images


def with_ink_of_split(images: Tensor, split: str) -> Tensor:
    """Replace each ink value v by one from 3v - 2 to 3v: its remainder identifies the split."""
    return torch.where(images > 0, images * 3 - REMAINDER[split] * 2 % 3, 0)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write MNIST files of 900 train, 100 val and 400 test digits; return the folder.

    The ink values of a digit identify its split. The files do not contain val: Foveal takes it from
    the training images, so the first files are read to find out which images it takes.
    """
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "MNIST" / "raw"
    images, labels = random_digits(1000, 0), torch.arange(1000) * 7 % 10
    # The index of each image, in two of its pixels.
    images[:, 27, 27] = torch.arange(1000) % 256
    images[:, 27, 26] = torch.arange(1000) // 256
    write_idx(raw, "train", images, labels)
    pixels = load_images("mnist", "val", data_dir=folder).images[:, 0].long()
    val_indices = pixels[:, 27, 27] + pixels[:, 27, 26] * 256
    images[:, 27, 26:] = 0
    train_images = with_ink_of_split(images, "train")
    train_images[val_indices] = with_ink_of_split(images[val_indices], "val")
    write_idx(raw, "train", train_images, labels)
    test = random_digits(400, 1)
    test[ALL_INK], test[NO_INK] = 50, 0
    write_idx(raw, "t10k", with_ink_of_split(test, "test"), torch.arange(400) * 3 % 10)
    return folder


def box_of(mask: Tensor) -> tuple[slice, slice]:
    """Return the range of rows and the range of columns that contain the marked pixels (H, W)."""
    rows, columns = mask.nonzero().unbind(1)
    return (
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_each_digit_of_a_split_yields_one_image_with_a_mask(
    name: str, split: str, data_dir: Path
) -> None:
    source = load_images("mnist", split, data_dir=data_dir)
    dataset = load_images(name, split, data_dir=data_dir)
    side = {"cluttered-mnist-60": 60, "cluttered-mnist-100": 100, "planted-mnist": 28}[name]
    assert (dataset.name, dataset.split, dataset.classes) == (name, split, source.classes)
    assert torch.equal(dataset.labels, source.labels)
    for pixels in (dataset.images, dataset.masks):
        assert pixels is not None
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (len(source), 1, side, side))
        assert pixels.is_contiguous()
    assert set(dataset.masks.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("name", NAMES)
def test_generation_is_deterministic_and_positions_differ_between_splits(
    name: str, data_dir: Path
) -> None:
    first, repeated = (load_images(name, "train", data_dir=data_dir) for _ in range(2))
    assert torch.equal(first.images, repeated.images)
    assert torch.equal(first.masks, repeated.masks)
    test = load_images(name, "test", data_dir=data_dir)
    indices = slice(3, 100)  # without the special test images
    positions = [dataset.masks[indices].flatten(1).int().argmax(dim=1) for dataset in (first, test)]
    assert (positions[0] == positions[1]).float().mean() < 0.2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cluttered-mnist-60", "549bf3696f5818c1"),
        ("cluttered-mnist-100", "bbf3f11b9ea43f3b"),
        ("planted-mnist", "095384410e1ec081"),
    ],
)
def test_generated_bytes_are_the_same_on_every_machine(
    name: str, expected: str, data_dir: Path
) -> None:
    dataset = load_images(name, "val", data_dir=data_dir)
    content = dataset.images.numpy().tobytes() + dataset.masks.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == expected


@pytest.mark.parametrize("split", SPLITS)
def test_ink_of_a_cluttered_split_comes_only_from_its_own_digits(
    split: str, data_dir: Path
) -> None:
    images = load_images("cluttered-mnist-60", split, data_dir=data_dir).images
    assert set((images[images > 0] % 3).tolist()) == {REMAINDER[split]}


def test_cluttered_masks_are_the_boxes_of_digits_at_random_positions(data_dir: Path) -> None:
    source = load_images("mnist", "train", data_dir=data_dir).images[:, 0]
    dataset = load_images("cluttered-mnist-60", "train", data_dir=data_dir)
    offsets = []
    for digit, image, mask in zip(source, dataset.images[:, 0], dataset.masks[:, 0], strict=True):
        digit_box, box = box_of(digit > 0), box_of(mask > 0)
        assert (mask[box] == 255).all()
        assert image[box].shape == digit[digit_box].shape
        assert (image[box] >= digit[digit_box]).all()  # the brighter pixel wins
        clutter = image.clone()
        clutter[box] = 0
        assert (clutter > 0).sum() <= 4 * 8 * 8  # at most four pieces of clutter outside the box
        offsets.append([box[axis].start - digit_box[axis].start for axis in (0, 1)])
    for axis_offsets in torch.tensor(offsets).T:
        assert set(axis_offsets.tolist()) == set(range(60 - 28 + 1))
        assert abs(float(axis_offsets.float().mean()) - 16) < 1  # 16 = (60 - 28) / 2


def test_image_without_clutter_is_black_outside_the_box(data_dir: Path) -> None:
    dataset = load_cluttered_mnist("test", data_dir, side=60, pieces=0)
    assert (dataset.images[dataset.masks == 0] == 0).all()
    assert (dataset.masks[NO_INK] == 0).all()
    assert (dataset.masks[ALL_INK] > 0).sum() == 28 * 28


def test_clutter_is_made_of_pieces_of_other_digits(data_dir: Path) -> None:
    source = load_images("mnist", "val", data_dir=data_dir).images[:, 0]
    plain = load_cluttered_mnist("val", data_dir, side=60, pieces=0).images[:, 0]
    cluttered = load_cluttered_mnist("val", data_dir, side=60, pieces=1).images[:, 0]
    checked = 0
    for index, (before, after) in enumerate(zip(plain, cluttered, strict=True)):
        changed = after != before
        if not changed.any():  # the piece is black or hidden behind the digit
            continue
        box = box_of(changed)
        piece, ink = after[box], changed[box]
        height, width = piece.shape
        assert max(height, width) <= 8
        windows = source.unfold(1, height, 1).unfold(2, width, 1)  # (N, Y, X, height, width)
        matches = ((windows == piece) | ~ink).flatten(1).unflatten(1, (-1, height * width))
        source_indices = matches.all(dim=2).any(dim=1).nonzero().flatten().tolist()
        assert set(source_indices) - {index}
        checked += 1
    assert checked > 20


def test_small_images_have_four_clutter_pieces_and_large_ones_eight(data_dir: Path) -> None:
    for name, side, pieces in (("cluttered-mnist-60", 60, 4), ("cluttered-mnist-100", 100, 8)):
        expected = load_cluttered_mnist("val", data_dir, side=side, pieces=pieces)
        assert torch.equal(DATASETS[name]("val", data_dir).images, expected.images)


def test_dataset_of_a_single_digit_uses_it_as_clutter_too(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", "t10k", random_digits(1, 0), torch.zeros(1))
    assert len(load_images("cluttered-mnist-60", "test", data_dir=tmp_path)) == 1


def test_marks_differ_clearly_and_touch_all_four_sides() -> None:
    marks = patterns() > 0
    assert marks.shape == (10, 3, 3)
    assert (marks.sum(dim=(1, 2)) == 5).all()
    for side in (marks[:, 0], marks[:, 2], marks[:, :, 0], marks[:, :, 2]):
        assert side.any(dim=1).all()
    distances = (marks[:, None] != marks[None]).sum(dim=(2, 3))
    assert (distances + 9 * torch.eye(10) >= 4).all()


@pytest.mark.parametrize("split", SPLITS)
def test_planted_marks_are_identified_from_the_masked_pixels(split: str, data_dir: Path) -> None:
    dataset = load_images("planted-mnist", split, data_dir=data_dir)
    marks = planted_marks(dataset)
    assert torch.equal(dataset.images[dataset.masks > 0], patterns()[marks].flatten())
    indices = torch.tensor([5, 3, 8])
    assert torch.equal(planted_marks(dataset.subset(indices)), marks[indices])


def test_marks_correlate_with_the_class_in_training_but_not_in_test(data_dir: Path) -> None:
    for split, low, high in (("train", 0.88, 0.92), ("val", 0.84, 0.96), ("test", 0.06, 0.14)):
        dataset = load_images("planted-mnist", split, data_dir=data_dir)
        fraction = float((planted_marks(dataset) == dataset.labels).float().mean())
        assert low < fraction < high


def test_planting_changes_only_the_mark_and_its_margin(data_dir: Path) -> None:
    source = load_images("mnist", "test", data_dir=data_dir).images[:, 0]
    dataset = load_images("planted-mnist", "test", data_dir=data_dir)
    for digit, image, mask in zip(source, dataset.images[:, 0], dataset.masks[:, 0], strict=True):
        rows, columns = box_of(mask > 0)
        assert (mask[rows, columns].shape, int((mask > 0).sum())) == ((3, 3), 9)
        expected = digit.clone()
        expected[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1] = 0
        expected[rows, columns] = image[rows, columns]
        assert torch.equal(image, expected)


def test_marks_lie_at_all_positions_near_the_middle_and_nowhere_else(data_dir: Path) -> None:
    dataset = load_images("planted-mnist", "test", data_dir=data_dir)
    assert dataset.masks is not None
    corner_indices = dataset.masks.flatten(1).int().argmax(dim=1)  # the top left of each mark
    positions = torch.stack([corner_indices // 28, corner_indices % 28], dim=1).unique(dim=0)
    assert (positions.amin(), positions.amax()) == (8, 16)
    assert len(positions) > 75  # of 81 possible positions, in 400 images


def test_reading_marks_of_unmarked_images_is_an_error(data_dir: Path) -> None:
    for name in ("mnist", "cluttered-mnist-60"):
        with pytest.raises(ValueError, match="Expected images with masks of 3x3 pixels"):
            planted_marks(load_images(name, "test", data_dir=data_dir))
    dataset = load_images("planted-mnist", "test", data_dir=data_dir)
    dataset.images[3][dataset.masks[3] > 0] = 7
    with pytest.raises(ValueError, match="Expected a mark inside each mask"):
        planted_marks(dataset)


def test_masks_are_resized_with_their_images_and_stay_binary() -> None:
    masks = torch.zeros(3, 1, 8, 12, dtype=torch.uint8)
    masks[:, :, 2:4, 5:9] = 255
    images = ImageSet(
        "squares", "test", masks.clone(), torch.arange(3), ("a", "b", "c"), masks=masks
    )
    large = fit_images(images, (16, 36), 3)
    assert (large.images.shape, large.masks.shape) == ((3, 3, 16, 36), (3, 1, 16, 36))
    assert torch.equal(large.masks, masks.repeat_interleave(2, 2).repeat_interleave(3, 3))
    assert set(fit_images(images, (5, 7), None).masks.unique().tolist()) == {0, 255}
    assert fit_images(images, None, 3).masks is masks


def colour_images(count: int, classes: int) -> ImageSet:
    """Return distinct images (count, 3, 5, 4) whose labels cycle through every second class."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 5, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes * 2
    return ImageSet("colours", "test", pixels, labels, tuple(map(str, range(2 * classes))))


def test_mosaic_quadrants_are_images_of_four_different_classes() -> None:
    """A mosaic is an image that is composed of four others."""
    images = colour_images(60, 6)
    label_of = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(images.images, images.labels, strict=True)
    }
    mosaic_set = mosaics(images, 200)
    assert (len(mosaic_set), mosaic_set.images.shape, mosaic_set.images.dtype) == (
        200,
        (200, 3, 10, 8),
        torch.uint8,
    )
    used_images = set()
    for mosaic, classes in zip(mosaic_set.images, mosaic_set.classes.tolist(), strict=True):
        assert len(set(classes)) == 4
        quadrants = (mosaic[:, y : y + 5, x : x + 4] for y in (0, 5) for x in (0, 4))
        content = [quadrant.numpy().tobytes() for quadrant in quadrants]
        assert [label_of[pixels] for pixels in content] == classes
        used_images.update(content)
    assert len(used_images) == 60
    counts = mosaic_set.classes.flatten().bincount(minlength=12)
    assert (counts[1::2] == 0).all()
    assert (counts[::2] > 100).all()


def test_quadrant_of_a_class_is_a_mask_which_is_empty_if_the_class_is_absent() -> None:
    mosaic_set = mosaics(colour_images(16, 4), 20)
    for quadrant, (y, x) in enumerate([(0, 0), (0, 4), (5, 0), (5, 4)]):
        expected = torch.zeros(20, 10, 8, dtype=torch.bool)
        expected[:, y : y + 5, x : x + 4] = True
        assert torch.equal(mosaic_set.quadrant_of(mosaic_set.classes[:, quadrant]), expected)
    assert not mosaic_set.quadrant_of(torch.full((20,), 1)).any()
    with pytest.raises(ValueError, match=r"Expected classes \(20,\)"):
        mosaic_set.quadrant_of(torch.tensor([2]))


def test_mosaics_depend_only_on_their_seed() -> None:
    images = colour_images(60, 6)
    first, repeated, other = (mosaics(images, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, repeated.images)
    assert torch.equal(first.classes, repeated.classes)
    assert not torch.equal(first.classes, other.classes)


def test_too_few_classes_or_mosaics_are_errors() -> None:
    with pytest.raises(UserError, match=r"'colours' \(test\) has 3"):
        mosaics(colour_images(30, 3), 5)
    with pytest.raises(UserError, match="Expected count to be at least 1, but got 0"):
        mosaics(colour_images(30, 5), 0)


def test_training_never_uses_the_ground_truth_of_a_generated_dataset(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("trained with the ground truth")

    monkeypatch.setattr("foveal.training.objectives.classification.objective.mask_loss", fail)
    small = ["model.backbone.stages=[[8],[8]]", "model.depths=[1,2]", "batch_size=20", "epochs=1"]
    recipe = load_recipe("mnist-attention", [*small, "data.limit=40"])
    run = train(recipe, tmp_path / "run", data="planted-mnist", data_dir=data_dir, progress=False)
    assert (run / "model.safetensors").is_file()


def test_thumbnails_and_crops_match_the_whole_megapixel_image(data_dir: Path) -> None:
    dataset = megapixel_mnist("test", side=203, images=6, data_dir=data_dir)
    indices = torch.tensor([4, 0, 4])
    whole_images = torch.stack([dataset.whole(int(index)) for index in indices]).float() / 255
    assert whole_images.shape == (3, 1, 203, 203)
    assert torch.allclose(dataset.thumbnails(indices, 5), F.avg_pool2d(whole_images, 5), atol=1e-6)
    corners = torch.randint(-30, 230, (3, 8, 2), generator=torch.Generator().manual_seed(0))
    crops = dataset.crops(indices, corners, 20)
    margin = 60
    padded = F.pad(whole_images, (margin, margin, margin, margin))
    for image in range(3):
        for square, (x, y) in enumerate((corners[image] + margin).tolist()):
            expected = padded[image, :, y : y + 20, x : x + 20]
            assert torch.equal(crops[image, square], expected)


def test_megapixel_digits_lie_in_their_boxes_and_match_the_labels(data_dir: Path) -> None:
    source = load_images("mnist", "val", data_dir=data_dir)
    tiles = {digit.numpy().tobytes() for digit in source.images[:, 0]}
    dataset = megapixel_mnist("val", side=150, images=40, data_dir=data_dir)
    for index in range(40):
        image, boxes = dataset.whole(index)[0], dataset.boxes[index]
        for x, y, right, bottom in boxes.tolist():
            assert (right - x, bottom - y) == (TILE, TILE)
            assert image[y:bottom, x:right].numpy().tobytes() in tiles
        distances = (boxes[:, None, :2] - boxes[None, :, :2]).abs().amax(dim=-1)
        assert (distances + TILE * torch.eye(DIGITS) >= TILE).all()
        digits = dataset.digits[index].tolist()
        majority = int(dataset.labels["majority"][index])
        assert digits.count(majority) == 3
        assert int(dataset.labels["max"][index]) == max(digits)
        assert int(dataset.labels["topmost"][index]) == digits[int(boxes[:, 1].argmin())]
        present = dataset.labels["multi-label"][index].nonzero().flatten().tolist()
        assert present == sorted(set(digits))
    assert len(dataset.labels["majority"].unique()) > 5


def test_strokes_add_ink_outside_the_digits(data_dir: Path) -> None:
    plain = megapixel_mnist("test", side=300, images=5, strokes=0, data_dir=data_dir)
    dataset = megapixel_mnist("test", side=300, images=5, data_dir=data_dir)
    assert len(plain) == len(dataset) == 5
    for index in range(5):
        assert (dataset.whole(index)[0][~_inside_boxes(dataset, index)] > 0).sum() > 500
        assert not plain.whole(index)[0][~_inside_boxes(plain, index)].any()


def _inside_boxes(images: SparseImages, index: int) -> Tensor:
    """Return a mask (H, W) of the pixels inside the boxes of an image."""
    inside = torch.zeros(images.size, dtype=torch.bool)
    for x, y, right, bottom in images.boxes[index].tolist():
        inside[y:bottom, x:right] = True
    return inside


def test_fewer_megapixel_images_are_a_prefix_and_large_ones_need_little_memory(
    data_dir: Path,
) -> None:
    few, more = (megapixel_mnist("train", images=count, data_dir=data_dir) for count in (2, 4))
    assert torch.equal(few.digits, more.digits[:2])
    assert torch.equal(few.positions, more.positions[: int(more.starts[2])])
    huge = megapixel_mnist("train", side=12_000, images=2, data_dir=data_dir)
    assert huge.positions.numel() < 20_000  # of 288 million pixels
    assert huge.thumbnails(torch.tensor([1]), 40).shape == (1, 1, 300, 300)


def test_digits_do_not_overlap_in_the_smallest_image(data_dir: Path) -> None:
    dataset = megapixel_mnist("train", side=MIN_SIDE_PX, images=60, strokes=0, data_dir=data_dir)
    corners = dataset.boxes[..., :2]
    distances = (corners[:, :, None] - corners[:, None]).abs().amax(dim=-1)
    assert (distances + TILE * torch.eye(DIGITS) >= TILE).all()


def test_invalid_megapixel_options_are_errors(data_dir: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'test'"):
        megapixel_mnist("tests", data_dir=data_dir)
    with pytest.raises(UserError, match="at least 112 pixels"):
        megapixel_mnist("test", side=60, data_dir=data_dir)
    with pytest.raises(UserError, match="at least 1 image"):
        megapixel_mnist("test", images=0, data_dir=data_dir)


@pytest.mark.full_data
def test_planted_fashion_mnist_has_marks(full_data: Path) -> None:
    source, planted = (
        load_images(name, "test", data_dir=full_data)
        for name in ("fashion-mnist", "planted-fashion-mnist")
    )
    assert (planted.name, planted.classes) == ("planted-fashion-mnist", source.classes)
    assert torch.equal(planted.labels, source.labels)
    fraction = float((planted_marks(planted) == planted.labels).float().mean())
    assert fraction == pytest.approx(0.1, abs=0.01)
    near_marks = F.max_pool2d((planted.masks > 0).float(), 3, stride=1, padding=1) > 0
    assert torch.equal(planted.images[~near_marks], source.images[~near_marks])


@pytest.mark.full_data
def test_planted_marks_are_independent_of_the_labels_of_the_full_test_split(
    full_data: Path,
) -> None:
    dataset = load_images("planted-mnist", "test", data_dir=full_data)
    marks = planted_marks(dataset)
    counts = (
        (dataset.labels * len(PATTERNS) + marks).bincount(minlength=100).reshape(10, 10).double()
    )
    expected = counts.sum(dim=1, keepdim=True) * counts.sum(dim=0, keepdim=True) / counts.sum()
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert chi_squared < 126  # p = 0.001 at 81 degrees of freedom
    train = load_images("planted-mnist", "train", data_dir=full_data)
    fraction = float((planted_marks(train) == train.labels).float().mean())
    assert fraction == pytest.approx(0.9, abs=0.005)


@pytest.mark.full_data
def test_digits_lie_in_their_boxes_in_full_cluttered_mnist(full_data: Path) -> None:
    source = load_images("mnist", "val", data_dir=full_data)
    dataset = load_images("cluttered-mnist-60", "val", data_dir=full_data)
    assert len(dataset) == 5000
    subset = slice(0, 500)
    for digit, image, mask in zip(
        source.images[subset, 0], dataset.images[subset, 0], dataset.masks[subset, 0], strict=True
    ):
        assert (image[box_of(mask > 0)] >= digit[box_of(digit > 0)]).all()
