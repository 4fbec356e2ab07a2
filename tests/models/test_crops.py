"""Focus on photographs: crops from coarse to fine, chosen by a detector, encoded one by one."""

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


def small(mix: str = "additive", **options: object) -> FocusNet:
    """Return a model of crops whose random weights give patches different weights."""
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
def test_candidates_cover_the_image_and_lie_in_it(size: tuple[int, int]) -> None:
    found = lattice(size, 96)
    covered = torch.zeros(size, dtype=torch.bool)
    for x, y in found.corners_px.tolist():
        assert x + 96 <= size[1] or size[1] < 96
        covered[max(0, y) : y + 96, max(0, x) : x + 96] = True
    assert covered.all()
    assert len(lattice(size, 96, least=20).corners_px) >= 20
    if size == (640, 640):
        assert len(found.corners_px) == 81


@pytest.mark.parametrize("mix", MIXES)
def test_pixels_outside_of_the_crops_change_no_logit(mix: str, photos: Tensor) -> None:
    model = small(mix, scales=(3, 1), counts=(1, 2))
    seen = model.explain(photos)
    assert not seen.evidence.all()
    noise = torch.rand(photos.shape, generator=torch.Generator().manual_seed(2))
    changed = torch.where(seen.evidence[:, None], photos, noise)
    with torch.no_grad():
        held = model.decide(model.view(changed), Located(seen.keypoints)).logits
    assert torch.equal(held, seen.logits)
    inside = torch.where(seen.evidence[:, None], noise, photos)
    with torch.no_grad():
        assert not torch.equal(
            model.decide(model.view(inside), Located(seen.keypoints)).logits, held
        )


def test_the_whole_image_is_read_coarsely_and_no_finer(photos: Tensor) -> None:
    """With the coarse crop's values held, the pixels that make them up may change."""
    model = small(scales=(0,), counts=(1,))
    seen = model.explain(photos)
    (scale,) = seen.scales.unique().tolist()
    assert scale == 5  # 152 pixels in 32 samples
    corner = from_px(torch.tensor([[[76.0, 60.0]]]), (120, 152))
    assert torch.allclose(seen.keypoints, corner - torch.tensor([1 / 152, 1 / 120]), atol=1e-2)
    top, left = (120 - 160) // 2, (152 - 160) // 2
    blocks = torch.nn.functional.pad(photos, (-left, 8 + left, -top, 40 + top)).clone()
    blocks = blocks.unflatten(2, (32, 5)).unflatten(4, (32, 5))
    swapped = blocks.flip(3).flip(5).flatten(4, 5).flatten(2, 3)[..., -top : 120 - top, -left:]
    swapped = swapped[..., :152]
    moved = (swapped - photos).abs().amax()
    again = model(swapped.contiguous())
    inner = model.explain(swapped).patches - seen.patches
    assert moved > 0.5
    assert inner[..., 4:-4, 1:-1].abs().max() < 1e-6
    assert again.shape == (2, 3)


def test_contributions_sum_to_the_logits(photos: Tensor) -> None:
    model = small()
    seen = model.explain(photos)
    bias = model.head.mixer.value.bias.detach()
    assert seen.contributions is not None
    assert torch.allclose(seen.contributions.sum(dim=1) + bias, seen.logits, atol=1e-4)
    assert seen.contributions.abs().max() > 0.01
    for label in range(3):
        targets = torch.full((2,), label)
        maps = explainer("contributions")(model, photos, targets).maps
        assert torch.allclose(
            maps.sum(dim=(1, 2, 3)) + bias[label], seen.logits[:, label], atol=1e-4
        )


@pytest.mark.parametrize("mix", ["attention", "tokens"])
def test_other_heads_have_no_contributions(mix: str, photos: Tensor) -> None:
    model = small(mix)
    assert Ability.CONTRIBUTIONS not in model.abilities
    with pytest.raises(UserError, match="sums over patches"):
        model.contributions(photos)


def test_evidence_counts_the_values_of_each_scale() -> None:
    """A whole image at 7 pixels a sample, and native crops of which two overlap by half."""
    size = (640, 640)
    middles = [(319.5, 319.5), (47.5, 47.5), (95.5, 47.5), (400.0 - 0.5, 400.0 - 0.5)]
    keypoints = from_px(torch.tensor([middles]), size)
    scales = torch.tensor([[7.0, 1.0, 1.0, 2.0]])
    shown = 640**2 / 49 + 96 * 144 + 96**2
    assert float(evidence_px(keypoints, 96, size, scales, blocks=True)) == pytest.approx(
        shown, rel=1e-6
    )
    assert float(covered_px(keypoints, 96, size, scales, blocks=True)) == 640**2
    one = scales[:, 1:3], keypoints[:, 1:3]
    assert float(evidence_px(one[1], 96, size, one[0], blocks=True)) == pytest.approx(96 * 144)
    assert float(evidence_px(one[1], 96, size)) == 96 * 144
    everywhere = torch.ones(1, 60)
    spread = from_px(torch.rand(1, 60, 2) * 640, size)
    assert float(evidence_px(spread, 500, size, everywhere, blocks=True)) <= 640**2


def test_metrics_of_photographs_of_several_sizes() -> None:
    model = small()
    parts = tuple(
        torch.randint(0, 256, (4, 3, *size), dtype=torch.uint8) for size in ((96, 128), (160, 96))
    )
    images = image_set(Photos(parts), torch.arange(8) % 3, ("a", "b", "c"))
    train = image_set(Photos((parts[0].repeat(3, 1, 1, 1),)), torch.arange(12) % 3, images.classes)
    figures = evaluate(model, images, train)
    single = [float(model.explain(part / 255).evidence_fraction.double().mean()) for part in parts]
    assert figures["evidence_fraction"] == pytest.approx(sum(single) / 2, abs=1e-6)
    assert figures["evidence_fraction"] < figures["covered_fraction"]
    assert {"content_following", "position_leakage", "random_focus_accuracy"} <= set(figures)
    observed = observe_all(model, images.images)
    own = torch.tensor([5, 0, 7, 2])
    held = logits_at(model, images.images, own, observed, own, 2)
    assert torch.allclose(held, observed.logits[own], atol=1e-5)


@pytest.mark.parametrize("size", [(20, 20), (31, 400), (33, 33), (500, 36)])
def test_photographs_smaller_than_a_crop(size: tuple[int, int]) -> None:
    seen = small().explain(torch.rand(1, 3, *size))
    assert seen.logits.isfinite().all()
    assert 0 < float(seen.evidence_fraction) <= 1


def test_large_images_are_read_in_part(photos: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foveal.models.focus.SHOWN", 40)

    class Stored:
        """Two photographs of which a whole one is never read at full size."""

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

    model = small(shrink=2)
    whole = model.explain(photos)
    part = model.explain(Stored())
    assert torch.allclose(part.logits, whole.logits, atol=1e-5)
    assert part.extent == (120, 152)
    assert torch.equal(part.keypoints, whole.keypoints)


@pytest.mark.parametrize("mix", MIXES)
def test_settings_build_it_again(mix: str) -> None:
    model = small(mix)
    again = build_model(model.settings())
    again.load_state_dict(model.state_dict())
    assert again.abilities == model.abilities == abilities_of(model.settings())
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval()(images), model(images))


@pytest.mark.parametrize("mix", MIXES)
def test_frozen_features_give_the_same_logits(mix: str, photos: Tensor) -> None:
    model = small(mix)
    with torch.no_grad():
        kept = frozen_features(model, model.normalised(photos), 4)
        kept[SIZE] = torch.tensor([120, 152])
        located, output = read_frozen(model, kept, 4)
        seen = model.explain(photos)
    assert torch.equal(located.xy, seen.keypoints)
    assert torch.allclose(output.logits, seen.logits, atol=1e-4)


def test_an_exported_graph_decides_alike(photos: Tensor) -> None:
    pytest.importorskip("onnxruntime")
    model = small()
    graph = onnx_graph(model, (120, 152))
    runs = as_onnx(graph)
    ours, theirs = model.explain(photos), runs.explain(photos)
    others = ours.keypoints.flip(0)
    held = runs.classify_at(photos, others, ours.scales)
    assert torch.allclose(held, model.classify_at(photos, others).detach(), atol=1e-4)
    assert torch.allclose(ours.logits, theirs.logits, atol=1e-4)
    assert torch.allclose(ours.keypoints, theirs.keypoints, atol=1e-5)
    assert torch.allclose(ours.contributions, theirs.contributions, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (0, 1), "counts": (1,)}, "one count per scale"),
        ({"scales": (0, 1), "counts": (2, 1)}, "its count must be 1, but got 2"),
        ({"depth": 9}, "can be cut"),
        ({"mix": "tokens", "width": 15}, "multiple of 4"),
    ],
)
def test_wrong_settings_are_one_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        presets.crops(EfficientNetLite(), **options)


def test_a_backbone_that_cannot_be_cut() -> None:
    with pytest.raises(UserError, match="can be cut"):
        presets.crops(VGGBackbone(3, [[8], [16]]), depth=1)
    with pytest.raises(UserError, match="fixed stride, but got"):
        CropDetector(VGGBackbone(3, [[8], [16]]))


def test_perturbed_choices_follow_the_scores() -> None:
    torch.manual_seed(0)
    scores = torch.tensor([[0.0, 3.0, 0.1, 2.0]], requires_grad=True)
    chosen = perturbed_top(scores, 2)
    assert torch.allclose(chosen.sum(dim=2), torch.ones(1, 2))
    assert chosen.sum(dim=1)[0, [1, 3]].min() > 0.9
    # The gradient of how often the first candidate is taken rises with its own score.
    found = torch.zeros(4)
    for _ in range(50):
        scores.grad = None
        perturbed_top(torch.tensor([[0.5, 0.6, 0.4, 0.5]]).requires_grad_(), 2)
        even = torch.tensor([[0.5, 0.6, 0.4, 0.5]], requires_grad=True)
        perturbed_top(even, 2)[0, :, 0].sum().backward()
        found += even.grad[0]
    assert found[0] > 0
    assert found[1:].sum() < 0


def of_two_hues(folder: Path, count: int) -> Path:
    """Write photographs of three shapes, red or blue."""
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
    """Return a recipe of a few crops of small photographs."""
    frozen = {"cache": cached, "freeze_depth": 4 if cached else 3, "fixed_norm": True}
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
            "training": {"epochs": 4, "batch_size": 8, "lr": 5e-4, **frozen, **training},
            "crops": {"head_epochs": 4, "detector_epochs": 2},
        }
    )


@pytest.mark.parametrize("cached", [True, False])
def test_photographs_of_several_sizes_are_learned(tmp_path: Path, cached: bool) -> None:
    folder = of_two_hues(tmp_path / "photos", 24)
    out = train(recipe_of(folder, cached), tmp_path / "run", progress=False)
    model = foveal.load(out)
    assert not (out / "features").exists()
    images = load_images(str(folder), "train", size=model.inputs.sizing, channels=3)
    right = predict_logits(model, images.images).argmax(dim=1) == images.labels
    assert right.float().mean() > 0.8
    assert model.settings()["head"]["name"] == "crops"


def test_weights_of_a_file_reach_the_detector_too(tmp_path: Path) -> None:
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
    wanted = load_file(tmp_path / "own.safetensors")["stem.conv.weight"]
    for part in (model.head, model.detector):
        assert torch.equal(part.backbone.stem.conv.weight, wanted)


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                raise KeyboardInterrupt

    recipe = recipe_of(of_two_hues(tmp_path / "photos", 12), cached=True)
    whole = train(recipe, tmp_path / "whole", progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "stopped", progress=False, callbacks=[Stop()])
    again = train(recipe, tmp_path / "stopped", progress=False, resume=True)
    first, second = (foveal.load(run).state_dict() for run in (whole, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("select", sorted(METHODS))
def test_selection_finds_a_needle(select: str, tmp_path: Path) -> None:
    """A bright square that is there in one class: the learned methods look at it, with one crop."""
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
    train = image_set(images, labels, ("without", "with"))
    model = initial_model(recipe, model_settings(recipe, train))
    features = with_features(model, recipe, {"train": train}, tmp_path)["train"]
    learn_selection(model, recipe, features)
    model.eval()
    marked = labels == 1
    seen = model.explain(images[marked] / 255)
    middle = (seen.keypoints + 1) * 64
    hit = ((middle - corners[marked] - 6).abs() < 16).all(dim=-1).any(dim=-1).float().mean()
    assert hit > 0.8
