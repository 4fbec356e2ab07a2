"""Formats of config.json and card.json: earlier ones are read, unknown ones are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import foveal
from foveal import zoo
from foveal.errors import UserError
from foveal.model_files import CARD, CONFIG, FORMAT, WEIGHTS, weights_digest

RUN = Path(__file__).parent / "fixtures" / "run-format-1"  # as `foveal train` wrote it before 2
IMAGES = (torch.arange(28 * 28).reshape(1, 1, 28, 28) % 97) / 97
LOGITS = [-0.136823, 0.020851, 0.076775, 0.010029, -0.043800]  # of the version that wrote it
LOGITS += [0.149126, -0.110462, -0.005759, 0.012926, -0.197424]


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def change(path, **entries):
    values = json.loads(path.read_text(encoding="utf-8")) | entries
    path.write_text(json.dumps(values), encoding="utf-8")


def test_a_run_of_the_previous_format_answers_as_it_did(run):
    assert "format" not in json.loads((run / CONFIG).read_text(encoding="utf-8"))
    model = foveal.load(run)
    torch.testing.assert_close(model(IMAGES)[0], torch.tensor(LOGITS), atol=1e-5, rtol=0)
    card = zoo.card(run)
    assert (card["model"], card["weights_sha256"]) == ("tiny", weights_digest(run / WEIGHTS))


def test_a_run_of_the_previous_format_is_saved_in_the_current_one(run, tmp_path):
    model = foveal.load(run)
    for folder, save in ((tmp_path / "hub", model.save_pretrained), (run, model.save_weights)):
        save(folder)
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        assert config["format"] == FORMAT
        assert torch.equal(foveal.load(folder)(IMAGES), model(IMAGES))
    assert json.loads((run / CARD).read_text(encoding="utf-8"))["format"] == FORMAT


@pytest.mark.parametrize("number", [FORMAT + 1, 0, -1, True, 1.0, "2", None, [2], 10**30])
@pytest.mark.parametrize("file", [CONFIG, CARD])
def test_an_unknown_format_is_refused_in_one_line(run, file, number):
    change(run / file, format=number)
    with pytest.raises(UserError, match=f"expected format 1 to {FORMAT}") as refused:
        foveal.load(run)
    assert f"Foveal {foveal.__version__}" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("name", zoo.names())
def test_the_zoo_is_of_the_current_format(name):
    for file in (CONFIG, CARD):
        values = json.loads((zoo.folder(name) / file).read_text(encoding="utf-8"))
        assert values["format"] == FORMAT
