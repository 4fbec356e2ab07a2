"""Fixtures for fuzzing: a tenth of the cases by default, all of them with FOVEAL_FUZZ=1.

Fuzzing runs commands on random, mostly invalid inputs. A case is one input; its number seeds the
random generator, so that a failing case can be repeated.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal import zoo

from .sandbox import Sandbox

SCALE = float(os.environ.get("FOVEAL_FUZZ", "0.1"))
BATCHES = 10  # batches of cases per test, which processes can run in parallel


def check_cases(
    total: int, batch: int, folder: Path, problem_with: Callable[[int, Path], str]
) -> None:
    """Try the cases of one of `BATCHES` batches, and fail with a list of their problems.

    Args:
        total: number of cases in all batches together, at full scale.
        batch: index of the batch.
        folder: folder in which each case gets an empty folder.
        problem_with: tries case `number` in a folder; returns a description of the problem, or "".
    """
    problems = []
    for number in range(batch, max(BATCHES, round(total * SCALE)), BATCHES):
        case_folder = folder / str(number)
        case_folder.mkdir()
        if problem := problem_with(number, case_folder):
            problems.append(f"case {number}: {problem}")
        shutil.rmtree(case_folder)
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Start a process that runs commands, each confined to one folder."""
    process = Sandbox()
    yield process
    process.close()


def image(seed: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> Image.Image:
    """Return an image of noise of the given height and width, grey or colour."""
    shape = size if mode == "L" else (*size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """Write twelve small images for each of two classes; return their folder."""
    root = tmp_path_factory.mktemp("photos")
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for index in range(12):
            seed = index + 100 * (label == "dog")
            image(seed, (12, 12)).save(root / label / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, photos, sandbox) -> Path:
    """Train a small model for two epochs on the small images; return its run folder."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "small.yaml").write_text(SMALL_RECIPE)
    arguments = ["train", "small.yaml", "--data", str(photos), "--out", "run", "--quiet"]
    outcome = sandbox.run(arguments, folder)
    assert outcome.status == 0, outcome.problem()
    return folder / "run"


SMALL_RECIPE = """\
name: small
model:
  name: focus
  detector: {name: heatmap, keypoints: 2, widths: [4]}
  patch_size: 3
  width: 8
training: {epochs: 2, batch_size: 8}
"""


def copy_model(model: str | Path, target: Path) -> Path:
    """Copy the folder of a model; return the path of the copy."""
    return Path(shutil.copytree(zoo.folder(model), target))


def generator_of(name: str, number: int) -> random.Random:
    """Return the random generator of case `number` of the test `name`."""
    return random.Random(f"{name} {number}")
