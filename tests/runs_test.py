"""The listing of run folders: what it shows, what it calls healthy, and that it wakes no jax."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from seirenes_jax import runs
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import ConfigError
from tests.made_run import make_run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A made-up run of six steps with checkpoints of 2, 4 (the best) and 6."""
    folder = make_run(tmp_path / "run", steps=6)
    (folder / "events.log").write_text("t1 begun\nt2 goes on\nt3 odd\nt4 stopped after step 6\n")
    (folder / "summary.json").unlink()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["time"]["step"] = 1.5
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Checkpoints(folder / "checkpoints", keep=3) as checkpoints:
        for step, score in ((2, 0.2), (4, 0.9), (6, None)):
            state = {"params": {"w": jnp.arange(5000.0) + step}}
            checkpoints.save(step, state, host_arrays={}, host_json={}, metric=score)
    return folder


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "launch/runs.py", *map(str, words)], capture_output=True, text=True,
        cwd=ROOT,
    )  # fmt: skip


def finish(run: Path, steps: int) -> None:
    (run / "summary.json").write_text(json.dumps({"steps": steps}))


def damage(run: Path, step: int) -> None:
    place = run / "checkpoints" / str(step) / "state"
    file = max((f for f in place.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def test_what_is_shown(run: Path) -> None:
    found = runs.look(str(run), verify=False)
    assert [one["step"] for one in found["checkpoints"]] == [2, 4, 6]
    assert all(one["gib"] > 0 and one["fault"] is None for one in found["checkpoints"])
    assert (found["best"], found["step"], found["health"]) == (4, 6, "stopped after step 6")
    assert found["seconds_a_step"] == 1.5 and found["tokens"] == found["last"]["tokens_total"]
    said = runs.told(found)
    assert "0.900  best" in said and "step 6/6" in said and "t4 stopped" in said
    assert "t1 begun" not in said and "seed 0" in said


def test_health(run: Path) -> None:
    def health(verify: bool = False) -> str:
        return str(runs.look(str(run), verify=verify)["health"])

    handle = os.open(run, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert health() == "running"
    os.close(handle)
    finish(run, 6)
    assert health() == "complete after step 6"
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "steps": 9}))
    assert health() == "complete after step 6 (its budget)"
    damage(run, 4)
    assert health() == "complete after step 6 (its budget)"  # arrays are not read unasked
    assert health(verify=True) == "damaged: the checkpoint of step 4"
    for step in (2, 4, 6):
        (run / "checkpoints" / str(step)).rename(run / f"{step}.gone")
    assert health() == "begun, nothing saved"


def test_the_command(run: Path, tmp_path: Path) -> None:
    done = command(run, "--json")
    (found,) = json.loads(done.stdout)
    assert done.returncode == 0 and found == json.loads(json.dumps(runs.look(str(run), verify=0)))
    damage(run, 2)
    done = command(run, run, "--verify")
    assert done.returncode == 1 and done.stdout.count("DAMAGED: ") == 2, done
    assert "params/w" in done.stdout or "DATA_LOSS" in done.stdout or "rror" in done.stdout
    for words in ([], [tmp_path / "nowhere"], [run, "--nonsense"]):
        done = command(*words)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted a run folder"):
        runs.look(str(tmp_path), verify=False)
