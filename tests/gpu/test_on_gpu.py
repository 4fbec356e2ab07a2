"""Every model family on a GPU: the same outputs, explanations and training steps as on the CPU."""

from dataclasses import fields

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_models import KEYPOINT_MODELS, SETTINGS, loss_of, make_model, output_of, pictures

from foveal.deployment.batch import predict
from foveal.explanation import Explanation

# In double precision, the devices differ only in the order in which they add numbers. The error is
# 1e-16 per term, over some thousands of terms and tens of layers: too small to round a keypoint to
# another pixel.
EXACT = {"rtol": 1e-9, "atol": 1e-11}
# In single precision with TF32 off, the error is 6e-8 per term.
SINGLE = {"rtol": 1e-4, "atol": 1e-4}
# bfloat16 has 8 significant bits, so the error is 4e-3 per term.
BFLOAT16 = {"rtol": 0.03, "atol": 0.03}
# Models that are compiled. The others are left out because compiling takes seconds.
COMPILED = ("cnn", "plain", "attention", "focus-heatmap")
BACKENDS = {"cpu": "aot_eager", "cuda": "inductor"}  # inductor's C++ for CPUs takes a minute


def tensor_fields(explanation: Explanation) -> dict[str, torch.Tensor]:
    """Return the fields of an explanation that are tensors, by name."""
    values = {field.name: getattr(explanation, field.name) for field in fields(explanation)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("key", SETTINGS)
def test_logits_and_explanations_equal_those_on_the_cpu(key, device):
    model, device_model = make_model(key).double(), make_model(key).to(device, torch.float64)
    images = pictures(model, 4).double()
    expected = tensor_fields(model.explain(images))
    actual = tensor_fields(device_model.explain(images.to(device)))
    assert actual.keys() == expected.keys()
    for name, value in actual.items():
        torch.testing.assert_close(
            value, expected[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}"
        )
    with torch.no_grad():
        output = device_model(images.to(device)).cpu()
    torch.testing.assert_close(output, output_of(model.explain(images)), **EXACT)


@pytest.mark.parametrize("key", SETTINGS)
def test_single_precision_and_bfloat16_are_close_to_the_cpu(key, device):
    model, device_model = make_model(key), make_model(key).to(device)
    images = pictures(model, 4)
    expected, device_images = model.explain(images), images.to(device)

    def output() -> torch.Tensor:
        if key not in KEYPOINT_MODELS:
            return device_model(device_images).float().cpu()
        # The keypoints are fixed, because rounding could move them to another pixel.
        scales = None if expected.scales is None else expected.scales.to(device)
        return (
            device_model.classify_at(device_images, expected.keypoints.to(device), scales)
            .float()
            .cpu()
        )

    with torch.no_grad():
        torch.testing.assert_close(output(), output_of(expected), **SINGLE)
        with torch.autocast(device.type, torch.bfloat16):
            torch.testing.assert_close(output(), output_of(expected), **BFLOAT16)


@pytest.mark.parametrize("key", SETTINGS)
def test_training_step_gives_the_same_weights_as_on_the_cpu(key, device):
    # The models are in evaluation mode, without dropout, because random numbers differ between
    # devices.
    model, device_model = make_model(key).double(), make_model(key).to(device, torch.float64)
    images = pictures(model, 4).double()
    for network, inputs in ((model, images), (device_model, images.to(device))):
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        loss_of(network(inputs), inputs).backward()
        optimizer.step()
    expected = model.state_dict()
    for name, value in device_model.state_dict().items():
        torch.testing.assert_close(
            value.cpu(), expected[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert any(
        not torch.equal(expected[name], value.double())
        for name, value in make_model(key).state_dict().items()
    )


@pytest.mark.parametrize("key", SETTINGS)
def test_bfloat16_training_step_gives_finite_gradients(key, device):
    model = make_model(key).to(device).train()
    images = pictures(model, 4).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        loss = loss_of(model(images), images)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("key", COMPILED)
def test_compiled_model_gives_the_same_logits(key, device):
    model = make_model(key).to(device, torch.float64)
    images = pictures(model, 4).to(device, torch.float64)
    compiled = torch.compile(model, backend=BACKENDS[device.type])
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), **EXACT)
    torch.compiler.reset()


def test_predict_writes_the_same_rows_as_on_the_cpu_using_pinned_memory(
    device, tmp_path, monkeypatch
):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pictures(make_model("cnn"), 12)):
        Image.fromarray((255 * image[0]).byte().numpy()).save(folder / f"{number:02d}.png")
    pinned_lengths = []
    pin_memory = torch.Tensor.pin_memory

    def record_and_pin(tensor):
        pinned_lengths.append(len(tensor))
        return pin_memory(tensor)

    monkeypatch.setattr(torch.Tensor, "pin_memory", record_and_pin)
    rows = {}
    for name in ("cpu", device.type):
        out = tmp_path / f"{name}.parquet"
        predict("mnist-focus", folder, out, device=name, batch_size=5)
        rows[name] = pq.read_table(out).to_pylist()
        out.unlink()
    assert pinned_lengths == ([] if device.type == "cpu" else [5, 5, 2])
    assert len(rows[device.type]) == 12
    for row, expected in zip(rows[device.type], rows["cpu"], strict=True):
        assert (row["path"], row["prediction"]) == (expected["path"], expected["prediction"])
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
