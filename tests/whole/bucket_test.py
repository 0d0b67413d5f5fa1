"""A whole run in a bucket: begun, killed, taken up by another machine, the same bits at the end."""

import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import gcs_server
from tests.gcs_server import Bucket
from tests.whole import mini
from tests.whole.resume_test import strike

RUN = "gs://bucket/runs/mini"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Every process started meanwhile finds gs:// here."""
    with gcs_server.serving() as (store, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield store


def taken_down(bucket: Bucket, run: str, folder: Path) -> Path:
    """A run of the bucket as a folder of this machine."""
    under = run.removeprefix("gs://") + "/"
    for name in bucket.names(under):
        file = folder / name.removeprefix(under)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bucket.read(name))
    return folder


def test_a_run_in_a_bucket_is_the_run_in_a_folder(
    undisturbed: Path, cache: Path, tmp_path: Path, bucket: Bucket
) -> None:
    arguments = mini.flags(RUN, cache)
    # Killed when its files have gone ahead of the last save; then asked to stop.
    killed = strike("SIGKILL", ("seirenes_jax.learn:apply_gradient", "before", 4), arguments)
    assert killed.code == -signal.SIGKILL
    spool = next((cache / "spool").glob("*/mini"))
    assert len(mini.lines(spool / "metrics.jsonl")) == 3
    shutil.rmtree(cache / "spool")  # another machine has none
    stopped = strike("SIGTERM", ("seirenes_jax.train:play_rounds", "before", 2), arguments)
    assert stopped.code == 75 and f"everything is saved in {RUN}" in stopped.err, stopped
    assert "goes on after step 2" in stopped.out
    assert "bucket/runs/mini/lease.json" not in bucket.names()  # nobody runs there
    written = [name for name in bucket.written if "commit" in name or "metrics" in name]
    rows = [name for name in written if name.endswith("metrics.jsonl")]
    assert rows and written.index(rows[0]) < len(written) - 1
    shutil.rmtree(cache / "spool")
    ended = mini.launch(arguments)
    assert ended.code == 0 and f"model:  {RUN}/hf" in ended.out, ended
    here = taken_down(bucket, RUN, tmp_path / "here")
    assert mini.read(here) == mini.read(undisturbed)
    for name in ("report.html", "summary.json", "config.json", "model/config.json"):
        assert (here / name).read_bytes(), name
    assert "stopped after step" in (here / "events.log").read_text()
    assert list((here / "tensorboard").iterdir())
    # It is an end that was reached: nothing is measured or exported again.
    weights = bucket.written.count("bucket/runs/mini/hf/model.safetensors")
    again = mini.launch(arguments)
    assert again.code == 0 and "report:" in again.out
    assert bucket.written.count("bucket/runs/mini/hf/model.safetensors") == weights


@pytest.mark.long
def test_forked_exported_and_begun_from(
    undisturbed: Path, cache: Path, tmp_path: Path, bucket: Bucket
) -> None:
    for file in undisturbed.rglob("*"):
        if file.is_file():
            name = f"bucket/runs/mini/{file.relative_to(undisturbed).as_posix()}"
            bucket.put(name, file.read_bytes(), {})
    exported = mini.launch(
        [f"--run={RUN}", "--out=gs://bucket/out", "--prove"], (sys.executable, "launch/export.py")
    )
    assert exported.code == 0 and "bucket/out/proof.json" in bucket.names(), exported
    fork = "gs://bucket/runs/fork"
    flags = [*mini.flags(RUN, cache, optimizer__lr=1e-4, steps=7), f"--fork={fork}"]
    assert mini.launch(flags).code == 0
    here = taken_down(bucket, fork, tmp_path / "fork")
    rows = mini.lines(here / "metrics.jsonl")
    assert rows[:6] == mini.lines(undisturbed / "metrics.jsonl") and len(rows) == 7
    begun = mini.launch(mini.flags(tmp_path / "run", cache, init_from=RUN, steps=1))
    assert begun.code == 0, begun


@pytest.mark.long
def test_adapters_in_a_bucket(cache: Path, tmp_path: Path, bucket: Bucket) -> None:
    knobs = {"model__lora__rank": 4, "steps": 4, "eval__every": 0}
    mini.train(tmp_path / "run", cache, **knobs)
    arguments = mini.flags(RUN, cache, **knobs)
    killed = strike("SIGKILL", ("seirenes_jax.learn:apply_gradient", "before", 4), arguments)
    assert killed.code == -signal.SIGKILL
    shutil.rmtree(cache / "spool")
    ended = mini.launch(arguments)
    assert ended.code == 0 and "goes on after step" in ended.out, ended
    here = taken_down(bucket, RUN, tmp_path / "here")
    assert mini.read(here) == mini.read(tmp_path / "run")
    # The weights under the adapters lie there once, and are the ones of the other run.
    base = "base/model.safetensors"
    assert bucket.written.count(f"bucket/runs/mini/{base}") == 1
    assert (here / base).read_bytes() == (tmp_path / "run" / base).read_bytes()


def test_a_bucket_that_refuses_is_said(cache: Path, bucket: Bucket) -> None:
    bucket.refused = "lease.json"
    ended = mini.launch(mini.flags(RUN, cache))
    assert ended.code == 1 and "the store refused" in ended.err, ended
    bucket.refused = "runs/mini/checkpoints/0/state"
    process = mini.start(mini.flags(RUN, cache))
    err = process.communicate(timeout=600)[1]  # the threads of a library have their say first
    assert process.returncode == 1, err
    assert err.splitlines()[-1].startswith(f"error: saving step 0 into {RUN}/checkpoints failed")
    assert "bucket/runs/mini/metrics.jsonl" in bucket.names()
