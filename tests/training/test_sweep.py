"""Sweeps: trials of settings, their claiming by processes, pruning, and the frontier."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from foveal.foundation.errors import UserError
from foveal.training.sweeps.study import FILE, Study, Trial, combinations
from foveal.training.sweeps.sweep import pareto_trials, parse_space, sweep

pytest.importorskip("optuna")
SPACE = {"lr": ["0.1", "0.2"], "clip": ["1", "2", "3"]}
RUN = {"recipe": "r", "data": None}


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    """A folder of two classes: a light square on the left or on the right."""
    folder = tmp_path_factory.mktemp("squares")
    random = torch.Generator().manual_seed(0)
    for name in ("left", "right"):
        (folder / name).mkdir()
        for index in range(60):
            x, y = (int(torch.randint(0, limit, (1,), generator=random)) for limit in (4, 12))
            left = x + 9 if name == "right" else x
            image = torch.zeros(16, 16, dtype=torch.uint8)
            image[y : y + 4, left : left + 3] = 255
            Image.fromarray(image.numpy()).save(folder / name / f"{index}.png")
    return folder


def test_values_are_separated_by_commas_outside_brackets():
    space = parse_space(
        "mnist-5k-focus", ["lr=0.001,0.003", "data.size=[28, 28],[32, 32]", "keep=best,last"]
    )
    assert space == {
        "lr": ["0.001", "0.003"],
        "data.size": ["[28, 28]", "[32, 32]"],
        "keep": ["best", "last"],
    }
    assert len(combinations(space)) == 8


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "at least one key to vary"),
        (["lr"], "Expected key=a,b,c"),
        (["lr=1", "lr=2"], "given twice"),
        (["lr=[1"], "Cannot read the values"),
        (["rl=1"], "Unknown recipe key 'rl'"),
        (["lr=0.1,fast"], "Expected training.lr to be a finite number, but got 'fast'"),
    ],
)
def test_an_invalid_search_space_is_refused_before_training(choices, message):
    with pytest.raises(UserError, match=message):
        parse_space("mnist-5k-focus", choices)


def test_each_combination_is_claimed_once_up_to_the_limit(tmp_path):
    study, other = (Study(tmp_path, SPACE, RUN) for _ in range(2))
    with study.claimed(6) as first, other.claimed(6) as second:
        assert first.settings != second.settings
        assert first.folder != second.folder
        with other.claimed(2) as third:
            assert third is None
        study.end(first, 0.5)
        other.end(second, 0.6)
    while True:
        with other.claimed(100) as claim:
            if claim is None:
                break
            other.end(claim, 0.1)
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(6))
    assert all(trial.settings in combinations(SPACE) for trial in trials)
    assert len({tuple(sorted(trial.settings.items())) for trial in trials}) == 6
    assert trials[0].val_accuracy == 0.5


_CLAIM_SCRIPT = """
import os, sys
from pathlib import Path
from foveal.training.sweeps.study import Study
study = Study(Path(sys.argv[1]), {"lr": ["0.1", "0.2"]}, {"recipe": "r", "data": None})
with study.claimed(2) as claim:
    os._exit(9)
"""


def test_the_trial_of_a_killed_process_is_claimed_again(tmp_path):
    assert subprocess.run([sys.executable, "-c", _CLAIM_SCRIPT, str(tmp_path)]).returncode == 9
    study = Study(tmp_path, {"lr": ["0.1", "0.2"]}, RUN)
    assert [trial.state for trial in study.trials()] == ["running"]
    for _ in range(2):
        with study.claimed(2) as claim:
            study.end(claim, 0.5)
    assert [(trial.state, trial.settings["lr"]) for trial in study.trials()] == [
        ("fail", "0.1"), ("complete", "0.1"), ("complete", "0.2"),
    ]  # fmt: skip


def test_a_trial_below_the_median_is_pruned(tmp_path):
    study = Study(tmp_path, SPACE, RUN)
    decisions = []
    for accuracy in (0.9, 0.8, 0.1):
        with study.claimed(6) as claim:
            *_, is_pruned = [claim.report(epoch, accuracy) for epoch in range(3)]
            decisions.append(is_pruned)
            study.end(claim, accuracy, pruned=is_pruned)
    assert decisions == [False, False, True]
    assert [trial.state for trial in study.trials()] == ["complete", "complete", "pruned"]
    without_pruning = Study(tmp_path, SPACE, RUN, prune=False)
    with without_pruning.claimed(6) as claim:
        assert not any(claim.report(epoch, 0.0) for epoch in range(3))
        without_pruning.end(claim, 0.0)


def test_a_folder_holds_only_one_study(tmp_path):
    Study(tmp_path, SPACE, RUN)
    for space, run in (({"lr": ["1"]}, RUN), (SPACE, {**RUN, "recipe": "other"})):
        with pytest.raises(UserError, match="use another --out"):
            Study(tmp_path, space, run)
    with pytest.raises(UserError, match="Did you mean 'grid'"):
        Study(tmp_path, SPACE, RUN, sampler="gird")


def test_the_frontier_holds_the_pareto_optimal_trials():
    # Pairs of accuracy, as high as possible, and fraction of evidence, as low as possible.
    figures = [(0.9, 0.3), (0.8, 0.1), (0.85, 0.2), (0.7, 0.15), (0.9, 0.4), (None, 0.1)]
    trials = [
        Trial(number, {}, "complete", accuracy, evidence)
        for number, (accuracy, evidence) in enumerate(figures)
    ]
    assert [trial.number for trial in pareto_trials(trials)] == [1, 2, 0]


@pytest.mark.slow
def test_a_sweep_trains_each_trial_once_and_draws_the_frontier(squares, tmp_path):
    space = parse_space("mnist-focus", ["model.patch_size=3,5", "epochs=2", "batch_size=20"])
    space |= parse_space("mnist-focus", ["model.width=16"])
    lines: list[str] = []
    options = {"data": str(squares), "notify": lines.append}
    trials = sweep("mnist-focus", space, tmp_path, **options)
    assert [trial.settings["model.patch_size"] for trial in trials] == ["3", "5"]
    assert trials[0].evidence_fraction < trials[1].evidence_fraction
    assert all(0 <= trial.val_accuracy <= 1 for trial in trials)
    assert Image.open(tmp_path / "frontier.png").width > 300
    assert (tmp_path / FILE).read_bytes().startswith(b"SQLite format 3")
    assert (tmp_path / "trial-0001" / "model.safetensors").exists()
    assert len(lines) == 2
    assert sweep("mnist-focus", space, tmp_path, **options) == trials
    assert len(lines) == 2


def test_invalid_settings_of_all_trials_end_the_sweep_with_an_error(squares, tmp_path):
    space = parse_space("mnist-focus", ["model.mix=attention", "model.width=30", "epochs=1"])
    lines: list[str] = []
    with pytest.raises(UserError, match="multiple of 4"):
        sweep("mnist-focus", space, tmp_path, data=str(squares), notify=lines.append)
    assert "failed" in lines[0]
    assert len(lines) == 1


def test_a_recipe_without_classes_cannot_be_swept(tmp_path):
    with pytest.raises(UserError, match="does not train a classifier"):
        sweep("mnist-saliency", {"lr": ["1"]}, tmp_path)


@pytest.mark.slow
def test_the_command_prints_the_frontier_and_all_trials_as_json(squares, tmp_path, run):
    arguments = ["sweep", "mnist-5k-corners", "epochs=1", "batch_size=20,30", "--data", squares]
    arguments += ["--out", tmp_path / "out"]
    output = run(*arguments)
    assert output.returncode == 0, output.stderr
    *best, picture = output.stdout.splitlines()
    assert picture == str(tmp_path / "out" / "frontier.png")
    assert all("% from " in line and "epochs=1 batch_size=" in line for line in best)
    trials = json.loads(run(*arguments, "--json").stdout)["trials"]
    assert [trial["settings"]["batch_size"] for trial in trials] == ["20", "30"]
    assert {trial["state"] for trial in trials} == {"complete"}


def test_the_tpe_sampler_stops_at_the_limit_and_invalid_arguments_are_errors(tmp_path):
    study = Study(tmp_path, SPACE, RUN, sampler="tpe", seed=1, prune=False)
    for _ in range(3):
        with study.claimed(3) as claim:
            assert set(claim.settings) == set(SPACE)
            assert not claim.report(0, 0.0)
            study.end(claim, 0.5)
    with study.claimed(3) as claim:
        assert claim is None
    with pytest.raises(UserError, match="Did you mean 'tpe'"):
        Study(tmp_path, SPACE, RUN, sampler="tep")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Cannot write to"):
        Study(tmp_path / "file" / "below", SPACE, RUN)
