"""Fuzzing of model folders: each gives a result or a one-line error."""

import json
import random
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from foveal.foundation.files import parse_json

from .conftest import BATCHES, check_cases, copy_model, generator_of, image
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
def test_mutated_model_folder_gives_a_result_or_a_one_line_error(tmp_path, sandbox, batch):
    check_cases(1_000, batch, tmp_path, partial(problem_with_model, sandbox))


def problem_with_model(sandbox: Sandbox, number: int, allowed_folder: Path) -> str:
    """Run a command with a mutated model folder; return the problem, or ""."""
    rng = generator_of("model", number)
    image(number).save(allowed_folder / "image.png")
    name = rng.choice(MODELS)
    file = mutate_folder(copy_model(name, allowed_folder / "model"), rng)
    outcome = sandbox.run(command(rng), allowed_folder)
    problem = outcome.problem() or problem_with_output(outcome)
    return problem and f"{name}, {file}: {problem}"


def mutate_folder(folder: Path, rng: random.Random) -> str:
    """Damage one file of a model folder; return the name of the file."""
    name = rng.choice(("config.json",) * 6 + ("model.safetensors",) * 3 + ("card.json",))
    path = folder / name
    roll = rng.random()
    if roll < 0.05:
        replace_by_special_file(path, rng)
    elif name == "model.safetensors" and roll < 0.6:
        save_file(mutate_tensors(load_file(path), rng), path)
    elif name == "model.safetensors" or roll < 0.15:
        path.write_bytes(damage(path.read_bytes(), rng))
    elif roll < 0.2:
        path.write_bytes(rng.choice(HOSTILE_TEXTS))
    else:
        path.write_text(json.dumps(mutate(json.loads(path.read_text()), rng)))
    return name


def command(rng: random.Random) -> list[str]:
    """Return a command that reads a model folder."""
    roll = rng.random()
    if roll < 0.75:
        return ["explain", "model", "image.png", "--json"]
    if roll < 0.9:
        return ["predict", "model", "image.png", "--out", "rows.parquet", "--workers", "1"]
    return ["explain", "model", "image.png", "--out", "pictures"]


def problem_with_output(outcome: Outcome) -> str:
    """Return the problem with the JSON on stdout, or ""."""
    if not outcome.out.startswith("{"):
        return ""
    results = parse_json(outcome.out)["images"]  # raises for NaN
    classes = [entry for result in results for entry in result.get("probabilities", [])]
    are_valid = all(0 <= entry["probability"] <= 1 for entry in classes)
    return "" if results and are_valid else f"no probabilities: {outcome.out[:500]}"
