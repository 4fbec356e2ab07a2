"""Formats of config.json and card.json: earlier versions are read, unknown ones are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import foveal
from foveal import zoo
from foveal.foundation.errors import UserError
from foveal.foundation.model_files import CARD, CONFIG, FORMAT, WEIGHTS, weights_digest
from foveal.models import build_model

# A run folder written by `foveal train` before format 2.
RUN = Path(__file__).parents[1] / "fixtures" / "run-format-1"
IMAGES = (torch.arange(28 * 28).reshape(1, 1, 28, 28) % 97) / 97
LOGITS = [-0.136823, 0.020851, 0.076775, 0.010029, -0.043800]  # from the version that wrote the run
LOGITS += [0.149126, -0.110462, -0.005759, 0.012926, -0.197424]


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def change_json(path, **entries):
    """Set entries of a JSON file."""
    values = json.loads(path.read_text(encoding="utf-8")) | entries
    path.write_text(json.dumps(values), encoding="utf-8")


def test_a_run_of_format_1_gives_the_same_logits(run):
    assert "format" not in json.loads((run / CONFIG).read_text(encoding="utf-8"))
    model = foveal.load(run)
    torch.testing.assert_close(model(IMAGES)[0], torch.tensor(LOGITS), atol=1e-5, rtol=0)
    card = zoo.card(run)
    assert (card["model"], card["weights_sha256"]) == ("tiny", weights_digest(run / WEIGHTS))


def test_a_model_loaded_from_format_1_is_saved_in_the_current_format(run, tmp_path):
    model = foveal.load(run)
    for folder, save in ((tmp_path / "hub", model.save_pretrained), (run, model.save_weights)):
        save(folder)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        assert config["format"] == FORMAT
        assert torch.equal(foveal.load(folder)(IMAGES), model(IMAGES))
    assert json.loads((run / CARD).read_text(encoding="utf-8"))["format"] == FORMAT


@pytest.mark.parametrize("number", [FORMAT + 1, 0, -1, True, 1.0, "2", None, [2], 10**30])
@pytest.mark.parametrize("file", [CONFIG, CARD])
def test_an_unknown_format_is_a_one_line_error(run, file, number):
    change_json(run / file, format=number)
    with pytest.raises(UserError, match=f"expected format 1 to {FORMAT}") as error:
        foveal.load(run)
    assert f"Foveal {foveal.__version__}" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("name", zoo.names())
def test_the_zoo_uses_the_current_format(name):
    for file in (CONFIG, CARD):
        values = json.loads((zoo.folder(name) / file).read_text(encoding="utf-8"))
        assert values["format"] == FORMAT


# For each preset: its settings, and a dictionary from the current prefix of the names of weights to
# the prefix that format 2 had instead.
PRESETS = {
    "high-res": (
        {"shrink": 2, "keypoints": 3, "patch_size": 8, "regions": 2, "tasks": ["a", "b"]},
        {"detector.fine.": "detector.", "detector.coarse.": "coarse.", "head.": ""},
    ),
    "reconstructor": (
        {
            "detector": {"name": "reconstruction", "keypoints": 3},
            "decoder": {"name": "conv", "in_channels": 1, "widths": [4, 8]},
            "patch_size": 5,
            "softness_px": 0.5,
        },
        {"head.": "decoder."},
    ),
}


@pytest.mark.parametrize("name", PRESETS)
def test_format_2_weights_are_loaded_by_their_former_names(name, tmp_path):
    settings, former_prefixes = PRESETS[name]
    torch.manual_seed(0)
    model = build_model({"name": name, **settings}).eval()

    def former_name(key):
        """Return the name of a weight in format 2, before presets consisted of parts."""
        for current, former in former_prefixes.items():
            if key.startswith(current):
                return former + key.removeprefix(current)
        return key

    state = {former_name(key): value for key, value in model.state_dict().items()}
    assert set(state) != set(model.state_dict())
    save_file(state, tmp_path / WEIGHTS)
    config = {"format": 2, "name": name, **settings}
    (tmp_path / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    assert torch.equal(foveal.load(tmp_path)(IMAGES), model(IMAGES))
