"""Fuzzing of recipes, overrides and checkpoints: each trains or gives a one-line error."""

import random
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from foveal.training import load_recipe

from .conftest import BATCHES, SMALL_RECIPE, check_cases, generator_of
from .mutations import HOSTILE_TEXTS, VALUES, damage, mutate, paths_of
from .sandbox import Sandbox

RECIPES = ("mnist-focus", "mnist-zoom", "mnist-glimpse", "cifar10-attention", "mnist-saliency")
# Overrides that shorten the training; they come last, so that no mutation overrides them.
LIMITS = ("training.epochs=1", "training.recalibrate=0", "--quiet")


@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutated_recipe_trains_or_gives_a_one_line_error(tmp_path, photos, sandbox, batch):
    check_cases(200, batch, tmp_path, partial(problem_with_recipe, sandbox, photos))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_override_trains_or_gives_a_one_line_error(tmp_path, photos, sandbox, batch):
    check_cases(200, batch, tmp_path, partial(problem_with_override, sandbox, photos))


@pytest.mark.parametrize("batch", range(BATCHES))
def test_mutated_checkpoint_resumes_or_gives_an_error_and_deletes_nothing(
    tmp_path, photos, trained, sandbox, batch
):
    check_cases(100, batch, tmp_path, partial(problem_with_checkpoint, sandbox, photos, trained))


def problem_with_recipe(sandbox: Sandbox, photos: Path, number: int, allowed_folder: Path) -> str:
    """Train with a mutated recipe; return the problem, or ""."""
    rng = generator_of("recipe", number)
    settings = yaml.safe_load(SMALL_RECIPE)
    if rng.random() < 0.5:
        settings = load_recipe(rng.choice(RECIPES)).to_dict()
    text = yaml.safe_dump(mutate(settings, rng)).encode()
    if rng.random() < 0.3:
        text = rng.choice((damage(text, rng), rng.choice(HOSTILE_TEXTS)))
    (allowed_folder / "mine.yaml").write_bytes(text)
    problem = train(sandbox, ["mine.yaml", *LIMITS], allowed_folder, photos)
    return problem and f"{text[:3_000]!r}\n{problem}"


def problem_with_override(sandbox: Sandbox, photos: Path, number: int, allowed_folder: Path) -> str:
    """Train with an arbitrary value of one setting; return the problem, or ""."""
    rng = generator_of("override", number)
    (allowed_folder / "mine.yaml").write_text(SMALL_RECIPE)
    name = rng.choice((*RECIPES, "mine.yaml", "mine.yaml"))
    values = load_recipe(name if name in RECIPES else allowed_folder / name).to_dict()
    path = ".".join(map(str, rng.choice(paths_of(values))))
    value = yaml.safe_dump(rng.choice(VALUES), default_flow_style=True, width=10**6)
    override = f"{path}={value.removesuffix('...' + chr(10)).strip()}".replace("\0", "")
    problem = train(sandbox, [name, override, *LIMITS], allowed_folder, photos)
    return problem and f"{name} {override[:500]}\n{problem}"


def problem_with_checkpoint(
    sandbox: Sandbox, photos: Path, trained: Path, number: int, allowed_folder: Path
) -> str:
    """Resume from a mutated checkpoint; return the problem, or ""."""
    # A folder whose path is written into the checkpoint, and which must not be changed.
    victim = allowed_folder.with_name(f"victim-{number}")
    victim.mkdir()
    (victim / "precious.txt").write_text("precious")
    shutil.copytree(trained, allowed_folder / "run")
    mutate_checkpoint(
        allowed_folder / "run/checkpoints/last.ckpt", generator_of("checkpoint", number), victim
    )
    shutil.copy(allowed_folder / "run/recipe.yaml", allowed_folder / "mine.yaml")
    problem = train(sandbox, ["mine.yaml", "--resume", "--quiet"], allowed_folder, photos)
    if not (victim / "precious.txt").is_file():
        return "a file outside the run folder was deleted"
    return problem


def mutate_checkpoint(path: Path, rng: random.Random, victim: Path) -> None:
    """Damage the bytes of a checkpoint, or replace a value in it, possibly by the victim's path."""
    if rng.random() < 0.3:
        path.write_bytes(damage(path.read_bytes(), rng))
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    targets = [state]
    targets += [value for value in state.values() if isinstance(value, dict)]
    # The states of callbacks are chosen more often, because they contain paths.
    targets += [value for value in state["callbacks"].values() if isinstance(value, dict)] * 3
    container = rng.choice([target for target in targets if target])
    key = rng.choice(sorted(container, key=str))
    paths = (str(victim), f"local://{victim}", str(path.parent / ".." / ".." / victim.name))
    container[key] = rng.choice(
        (*VALUES, *paths, *paths, {paths[0]: torch.tensor(0.5)}, [paths[0]])
    )
    torch.save(state, path)


def train(sandbox: Sandbox, arguments: list[str], allowed_folder: Path, photos: Path) -> str:
    """Train on a copy of the small images; return the problem, or ""."""
    shutil.copytree(photos, allowed_folder / "photos")
    outcome = sandbox.run(["train", *arguments, "--data", "photos", "--out", "run"], allowed_folder)
    if problem := outcome.problem():
        return problem
    is_saved = (allowed_folder / "run/model.safetensors").is_file()
    return "" if is_saved or outcome.status else "succeeded without saving a model"
