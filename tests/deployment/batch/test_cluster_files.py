"""Example files for clusters: they parse, and their foveal commands and options exist."""

import copy
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import typer
import yaml

from foveal.cli import app

FOLDER = Path(__file__).parents[3] / "docs" / "cluster"


def commands(text: str) -> list[list[str]]:
    """Return the words of each foveal command."""
    joined = text.replace("\\\n", " ")
    return [
        shlex.split(command) for command in re.findall(r"foveal (?:train|predict) [^\n]+", joined)
    ]


def check(words: list[str]) -> None:
    command = typer.main.get_command(app).commands[words[1]]
    options = {name for option in command.params for name in option.opts}
    used = [word for word in words if word.startswith("--")]
    assert len(used) >= 3
    assert set(used) <= options


@pytest.mark.parametrize("name", ["train.sbatch", "predict.sbatch"])
def test_a_batch_script_is_valid_bash_with_existing_commands(name):
    text = (FOLDER / name).read_text()
    subprocess.run(["bash", "-n", str(FOLDER / name)], check=True)
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            assert re.fullmatch(r"#SBATCH --[a-z-]+=\S+", line)
    [words] = commands(text)
    check(words)


def _fields(required=(), **properties):
    """Return the JSON schema of an object with exactly these fields."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT, _INTEGER, _BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_POD = {
    "type": "object",
    "required": ["spec"],
}  # Kubernetes' own type; docs/kubernetes.md says how it is checked
# The fields that KubeRay accepts: RayJobSpec and RayClusterSpec of its API ray.io/v1
# (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go), without deprecated fields.
_GROUP = {"rayStartParams": _TEXTS, "template": _POD}
_RAY_CLUSTER = _fields(
    ["headGroupSpec"],
    rayVersion=_TEXT,
    enableInTreeAutoscaling=_BOOLEAN,
    suspend=_BOOLEAN,
    headServiceAnnotations=_TEXTS,
    headGroupSpec=_fields(["template"], serviceType=_TEXT, enableIngress=_BOOLEAN, **_GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": _fields(
            ["groupName", "template", "minReplicas", "maxReplicas"],
            groupName=_TEXT,
            replicas=_INTEGER,
            minReplicas=_INTEGER,
            maxReplicas=_INTEGER,
            numOfHosts=_INTEGER,
            **_GROUP,
        ),
    },
)
_RAY_JOB = _fields(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_fields(["name"], name=_TEXT, namespace=_TEXT, labels=_TEXTS),
    spec=_fields(
        ["entrypoint", "rayClusterSpec"],
        activeDeadlineSeconds=_INTEGER,
        backoffLimit=_INTEGER,
        clusterSelector=_TEXTS,
        entrypoint=_TEXT,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=_TEXT,
        jobId=_TEXT,
        metadata=_TEXTS,
        rayClusterSpec=_RAY_CLUSTER,
        runtimeEnvYAML=_TEXT,
        shutdownAfterJobFinishes=_BOOLEAN,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        suspend=_BOOLEAN,
        ttlSecondsAfterFinished=_INTEGER,
    ),
)


def _misspell_a_field(job):
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1


def _change_a_type(job):
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def test_the_ray_job_matches_the_kuberay_schema():
    job = yaml.safe_load((FOLDER / "predict-rayjob.yaml").read_text())
    jsonschema.validate(job, _RAY_JOB)
    for damage in (_misspell_a_field, _change_a_type):
        damaged = copy.deepcopy(job)
        damage(damaged)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(damaged, _RAY_JOB)


def test_the_ray_job_calls_an_existing_command_with_equal_limits_and_requests():
    job = yaml.safe_load((FOLDER / "predict-rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    [words] = commands(job["spec"]["entrypoint"])
    check(words)
    groups = job["spec"]["rayClusterSpec"]
    pods = [groups["headGroupSpec"], *groups["workerGroupSpecs"]]
    for group in pods:
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
