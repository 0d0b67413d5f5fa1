"""The writer of a run folder: what is on disk after steps, kills, resumes and full disks."""

import errno
import io
import json
import math
import re
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.crc32c import crc32c
from tensorboardX.proto import event_pb2

from seirenes_jax import console
from seirenes_jax.console import Bar, clock, flatten, printable, say, step_line
from seirenes_jax.errors import ConfigError, DataError, SaveError
from seirenes_jax.report import RunLog, before_after_table, write_json
from seirenes_jax.report_page import sample_rollouts, write_report
from tests.made_run import make_run


def metrics_of(step: int) -> dict[str, Any]:
    return {
        "step": step, "clean_acc": 0.912, "hinted_acc": 0.42, "drop": 0.492, "adv_reward": 0.31,
        "live": {"clean": 12, "adversary": 9, "robust": 31}, "grad_norm_stream": None,
        "time": {"tokens_per_s": 24_100.0},
    }  # fmt: skip


def write_steps(folder: Path, steps: range, *, back_to: int = 0) -> str:
    out = io.StringIO()
    with RunLog(folder, steps=150, out=out) as log:
        log.cut_back(back_to)
        for step in steps:
            log.log_step(metrics_of(step), [{"problem_id": f"p{step}"}, {"problem_id": "q"}])
    return out.getvalue()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def masked(data: bytes) -> int:
    """The checksum by another's hand."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def board_of(folder: Path) -> dict[str, list[int]]:
    """{tag: steps} as TensorBoard shows it: a start drops older scalars from its step on."""
    seen: dict[str, list[int]] = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            head, size = data[at : at + 8], struct.unpack("<Q", data[at : at + 8])[0]
            body = data[at + 12 : at + 12 + size]
            check = data[at + 12 + size : at + 16 + size]
            event = event_pb2.Event.FromString(body)
            assert struct.unpack("<I", data[at + 8 : at + 12])[0] == masked(head)
            assert struct.unpack("<I", check)[0] == masked(body)
            at += size + 16
            if event.session_log.status == event_pb2.SessionLog.START:
                seen = {tag: [s for s in steps if s < event.step] for tag, steps in seen.items()}
            for value in event.summary.value:
                seen.setdefault(value.tag, []).append(event.step)
    return seen


def test_a_resumed_run_leaves_the_files_of_an_undisturbed_one(tmp_path: Path) -> None:
    write_steps(tmp_path / "whole", range(1, 9))
    write_steps(tmp_path / "cut", range(1, 7))
    with (tmp_path / "cut/metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "clean_')  # a kill in the middle of a line
    write_steps(tmp_path / "cut", range(5, 9), back_to=4)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    whole, cut = board_of(tmp_path / "whole"), board_of(tmp_path / "cut")
    assert whole["live/clean"] == list(range(1, 9))
    assert cut == whole


def test_a_run_killed_before_its_first_checkpoint_starts_clean(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 4))
    write_steps(tmp_path, range(1, 3))
    assert [row["step"] for row in lines_of(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_torn_line_is_cut_even_without_cut_back(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 3))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 3')
    with RunLog(tmp_path, steps=9, out=io.StringIO()) as log:
        log.log_step(metrics_of(3), [])
    assert [row["step"] for row in lines_of(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_damage_in_the_middle_is_named_not_cut(tmp_path: Path) -> None:
    write_steps(tmp_path, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b'{"step": 2', b'{"stop": 2'))
    with RunLog(tmp_path, steps=9, out=io.StringIO()) as log:
        with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
            log.cut_back(3)
    assert path.read_bytes().count(b"\n") == 3


def test_events_only_grow(tmp_path: Path) -> None:
    for word in ("one", "two\x1b[31m"):
        with RunLog(tmp_path, steps=1, out=io.StringIO()) as log:
            log.cut_back(0)
            log.event(word)
    lines = (tmp_path / "events.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "two"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in lines)


def test_rows_are_strict_json_whatever_is_in_them(tmp_path: Path) -> None:
    row = {"step": np.int32(1), "loss": {"clean": math.nan}, "norm": np.float32(0.5)}
    with RunLog(tmp_path, steps=1, out=io.StringIO()) as log:
        log.log_step(row, [{"text": "half a pair \ud800, a line end \u2028"}])
    (written,) = lines_of(tmp_path / "metrics.jsonl")
    assert written == {"step": 1, "loss": {"clean": None}, "norm": 0.5}
    raw = (tmp_path / "rollouts.jsonl").read_bytes()
    assert raw.count(b"\n") == 1
    assert json.loads(raw)["text"] == "half a pair \ud800, a line end \u2028"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's always full /dev/full")
def test_a_full_disk_is_a_save_error_that_says_what_to_do(tmp_path: Path) -> None:
    """The error comes out as it is, though the run's files are closed after it."""
    with pytest.raises(SaveError, match="No space left on device.*make room"):
        with RunLog(tmp_path, steps=1, out=io.StringIO()) as log:
            log._metrics.close()
            log._metrics = open("/dev/full", "ab", buffering=0)
            log.log_step(metrics_of(1), [])
    assert lines_of(tmp_path / "metrics.jsonl") == []


def test_write_json_keeps_the_old_file_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1, "bad": math.inf})
    assert json.loads(path.read_text()) == {"a": 1, "bad": None}

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError, match="No space left"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text())["a"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_wandb_is_asked_for_only_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    write_steps(tmp_path / "off", range(1, 2))  # no project: not even imported
    with pytest.raises(ConfigError, match="pip install wandb"):
        RunLog(tmp_path / "on", steps=1, wandb="project")
    logged: list[tuple[int, float]] = []
    run = types.SimpleNamespace(
        log=lambda row, step: logged.append((step, row["live/clean"])), finish=lambda: None
    )
    fake = types.ModuleType("wandb")
    fake.init = lambda **_: run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with RunLog(tmp_path / "on", steps=1, wandb="project", out=io.StringIO()) as log:
        log.log_step(metrics_of(1), [])
    assert logged == [(1, 12.0)]


def test_the_line_of_a_step() -> None:
    line = step_line(metrics_of(12), 150, 1.1)
    assert line == (
        "step 12/150  clean 91%  hinted 42%  drop 49  adv .31  live 12/9/31  1.1 s  24k tok/s"
        "  ETA 2:32"
    )
    row = {"step": 1, "clean_acc": 0.5, "hinted_acc": None, "live": {"clean": 3}}
    bare = step_line(row, 1, 0.2)
    assert bare == "step 1/1  clean 50%  live 3  0.2 s  ETA 0:00"
    tested = step_line(metrics_of(1) | {"eval": {"clean": 0.5, "rare": {"x": 0.25}}}, 9, 1.0)
    assert tested.splitlines()[1] == "  held-out  clean 50%  rare/x 25%"


def test_clock() -> None:
    assert [clock(s) for s in (7, 133, 3723.4, 59.6)] == ["0:07", "2:13", "1:02:03", "1:00"]


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://a\x1b\\link", "link"),
        ("a\rb\x08c\x7f", "abc"),
        ("\x9b2Jx\x85", "x"),
        ("\x1bc\x1b(0x", "x"),
        ("\u202eabc\u2066", "abc"),
        ("two\nlines\tand \u4e2d\u6587 \u00e9", "two\nlines\tand \u4e2d\u6587 \u00e9"),
    ],
)
def test_nothing_a_model_writes_moves_the_terminal(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_a_poor_console_gets_question_marks_not_an_error() -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    say("caf\u00e9", out)
    assert raw.getvalue() == b"caf?\n"


def test_a_bar_without_a_terminal_speaks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    out = io.StringIO()
    with Bar("warm start", 100, unit="steps", out=out) as bar:
        for _ in range(100):
            now += 0.25
            bar.advance(note="loss 0.5\x1b[2J")
    assert out.getvalue().splitlines() == [
        "warm start 40/100 steps  0:10  ETA 0:15  loss 0.5",
        "warm start 80/100 steps  0:20  ETA 0:05  loss 0.5",
        "warm start 100/100 steps  0:25  ETA 0:00  loss 0.5",
    ]
    quick = io.StringIO()
    with Bar("play", 3, unit="rollouts", out=quick) as bar:
        bar.advance(3)
    assert quick.getvalue() == ""


def test_what_comes_before_the_first_says_nothing_of_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, out = 100.0, io.StringIO()
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with Bar("warm start", 100, unit="steps", out=out) as bar:
        now += 60  # texts are made, programs compiled
        for _ in range(51):
            bar.advance()
            now += 0.5
    assert out.getvalue().splitlines()[1:] == [
        "warm start 21/100 steps  1:10  ETA 0:40",
        "warm start 41/100 steps  1:20  ETA 0:30",
        "warm start 51/100 steps  1:26  ETA 0:25",
    ]


def test_a_bar_on_a_terminal_is_live() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with Bar("play", 4, unit="rollouts", out=out) as bar:
        bar.advance(4, note="12k tok/s")
    assert "play" in out.getvalue() and "\r" in out.getvalue()


def test_flatten() -> None:
    row = {"step": 1, "live": {"clean": 2}, "none": None, "word": "x", "fifo": {"a": {"age": 0.5}}}
    assert flatten(row) == {"step": 1.0, "live/clean": 2.0, "fifo/a/age": 0.5}


def test_the_final_table() -> None:
    summary = {
        "before": {"clean": 0.914, "hinted": 0.121, "statistical_trap": 0.1, "own_adversary": None,
                   "rare": {"bare_answer": 0.05}},
        "after": {"clean": 0.926, "hinted": 0.861, "statistical_trap": None, "own_adversary": None,
                  "rare": {"bare_answer": 0.43}},
        "n_problems": 512, "seconds": 400.0, "seconds_by_phase": {"play": 300.0, "update": 100.0},
        "tokens": {"play": 1_440_000, "eval": 5},
    }  # fmt: skip
    table = before_after_table(summary)
    rows = {line[:36].strip(): line[36:].split() for line in table.splitlines()}
    assert rows["clean"] == ["91.4%", "->", "92.6%", "+1.2"]
    assert rows["hinted (mean of the four)"] == ["12.1%", "->", "86.1%", "+74.0"]
    assert rows["statistical trap"] == ["10.0%", "->", "-", "-"]
    assert rows["rare: bare answer"] == ["5.0%", "->", "43.0%", "+38.0"]
    assert "own adversary" not in table
    assert rows["play"] == ["5:00", "1,440,000"]
    assert rows["eval"] == ["-", "5"]
    assert rows["all"] == ["6:40", "1,440,005"]


# ---- the page


@pytest.mark.parametrize(
    "missing", ["", "summary.json", "config.json", "rollouts.jsonl", "metrics.jsonl"]
)
@pytest.mark.parametrize("game", ["seirenes", "rlvr"])
def test_the_page_is_written_from_what_there_is(tmp_path: Path, game: str, missing: str) -> None:
    folder = make_run(tmp_path / "run", steps=12, game=game)
    if missing:
        (folder / missing).unlink()
    text = write_report(folder).read_text(encoding="utf-8")
    assert ("Before and after" in text) == (missing != "summary.json")
    assert ("Families of hints" in text) == (game == "seirenes" and missing != "rollouts.jsonl")
    assert ("Accuracy, held-out" in text) == (missing != "metrics.jsonl")


def test_the_page_of_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "0 steps" in write_report(tmp_path).read_text()


def test_too_many_rollouts_are_thinned_evenly_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"problem_id": "p", "question": "q" * 100, "answer": "1", "clean": [], "hints": []}
    rows = [{"step": step, **row} for step in range(1, 101) for _ in range(2)]
    kept, note = sample_rollouts(iter(rows))
    assert len(kept) == 200 and "rollouts.jsonl" not in note
    monkeypatch.setattr("seirenes_jax.report_page.BUDGET", 6_000)
    kept, note = sample_rollouts(iter(rows))
    steps = sorted({row["step"] for row in kept})
    assert steps == list(range(1, 101, 4)) and len(kept) == 50
    assert "Every 4th step" in note


def test_a_long_text_keeps_its_ends() -> None:
    text = "start" + "x" * 50_000 + "end"
    row = {"step": 1, "problem_id": "p", "question": text, "answer": "1", "clean": [], "hints": []}
    kept, _ = sample_rollouts(iter([row]))
    shown = kept[0]["question"]
    assert len(shown) < 6_100 and shown.startswith("start") and shown.endswith("end")
    assert "44008 characters left out" in shown
