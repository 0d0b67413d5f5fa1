"""A machine that is about to be taken: heard as a signal; and no end later than the grace time."""

import threading
import time
from pathlib import Path

import pytest

from tests.maintenance_test import Metadata
from tests.whole import mini
from tests.whole.resume_test import strike


def test_a_notice_of_the_machine_stops_the_run_and_saves(
    undisturbed: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, metadata = tmp_path / "run", Metadata()
    monkeypatch.setenv("GCE_METADATA_HOST", metadata.host)
    process = mini.start(mini.flags(run, cache, steps=500, eval__every=0))

    def give_notice() -> None:
        until = time.monotonic() + 300
        while not (run / "metrics.jsonl").is_file() or not mini.lines(run / "metrics.jsonl"):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(0.1)
        metadata.said["preempted"] = "TRUE"

    threading.Thread(target=give_notice, daemon=True).start()
    ended = mini.end(process)
    assert ended.code == 75 and "The same command goes on" in ended.err, ended
    rows = mini.lines(run / "metrics.jsonl")
    saved = [int(file.name) for file in (run / "checkpoints").glob("[0-9]*")]
    assert f"stopped after step {max(saved)} of 500" in ended.err and max(saved) == len(rows)


def test_after_the_grace_time_it_is_gone_and_the_save_before_stands(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """Here it is over before anything can be saved; 75 and what was saved before stand."""
    arguments = mini.flags(tmp_path / "run", cache, preempt__grace_s=0.001)
    ended = strike("SIGTERM", ("seirenes_jax.train:measure_start", "after", 1), arguments)
    assert ended.code == 75 and "preempt.grace_s = 0.001 s are over" in ended.err, ended
    assert "the same command goes on from what was saved last" in ended.err
    assert mini.launch(mini.flags(tmp_path / "run", cache)).code == 0
    assert mini.read(tmp_path / "run") == mini.read(undisturbed)
