"""Generated benchmarks: the truth that they come with is true, and every run makes the same."""

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
from foveal.datasets.fitting import fitted
from foveal.datasets.generated.cluttered import load_cluttered_mnist
from foveal.datasets.generated.megapixel import DIGITS, LEAST, TILE, SparseImages, megapixel_mnist
from foveal.datasets.generated.planted import PATTERNS, patterns
from foveal.foundation.errors import UserError
from foveal.training import load_recipe, train

SPLITS = ("train", "val", "test")
NAMES = ("cluttered-mnist-60", "cluttered-mnist-100", "planted-mnist")
REMAINDER = {"train": 1, "val": 2, "test": 0}  # of a split's ink, divided by three
ALL_INK, NO_INK = 0, 1  # the first test images


def write_idx(folder: Path, part: str, images: Tensor, labels: Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
        head = struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape)
        content = head + values.to(torch.uint8).numpy().tobytes()
        (folder / f"{part}-{kind}-ubyte").write_bytes(content)


def drawn_digits(count: int, seed: int) -> Tensor:
    """Return rectangles (count, 28, 28) of random numbers from 1 to 84, where digits would be."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 28, 28, dtype=torch.uint8)
    for image in images:
        x, y, width, height = torch.randint(2, 13, (4,), generator=generator).tolist()
        ink = torch.randint(1, 85, (height, width), generator=generator)
        image[y : y + height, x : x + width] = ink
    return images


def inked(images: Tensor, split: str) -> Tensor:
    return torch.where(images > 0, images * 3 - REMAINDER[split] * 2 % 3, 0)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MNIST's files with 900, 100 and 400 small digits; the ink tells the split."""
    folder = tmp_path_factory.mktemp("data")
    raw = folder / "MNIST" / "raw"
    images, labels = drawn_digits(1000, 0), torch.arange(1000) * 7 % 10
    images[:, 27, 27] = torch.arange(1000) % 256  # numbers that tell which of them validate
    images[:, 27, 26] = torch.arange(1000) // 256
    write_idx(raw, "train", images, labels)
    found = load_images("mnist", "val", data_dir=folder).images[:, 0].long()
    val = found[:, 27, 27] + found[:, 27, 26] * 256
    images[:, 27, 26:] = 0
    both = inked(images, "train")
    both[val] = inked(images[val], "val")
    write_idx(raw, "train", both, labels)
    test = drawn_digits(400, 1)
    test[ALL_INK], test[NO_INK] = 50, 0
    write_idx(raw, "t10k", inked(test, "test"), torch.arange(400) * 3 % 10)
    return folder


def box_of(marked: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns that what is marked in (H, W) spans."""
    rows, columns = marked.nonzero().unbind(1)
    return (
        slice(int(rows.min()), int(rows.max()) + 1),
        slice(int(columns.min()), int(columns.max()) + 1),
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("split", SPLITS)
def test_each_digit_of_its_split_gives_one_image_with_a_mask(
    name: str, split: str, data_dir: Path
) -> None:
    source = load_images("mnist", split, data_dir=data_dir)
    found = load_images(name, split, data_dir=data_dir)
    side = {"cluttered-mnist-60": 60, "cluttered-mnist-100": 100, "planted-mnist": 28}[name]
    assert (found.name, found.split, found.classes) == (name, split, source.classes)
    assert torch.equal(found.labels, source.labels)
    for pixels in (found.images, found.masks):
        assert pixels is not None
        assert (pixels.dtype, pixels.shape) == (torch.uint8, (len(source), 1, side, side))
        assert pixels.is_contiguous()
    assert set(found.masks.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("name", NAMES)
def test_two_calls_give_the_same_bytes_and_two_splits_other_places(
    name: str, data_dir: Path
) -> None:
    first, again = (load_images(name, "train", data_dir=data_dir) for _ in range(2))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    test = load_images(name, "test", data_dir=data_dir)
    some = slice(3, 100)  # beyond the test images without a box like those of others
    places = [part.masks[some].flatten(1).int().argmax(dim=1) for part in (first, test)]
    assert (places[0] == places[1]).float().mean() < 0.2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cluttered-mnist-60", "549bf3696f5818c1"),
        ("cluttered-mnist-100", "bbf3f11b9ea43f3b"),
        ("planted-mnist", "095384410e1ec081"),
    ],
)
def test_every_machine_makes_the_same_bytes(name: str, expected: str, data_dir: Path) -> None:
    found = load_images(name, "val", data_dir=data_dir)
    content = found.images.numpy().tobytes() + found.masks.numpy().tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == expected


@pytest.mark.parametrize("split", SPLITS)
def test_all_ink_of_a_cluttered_split_is_of_digits_of_that_split(
    split: str, data_dir: Path
) -> None:
    images = load_images("cluttered-mnist-60", split, data_dir=data_dir).images
    assert set((images[images > 0] % 3).tolist()) == {REMAINDER[split]}


def test_the_cluttered_masks_are_the_boxes_of_digits_that_lie_anywhere(data_dir: Path) -> None:
    source = load_images("mnist", "train", data_dir=data_dir).images[:, 0]
    found = load_images("cluttered-mnist-60", "train", data_dir=data_dir)
    corners = []
    for digit, image, mask in zip(source, found.images[:, 0], found.masks[:, 0], strict=True):
        own, place = box_of(digit > 0), box_of(mask > 0)
        assert (mask[place] == 255).all()
        assert image[place].shape == digit[own].shape
        assert (image[place] >= digit[own]).all()  # the brighter pixel stays
        beside = image.clone()
        beside[place] = 0
        assert (beside > 0).sum() <= 4 * 64  # nothing else but pieces
        corners.append([place[axis].start - own[axis].start for axis in (0, 1)])
    for along in torch.tensor(corners).T:
        assert set(along.tolist()) == set(range(60 - 28 + 1))
        assert abs(float(along.float().mean()) - 16) < 1


def test_without_clutter_nothing_is_left_where_the_box_is_blanked(data_dir: Path) -> None:
    found = load_cluttered_mnist("test", data_dir, side=60, pieces=0)
    assert (found.images[found.masks == 0] == 0).all()
    assert (found.masks[NO_INK] == 0).all()
    assert (found.masks[ALL_INK] > 0).sum() == 28 * 28


def test_clutter_is_made_of_pieces_of_other_digits(data_dir: Path) -> None:
    source = load_images("mnist", "val", data_dir=data_dir).images[:, 0]
    alone = load_cluttered_mnist("val", data_dir, side=60, pieces=0).images[:, 0]
    found = load_cluttered_mnist("val", data_dir, side=60, pieces=1).images[:, 0]
    seen = 0
    for index, (before, after) in enumerate(zip(alone, found, strict=True)):
        added = after != before
        if not added.any():  # a black piece, or one behind the digit
            continue
        place = box_of(added)
        piece, drawn = after[place], added[place]
        height, width = piece.shape
        assert max(height, width) <= 8
        windows = source.unfold(1, height, 1).unfold(2, width, 1)  # (N, Y, X, height, width)
        same = ((windows == piece) | ~drawn).flatten(1).unflatten(1, (-1, height * width))
        holders = same.all(dim=2).any(dim=1).nonzero().flatten().tolist()
        assert set(holders) - {index}
        seen += 1
    assert seen > 20


def test_four_pieces_clutter_a_small_image_and_eight_a_large_one(data_dir: Path) -> None:
    for name, side, pieces in (("cluttered-mnist-60", 60, 4), ("cluttered-mnist-100", 100, 8)):
        expected = load_cluttered_mnist("val", data_dir, side=side, pieces=pieces)
        assert torch.equal(DATASETS[name]("val", data_dir).images, expected.images)


def test_a_single_digit_is_cluttered_by_itself(tmp_path: Path) -> None:
    write_idx(tmp_path / "MNIST" / "raw", "t10k", drawn_digits(1, 0), torch.zeros(1))
    assert len(load_images("cluttered-mnist-60", "test", data_dir=tmp_path)) == 1


def test_the_marks_differ_clearly_and_touch_all_their_sides() -> None:
    marks = patterns() > 0
    assert marks.shape == (10, 3, 3)
    assert (marks.sum(dim=(1, 2)) == 5).all()
    for side in (marks[:, 0], marks[:, 2], marks[:, :, 0], marks[:, :, 2]):
        assert side.any(dim=1).all()
    apart = (marks[:, None] != marks[None]).sum(dim=(2, 3))
    assert (apart + 9 * torch.eye(10) >= 4).all()


@pytest.mark.parametrize("split", SPLITS)
def test_the_planted_marks_are_read_off_the_pixels_at_the_masks(split: str, data_dir: Path) -> None:
    found = load_images("planted-mnist", split, data_dir=data_dir)
    marks = planted_marks(found)
    assert torch.equal(found.images[found.masks > 0], patterns()[marks].flatten())
    some = torch.tensor([5, 3, 8])
    assert torch.equal(planted_marks(found.subset(some)), marks[some])


def test_the_mark_is_of_the_class_in_training_and_of_any_class_in_the_test(data_dir: Path) -> None:
    for split, low, high in (("train", 0.88, 0.92), ("val", 0.84, 0.96), ("test", 0.06, 0.14)):
        found = load_images("planted-mnist", split, data_dir=data_dir)
        share = float((planted_marks(found) == found.labels).float().mean())
        assert low < share < high


def test_planting_changes_nothing_but_mark_and_margin(data_dir: Path) -> None:
    source = load_images("mnist", "test", data_dir=data_dir).images[:, 0]
    found = load_images("planted-mnist", "test", data_dir=data_dir)
    for digit, image, mask in zip(source, found.images[:, 0], found.masks[:, 0], strict=True):
        rows, columns = box_of(mask > 0)
        assert (mask[rows, columns].shape, int((mask > 0).sum())) == ((3, 3), 9)
        expected = digit.clone()
        expected[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1] = 0
        expected[rows, columns] = image[rows, columns]
        assert torch.equal(image, expected)


def test_marks_lie_at_every_place_near_the_middle_and_at_no_other(data_dir: Path) -> None:
    found = load_images("planted-mnist", "test", data_dir=data_dir)
    assert found.masks is not None
    first = found.masks.flatten(1).int().argmax(dim=1)  # of a mark's pixels, row by row
    places = torch.stack([first // 28, first % 28], dim=1).unique(dim=0)
    assert (places.amin(), places.amax()) == (8, 16)
    assert len(places) > 75  # of 81, by 400 draws


def test_images_without_marks_have_none_to_read(data_dir: Path) -> None:
    for name in ("mnist", "cluttered-mnist-60"):
        with pytest.raises(ValueError, match="Expected images with masks of 3x3 pixels"):
            planted_marks(load_images(name, "test", data_dir=data_dir))
    found = load_images("planted-mnist", "test", data_dir=data_dir)
    found.images[3][found.masks[3] > 0] = 7
    with pytest.raises(ValueError, match="Expected a mark inside each mask"):
        planted_marks(found)


def test_masks_follow_their_images_to_another_size_and_stay_black_and_white() -> None:
    masks = torch.zeros(3, 1, 8, 12, dtype=torch.uint8)
    masks[:, :, 2:4, 5:9] = 255
    images = ImageSet("made", "test", masks.clone(), torch.arange(3), ("a", "b", "c"), masks=masks)
    large = fitted(images, (16, 36), 3)
    assert (large.images.shape, large.masks.shape) == ((3, 3, 16, 36), (3, 1, 16, 36))
    assert torch.equal(large.masks, masks.repeat_interleave(2, 2).repeat_interleave(3, 3))
    assert set(fitted(images, (5, 7), None).masks.unique().tolist()) == {0, 255}
    assert fitted(images, None, 3).masks is masks


def coloured(count: int, classes: int) -> ImageSet:
    """Return different images (count, 3, 5, 4) of classes in turn, every second class left out."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 3, 5, 4), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes * 2
    return ImageSet("made", "test", pixels, labels, tuple(map(str, range(2 * classes))))


def test_the_quadrants_of_mosaics_are_images_of_four_different_classes() -> None:
    images = coloured(60, 6)
    label_of = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(images.images, images.labels, strict=True)
    }
    found = mosaics(images, 200)
    assert (len(found), found.images.shape, found.images.dtype) == (
        200,
        (200, 3, 10, 8),
        torch.uint8,
    )
    seen = set()
    for mosaic, classes in zip(found.images, found.classes.tolist(), strict=True):
        assert len(set(classes)) == 4
        quadrants = (mosaic[:, y : y + 5, x : x + 4] for y in (0, 5) for x in (0, 4))
        content = [quadrant.numpy().tobytes() for quadrant in quadrants]
        assert [label_of[pixels] for pixels in content] == classes
        seen.update(content)
    assert len(seen) == 60
    counts = found.classes.flatten().bincount(minlength=12)
    assert (counts[1::2] == 0).all()
    assert (counts[::2] > 100).all()


def test_a_quadrant_is_where_the_class_is_and_nowhere_if_it_is_not() -> None:
    found = mosaics(coloured(16, 4), 20)
    for quadrant, (y, x) in enumerate([(0, 0), (0, 4), (5, 0), (5, 4)]):
        expected = torch.zeros(20, 10, 8, dtype=torch.bool)
        expected[:, y : y + 5, x : x + 4] = True
        assert torch.equal(found.quadrant_of(found.classes[:, quadrant]), expected)
    assert not found.quadrant_of(torch.full((20,), 1)).any()
    with pytest.raises(ValueError, match=r"Expected classes \(20,\)"):
        found.quadrant_of(torch.tensor([2]))


def test_mosaics_depend_on_their_seed_alone() -> None:
    images = coloured(60, 6)
    first, again, other = (mosaics(images, 10, seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.classes, again.classes)
    assert not torch.equal(first.classes, other.classes)


def test_too_few_classes_or_mosaics_are_errors() -> None:
    with pytest.raises(UserError, match=r"'made' \(test\) has images of 3"):
        mosaics(coloured(30, 3), 5)
    with pytest.raises(UserError, match="at least 1 mosaic, but got 0"):
        mosaics(coloured(30, 5), 0)


def test_training_never_sees_the_truth_that_a_generated_set_brings(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise AssertionError("trained with the truth")

    monkeypatch.setattr("foveal.training.objectives.classification.objective.mask_loss", forbidden)
    small = ["model.backbone.stages=[[8],[8]]", "model.depths=[1,2]", "batch_size=20", "epochs=1"]
    recipe = load_recipe("mnist-attention", [*small, "data.limit=40"])
    run = train(recipe, tmp_path / "run", data="planted-mnist", data_dir=data_dir, progress=False)
    assert (run / "model.safetensors").is_file()


def test_what_is_read_of_megapixel_images_is_what_is_there(data_dir: Path) -> None:
    found = megapixel_mnist("test", side=203, images=6, data_dir=data_dir)
    numbers = torch.tensor([4, 0, 4])
    whole = torch.stack([found.whole(int(number)) for number in numbers]).float() / 255
    assert whole.shape == (3, 1, 203, 203)
    assert torch.allclose(found.thumbnails(numbers, 5), F.avg_pool2d(whole, 5), atol=1e-6)
    corners = torch.randint(-30, 230, (3, 8, 2), generator=torch.Generator().manual_seed(0))
    crops = found.crops(numbers, corners, 20)
    padded = F.pad(whole, (60, 60, 60, 60))
    for image in range(3):
        for square, (x, y) in enumerate((corners[image] + 60).tolist()):
            expected = padded[image, :, y : y + 20, x : x + 20]
            assert torch.equal(crops[image, square], expected)


def test_megapixel_digits_lie_in_their_boxes_and_answer_the_tasks(data_dir: Path) -> None:
    source = load_images("mnist", "val", data_dir=data_dir)
    tiles = {digit.numpy().tobytes() for digit in source.images[:, 0]}
    found = megapixel_mnist("val", side=150, images=40, data_dir=data_dir)
    for number in range(40):
        image, boxes = found.whole(number)[0], found.boxes[number]
        for x, y, right, bottom in boxes.tolist():
            assert (right - x, bottom - y) == (TILE, TILE)
            assert image[y:bottom, x:right].numpy().tobytes() in tiles
        apart = (boxes[:, None, :2] - boxes[None, :, :2]).abs().amax(dim=-1)
        assert (apart + TILE * torch.eye(DIGITS) >= TILE).all()
        digits = found.digits[number].tolist()
        most = int(found.labels["majority"][number])
        assert digits.count(most) == 3
        assert int(found.labels["max"][number]) == max(digits)
        assert int(found.labels["topmost"][number]) == digits[int(boxes[:, 1].argmin())]
        there = found.labels["multi-label"][number].nonzero().flatten().tolist()
        assert there == sorted(set(digits))
    assert len(found.labels["majority"].unique()) > 5


def test_strokes_make_more_of_the_ink_and_hide_no_digit(data_dir: Path) -> None:
    alone = megapixel_mnist("test", side=300, images=5, strokes=0, data_dir=data_dir)
    found = megapixel_mnist("test", side=300, images=5, data_dir=data_dir)
    assert len(alone) == len(found) == 5
    for number in range(5):
        assert (found.whole(number)[0][~_boxes_of(found, number)] > 0).sum() > 500
        assert not alone.whole(number)[0][~_boxes_of(alone, number)].any()


def _boxes_of(images: SparseImages, number: int) -> Tensor:
    inside = torch.zeros(images.size, dtype=torch.bool)
    for x, y, right, bottom in images.boxes[number].tolist():
        inside[y:bottom, x:right] = True
    return inside


def test_fewer_megapixel_images_are_the_first_and_size_costs_nothing(data_dir: Path) -> None:
    few, more = (megapixel_mnist("train", images=n, data_dir=data_dir) for n in (2, 4))
    assert torch.equal(few.digits, more.digits[:2])
    assert torch.equal(few.positions, more.positions[: int(more.starts[2])])
    huge = megapixel_mnist("train", side=12_000, images=2, data_dir=data_dir)
    assert huge.positions.numel() < 20_000  # of 288 million
    assert huge.thumbnails(torch.tensor([1]), 40).shape == (1, 1, 300, 300)


def test_digits_find_room_in_the_smallest_image(data_dir: Path) -> None:
    found = megapixel_mnist("train", side=LEAST, images=60, strokes=0, data_dir=data_dir)
    corners = found.boxes[..., :2]
    apart = (corners[:, :, None] - corners[:, None]).abs().amax(dim=-1)
    assert (apart + TILE * torch.eye(DIGITS) >= TILE).all()


def test_megapixel_images_that_cannot_be_are_errors(data_dir: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'test'"):
        megapixel_mnist("tests", data_dir=data_dir)
    with pytest.raises(UserError, match="at least 112 pixels"):
        megapixel_mnist("test", side=60, data_dir=data_dir)
    with pytest.raises(UserError, match="at least 1 image"):
        megapixel_mnist("test", images=0, data_dir=data_dir)


@pytest.mark.full_data
def test_clothes_bear_marks_too(full_data: Path) -> None:
    source, found = (
        load_images(name, "test", data_dir=full_data)
        for name in ("fashion-mnist", "planted-fashion-mnist")
    )
    assert (found.name, found.classes) == ("planted-fashion-mnist", source.classes)
    assert torch.equal(found.labels, source.labels)
    share = float((planted_marks(found) == found.labels).float().mean())
    assert share == pytest.approx(0.1, abs=0.01)
    around = F.max_pool2d((found.masks > 0).float(), 3, stride=1, padding=1) > 0
    assert torch.equal(found.images[~around], source.images[~around])


@pytest.mark.full_data
def test_full_planted_marks_are_independent_of_the_test_labels(full_data: Path) -> None:
    found = load_images("planted-mnist", "test", data_dir=full_data)
    marks = planted_marks(found)
    pairs = (found.labels * len(PATTERNS) + marks).bincount(minlength=100).reshape(10, 10).double()
    expected = pairs.sum(dim=1, keepdim=True) * pairs.sum(dim=0, keepdim=True) / pairs.sum()
    assert float(((pairs - expected) ** 2 / expected).sum()) < 126  # chi², 81 degrees: p = 0.001
    train = load_images("planted-mnist", "train", data_dir=full_data)
    share = float((planted_marks(train) == train.labels).float().mean())
    assert share == pytest.approx(0.9, abs=0.005)


@pytest.mark.full_data
def test_full_cluttered_digits_lie_in_their_boxes(full_data: Path) -> None:
    source = load_images("mnist", "val", data_dir=full_data)
    found = load_images("cluttered-mnist-60", "val", data_dir=full_data)
    assert len(found) == 5000
    some = slice(0, 500)
    for digit, image, mask in zip(
        source.images[some, 0], found.images[some, 0], found.masks[some, 0], strict=True
    ):
        assert (image[box_of(mask > 0)] >= digit[box_of(digit > 0)]).all()
