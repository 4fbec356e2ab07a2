"""The high-resolution focus model: reading, detection, training and errors.

The model scores the cells of a shrunk copy of a large image (its thumbnail) and reads patches at
full resolution at the best cells only. Large images are read through a view, which returns
thumbnails and square crops. Sparse images, such as those of megapixel MNIST, store only the pixels
that are not black.
"""

import csv
import json
import struct
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from foveal import zoo
from foveal.datasets import load_images, load_large, megapixel_mnist
from foveal.datasets.generated import megapixel
from foveal.detectors.score_map import ScoreMap, best_cells, refine
from foveal.evaluation.evaluate import evaluate_on
from foveal.foundation.errors import UserError
from foveal.images import PartView, WholeView
from foveal.images.geometry import evidence_px, from_px, patch_mask, to_px
from foveal.images.pyramids import LargeFiles
from foveal.metrics import evaluate
from foveal.models import FocusNet, Inputs
from foveal.models.presets import high_res
from foveal.training import load_recipe, train
from foveal.training.objectives.losses import ranking_loss
from foveal.training.objectives.ranking.objective import Ranking, task_losses
from foveal.workflows.explain import explain_files

# Settings of a small model, as keyword arguments and as overrides of a recipe.
SMALL = {
    "shrink": 4,
    "keypoints": 6,
    "patch_size": 36,
    "width": 32,
    "heads": 4,
    "encoder_widths": (8, 16, 24),
}
SMALL_MODEL = [
    "model.shrink=4",
    "model.keypoints=6",
    "model.patch_size=36",
    "model.width=32",
    "model.encoder_widths=[8,16,24]",
    "model.regions=4",
]
SMALL_RECIPE = ["data.limit=40", "batch_size=8", *SMALL_MODEL]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write files in the format of MNIST; return their folder.

    An image shows two thick bars instead of a digit: the height of the first and the width of the
    second identify the class.
    """
    raw = tmp_path_factory.mktemp("data") / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 1000), ("t10k", 200)):
        labels = torch.arange(count) * 7 % 10
        images = torch.zeros(count, 28, 28, dtype=torch.uint8)
        for image, label in zip(images, labels.tolist(), strict=True):
            height, width = 6 + 2 * (label % 5), 6 + 10 * (label // 5)
            image[4 : 4 + height, 4:10] = 250
            image[18:24, 6 : 6 + width] = 250
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = struct.pack(f">{1 + values.ndim}i", 0x0800 + values.ndim, *values.shape)
            content = header + values.to(torch.uint8).numpy().tobytes()
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(content)
    return raw.parents[1]


@pytest.fixture
def small_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the generated splits small."""
    for split, count in (("train", 40), ("val", 16), ("test", 16)):
        monkeypatch.setitem(megapixel.IMAGES, split, count)


def build_model(**settings) -> FocusNet:
    torch.manual_seed(0)
    return high_res(**{**SMALL, **settings}).eval()


def whole_view(images: Tensor) -> WholeView:
    """Return a view of images that are in memory whole, with a background of 0."""
    return WholeView(images, torch.zeros(1, images.shape[1], 1, 1))


def random_corners(batch: int, count: int, *, low: int, high: int) -> Tensor:
    """Return the top left pixels (batch, count, 2) of squares, each coordinate in [low, high)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(low, high, (batch, count, 2), generator=generator)


def test_shrunk_crops_of_sparse_images_match_the_whole_image(data_dir: Path) -> None:
    sparse_images = megapixel_mnist("test", side=203, images=4, data_dir=data_dir)
    indices = torch.tensor([3, 0, 3])
    whole_images = torch.stack([sparse_images.whole(int(n)) for n in indices]).float() / 255
    corners = random_corners(3, 5, low=-30, high=220)  # some squares lie partly outside
    crops = sparse_images.crops(indices, corners, 24, shrink=4)
    margin = 60
    padded = F.pad(whole_images, (margin, margin, margin, margin))
    assert crops.shape == (3, 5, 1, 6, 6)
    for image in range(3):
        for square, (x, y) in enumerate((corners[image] + margin).tolist()):
            expected = F.avg_pool2d(padded[image, :, y : y + 24, x : x + 24], 4)
            torch.testing.assert_close(crops[image, square], expected)
    view = whole_view(whole_images)
    torch.testing.assert_close(view.crops(corners, 24, 4), crops)
    torch.testing.assert_close(view.thumbnail(7), sparse_images.thumbnails(indices, 7))


def test_photos_of_different_sizes_are_black_beyond_their_edges(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    padded = torch.zeros(2, 3, 50, 64)
    for index, (height, width) in enumerate([(50, 31), (37, 64)]):
        pixels = torch.randint(256, (height, width, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / f"{index}.png")
        padded[index, :, :height, :width] = pixels.permute(2, 0, 1) / 255
    photos = LargeFiles([tmp_path / "0.png", tmp_path / "1.png"], 3)
    indices = torch.tensor([1, 0, 1])
    view = whole_view(padded[indices])
    torch.testing.assert_close(photos.thumbnails(indices, 6), view.thumbnail(6))
    corners = random_corners(3, 6, low=-15, high=70)
    for shrink in (1, 3):
        crops = photos.crops(indices, corners, 12, shrink)
        torch.testing.assert_close(crops, view.crops(corners, 12, shrink))


def test_explanations_of_sparse_and_whole_images_are_equal(data_dir: Path) -> None:
    side = 260
    sparse_images = megapixel_mnist("test", side=side, images=3, data_dir=data_dir)
    for settings in ({}, {"regions": 6, "thumbnail_side": 16}):
        model = build_model(inputs=Inputs(mean=(0.1,), std=(0.3,)), tasks=("a", "b"), **settings)
        whole_images = torch.stack([sparse_images.whole(n) for n in range(3)]).float() / 255
        from_sparse = model.explain(sparse_images, batch_size=2)
        from_whole = model.explain(whole_images)
        torch.testing.assert_close(from_sparse.logits, from_whole.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(from_sparse.keypoints, from_whole.keypoints)
        torch.testing.assert_close(from_sparse.patches, from_whole.patches, atol=1e-5, rtol=0)
        torch.testing.assert_close(from_sparse.thumbnail, from_whole.thumbnail, atol=1e-5, rtol=0)
        torch.testing.assert_close(from_sparse.weights.sum(dim=1), torch.ones(3))
        assert from_sparse.size == from_whole.size == (side, side)
        torch.testing.assert_close(from_sparse.evidence_fraction, from_whole.evidence_fraction)
        patch_fraction = from_whole.evidence.float().mean(dim=(1, 2))
        fraction = patch_fraction + from_whole.thumbnail[0].numel() / side**2
        torch.testing.assert_close(from_sparse.evidence_fraction, fraction)
        assert from_sparse.images.shape[-1] < 100  # shown as a thumbnail
        assert from_sparse[0].figure().axes
        (result,) = json.loads(json.dumps(from_sparse[0].to_dicts()))
        assert result["size_px"] == {"height": side, "width": side}
        weights = [keypoint["weight"] for keypoint in result["keypoints"]]
        assert weights == pytest.approx(from_sparse.weights[0].tolist())


def test_evidence_counts_patches_and_thumbnail_and_at_most_all_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    for size in ((20, 31), (7, 9)):
        keypoints = torch.rand(5, 4, 2, generator=generator) * 2.4 - 1.2
        scales = torch.rand(5, 4, generator=generator) * 3 + 0.3
        for patch_scales in (None, scales):
            mask = patch_mask(keypoints, 5, size, patch_scales)
            pixels = mask.double().sum(dim=(1, 2))
            assert torch.equal(evidence_px(keypoints, 5, size, patch_scales), pixels)
            with_thumbnail = (pixels + 60).clamp(max=size[0] * size[1])
            counts = evidence_px(keypoints, 5, size, patch_scales, thumbnail_px=60)
            assert torch.equal(counts, with_thumbnail)
    outside = torch.full((1, 2, 2), 3.0)
    assert float(evidence_px(outside, 5, (20, 20))) == 0


def test_best_cells_are_local_maxima_followed_by_the_highest_other_scores() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(3, 2, 7, 9, generator=generator)
    for margin in (0, 2):
        cells = best_cells(scores, 8, margin)
        for image in range(3):
            ranks = {}  # by index: whether the cell is a local maximum, and its score
            for map_index in range(2):
                for y in range(margin, 7 - margin):
                    for x in range(margin, 9 - margin):
                        neighbourhood = scores[
                            image, map_index, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2
                        ]
                        value = scores[image, map_index, y, x]
                        ranks[(map_index * 7 + y) * 9 + x] = (
                            bool(value == neighbourhood.max()),
                            float(value),
                        )
            expected = sorted(ranks, key=lambda index: ranks[index], reverse=True)[:8]
            assert cells[image].tolist() == expected
    with pytest.raises(ValueError, match="at least 31 cells, one per patch, but got 30"):
        best_cells(scores, 31, 2)


def test_cell_is_refined_to_the_weighted_mean_of_its_neighbours() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(2, 2, 4, 5, generator=generator)
    indices = torch.arange(40).expand(2, -1)
    positions = refine(scores, indices)
    for image in range(2):
        for index in range(40):  # two maps of 4 x 5 cells
            map_index, y, x = index // 20, index % 20 // 5, index % 5
            cells = [(j, i) for j in (y - 1, y, y + 1) for i in (x - 1, x, x + 1)]
            cells = [(j, i) for j, i in cells if 0 <= j < 4 and 0 <= i < 5]
            weights = torch.stack([scores[image, map_index, j, i] for j, i in cells]).softmax(0)
            mean = weights @ torch.tensor([(i, j) for j, i in cells], dtype=torch.float32)
            torch.testing.assert_close(positions[image, index], mean)


@pytest.mark.parametrize("settings", [{}, {"regions": 3, "thumbnail_side": 12}])
def test_untrained_model_finds_the_bright_squares(settings: dict) -> None:
    model = build_model(keypoints=3, patch_size=24, **settings)
    image = torch.zeros(1, 1, 320, 256)
    side = 12  # of a square, which fits into a patch
    corners = [(30, 40), (200, 100), (100, 270)]
    for x, y in corners:
        image[:, :, y : y + side, x : x + side] = 1
    explanation = model.explain(image)
    positions = to_px(explanation.keypoints[0], (320, 256))
    for x, y in corners:
        centre = torch.tensor([x, y]) + (side - 1) / 2
        assert (positions - centre).abs().amax(dim=1).min() <= 6
    assert (explanation.patches.flatten(3).sum(-1) == side**2).all()  # a whole square in each


class CountingImage:
    """A large black image that counts the pixels read from it."""

    def __init__(self, side: int):
        self.size = (side, side)
        self.pixels_read = 0

    def __len__(self) -> int:
        return 1

    def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
        pixels = torch.zeros(len(numbers), 1, self.size[0] // shrink, self.size[1] // shrink)
        self.pixels_read += pixels.numel()
        return pixels

    def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
        pixels = torch.zeros(*corners_px.shape[:2], 1, side // shrink, side // shrink)
        self.pixels_read += pixels.numel()
        return pixels


def test_pixels_read_hardly_grow_with_the_image_size() -> None:
    model = high_res(regions=64).eval()
    pixels_read = {}
    for side in (1500, 3000, 12_000, 20_000):
        images = CountingImage(side)
        model.explain(images)
        pixels_read[side] = images.pixels_read
    assert pixels_read[1500] < 0.05 * 1500**2
    assert max(pixels_read.values()) <= 3 * pixels_read[1500]


def test_thumbnail_leaves_only_narrow_edges_of_the_image_uncovered() -> None:
    model = high_res(regions=64)
    for side in range(1500, 12_001, 250):
        factor = model.detector.factor((side, side))
        assert side // (model.detector.shrink * factor) <= model.detector.thumbnail_side
        cell_px = 2 * model.detector.shrink * factor
        assert side % cell_px <= model.patch_size / 2 + side / 100
    assert model.detector.factor((1500, 1500)) == 1  # small enough for the original shrink
    assert model.detector.factor((100, 100_000)) > 1


def test_ranking_loss_penalises_only_misordered_scores() -> None:
    weights = torch.tensor([[[0.7, 0.1, 0.2]]])
    ordered_scores = torch.tensor([[50.0, -50.0, 0.0]])
    assert float(ranking_loss(ordered_scores, weights)) < 1e-6
    scores = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    # Pairs of patches, and by how much the attention weight of the first exceeds the other's.
    pairs = [(0, 1, 0.6), (0, 2, 0.5), (2, 1, 0.1)]
    expected = sum(
        gap * float(F.softplus(scores.detach()[0, low] - scores.detach()[0, high]))
        for high, low, gap in pairs
    )
    loss = ranking_loss(scores, weights)
    assert float(loss) == pytest.approx(expected)
    loss.backward()
    assert scores.grad[0, 0] < 0  # raise the score of the patch with the highest weight
    assert scores.grad[0, 1] > 0


def test_task_losses_follow_the_kind_of_label() -> None:
    logits = torch.tensor([[[2.0, 0.0], [1.0, -1.0]], [[0.0, 1.0], [1.0, 1.0]]])
    classes, multi_label = torch.tensor([0, 0]), torch.tensor([[True, False], [True, False]])
    loss, correct = task_losses(logits, [classes, multi_label])
    assert correct.tolist() == [0.5, 0.5]
    binary_loss = F.binary_cross_entropy_with_logits(logits[:, 1], multi_label.float())
    # The loss of a multi-label task is the sum over its classes (twice the mean) divided by 3.
    expected = F.cross_entropy(logits[:, 0], classes) + binary_loss * 2 / 3
    torch.testing.assert_close(loss, expected)


def test_recipe_trains_on_large_images_and_its_run_is_evaluated(
    data_dir: Path, tmp_path: Path, small_splits: None
) -> None:
    first_stage = [
        "large.first=megapixel-mnist-120",
        "large.first_epochs=8",
        "large.first_keypoints=5",
    ]
    recipe = load_recipe(
        "megapixel-mnist-focus",
        [*SMALL_RECIPE, *first_stage, "epochs=10", "average=0.8", "lr=0.003"],
    )
    source = "megapixel-mnist-160"
    run = train(recipe, tmp_path / "run", data=source, data_dir=data_dir, progress=False)
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert len(rows) == 10
    losses = [float(row["train_loss"]) for row in rows]
    assert losses[-1] < 0.9 * losses[0]
    tasks = ("majority", "max", "topmost", "multi-label")
    mean = sum(float(rows[-1][f"val_{task}"]) for task in tasks) / 4
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(mean, abs=1e-4)
    card = zoo.card(run)
    assert card["val_majority"] == float(rows[-1]["val_majority"])
    figures = evaluate_on(str(run), source, split="val", data_dir=data_dir)
    assert figures["accuracy"] == pytest.approx(card["val_majority"], abs=1e-6)
    assert figures["accuracy"] == figures["accuracy_majority"]
    assert figures["accuracy_max"] == pytest.approx(card["val_max"], abs=1e-6)
    assert figures["evidence_fraction"] < 0.5
    assert json.loads(json.dumps(figures)) == figures


def test_resumed_training_on_large_images_equals_uninterrupted_training(
    data_dir: Path, tmp_path: Path, small_splits: None
) -> None:
    options = {"data": "megapixel-mnist-120", "data_dir": data_dir, "progress": False}
    recipe = load_recipe("megapixel-mnist-focus", [*SMALL_RECIPE, "large.first=''", "epochs=2"])
    uninterrupted_run = train(recipe, tmp_path / "uninterrupted", **options)

    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt_training(monkeypatch, epoch=1)
        with pytest.raises(Interruption):
            train(recipe, tmp_path / "resumed", **options)
    resumed_run = train(recipe, tmp_path / "resumed", resume=True, **options)
    resumed, uninterrupted = (
        zoo.load(run).state_dict() for run in (resumed_run, uninterrupted_run)
    )
    assert all(torch.equal(resumed[name], value) for name, value in uninterrupted.items())


class Interruption(Exception):
    """Raised to end the training early."""


def interrupt_training(monkeypatch: pytest.MonkeyPatch, epoch: int) -> None:
    """Make training raise an `Interruption` at the start of an epoch, counted from 0."""
    start_epoch = Ranking.on_train_epoch_start

    def start_or_interrupt(self: Ranking) -> None:
        if self.current_epoch == epoch:
            raise Interruption
        start_epoch(self)

    monkeypatch.setattr(Ranking, "on_train_epoch_start", start_or_interrupt)


def write_photos(folder: Path) -> Path:
    """Write photos of different sizes with a light or a dark square, one folder per class."""
    generator = torch.Generator().manual_seed(0)
    for name, shade in (("dark", 90), ("light", 250)):
        (folder / name).mkdir(parents=True)
        for index in range(12):
            height, width = torch.randint(90, 140, (2,), generator=generator).tolist()
            pixels = torch.full((height, width, 3), 20, dtype=torch.uint8)
            y, x = torch.randint(10, 60, (2,), generator=generator).tolist()
            pixels[y : y + 20, x : x + 20] = shade
            Image.fromarray(pixels.numpy()).save(folder / name / f"{index}.png")
    return folder


def test_photos_of_different_sizes_are_trained_on(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos")
    (folder / "dark" / "broken.png").write_bytes(b"not an image")
    overrides = [*SMALL_MODEL, "large.first=''", "model.tasks=[class]"]
    overrides += ["batch_size=5", "epochs=25", "lr=0.005", "average=0"]
    recipe = load_recipe("megapixel-mnist-focus", overrides)
    run = train(recipe, tmp_path / "run", data=str(folder), progress=False)
    model = zoo.load(run)
    assert isinstance(model, FocusNet)
    assert (model.in_channels, model.num_classes, model.inputs.size) == (3, 2, None)
    train_set = load_large(folder, "train")
    assert [problem.path for problem in train_set.problems] == [str(folder / "dark" / "broken.png")]
    assert evaluate(model, train_set)["accuracy"] == 1


def test_evidence_fraction_of_large_images_is_at_most_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    test = load_large(write_photos(tmp_path / "photos"), "test")
    # Eight patches of 80 x 80 pixels can cover a whole photo.
    model = high_res(shrink=2, keypoints=8, patch_size=80, in_channels=3, num_classes=2).eval()
    fraction = evaluate(model, test)["evidence_fraction"]
    fractions = model.explain(test.images).evidence_fraction
    assert fraction == pytest.approx(float(fractions.mean()))
    assert 0.8 < fraction <= 1


def test_models_of_small_images_get_shrunk_large_images(data_dir: Path, small_splits: None) -> None:
    small = load_images("megapixel-mnist-200", "test", size=(40, 40), data_dir=data_dir)
    large = load_large("megapixel-mnist-200", "test", data_dir=data_dir)
    means = large.images.thumbnails(torch.arange(16), 5)  # 200 pixels shrunk to 40
    assert torch.equal(small.images, (means * 255).round().to(torch.uint8))
    assert torch.equal(small.labels, large.tasks["majority"])
    with pytest.raises(UserError, match=r"too large to be read at full size: give data\.size"):
        load_images("megapixel-mnist-200", "test", data_dir=data_dir)


def test_number_of_bright_pixels_is_about_constant_in_large_images(
    data_dir: Path, small_splits: None
) -> None:
    bright_pixels = {}  # by the side of the image: how many pixels are not black
    for side in (300, 1500, 3000):
        large = load_large(f"megapixel-mnist-{side}", "test", data_dir=data_dir)
        bright_pixels[side] = len(large.images.values)
    assert bright_pixels[300] < 0.6 * bright_pixels[1500]  # strokes overlap more in a small one
    assert bright_pixels[3000] == pytest.approx(bright_pixels[1500], rel=0.1)


def test_invalid_names_limits_and_image_sizes_are_errors(
    data_dir: Path, small_splits: None
) -> None:
    with pytest.raises(UserError, match="Did you mean 'megapixel-mnist'"):
        load_large("megapixel-mnits", "test", data_dir=data_dir)
    with pytest.raises(UserError, match="Expected limit to be at most 16,"):
        load_large("megapixel-mnist", "test", limit=17, data_dir=data_dir)
    large = load_large("megapixel-mnist-120", "test", data_dir=data_dir)
    with pytest.raises(UserError, match="Did you mean 'topmost'"):
        large.of(("majority", "topmst"))  # the same images with the labels of these tasks
    with pytest.raises(UserError, match="Expected shrink"):
        high_res(shrink=0)
    model = build_model()
    with pytest.raises(ValueError, match="at least 8x8 pixels, but got 1x100000"):
        model(torch.zeros(1, 1, 1, 100_000))
    with pytest.raises(ValueError, match="at least 36x36"):
        model(torch.zeros(1, 1, 20, 400))


def test_files_are_explained_and_unusable_files_are_reported(tmp_path: Path) -> None:
    model = build_model(in_channels=1)
    model.save_weights(tmp_path)
    pixels = torch.zeros(150, 200, dtype=torch.uint8)
    pixels[60:80, 100:120] = 255
    paths = [tmp_path / f"{name}.png" for name in ("good", "small", "broken")]
    Image.fromarray(pixels.numpy()).save(paths[0])
    Image.fromarray(pixels[:20].numpy()).save(paths[1])
    paths[2].write_bytes(b"not an image")
    messages: list[str] = []
    results, failed = explain_files(str(tmp_path), paths, tmp_path / "out", messages.append)
    assert failed == 2
    assert len(messages) == 2
    assert Path(results[0]["picture"]).is_file()
    positions = [(keypoint["x_px"], keypoint["y_px"]) for keypoint in results[0]["keypoints"]]
    centre_x, centre_y = 109.5, 69.5  # of the bright square
    assert min(abs(x - centre_x) + abs(y - centre_y) for x, y in positions) < 12
    assert "at least 36x36" in results[1]["error"]
    assert "not an image" in results[2]["error"]
    explanation = model.explain(pixels[None, None].float() / 255)
    assert results[0]["prediction"] == str(int(explanation.predictions[0]))


def test_part_view_normalises_thumbnail_and_crops(data_dir: Path) -> None:
    sparse_images = megapixel_mnist("test", side=120, images=2, data_dir=data_dir)
    mean, std = torch.full((1, 1, 1, 1), 0.2), torch.full((1, 1, 1, 1), 0.5)
    view = PartView(sparse_images, torch.tensor([1]), mean, std)
    normalised = (sparse_images.whole(1)[None].float() / 255 - 0.2) / 0.5
    torch.testing.assert_close(view.thumbnail(6), F.avg_pool2d(normalised, 6))
    outside = view.crops(torch.tensor([[[-50, -50]]]), 10)
    black = (0 - 0.2) / 0.5
    torch.testing.assert_close(outside, torch.full((1, 1, 1, 10, 10), black))


def test_score_map_has_one_score_per_2x2_pixels() -> None:
    net = ScoreMap(1, window=5).eval()
    thumbnail = torch.zeros(1, 1, 40, 31)
    thumbnail[0, 0, 20, 16] = 1  # in row 10 and column 8 of the cells
    scores = net(thumbnail)
    assert scores.shape == (1, 20, 15)
    positions = refine(scores[:, None], scores.flatten(1).argmax(dim=1, keepdim=True))
    # In pixels of the map, whose cells are centred between two thumbnail pixels.
    expected = from_px(torch.tensor([7.75, 9.75]), (20, 15))
    assert (from_px(positions, (20, 15)) - expected).abs().max() < 0.1
