"""launch/gke.yaml: has what the JobSet and Job schemas ask for, and says what we mean by it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.launch.cluster import Cluster, script

ROOT = Path(__file__).parents[2]

# What the published schemas (jobset.x-k8s.io/v1alpha2, batch/v1, v1) allow of the fields that a
# launcher may use: {field: type}; a leading ! marks a required one. A list holds one kind of thing.
CONTAINER = {
    "!name": str, "!image": str, "command": [str], "args": [str], "workingDir": str,
    "env": [{"!name": str, "value": str}],
    "resources": {"requests": {"google.com/tpu": int}, "limits": {"google.com/tpu": int}},
}  # fmt: skip
POD = {
    "!restartPolicy": str, "terminationGracePeriodSeconds": int, "serviceAccountName": str,
    "nodeSelector": {
        "cloud.google.com/gke-tpu-accelerator": str, "cloud.google.com/gke-tpu-topology": str,
    },
    "!containers": [CONTAINER],
}  # fmt: skip
EXIT_CODES = {"containerName": str, "!operator": str, "!values": [int]}
JOB = {
    "completionMode": str, "parallelism": int, "completions": int, "backoffLimit": int,
    "podFailurePolicy": {"!rules": [{"!action": str, "onExitCodes": EXIT_CODES}]},
    "!template": {"!spec": POD},
}  # fmt: skip
JOBSET = {
    "!apiVersion": str, "!kind": str, "!metadata": {"!name": str},
    "!spec": {
        "network": {"enableDNSHostnames": bool, "subdomain": str},
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [{"!name": str, "!action": str, "onJobFailureReasons": [str]}],
        },
        "!replicatedJobs": [{"!name": str, "replicas": int, "!template": {"!spec": JOB}}],
    },
}  # fmt: skip


def faults(value: Any, schema: Any, at: str = "") -> list[str]:
    """Where a document differs from a schema of the kind above."""
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            return [f"{at}: wanted a table"]
        known = {name.removeprefix("!"): inner for name, inner in schema.items()}
        needed = {name[1:] for name in schema if name.startswith("!")}
        found = [f"{at}.{name}: missing" for name in sorted(needed - value.keys())]
        found += [f"{at}.{name}: unknown" for name in sorted(value.keys() - known.keys())]
        for name in value.keys() & known.keys():
            found += faults(value[name], known[name], f"{at}.{name}")
        return found
    if isinstance(schema, list):
        if not isinstance(value, list) or not value:
            return [f"{at}: wanted a list"]
        each = (faults(one, schema[0], f"{at}.{n}") for n, one in enumerate(value))
        return [fault for found in each for fault in found]
    return [] if type(value) is schema else [f"{at}: got {value!r}; wanted {schema.__name__}"]


@pytest.fixture
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "launch" / "gke.yaml").read_text())
    return found


def job_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (workers,) = manifest["spec"]["replicatedJobs"]
    found: dict[str, Any] = workers["template"]["spec"]
    return found


def test_it_fits_the_schemas(manifest: dict[str, Any]) -> None:
    assert faults(manifest, JOBSET) == []
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


@pytest.mark.parametrize("damage", ["unknown", "missing", "type"])
def test_the_check_can_fail(damage: str, manifest: dict[str, Any]) -> None:
    job = job_of(manifest)
    if damage == "unknown":
        job["backOffLimit"] = 0
    elif damage == "missing":
        del job["template"]["spec"]["restartPolicy"]
    else:
        job["completions"] = "4"
    assert len(faults(manifest, JOBSET)) == 1


def test_75_starts_all_pods_again_and_1_and_2_end_the_run(manifest: dict[str, Any]) -> None:
    job, policy = job_of(manifest), manifest["spec"]["failurePolicy"]
    # The job fails with its first pod; why decides what the set does.
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": container["name"], "operator": "In", "values": [1, 2],
        },
    }  # fmt: skip
    (last,) = policy["rules"]
    assert re.fullmatch("[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", last["name"])
    assert (last["action"], last["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert policy["maxRestarts"] > 0  # any other reason


def test_one_pod_a_host_each_with_its_name(manifest: dict[str, Any]) -> None:
    job = job_of(manifest)
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]
    assert manifest["spec"]["network"]["enableDNSHostnames"]  # the headless service
    long, wide = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x")
    tpus = container["resources"]["limits"]["google.com/tpu"]
    assert int(long) * int(wide) == tpus * job["parallelism"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    grace = 25.0  # preempt.grace_s
    assert pod["terminationGracePeriodSeconds"] > 2 * grace


def test_the_container_runs_the_training_with_its_exit_code(
    manifest: dict[str, Any], tmp_path: Path
) -> None:
    """Its own commands, with a git that copies and a python that ends with 75."""
    (container,) = job_of(manifest)["template"]["spec"]["containers"]
    made = Cluster(tmp_path, "75")
    place = made.checkout(0)
    script(tmp_path / "bin" / "git", 'echo "git $*" >>"$CLUSTER/calls"; exit "${GIT_CODE:-0}"')
    for name in ("requirements.txt",):
        (place / name).symlink_to(ROOT / name)
    env = {one["name"]: one["value"] for one in container["env"]} | {"WORKER": "0"}
    command = [*container["command"], *container["args"]]
    ended = subprocess.run(command, cwd=place, env=made.environment(**env), capture_output=True)
    assert ended.returncode == 75, ended
    (trained,) = made.calls("train0")
    assert f"--coordinator=auto {' '.join(env['FLAGS'].split())}" in trained
    (pip,) = [call for call in made.calls("python0") if "pip install" in call]
    assert "tpu_requirements.txt" in pip
    # No network: a lost pod, not a failed run.
    env["GIT_CODE"] = "128"
    ended = subprocess.run(command, cwd=place, env=made.environment(**env), capture_output=True)
    assert ended.returncode == 75 and len(made.calls("train0")) == 1
