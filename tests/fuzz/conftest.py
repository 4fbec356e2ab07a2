"""How many cases are drawn: a tenth by default, all of them under FOVEAL_FUZZ=1."""

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
BATCHES = 10  # parts of a test, so that several processes share it


def check_cases(
    total: int, batch: int, folder: Path, problem_with: Callable[[int, Path], str]
) -> None:
    """Try the cases of one of `BATCHES` parts, and fail with what is wrong with each.

    Args:
        total: how many cases there are in all parts at full scale.
        batch: the number of the part.
        folder: where each case gets an empty folder.
        problem_with: tries a case, by its number, in its folder; returns what is wrong, or "".
    """
    problems = []
    for number in range(batch, max(BATCHES, round(total * SCALE)), BATCHES):
        inside = folder / str(number)
        inside.mkdir()
        if problem := problem_with(number, inside):
            problems.append(f"case {number}: {problem}")
        shutil.rmtree(inside)
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """A process that runs commands, each in a folder that it may not leave."""
    opened = Sandbox()
    yield opened
    opened.close()


def image(seed: int, size: tuple[int, int] = (28, 28), mode: str = "L") -> Image.Image:
    """Return noise of a height and width, grey or colour."""
    shape = size if mode == "L" else (*size, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8), mode)


@pytest.fixture(scope="session")
def photos(tmp_path_factory) -> Path:
    """A folder of two classes with twelve small images each."""
    root = tmp_path_factory.mktemp("photos")
    for label in ("cat", "dog"):
        (root / label).mkdir()
        for number in range(12):
            image(number + 100 * (label == "dog"), (12, 12)).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory, photos, sandbox) -> Path:
    """The run folder of a small model, trained for two epochs on the small images."""
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


def copied(model: str | Path, to: Path) -> Path:
    """Return a copy of a model's folder."""
    return Path(shutil.copytree(zoo.folder(model), to))


def drawn(name: str, number: int) -> random.Random:
    """Return the generator of one case."""
    return random.Random(f"{name} {number}")
