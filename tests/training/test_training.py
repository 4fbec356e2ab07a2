"""Training: batch order, augmentation, losses, resuming and errors."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from foveal import zoo
from foveal.datasets import load_images
from foveal.foundation.errors import UserError
from foveal.images.geometry import from_px, to_px
from foveal.models import build_model
from foveal.training import load_recipe, train
from foveal.training.augment import Augment, apply_moves, undo_moves
from foveal.training.batches import Batches
from foveal.training.objectives.losses import classification_loss
from foveal.training.optimizers import make_optimizer
from foveal.training.settings import Training

SMALL_RUN = ["epochs=4", "batch_size=20", "model.width=16"]


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """A folder of two classes: a light square on the left or on the right."""
    folder = tmp_path_factory.mktemp("squares")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 120), ("test", 20)):
        for name in ("left", "right"):
            (folder / split / name).mkdir(parents=True)
            for index in range(count // 2):
                x = int(torch.randint(0, 4, (1,), generator=generator))
                y = int(torch.randint(0, 12, (1,), generator=generator))
                x = x + 9 if name == "right" else x
                image = torch.zeros(16, 16, dtype=torch.uint8)
                image[y : y + 4, x : x + 3] = 255
                Image.fromarray(image.numpy()).save(folder / split / name / f"{index}.png")
    return folder


def test_every_epoch_has_each_image_once_in_a_new_order():
    epoch = 0
    images = torch.arange(10, dtype=torch.uint8).reshape(10, 1, 1, 1)
    batches = Batches(images, torch.arange(10), 5, seed=3, get_epoch=lambda: epoch)
    first = torch.cat([labels for _, labels in batches])
    repeated = torch.cat([labels for _, labels in batches])
    epoch = 1
    second = torch.cat([labels for _, labels in batches])
    assert sorted(first.tolist()) == list(range(10))
    assert torch.equal(first, repeated)
    assert not torch.equal(first, second)


def test_hiding_greys_out_regions_of_many_sizes_and_leaves_the_rest():
    torch.manual_seed(0)
    images = torch.rand(400, 2, 28, 20) + 1  # above the grey values
    grey = torch.tensor([0.25, 0.5]).reshape(1, 2, 1, 1)
    augmented = Augment(hide=True).hide_regions(images, grey)
    hidden = (augmented == grey).all(dim=1)
    assert torch.where(hidden[:, None], images, augmented).equal(images)
    fractions = hidden.float().mean(dim=(1, 2))
    assert ((fractions > 0.05) & (fractions < 0.35)).sum() > 40
    assert ((fractions > 0.65) & (fractions < 0.95)).sum() > 40
    assert Augment().hide_regions(images, grey) is images


def test_validation_batches_keep_the_order_and_the_incomplete_last_batch():
    batches = Batches(torch.zeros(7, 1, 1, 1, dtype=torch.uint8), torch.arange(7), 3)
    assert [labels.tolist() for _, labels in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(batches) == 3


def test_alternating_mirrors_each_image_every_other_epoch():
    epoch = 0
    images = torch.arange(3, dtype=torch.uint8).expand(40, 1, 1, 3)
    batches = Batches(images, torch.arange(40), 8, seed=1, get_epoch=lambda: epoch, alternate=True)
    left_pixels = []
    for number in range(4):
        epoch = number
        by_label = {int(label): int(image[0, 0, 0]) for image, label in _one_by_one(batches)}
        left_pixels.append([by_label[label] for label in range(40)])
    assert left_pixels[0] == left_pixels[2]
    assert left_pixels[1] == left_pixels[3]
    assert all(
        {even, odd} == {0, 2} for even, odd in zip(left_pixels[0], left_pixels[1], strict=True)
    )
    assert 10 < left_pixels[0].count(2) < 30


def _one_by_one(batches):
    """Return the (image, label) pairs of all batches."""
    return [pair for images, labels in batches for pair in zip(images, labels, strict=True)]


def test_the_focal_loss_equals_its_formula_and_is_cross_entropy_without_exponent():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    probability = logits.softmax(1)[range(6), labels]
    plain, focal = Training(), Training(focal=2.0)
    expected = (-((1 - probability) ** 2) * probability.log()).mean()
    assert torch.allclose(classification_loss(logits, labels, focal), expected)
    assert torch.allclose(classification_loss(logits, labels, plain), -probability.log().mean())


def test_only_the_biases_of_normalisation_layers_have_the_higher_rate():
    model = build_model({"name": "cnn", "widths": [4, 8]})
    training = Training(optimizer="sgd", lr=0.1, momentum=0.8, bias_lr=64.0, weight_decay=0.3)
    optimizer = make_optimizer(model, training)
    options = {
        id(p): (group["lr"], group["weight_decay"], group["momentum"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    assert len(options) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        is_norm_bias = name.startswith("features") and name.endswith("bias")
        decay = 0.3 if parameter.ndim > 1 else 0.0
        assert options[id(parameter)] == (6.4 if is_norm_bias else 0.1, decay, 0.8), name


def test_the_averaged_weights_are_saved(squares, tmp_path):
    overrides = [*SMALL_RUN, "epochs=2", "keep=last"]
    runs = {}
    for decay in ("0", "0.999999"):
        recipe = load_recipe("mnist-focus", [*overrides, f"average={decay}"])
        runs[decay] = train(recipe, tmp_path / decay, data=str(squares), progress=False)
    slow_recipe = load_recipe("mnist-focus", [*overrides, "lr=0.00000001"])
    slow_run = train(slow_recipe, tmp_path / "start", data=str(squares), progress=False)
    start = load_file(slow_run / "model.safetensors")
    plain, averaged = (load_file(run / "model.safetensors") for run in runs.values())
    key = "head.classify.1.weight"
    assert not torch.allclose(plain[key], start[key], atol=1e-3)
    # An average with this decay stays at the weights after the first step, which has a tiny rate.
    assert torch.allclose(averaged[key], start[key], atol=1e-3)


def test_the_last_checkpoint_is_of_the_last_epoch_even_if_an_earlier_one_was_better(
    squares, tmp_path
):
    recipe = load_recipe("mnist-cnn", ["epochs=4", "batch_size=20", "keep=last"])
    run = train(recipe, tmp_path / "run", data=str(squares), progress=False)
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    accuracies = [row["val_accuracy"] for row in last["callbacks"]["Curve"]["rows"]]
    assert max(accuracies[:-1]) >= accuracies[-1]  # otherwise this test would prove nothing
    assert len(accuracies) == 4
    assert json.loads((run / "card.json").read_text())["epoch"] == 3
    weights = load_file(run / "model.safetensors")
    assert torch.equal(weights["head.1.bias"], last["state_dict"]["model.head.1.bias"])
    assert len(list((run / "checkpoints").iterdir())) == 2


def test_averaged_weights_get_recalibrated_normalisation_statistics(squares, tmp_path):
    overrides = ["epochs=2", "batch_size=20", "keep=last", "average=0.9", "seed=1"]
    models = {}
    for recalibrate in (0, 1000):
        recipe = load_recipe("mnist-cnn", [*overrides, f"recalibrate={recalibrate}"])
        out = tmp_path / str(recalibrate)
        models[recalibrate] = zoo.load(train(recipe, out, data=str(squares), progress=False))
    uncalibrated, model = models[0], models[1000]
    weights = {name for name, _ in model.named_parameters()}
    for name, value in model.state_dict().items():
        assert torch.equal(value, uncalibrated.state_dict()[name]) or name not in weights
    images = load_images(str(squares), "train").images[:, :1].float() / 255
    with torch.no_grad():
        features = model.features[0]((images - model.mean) / model.std)
    running_mean = model.features[1].running_mean
    torch.testing.assert_close(running_mean, features.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    assert not torch.allclose(uncalibrated.features[1].running_mean, running_mean, atol=1e-3)


def test_shifting_moves_images_by_integer_numbers_of_pixels():
    images = torch.rand(64, 1, 9, 13)
    shifted = Augment(shift=2)(images)
    inner = images[:, :, 2:-2, 2:-2]
    for image, before in zip(shifted, inner, strict=True):
        matches = [
            torch.allclose(image[:, y : y + 5, x : x + 9], before, atol=1e-4)
            for y in range(5)
            for x in range(5)
        ]
        assert sum(matches) == 1


def test_flipping_mirrors_about_half_of_the_images():
    images = torch.rand(400, 1, 6, 8)
    torch.manual_seed(0)
    flipped = Augment(flip=True)(images)
    mirrored = torch.isclose(flipped, images.flip(-1), atol=1e-4).flatten(1).all(1)
    unchanged = torch.isclose(flipped, images, atol=1e-4).flatten(1).all(1)
    assert bool((mirrored ^ unchanged).all())
    assert 150 < int(mirrored.sum()) < 250


def test_rotation_preserves_the_area():
    torch.manual_seed(0)
    images = torch.zeros(50, 1, 21, 21)
    images[:, :, 10, 4:17] = 1
    rotated = Augment(rotate=90)(images)
    assert float((rotated.sum((1, 2, 3)) - 13).abs().max()) < 1.5


def test_erasing_hides_one_square():
    images = torch.rand(30, 1, 20, 20) + 5
    erased_px = (Augment(erase=5)(images) != images).flatten(1).sum(1)
    assert int(erased_px.max()) == 25
    assert int(erased_px.min()) >= 9  # a square that extends beyond a corner


@pytest.mark.parametrize("augmentation", [{"shift": 3}, {"rotate": 25, "scale": 0.1, "flip": True}])
def test_locations_in_augmented_images_map_back_to_the_originals(augmentation):
    torch.manual_seed(0)
    images = torch.zeros(40, 1, 61, 51)
    images[:, :, 24:27, 29:32] = 1  # its centre is at (30, 25)
    moves = Augment(**augmentation).draw_moves(images)
    after = apply_moves(images, moves)[:, 0]
    after = after / after.sum((1, 2), keepdim=True)
    rows, columns = torch.arange(61.0), torch.arange(51.0)
    centre = torch.stack([(after.sum(1) * columns).sum(1), (after.sum(2) * rows).sum(1)], dim=1)
    before = to_px(undo_moves(from_px(centre, (61, 51))[:, None], moves), (61, 51))
    assert float((before - torch.tensor([30.0, 25.0])).abs().max()) < 0.3
    assert float((centre - torch.tensor([30.0, 25.0])).abs().max()) > 2


def test_mixed_labels_are_weighted_by_the_fraction_of_pixels():
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 20, 20)
    torch.manual_seed(0)
    results = [Augment(mix=0.5).mix_in(images, torch.arange(4), 4) for _ in range(50)]
    mixed = [pair for pair in results if pair[1].ndim > 1]
    assert 10 < len(mixed) < 40
    for pixels, fractions in mixed:
        pixel_fractions = (pixels.flatten(2) == torch.arange(4.0)[:, None]).float().mean(dim=-1)
        assert torch.allclose(fractions, pixel_fractions, atol=1e-6)
    for pixels, labels in (pair for pair in results if pair[1].ndim == 1):
        assert torch.equal(pixels, images)
        assert torch.equal(labels, torch.arange(4))


def test_the_loss_of_mixed_images_is_the_weighted_mean_of_both_classes():
    logits, labels, others = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1]), torch.tensor([2] * 5)
    fractions = 0.7 * F.one_hot(labels, 3) + 0.3 * F.one_hot(others, 3)
    training = Training(label_smoothing=0.1)
    losses = [classification_loss(logits, targets, training) for targets in (labels, others)]
    assert torch.allclose(
        classification_loss(logits, fractions, training), 0.7 * losses[0] + 0.3 * losses[1]
    )


def test_an_augmentation_without_settings_leaves_images_unchanged():
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(Augment()(images), images)


def test_a_trained_model_is_accurate_and_can_be_loaded(squares, tmp_path):
    recipe = load_recipe("mnist-focus-plain", [*SMALL_RUN, "epochs=8"])
    run = train(recipe, tmp_path / "run", data=str(squares), progress=False)
    model = zoo.load(run)
    card = zoo.card(run)
    rows = (run / "metrics.csv").read_text().splitlines()
    assert card["val_accuracy"] >= 0.9
    assert len(rows) == 1 + 8
    assert tuple(model.inputs.classes) == ("left", "right")
    assert not list(run.glob("*.partial"))
    assert card["recipe"] == recipe.to_dict()


def test_the_same_seed_gives_the_same_weights(squares, tmp_path):
    for name in ("a", "b"):
        recipe = load_recipe("mnist-focus", [*SMALL_RUN, "epochs=1"])
        train(recipe, tmp_path / name, data=str(squares), progress=False)
    weights, repeated = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(weights[key], repeated[key]) for key in weights)


# Script of a run that kills itself at a random batch of a given epoch.
_KILLED_RUN_SCRIPT = """
import os, random, signal, sys
from lightning.pytorch import Callback
from foveal.training import load_recipe, train

class Kill(Callback):
    def on_train_epoch_start(self, trainer, module):
        self.batch = random.randrange(trainer.num_training_batches)
    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if (trainer.current_epoch, index) == (epoch, self.batch):
            os.kill(os.getpid(), signal.SIGKILL)

epoch, data, out, *overrides = int(sys.argv[1]), *sys.argv[2:]
recipe = load_recipe("mnist-focus", overrides)
train(recipe, out, data=data, resume=True, progress=False, callbacks=[Kill()])
"""


@pytest.mark.slow
def test_a_run_killed_twice_ends_with_the_same_weights_as_an_uninterrupted_one(squares, tmp_path):
    overrides = [
        *SMALL_RUN,
        "epochs=12",
        "average=0.9",
        "model.jitter_px=0.5",
        "honesty.settle=0.7",
    ]
    recipe = load_recipe("mnist-focus", overrides)
    uninterrupted = train(recipe, tmp_path / "uninterrupted", data=str(squares), progress=False)
    killed = tmp_path / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for epoch, status in ((2, -signal.SIGKILL), (5, -signal.SIGKILL), (-1, 0)):
        command = [
            sys.executable,
            "-c",
            _KILLED_RUN_SCRIPT,
            str(epoch),
            str(squares),
            str(killed),
            *overrides,
        ]
        process = subprocess.run(command, env=environment, stderr=subprocess.DEVNULL)
        assert process.returncode == status
        assert (killed / "model.safetensors").exists() == (status == 0)
    expected, actual = (load_file(run / "model.safetensors") for run in (uninterrupted, killed))
    assert all(torch.equal(expected[key], actual[key]) for key in expected)
    curves = [
        [row.rsplit(",", 1)[0] for row in (run / "metrics.csv").read_text().splitlines()]
        for run in (uninterrupted, killed)
    ]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_two_processes_train_one_run_and_report_once(squares, tmp_path):
    command = [sys.executable, "-m", "foveal", "train", "mnist-focus", *SMALL_RUN]
    command += ["--data", str(squares), "--out", str(tmp_path / "run"), "--devices", "2", "--quiet"]
    process = subprocess.run(
        command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split() == [str(tmp_path / "run")]
    assert process.stderr.count("Validation accuracy") == 1
    assert "holds" not in process.stderr
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    assert zoo.load(tmp_path / "run").num_classes == 2


def test_an_unknown_precision_suggests_the_nearest_name(squares, tmp_path):
    with pytest.raises(UserError, match=r"'32-tru'\. Did you mean '32-true'"):
        train(
            load_recipe("mnist-focus", SMALL_RUN), tmp_path, data=str(squares), precision="32-tru"
        )


def test_a_non_finite_loss_stops_training_with_an_error(squares, tmp_path):
    recipe = load_recipe("mnist-focus", [*SMALL_RUN, "epochs=3"])
    run = train(recipe, tmp_path / "run", data=str(squares), progress=False)
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    diverging = load_recipe("mnist-focus", [*SMALL_RUN, "lr=900000", "clip=0", "optimizer=sgd"])
    with pytest.raises(UserError, match=r"The loss became (nan|inf) in epoch \d+, step \d+"):
        train(diverging, tmp_path / "nan", data=str(squares), progress=False)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_an_existing_run_is_not_overwritten(squares, tmp_path):
    recipe = load_recipe("mnist-focus", [*SMALL_RUN, "epochs=1"])
    train(recipe, tmp_path / "run", data=str(squares), progress=False)
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match="holds a run already"):
        train(recipe, tmp_path / "run", data=str(squares), progress=False)
    other = load_recipe("mnist-focus", [*SMALL_RUN, "epochs=2"])
    with pytest.raises(UserError, match="other settings"):
        train(other, tmp_path / "run", data=str(squares), resume=True, progress=False)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_an_unwritable_output_folder_is_an_error(squares, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(UserError, match="Cannot write to"):
        train(load_recipe("mnist-focus", SMALL_RUN), file / "run", data=str(squares))


def test_corrupt_weights_and_weights_of_another_model_are_errors(squares, tmp_path):
    recipe = load_recipe("mnist-focus", [*SMALL_RUN, "epochs=1"])
    run = train(recipe, tmp_path / "run", data=str(squares), progress=False)
    weights = run / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="corrupt"):
        zoo.load(run)
    weights.write_bytes(content)
    config = json.loads((run / "config.json").read_text())
    config["head"]["width"] = 32
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="another model"):
        zoo.load(run)
    (run / "config.json").write_text("{")
    with pytest.raises(UserError, match="Cannot read"):
        zoo.load(run)


def test_an_unknown_model_is_an_error():
    with pytest.raises(UserError, match="Unknown model"):
        zoo.load("mnist-focsu")
