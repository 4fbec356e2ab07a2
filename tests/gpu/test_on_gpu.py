"""Every family on a GPU does what it does on the CPU: it answers, explains, learns and predicts."""

from dataclasses import fields

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from test_models import FOCUS, SETTINGS, answer_of, built, loss_of, pictures

from foveal.deployment.batch import predict
from foveal.explanation import Explanation

# In double precision both devices compute the same but for the order of sums, so that no keypoint
# rounds to another pixel: 1e-16 of each term, over some thousands of terms and tens of layers.
EXACT = {"rtol": 1e-9, "atol": 1e-11}
# In single precision, TF32 off, it is 6e-8 of each term.
SINGLE = {"rtol": 1e-4, "atol": 1e-4}
# bfloat16 keeps 8 bits: 4e-3 of each term.
BRAIN = {"rtol": 0.03, "atol": 0.03}
COMPILED = ("cnn", "plain", "attention", "focus-heatmap")  # each takes seconds
BACKENDS = {"cpu": "aot_eager", "cuda": "inductor"}  # inductor's C++ for CPUs takes a minute


def tensors(explanation: Explanation) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(explanation, field.name) for field in fields(explanation)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("key", SETTINGS)
def test_a_model_answers_and_explains_as_on_the_cpu(key, device):
    model, other = built(key).double(), built(key).to(device, torch.float64)
    images = pictures(model, 4).double()
    expected, found = tensors(model.explain(images)), tensors(other.explain(images.to(device)))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, expected[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}"
        )
    with torch.no_grad():
        answer = other(images.to(device)).cpu()
    torch.testing.assert_close(answer, answer_of(model.explain(images)), **EXACT)


@pytest.mark.parametrize("key", SETTINGS)
def test_single_precision_and_bfloat16_stay_near(key, device):
    model, other = built(key), built(key).to(device)
    images = pictures(model, 4)
    expected, given = model.explain(images), images.to(device)

    def answer() -> torch.Tensor:
        if key not in FOCUS:
            return other(given).float().cpu()
        # Held: a response that rounds elsewhere may choose another pixel.
        scales = None if expected.scales is None else expected.scales.to(device)
        return other.classify_at(given, expected.keypoints.to(device), scales).float().cpu()

    with torch.no_grad():
        torch.testing.assert_close(answer(), answer_of(expected), **SINGLE)
        with torch.autocast(device.type, torch.bfloat16):
            torch.testing.assert_close(answer(), answer_of(expected), **BRAIN)


@pytest.mark.parametrize("key", SETTINGS)
def test_a_training_step_changes_the_weights_as_on_the_cpu(key, device):
    # In evaluation mode, which draws nothing at random: devices draw different numbers.
    model, other = built(key).double(), built(key).to(device, torch.float64)
    images = pictures(model, 4).double()
    for one, given in ((model, images), (other, images.to(device))):
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        loss_of(one(given), given).backward()
        optimizer.step()
    expected = model.state_dict()
    for name, value in other.state_dict().items():
        torch.testing.assert_close(
            value.cpu(), expected[name], **EXACT, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert any(not torch.equal(expected[k], v.double()) for k, v in built(key).state_dict().items())


@pytest.mark.parametrize("key", SETTINGS)
def test_a_step_of_bfloat16_in_training_mode_gives_finite_gradients(key, device):
    model = built(key).to(device).train()
    images = pictures(model, 4).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        loss = loss_of(model(images), images)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("key", COMPILED)
def test_a_compiled_model_gives_the_same_answers(key, device):
    model = built(key).to(device, torch.float64)
    images = pictures(model, 4).to(device, torch.float64)
    compiled = torch.compile(model, backend=BACKENDS[device.type])
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), **EXACT)
    torch.compiler.reset()


def test_predict_writes_the_rows_of_the_cpu_by_way_of_pinned_memory(device, tmp_path, monkeypatch):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(pictures(built("cnn"), 12)):
        Image.fromarray((255 * image[0]).byte().numpy()).save(folder / f"{number:02d}.png")
    pinned, pin = [], torch.Tensor.pin_memory
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda t: pinned.append(len(t)) or pin(t))
    rows = {}
    for place in ("cpu", device.type):
        out = tmp_path / f"{place}.parquet"
        predict("mnist-focus", folder, out, device=place, batch_size=5)
        rows[place] = pq.read_table(out).to_pylist()
        out.unlink()
    assert pinned == ([] if device.type == "cpu" else [5, 5, 2])
    assert len(rows[device.type]) == 12
    for row, expected in zip(rows[device.type], rows["cpu"], strict=True):
        assert (row["path"], row["prediction"]) == (expected["path"], expected["prediction"])
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)
