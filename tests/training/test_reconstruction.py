"""Reconstruction: detectors trained without labels, by rebuilding images from a few patches."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from foveal import zoo
from foveal.datasets import ImageSet
from foveal.detectors import ReconstructionDetector
from foveal.detectors.heatmap import mean_location
from foveal.foundation.errors import UserError
from foveal.heads import ConvDecoder, VAEDecoder
from foveal.heads.decoders import canvas_of, rebuilt_output
from foveal.images import WholeView
from foveal.images.geometry import from_px, soft_mask, to_px
from foveal.metrics import evaluate
from foveal.metrics.rebuilding import rebuilding
from foveal.models import FocusNet, build_model
from foveal.models.presets import reconstructor
from foveal.plotting import rebuilding_grid, sample_grid
from foveal.training import load_recipe, train
from foveal.training.objectives.reconstruction.losses import (
    RandomFeatures,
    divergence,
    movement,
    overlap,
)

SMALL_RUN = [
    "model.decoder.widths=[8,16]",
    "model.detector.widths=[8,8]",
    "model.patch_size=5",
    "batch_size=20",
    "lr=0.02",
    "augment.rotate=0",
    "augment.scale=0",
    "rebuild.movement=0",
]


def blobs(count, size=16, seed=0):
    """Return images with a light square of 4x4 pixels each, and the centres of the squares.

    Returns:
        (count, 1, size, size) and (count, 2), as (x, y) in pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(1, size - 5, (count, 2), generator=generator)
    steps = torch.arange(size)
    inside = [(steps >= corners[:, i, None]) & (steps < corners[:, i, None] + 4) for i in (0, 1)]
    images = (inside[1][:, :, None] & inside[0][:, None, :]).float()
    return images[:, None], corners + 1.5


@pytest.fixture(scope="session")
def unlabelled(tmp_path_factory):
    """A folder of images with a light square each; the two classes have no meaning."""
    folder = tmp_path_factory.mktemp("blobs")
    for split, count in (("train", 160), ("test", 20)):
        images, _ = blobs(count, seed=count)
        for index, image in enumerate(images):
            path = folder / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((image[0] * 255).byte().numpy()).save(path)
    return folder


def test_the_mean_location_is_as_exact_in_half_precision():
    heat = torch.randn(2, 3, 100, 120).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        locations = mean_location(heat)
    torch.testing.assert_close(locations, mean_location(heat.float()))


def test_the_mean_location_of_a_sharp_heatmap_is_its_peak():
    heat = torch.zeros(1, 2, 5, 7)
    heat[0, 0, 3, 1] = heat[0, 1, 0, 6] = 50
    locations = to_px(mean_location(heat), (5, 7))
    torch.testing.assert_close(
        locations, torch.tensor([[[1.0, 3.0], [6.0, 0.0]]]), atol=1e-4, rtol=0
    )


def test_the_detector_gets_a_gradient_and_learns_to_find_the_square():
    torch.manual_seed(0)
    detector = ReconstructionDetector(1, widths=(8, 16, 16))
    model = reconstructor(detector, ConvDecoder(1, (8, 16)), patch_size=5)
    images, centres = blobs(256)
    before = detector(WholeView(images)).xy.detach()
    initial = {name: p.clone() for name, p in detector.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(200):
        optimizer.zero_grad()
        F.mse_loss(model(images), images).backward()
        if step == 0:
            gradients = {name: weight.grad for name, weight in detector.named_parameters()}
            del gradients["heatmaps.bias"]  # a softmax ignores an added constant
            assert all(gradient.any() for gradient in gradients.values())
        optimizer.step()
    model.eval()
    after = detector(WholeView(images)).xy.detach()
    assert (after - before).abs().mean() > 0.05
    assert all(
        not torch.equal(initial[n], p) for n, p in detector.named_parameters() if "bias" not in n
    )

    def hit_rate(keypoints):
        """Return the fraction of images whose keypoint is near the square."""
        distance = (to_px(keypoints, (16, 16))[:, 0] - centres).abs().amax(dim=1)
        return float((distance < 3).float().mean())

    assert hit_rate(before) < 0.6
    assert hit_rate(after) > 0.9


def test_a_sharp_soft_mask_equals_the_hard_mask():
    keypoints = from_px(torch.tensor([[[3.0, 4.0], [9.0, 6.0]]]), (12, 14))
    soft = soft_mask(keypoints, 3, (12, 14), softness_px=0.01)
    hard = torch.zeros(1, 1, 12, 14)
    hard[..., 3:6, 2:5] = 1
    hard[..., 5:8, 8:11] = 1
    torch.testing.assert_close(soft, hard)


def test_overlap_is_the_mean_fraction_of_a_patch_covered_by_others():
    keypoints = torch.tensor([[[3.0, 3.0], [3.0, 3.0]], [[3.0, 3.0], [3.0, 8.0]], [[3, 3], [5, 3]]])
    overlaps = [float(overlap(from_px(p[None], (12, 12)), 4, (12, 12))) for p in keypoints]
    assert overlaps == pytest.approx([1.0, 0.0, 0.5], abs=1e-6)
    assert float(overlap(from_px(keypoints[:1, :1], (12, 12)), 4, (12, 12))) == 0


def test_movement_is_the_variance_of_keypoints():
    still = torch.tensor([[0.5, -0.25], [0.0, 0.75]]).expand(4, -1, -1)
    assert float(movement(still)) == 0
    shifted = still.clone()
    shifted[:2, 0, 0] += 0.4  # two of four images, one coordinate of one of two keypoints
    assert float(movement(shifted)) == pytest.approx(0.2**2 / 2, abs=1e-6)


def test_the_divergence_equals_that_of_torch():
    torch.manual_seed(0)
    mean, log_variance = torch.randn(2, 5, 3)
    posterior = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=1).mean()
    torch.testing.assert_close(divergence(mean, log_variance), expected)


def test_the_perceptual_distance_of_equal_images_is_zero_and_keeps_the_random_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    features = RandomFeatures(3)
    assert torch.equal(torch.rand(1), expected)
    images = torch.rand(2, 3, 16, 16)
    assert float(features.distance(images, images)) == 0
    others = (images * 0.9).requires_grad_()
    features.distance(images, others).backward()
    assert others.grad.any()
    assert not any(p.requires_grad for p in features.parameters())
    repeated = RandomFeatures(3).distance(images, images * 0.5)
    torch.testing.assert_close(repeated, features.distance(images, images * 0.5))


def test_samples_of_a_vae_depend_only_on_the_seed():
    decoder = VAEDecoder(3, 5, 1, (14, 15)).train()
    first, again, other = decoder.sample(4), decoder.sample(4), decoder.sample(4, seed=1)
    assert first.shape == (4, 1, 14, 15)
    assert first.min() >= 0 <= 1 - first.max()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert decoder.training


class _GreyDecoder(ConvDecoder):
    """A decoder that rebuilds every image as uniform grey."""

    def forward(self, patches, located):
        return rebuilt_output(torch.full_like(canvas_of(located)[:, :-1], 0.5))


class _IdentityModel(FocusNet):
    """A model that returns its input as the rebuilt image."""

    name = "identity"

    def forward(self, images):
        return images


def test_rebuilding_errors_of_grey_and_identical_images():
    images = (torch.rand(7, 1, 16, 16) * 255).byte()
    test = ImageSet("noise", "test", images, torch.zeros(7, dtype=torch.long), ("a",))
    grey = reconstructor(ReconstructionDetector(2), _GreyDecoder(1), patch_size=5)
    expected = float((images.float() / 255 - 0.5).square().mean())
    errors = rebuilding(grey, test, batch_size=3)
    assert errors.rebuilding_mse == pytest.approx(expected, rel=1e-5)
    assert 0 <= errors.rebuilding_ssim < 0.1
    identical = rebuilding(_IdentityModel(ReconstructionDetector(2), ConvDecoder(1), 5), test)
    assert identical == pytest.approx((0, 1), abs=1e-5)


def test_a_small_subset_is_balanced_and_depends_on_the_seed():
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 5)
    images = torch.arange(85, dtype=torch.uint8).reshape(85, 1, 1, 1)
    image_set = ImageSet("numbers", "train", images, labels, ("a", "b", "c"))
    assert image_set.few(12).labels.bincount().tolist() == [4, 4, 4]
    assert image_set.few(45).labels.bincount().tolist() == [20, 20, 5]
    first, other = image_set.few(12, seed=0), image_set.few(12, seed=1)
    assert torch.equal(first.images, image_set.few(12, seed=0).images)
    assert not torch.equal(first.images, other.images)
    with pytest.raises(UserError, match="at most 85 images, the size of numbers, but got 86"):
        image_set.few(86)


@pytest.fixture(scope="session")
def saliency_run(unlabelled, tmp_path_factory):
    recipe = load_recipe("mnist-saliency", [*SMALL_RUN, "model.detector.keypoints=1", "epochs=40"])
    out = tmp_path_factory.mktemp("saliency") / "run"
    return train(recipe, out, data=str(unlabelled), progress=False)


def test_training_without_labels_finds_the_square_and_writes_a_card(saliency_run):
    model = zoo.load(saliency_run)
    assert isinstance(model, FocusNet)
    images, centres = blobs(64, seed=9)
    explanation = model.explain(images)
    distance = (to_px(explanation.keypoints, (16, 16))[:, 0] - centres).abs().amax(dim=1)
    assert distance.mean() < 2
    card = zoo.card(saliency_run)
    assert 0 < card["val_mse"] < 0.03  # a square of 16 pixels in 256 has a variance of 0.06
    assert "val_accuracy" not in card
    result = explanation[0].to_dicts()[0]
    assert "prediction" not in result
    assert result["rebuilding_mse"] == pytest.approx(
        float((explanation.rebuilt[0] - images[0]).square().mean())
    )


def test_labels_do_not_affect_the_weights(unlabelled, saliency_run, tmp_path):
    renamed = tmp_path / "renamed"
    for split in ("train", "test"):
        for path in sorted((unlabelled / split).rglob("*.png")):
            # The same images, in the same order, in classes of other names.
            target = renamed / split / f"{path.parent.name}2" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    recipe = load_recipe("mnist-saliency", [*SMALL_RUN, "model.detector.keypoints=1", "epochs=1"])
    runs = [
        train(recipe, tmp_path / name, data=str(data), progress=False)
        for name, data in (("original", unlabelled), ("other", renamed))
    ]
    expected, weights = (load_file(run / "model.safetensors") for run in runs)
    assert all(torch.equal(expected[key], weights[key]) for key in expected)
    has_classes = "classes" in (runs[0] / "config.json").read_text()
    assert not (has_classes and zoo.load(runs[0]).inputs.classes)


def test_a_resumed_run_with_an_adversary_equals_an_uninterrupted_one(
    unlabelled, tmp_path, monkeypatch
):
    settings = [*SMALL_RUN, "epochs=2", "rebuild.adversarial=0.01", "rebuild.diversity=0.1"]
    recipe = load_recipe("mnist-saliency", [*settings, "rebuild.perceptual=0.1"])
    uninterrupted = train(recipe, tmp_path / "uninterrupted", data=str(unlabelled), progress=False)

    from foveal.training.objectives.reconstruction.objective import Reconstruction

    training_step = Reconstruction.training_step

    def stop(self, batch, index):
        if self.current_epoch == 1 and index == 2:
            raise RuntimeError("power cut")
        training_step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Reconstruction, "training_step", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train(recipe, tmp_path / "resumed", data=str(unlabelled), progress=False)
    train(recipe, tmp_path / "resumed", data=str(unlabelled), progress=False, resume=True)
    expected, weights = (
        load_file(run / "model.safetensors") for run in (uninterrupted, tmp_path / "resumed")
    )
    assert all(torch.equal(expected[key], weights[key]) for key in expected)
    assert uninterrupted == tmp_path / "uninterrupted"


def test_a_focus_model_starts_from_a_saved_detector_which_can_be_frozen(
    unlabelled, saliency_run, tmp_path
):
    start_weights = load_file(saliency_run / "model.safetensors")
    unchanged = {}
    for freeze in ("detector", ""):
        recipe = load_recipe(
            "mnist-focus-unlabelled",
            [
                f"training.start={saliency_run}",
                f"training.freeze='{freeze}'",
                "model.detector.keypoints=1",
                "model.detector.widths=[8,8]",
                "model.patch_size=5",
                "epochs=2",
                "batch_size=20",
            ],
        )
        run = train(recipe, tmp_path / (freeze or "free"), data=str(unlabelled), progress=False)
        weights = load_file(run / "model.safetensors")
        unchanged[freeze] = all(
            torch.equal(weights[key], value)
            for key, value in start_weights.items()
            if key.startswith("detector.")
        )
        assert isinstance(zoo.load(run), FocusNet)
    assert unchanged == {"detector": True, "": False}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.detector.widths=[9,9]", "of the same name .detector. must have the same settings"),
        ("training.freeze=detectr", "Did you mean 'detector'"),
        ("training.start=nowhere", "nowhere"),
        ("training.start_part=detectr", "Did you mean 'detector'"),
        ("recalibrate=64", "would change the frozen part"),
    ],
)
def test_an_invalid_start_or_freeze_setting_is_a_user_error(
    unlabelled, saliency_run, tmp_path, override, message
):
    settings = [f"training.start={saliency_run}", "model.detector.keypoints=1", "epochs=1"]
    settings += ["model.detector.widths=[8,8]", "model.patch_size=5", override]
    recipe = load_recipe("mnist-focus-unlabelled", settings)
    with pytest.raises(UserError, match=message):
        train(recipe, tmp_path / "run", data=str(unlabelled), progress=False)


def test_training_can_start_from_a_single_part(unlabelled, saliency_run, tmp_path):
    # The decoder differs, so not all parts of the same name could be loaded.
    settings = [f"training.start={saliency_run}", "training.start_part=detector"]
    settings += ["training.freeze=detector", "model.decoder.name=mlp", "model.decoder.widths=[8]"]
    settings += ["model.detector.keypoints=1", "model.detector.widths=[8,8]"]
    recipe = load_recipe("mnist-saliency", [*settings, "model.patch_size=5", "epochs=1"])
    run = train(recipe, tmp_path / "run", data=str(unlabelled), progress=False)
    start_weights, weights = (
        load_file(folder / "model.safetensors") for folder in (saliency_run, run)
    )
    unchanged = {
        key
        for key in weights
        if key in start_weights and torch.equal(weights[key], start_weights[key])
    }
    assert {key for key in weights if key.startswith("detector.")} == unchanged


def test_a_reconstructor_has_figures_without_accuracy(saliency_run):
    images, _ = blobs(40, seed=3)
    labels = torch.arange(40) % 2
    test = ImageSet("blobs", "test", (images * 255).byte(), labels, ("a", "b"))
    card = evaluate(zoo.load(saliency_run), test, test)
    assert "accuracy" not in card
    assert {"rebuilding_mse", "rebuilding_ssim", "position_leakage", "macs"} <= set(card)
    json.dumps(card)


def test_pictures_show_patches_reconstruction_and_error(saliency_run, tmp_path):
    model = zoo.load(saliency_run)
    explanation = model.explain(blobs(3)[0])
    figure = rebuilding_grid(explanation)
    assert [axis.get_title() for axis in figure.axes[:5]] == [
        "image",
        "keypoints",
        "patches",
        "rebuilt",
        "error",
    ]
    assert len(figure.axes) == 3 * 5 + 1
    explanation.save(tmp_path)
    assert (tmp_path / "0002.png").stat().st_size > 1000
    plain = build_model({"name": "cnn"}).explain(torch.rand(1, 1, 28, 28))
    with pytest.raises(ValueError, match="rebuilt images, but it has none"):
        rebuilding_grid(plain)
    assert len(sample_grid(torch.rand(12, 1, 8, 8)).axes) == 20
