"""Numbers that go bad in a run: not applied, kept, computed again; in a row they end it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from seirenes_jax import stored
from tests.whole import mini
from tests.whole.processes_test import end, start

BENT = (sys.executable, "tests/whole/bent.py")
REPLAY = (sys.executable, "launch/replay.py")
SHORT = {"eval__every": 0, "checkpoint__every": 1, "checkpoint__keep": 3}


def bent(how: str, step: int, run: Path, cache: Path, **knobs: object) -> mini.Ended:
    return mini.launch([how, str(step), *mini.flags(run, cache, **(SHORT | knobs))], BENT)


def learnt(run: Path, step: int) -> dict[str, list[object]]:
    """Shape, dtype and fingerprint of every parameter and moment of a checkpoint."""
    leaves = stored.record(run / "checkpoints", step)[0]["leaves"]
    return {name: leaf for name, leaf in leaves.items() if name != "step"}


@pytest.mark.parametrize("rank", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_bad_step_is_not_applied_and_comes_back(cache: Path, tmp_path: Path, rank: int) -> None:
    run, knobs = tmp_path / "run", {"model__lora__rank": rank}
    ended = bent("spoil", 2, run, cache, steps=3, **knobs)
    assert ended.code == 0, ended
    assert f"To see why: python launch/replay.py {run / 'bad' / 'step-2'}" in ended.out
    events = (run / "events.log").read_text()
    assert "step 2 was not applied: " in events and "gradient norm (numbers.gradient" in events
    assert "start-up probe: sampler against trainer" in events
    assert learnt(run, 1) == learnt(run, 2) != learnt(run, 3)
    rows = mini.lines(run / "metrics.jsonl")
    assert rows[1]["grad_norm"] is None and rows[2]["grad_norm"] > 0

    kept = json.loads((run / "bad" / "step-2" / "evidence.json").read_text())
    assert kept["checkpoint"] == 2 and kept["seen"]["grad_norm"] == "nan"
    told = mini.launch([str(run / "bad" / "step-2")], REPLAY)
    assert told.code == 0, told
    assert "every number came back" in told.out and "<- bad" in told.out
    (worst,) = [one for one in kept["completions"] if
                (one["micro_batch"], one["row"], one["segment"]) == first_trained(run)]  # fmt: skip
    name = worst["name"]
    first = told.out.split("\nbad: problem ")[1]
    assert first.startswith(f"{name['problem']!r} visit {name['visit']} turn {name['turn']}")
    assert "advantage nan" in first and worst["completion"] in first


def first_trained(run: Path) -> tuple[int, int, int]:
    """The place of the completion that was spoilt."""
    with np.load(run / "bad" / "step-2" / "batch.npz") as arrays:
        segments, train = arrays["0.segments_BT"][0], arrays["0.train_BT"][0]
        assert np.isnan(arrays["0.adv_BT"]).any()
    return 0, 0, int(segments[train][0])


def test_bad_steps_in_a_row_end_the_run_and_each_can_be_looked_at(
    cache: Path, tmp_path: Path
) -> None:
    """All finite, all far beyond their bounds."""
    run = tmp_path / "run"
    knobs = {"numbers__in_a_row": 3, "checkpoint__every": 100, "checkpoint__keep": 1}
    ended = bent("shout", 2, run, cache, steps=9, **knobs)
    assert ended.code == 1, ended
    assert "above their bounds in 3 steps in a row" in ended.err
    assert "--fork" in ended.err and "step-4" in ended.err
    assert sorted(entry.name for entry in (run / "bad").iterdir()) == ["step-3", "step-4"]
    assert len(mini.lines(run / "metrics.jsonl")) == 4
    told = mini.launch([str(run / "bad" / "step-4")], REPLAY)  # its weights are those of step 2
    assert told.code == 0 and "every number came back" in told.out, told
    assert "bad: problem" in told.out and "advantage 1e+07" in told.out
    assert json.loads((run / "bad" / "step-4" / "evidence.json").read_text())["checkpoint"] == 2


def test_a_sampler_that_tells_other_logprobs(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = bent("lie", 0, run, cache)
    assert ended.code == 1, ended
    assert "start-up probe: sampler against trainer" in ended.err and "max 0.25" in ended.err
    assert "numbers.probe_max = 0.001" in ended.err and "Look at: sampler.temperature" in ended.err
    assert not mini.lines(run / "metrics.jsonl")


@pytest.mark.long
def test_a_resume_behind_a_bad_step_goes_on_alike(cache: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for run, lives in ((one, (4,)), (other, (2, 3, 4))):
        for steps in lives:
            assert bent("spoil", 2, run, cache, steps=steps).code == 0
    assert mini.read(one) == mini.read(other)
    assert (one / "bad" / "step-2").is_dir() and (other / "bad" / "step-2").is_dir()


@pytest.mark.long
def test_several_processes_decide_alike_and_one_writes(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = mini.flags(run, cache, **(SHORT | {"steps": 3, "mesh__data": 2}))
    ended = end(start(2, ["spoil", "2", *arguments], command=BENT))
    assert [one.code for one in ended] == [0, 0], ended
    assert "step 2 was not applied" in ended[0].out and "not applied" not in ended[1].out
    assert learnt(run, 1) == learnt(run, 2) != learnt(run, 3)
    told = mini.launch([str(run / "bad" / "step-2")], REPLAY)  # on one device
    assert told.code == 0 and "compared to 0.1%" in told.out, told


def test_a_mistake_is_told(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path)], ["--run=x"]):
        told = mini.launch(arguments, REPLAY)
        assert told.code == 2 and "wanted" in told.err, told
