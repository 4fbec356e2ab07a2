"""Crop models for photographs, which classify crops that a detector selects from coarse to fine."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor

import foveal
from foveal.backbones import EfficientNetLite, VGGBackbone
from foveal.datasets import ImageSet, load_images
from foveal.deployment.onnx import as_onnx, onnx_graph
from foveal.detectors import CropDetector, Located
from foveal.detectors.candidates import lattice
from foveal.explainers import explainer
from foveal.foundation.errors import UserError
from foveal.images.geometry import covered_px, evidence_px, from_px
from foveal.images.photos import Photos
from foveal.metrics import evaluate, predict_logits
from foveal.metrics.observing import observe_all
from foveal.metrics.random_focus import logits_at
from foveal.models import FocusNet, abilities_of, build_model, presets
from foveal.models.abilities import Ability
from foveal.models.crop_features import SIZE, frozen_features, read_frozen
from foveal.models.image_model import ImageModel
from foveal.training import Recipe, train
from foveal.training.objectives.crops.perturbed import perturbed_top
from foveal.training.objectives.crops.selection import METHODS, learn_selection
from foveal.training.recipe import parse_recipe

MIXES = ("additive", "attention", "tokens")


def small_model(mix: str = "additive", **options: object) -> FocusNet:
    """Return a small crop model whose random weights give its patches unequal weights."""
    torch.manual_seed(0)
    settings = {"patch_size": 32, "scales": (0, 2, 1), "counts": (1, 1, 3), "num_classes": 3}
    model = presets.crops(
        EfficientNetLite(weights="imagenet"), mix=mix, width=16, **{**settings, **options}
    )
    for layer in (*model.head.mixer.modules(), *model.detector.scorer.modules()):
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.normal_(layer.weight, std=0.3)
    return model.eval()


def image_set(images: Tensor | Photos, labels: Tensor, classes: tuple[str, ...]) -> ImageSet:
    return ImageSet("photos", "train", images, labels, classes)


@pytest.fixture(scope="module")
def photos() -> Tensor:
    return torch.rand(2, 3, 120, 152, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(640, 640), (97, 96), (100, 4000), (40, 500), (96, 96), (7, 9)])
def test_candidates_cover_the_image_and_lie_within_it(size: tuple[int, int]) -> None:
    candidates = lattice(size, 96)
    is_covered = torch.zeros(size, dtype=torch.bool)
    for x, y in candidates.corners_px.tolist():
        assert x + 96 <= size[1] or size[1] < 96
        is_covered[max(0, y) : y + 96, max(0, x) : x + 96] = True
    assert is_covered.all()
    assert len(lattice(size, 96, min_count=20).corners_px) >= 20
    if size == (640, 640):
        assert len(candidates.corners_px) == 81


@pytest.mark.parametrize("mix", MIXES)
def test_pixels_outside_the_crops_do_not_affect_the_logits(mix: str, photos: Tensor) -> None:
    model = small_model(mix, scales=(3, 1), counts=(1, 2))
    explanation = model.explain(photos)
    assert not explanation.evidence.all()
    noise = torch.rand(photos.shape, generator=torch.Generator().manual_seed(2))
    changed = torch.where(explanation.evidence[:, None], photos, noise)
    with torch.no_grad():
        logits = model.decide(model.view(changed), Located(explanation.keypoints)).logits
    assert torch.equal(logits, explanation.logits)
    inside = torch.where(explanation.evidence[:, None], noise, photos)
    with torch.no_grad():
        assert not torch.equal(
            model.decide(model.view(inside), Located(explanation.keypoints)).logits, logits
        )


def test_the_coarse_crop_depends_only_on_block_means(photos: Tensor) -> None:
    """Rearranging the pixels within each block of the coarse crop leaves its values unchanged."""
    model = small_model(scales=(0,), counts=(1,))
    explanation = model.explain(photos)
    (scale,) = explanation.scales.unique().tolist()
    assert scale == 5  # pixels per sample: 152 pixels in 32 samples
    centre = from_px(torch.tensor([[[76.0, 60.0]]]), (120, 152))
    assert torch.allclose(
        explanation.keypoints, centre - torch.tensor([1 / 152, 1 / 120]), atol=1e-2
    )
    # The crop has 32 x 5 = 160 pixels per side and extends beyond the image, where it is black.
    top, left = (120 - 160) // 2, (152 - 160) // 2
    blocks = torch.nn.functional.pad(photos, (-left, 8 + left, -top, 40 + top)).clone()
    blocks = blocks.unflatten(2, (32, 5)).unflatten(4, (32, 5))
    swapped = blocks.flip(3).flip(5).flatten(4, 5).flatten(2, 3)[..., -top : 120 - top, -left:]
    swapped = swapped[..., :152]
    pixel_change = (swapped - photos).abs().amax()
    logits = model(swapped.contiguous())
    patch_change = model.explain(swapped).patches - explanation.patches
    assert pixel_change > 0.5
    assert patch_change[..., 4:-4, 1:-1].abs().max() < 1e-6
    assert logits.shape == (2, 3)


def test_contributions_sum_to_the_logits(photos: Tensor) -> None:
    model = small_model()
    explanation = model.explain(photos)
    bias = model.head.mixer.value.bias.detach()
    assert explanation.contributions is not None
    assert torch.allclose(
        explanation.contributions.sum(dim=1) + bias, explanation.logits, atol=1e-4
    )
    assert explanation.contributions.abs().max() > 0.01
    for label in range(3):
        targets = torch.full((2,), label)
        maps = explainer("contributions")(model, photos, targets).maps
        assert torch.allclose(
            maps.sum(dim=(1, 2, 3)) + bias[label], explanation.logits[:, label], atol=1e-4
        )


@pytest.mark.parametrize("mix", ["attention", "tokens"])
def test_heads_that_do_not_sum_over_patches_have_no_contributions(mix: str, photos: Tensor) -> None:
    model = small_model(mix)
    assert Ability.CONTRIBUTIONS not in model.abilities
    with pytest.raises(UserError, match="sums over patches"):
        model.contributions(photos)


def test_evidence_counts_the_values_at_each_scale() -> None:
    """One crop of the whole image at 7 pixels per sample, and finer crops, two of which overlap."""
    size = (640, 640)
    centres = [(319.5, 319.5), (47.5, 47.5), (95.5, 47.5), (400.0 - 0.5, 400.0 - 0.5)]
    keypoints = from_px(torch.tensor([centres]), size)
    scales = torch.tensor([[7.0, 1.0, 1.0, 2.0]])
    expected_px = 640**2 / 49 + 96 * 144 + 96**2
    assert float(evidence_px(keypoints, 96, size, scales, blocks=True)) == pytest.approx(
        expected_px, rel=1e-6
    )
    assert float(covered_px(keypoints, 96, size, scales, blocks=True)) == 640**2
    pair_scales, pair = scales[:, 1:3], keypoints[:, 1:3]
    assert float(evidence_px(pair, 96, size, pair_scales, blocks=True)) == pytest.approx(96 * 144)
    assert float(evidence_px(pair, 96, size)) == 96 * 144
    ones = torch.ones(1, 60)
    random_keypoints = from_px(torch.rand(1, 60, 2) * 640, size)
    assert float(evidence_px(random_keypoints, 500, size, ones, blocks=True)) <= 640**2


def test_metrics_accept_photographs_of_several_sizes() -> None:
    model = small_model()
    parts = tuple(
        torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8) for size in ((96, 128), (160, 96))
    )
    images = image_set(Photos(parts), torch.arange(8) % 3, ("a", "b", "c"))
    train_set = image_set(
        Photos((parts[0].repeat(3, 1, 1, 1),)), torch.arange(12) % 3, images.classes
    )
    figures = evaluate(model, images, train_set)
    fractions = [
        float(model.explain(part / 255).evidence_fraction.double().mean()) for part in parts
    ]
    assert figures["evidence_fraction"] == pytest.approx(sum(fractions) / 2, abs=1e-6)
    assert figures["evidence_fraction"] < figures["covered_fraction"]
    assert {"content_following", "position_leakage", "random_focus_accuracy"} <= set(figures)
    observed = observe_all(model, images.images)
    indices = torch.tensor([5, 0, 7, 2])
    logits = logits_at(model, images.images, indices, observed, indices, 2)
    assert torch.allclose(logits, observed.logits[indices], atol=1e-5)


@pytest.mark.parametrize("size", [(20, 20), (31, 400), (33, 33), (500, 36)])
def test_photographs_smaller_than_a_crop_are_classified(size: tuple[int, int]) -> None:
    explanation = small_model().explain(torch.rand(1, 3, *size))
    assert explanation.logits.isfinite().all()
    assert 0 < float(explanation.evidence_fraction) <= 1


def test_large_images_are_read_by_thumbnail_and_crops(
    photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveal.models.focus.MIN_THUMBNAIL_PX", 40)

    class StoredPhotos:
        """Two photographs that can only be read as thumbnails and crops."""

        size = (120, 152)

        def __len__(self) -> int:
            return 2

        def thumbnails(self, numbers: Tensor, shrink: int) -> Tensor:
            assert shrink > 1
            return torch.nn.functional.avg_pool2d(photos[numbers], shrink)

        def crops(self, numbers: Tensor, corners_px: Tensor, side: int, shrink: int = 1) -> Tensor:
            view = ImageModel.view(model, photos, numbers)
            view.images, view.black = photos[numbers], torch.zeros(1, 1, 1, 1)
            return view.crops(corners_px, side, shrink)

    model = small_model(shrink=2)
    expected = model.explain(photos)
    explanation = model.explain(StoredPhotos())
    assert torch.allclose(explanation.logits, expected.logits, atol=1e-5)
    assert explanation.extent == (120, 152)
    assert torch.equal(explanation.keypoints, expected.keypoints)


@pytest.mark.parametrize("mix", MIXES)
def test_the_settings_build_an_equal_model(mix: str) -> None:
    model = small_model(mix)
    copy = build_model(model.settings())
    copy.load_state_dict(model.state_dict())
    assert copy.abilities == model.abilities == abilities_of(model.settings())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(copy.eval()(images), model(images))


@pytest.mark.parametrize("mix", MIXES)
def test_frozen_features_give_the_same_logits(mix: str, photos: Tensor) -> None:
    model = small_model(mix)
    with torch.no_grad():
        features = frozen_features(model, model.normalised(photos), 4)
        features[SIZE] = torch.tensor([120, 152])
        located, output = read_frozen(model, features, 4)
        explanation = model.explain(photos)
    assert torch.equal(located.xy, explanation.keypoints)
    assert torch.allclose(output.logits, explanation.logits, atol=1e-4)


def test_an_exported_graph_gives_the_same_results(photos: Tensor) -> None:
    pytest.importorskip("onnxruntime")
    model = small_model()
    graph = onnx_graph(model, (120, 152))
    exported = as_onnx(graph)
    original, reloaded = model.explain(photos), exported.explain(photos)
    keypoints = original.keypoints.flip(0)
    logits = exported.classify_at(photos, keypoints, original.scales)
    assert torch.allclose(logits, model.classify_at(photos, keypoints).detach(), atol=1e-4)
    assert torch.allclose(original.logits, reloaded.logits, atol=1e-4)
    assert torch.allclose(original.keypoints, reloaded.keypoints, atol=1e-5)
    assert torch.allclose(original.contributions, reloaded.contributions, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (0, 1), "counts": (1,)}, "one count per scale"),
        ({"scales": (0, 1), "counts": (2, 1)}, "its count must be 1, but got 2"),
        ({"depth": 9}, "can be cut"),
        ({"mix": "tokens", "width": 15}, "multiple of 4"),
    ],
)
def test_invalid_settings_are_user_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        presets.crops(EfficientNetLite(), **options)


def test_a_backbone_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match="can be cut"):
        presets.crops(VGGBackbone(3, [[8], [16]]), depth=1)
    with pytest.raises(UserError, match="fixed stride, but got"):
        CropDetector(VGGBackbone(3, [[8], [16]]))


def test_perturbed_selection_follows_the_scores() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[0.0, 3.0, 0.1, 2.0]], requires_grad=True)
    selected = perturbed_top(scores, 2)
    assert torch.allclose(selected.sum(dim=2), torch.ones(1, 2))
    assert selected.sum(dim=1)[0, [1, 3]].min() > 0.9
    # The frequency of the first candidate rises with its own score and falls with the others.
    gradient = torch.zeros(4)
    for _ in range(50):
        scores.grad = None
        perturbed_top(torch.tensor([[0.5, 0.6, 0.4, 0.5]]).requires_grad_(), 2)
        near_ties = torch.tensor([[0.5, 0.6, 0.4, 0.5]], requires_grad=True)
        perturbed_top(near_ties, 2)[0, :, 0].sum().backward()
        gradient += near_ties.grad[0]
    assert gradient[0] > 0
    assert gradient[1:].sum() < 0


def write_red_and_blue(folder: Path, count: int) -> Path:
    """Write `count` reddish and `count` bluish photographs of three shapes; return their folder."""
    generator = np.random.default_rng(0)
    for index in range(2 * count):
        height, width = [(100, 140), (140, 100), (110, 110)][index % 3]
        pixels = generator.integers(0, 120, (height, width, 3), np.uint8)
        pixels[..., 2 * (index % 2)] += 90
        name = "rb"[index % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def recipe_of(folder: Path, cached: bool, **training: object) -> Recipe:
    """Return a recipe for a model of a few crops of small photographs."""
    freezing = {"cache": cached, "freeze_depth": 4 if cached else 3, "fixed_norm": True}
    return parse_recipe(
        {
            "name": "halves",
            "model": {
                "name": "crops",
                "backbone": {"name": "efficientnet-lite0", "weights": "imagenet"},
                "patch_size": 32,
                "scales": [0, 1],
                "counts": [1, 2],
            },
            "data": {"name": str(folder), "short_side": 96, "channels": 3},
            "training": {"epochs": 4, "batch_size": 8, "lr": 5e-4, **freezing, **training},
            "crops": {"head_epochs": 4, "detector_epochs": 2},
        }
    )


@pytest.mark.parametrize("cached", [True, False])
def test_training_learns_photographs_of_several_sizes(tmp_path: Path, cached: bool) -> None:
    folder = write_red_and_blue(tmp_path / "photos", 24)
    out = train(recipe_of(folder, cached), tmp_path / "run", progress=False)
    model = foveal.load(out)
    assert not (out / "features").exists()
    images = load_images(str(folder), "train", size=model.inputs.sizing, channels=3)
    correct = predict_logits(model, images.images).argmax(dim=1) == images.labels
    assert correct.float().mean() > 0.8
    assert model.settings()["head"]["name"] == "crops"


def test_weights_from_a_file_are_loaded_into_head_and_detector(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from foveal.training.initial_model import initial_model
    from foveal.training.sets import model_settings

    torch.manual_seed(3)
    save_file(EfficientNetLite().state_dict(), tmp_path / "own.safetensors")
    recipe = recipe_of(tmp_path, cached=False)
    backbone = {"name": "efficientnet-lite0", "weights": str(tmp_path / "own.safetensors")}
    recipe = replace(recipe, model={**recipe.model, "backbone": backbone})
    images = image_set(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.arange(2), ("a", "b"))
    model = initial_model(recipe, model_settings(recipe, images))
    expected = load_file(tmp_path / "own.safetensors")["stem.conv.weight"]
    for part in (model.head, model.detector):
        assert torch.equal(part.backbone.stem.conv.weight, expected)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    recipe = recipe_of(write_red_and_blue(tmp_path / "photos", 12), cached=True)
    uninterrupted = train(recipe, tmp_path / "uninterrupted", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", progress=False, callbacks=[Stop()])
    resumed = train(recipe, tmp_path / "stopped", progress=False, resume=True)
    first, second = (foveal.load(run).state_dict() for run in (uninterrupted, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("select", sorted(METHODS))
def test_selection_finds_a_small_object(select: str, tmp_path: Path) -> None:
    """Every method places the only crop on the small red square that one of the classes has."""
    from foveal.training.feature_files import with_features
    from foveal.training.initial_model import initial_model
    from foveal.training.sets import model_settings

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(90, 110, (96, 3, 128, 128), dtype=torch.uint8, generator=generator)
    labels = torch.arange(96) % 2
    corners = torch.randint(0, 116, (96, 2), generator=generator)
    for image, label, (x, y) in zip(images, labels, corners.tolist(), strict=True):
        image[:, y : y + 12, x : x + 12] = torch.tensor([250, 20, 20] if label else [100] * 3)[
            :, None, None
        ]
    recipe = parse_recipe(
        {
            "name": "needle",
            "model": {
                "name": "crops",
                "backbone": {"name": "efficientnet-lite0", "weights": "imagenet"},
                "patch_size": 32,
                "scales": [1],
                "counts": [1],
                "depth": 3,
                "learned": select != "peaks",
            },
            "training": {"cache": True, "freeze_depth": 4},
            "crops": {"select": select, "head_epochs": 12, "detector_epochs": 12},
        }
    )
    train_set = image_set(images, labels, ("without", "with"))
    model = initial_model(recipe, model_settings(recipe, train_set))
    features = with_features(model, recipe, {"train": train_set}, tmp_path)["train"]
    learn_selection(model, recipe, features)
    model.eval()
    has_square = labels == 1
    explanation = model.explain(images[has_square] / 255)
    centres_px = (explanation.keypoints + 1) * 64  # from [-1, 1] in images of 128 pixels
    hit_rate = (
        # The square of 12 pixels has its centre in the crop of 32 pixels.
        ((centres_px - corners[has_square] - 6).abs() < 16).all(dim=-1).any(dim=-1).float().mean()
    )
    assert hit_rate > 0.8
