"""The files of the pages on clusters: they parse, and what they call takes what they give it."""

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


def _fields(required=(), **properties):
    """Return a schema of an object that has these fields, and no other."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


_TEXT, _WHOLE, _SWITCH = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_POD = {
    "type": "object",
    "required": ["spec"],
}  # Kubernetes' own; see the page on how it is checked
# What KubeRay's operator takes: RayJobSpec and RayClusterSpec of its API ray.io/v1
# (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go), without what is deprecated.
_GROUP = {"rayStartParams": _TEXTS, "template": _POD}
_RAY_CLUSTER = _fields(
    ["headGroupSpec"],
    rayVersion=_TEXT,
    enableInTreeAutoscaling=_SWITCH,
    suspend=_SWITCH,
    headServiceAnnotations=_TEXTS,
    headGroupSpec=_fields(["template"], serviceType=_TEXT, enableIngress=_SWITCH, **_GROUP),
    workerGroupSpecs={
        "type": "array",
        "items": _fields(
            ["groupName", "template", "minReplicas", "maxReplicas"],
            groupName=_TEXT,
            replicas=_WHOLE,
            minReplicas=_WHOLE,
            maxReplicas=_WHOLE,
            numOfHosts=_WHOLE,
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
        activeDeadlineSeconds=_WHOLE,
        backoffLimit=_WHOLE,
        clusterSelector=_TEXTS,
        entrypoint=_TEXT,
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=_TEXT,
        jobId=_TEXT,
        metadata=_TEXTS,
        rayClusterSpec=_RAY_CLUSTER,
        runtimeEnvYAML=_TEXT,
        shutdownAfterJobFinishes=_SWITCH,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        suspend=_SWITCH,
        ttlSecondsAfterFinished=_WHOLE,
    ),
)


def _misspelt(job):
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplica"] = 1


def _of_the_wrong_kind(job):
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def test_the_job_has_the_fields_that_kuberay_knows():
    job = yaml.safe_load((FOLDER / "predict-rayjob.yaml").read_text())
    jsonschema.validate(job, _RAY_JOB)
    for spoil in (_misspelt, _of_the_wrong_kind):
        spoilt = copy.deepcopy(job)
        spoil(spoilt)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoilt, _RAY_JOB)


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
