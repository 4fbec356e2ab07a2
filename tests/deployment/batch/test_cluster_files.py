"""Example files for clusters in the docs: their syntax, and the foveal commands in them."""

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
    """Return the foveal commands in a script, each as a list of words."""
    joined = text.replace("\\\n", " ")
    return [
        shlex.split(command) for command in re.findall(r"foveal (?:train|predict) [^\n]+", joined)
    ]


def check_options(words: list[str]) -> None:
    """Check that the subcommand of a foveal command exists and accepts its options."""
    command = typer.main.get_command(app).commands[words[1]]
    options = {name for option in command.params for name in option.opts}
    used = [word for word in words if word.startswith("--")]
    # Each example has at least 3 options; fewer would mean that continued lines were not joined.
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
    check_options(words)


def _object_schema(required=(), **properties):
    """Return the JSON schema of an object that allows these fields only.

    Args:
        required: names of the fields that must be present.
        properties: the schema of each field.
    """
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_STRING, _INTEGER, _BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
# An object of any keys, whose values are strings.
_STRING_MAP = {"type": "object", "additionalProperties": _STRING}
# A pod template, whose fields Kubernetes defines: docs/kubernetes.md says how they were checked.
_POD = {"type": "object", "required": ["spec"]}
# The fields that KubeRay accepts: RayJobSpec and RayClusterSpec of its API ray.io/v1
# (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go), without deprecated fields.
_GROUP = {"rayStartParams": _STRING_MAP, "template": _POD}
_RAY_CLUSTER = _object_schema(
    ["headGroupSpec"],
    rayVersion=_STRING,
    enableInTreeAutoscaling=_BOOLEAN,
    suspend=_BOOLEAN,
    headServiceAnnotations=_STRING_MAP,
    headGroupSpec=_object_schema(
        ["template"], serviceType=_STRING, enableIngress=_BOOLEAN, **_GROUP
    ),
    workerGroupSpecs={
        "type": "array",
        "items": _object_schema(
            ["groupName", "template", "minReplicas", "maxReplicas"],
            groupName=_STRING,
            replicas=_INTEGER,
            minReplicas=_INTEGER,
            maxReplicas=_INTEGER,
            numOfHosts=_INTEGER,
            **_GROUP,
        ),
    },
)
_RAY_JOB = _object_schema(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_object_schema(["name"], name=_STRING, namespace=_STRING, labels=_STRING_MAP),
    spec=_object_schema(
        ["entrypoint", "rayClusterSpec"],
        activeDeadlineSeconds=_INTEGER,
        backoffLimit=_INTEGER,
        clusterSelector=_STRING_MAP,
        entrypoint=_STRING,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=_STRING,
        jobId=_STRING,
        metadata=_STRING_MAP,
        rayClusterSpec=_RAY_CLUSTER,
        runtimeEnvYAML=_STRING,
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


def test_the_ray_job_matches_the_kuberay_schema_and_damaged_copies_do_not():
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
    check_options(words)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
