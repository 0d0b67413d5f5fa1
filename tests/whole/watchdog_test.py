"""A sampler that hangs: told of with all that is open, ended resumably, and nothing is lost."""

import sys
from pathlib import Path

from tests.whole import mini

BENT = (sys.executable, "tests/whole/bent.py")


def test_a_sampler_that_hangs(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    limits = {
        "watchdog__factor": 2, "watchdog__floor_s": 2, "watchdog__laps": 3, "watchdog__hard_s": 15
    }  # fmt: skip
    ended = mini.launch(["hang", "3", *mini.flags(run, cache, **limits)], BENT)
    assert ended.code == 75, ended
    assert "watchdog.hard_s = 15 s are over" in ended.err
    assert "the same command goes on" in ended.err
    told = (run / "events.log").read_text()
    for words in ("chunk has taken", "samples are out, oldest: problem", "play #", "decode #",
                  "thread MainThread:", "in never_comes_back"):  # fmt: skip
        assert words in told and words in ended.err, words
    assert 2 <= told.count("watchdog: ") <= 6  # overdue, doubled, doubled, ended
    mini.train(run, cache)  # the limits may differ
    assert mini.read(run) == mini.read(undisturbed)
