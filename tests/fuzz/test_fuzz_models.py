"""Model folders by strangers: each is answered, or refused in a line."""

import json
import random
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from foveal.foundation.files import parse_json

from .conftest import BATCHES, check_cases, copied, drawn, image
from .mutations import HOSTILE_TEXTS, damage, mutate, mutate_tensors, replace_by_special_file
from .sandbox import Outcome, Sandbox

MODELS = (
    "mnist-focus",
    "mnist-glimpse",
    "mnist-cnn",
    "mnist-corners-published",
    "mnist-focus-unlabelled",
    "mnist-saliency",
    "cifar10-san",
    "cluttered-mnist-60-focus",
    "megapixel-mnist-focus",
)


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_mutated_model_folder_is_answered_or_refused_in_a_line(tmp_path, sandbox, batch):
    check_cases(1_000, batch, tmp_path, partial(problem_with_model, sandbox))


def problem_with_model(sandbox: Sandbox, number: int, inside: Path) -> str:
    """Give a mutated model folder to a command; return what is wrong with the outcome."""
    draw = drawn("model", number)
    image(number).save(inside / "image.png")
    name = draw.choice(MODELS)
    what = mutate_folder(copied(name, inside / "model"), draw)
    outcome = sandbox.run(command(draw), inside)
    problem = outcome.problem() or badly_answered(outcome)
    return problem and f"{name}, {what}: {problem}"


def mutate_folder(folder: Path, draw: random.Random) -> str:
    """Damage one file of a model folder; return which."""
    name = draw.choice(("config.json",) * 6 + ("model.safetensors",) * 3 + ("card.json",))
    path = folder / name
    kind = draw.random()
    if kind < 0.05:
        replace_by_special_file(path, draw)
    elif name == "model.safetensors" and kind < 0.6:
        save_file(mutate_tensors(load_file(path), draw), path)
    elif name == "model.safetensors" or kind < 0.15:
        path.write_bytes(damage(path.read_bytes(), draw))
    elif kind < 0.2:
        path.write_bytes(draw.choice(HOSTILE_TEXTS))
    else:
        path.write_text(json.dumps(mutate(json.loads(path.read_text()), draw)))
    return name


def command(draw: random.Random) -> list[str]:
    """Return a command that reads a model folder."""
    kind = draw.random()
    if kind < 0.75:
        return ["explain", "model", "image.png", "--json"]
    if kind < 0.9:
        return ["predict", "model", "image.png", "--out", "rows.parquet", "--workers", "1"]
    return ["explain", "model", "image.png", "--out", "pictures"]


def badly_answered(outcome: Outcome) -> str:
    """Return what is wrong with the JSON on stdout, if any is there."""
    if not outcome.out.startswith("{"):
        return ""
    answers = parse_json(outcome.out)["images"]  # strict: without NaN
    classes = [entry for answer in answers for entry in answer.get("probabilities", [])]
    valid = all(0 <= entry["probability"] <= 1 for entry in classes)
    return "" if answers and valid else f"no probabilities: {outcome.out[:500]}"
