"""The files of the pages on clusters: they parse, and what they call takes what they give it."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from foveal.cli import app

FOLDER = Path(__file__).parents[1] / "docs" / "cluster"


def commands(text: str) -> list[list[str]]:
    """Return the words of each call of foveal."""
    joined = text.replace("\\\n", " ")
    return [shlex.split(one) for one in re.findall(r"foveal (?:train|predict) [^\n]+", joined)]


def check(words: list[str]) -> None:
    known = typer.main.get_command(app).commands[words[1]]
    options = {name for option in known.params for name in option.opts}
    given = [word for word in words if word.startswith("--")]
    assert len(given) >= 3
    assert set(given) <= options


@pytest.mark.parametrize("name", ["train.sbatch", "predict.sbatch"])
def test_a_batch_script_is_bash_and_calls_what_there_is(name):
    text = (FOLDER / name).read_text()
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            assert re.fullmatch(r"#SBATCH --[a-z-]+=\S+", line)
    found = commands(text)
    assert len(found) == 1
    check(found[0])


def test_the_job_of_kubernetes_is_yaml_and_calls_what_there_is():
    job = yaml.safe_load((FOLDER / "predict-rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    [words] = commands(job["spec"]["entrypoint"])
    check(words)
    groups = job["spec"]["rayClusterSpec"]
    pods = [groups["headGroupSpec"], *groups["workerGroupSpecs"]]
    for group in pods:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
