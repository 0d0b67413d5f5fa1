"""One command from start to end: files, keys; again, further, and on data of one's own."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.whole import mini

FILES = {
    "config.json", "metrics.jsonl", "rollouts.jsonl", "tensorboard", "checkpoints", "model", "hf",
    "eval.json", "summary.json", "report.html", "events.log", "alarms.jsonl",
}  # fmt: skip
METRICS = set(
    """step clean_acc hinted_acc drop adv_reward live gates families entropy length stop_length
    reward loss ratio_max clip_frac kl_behaviour kl_ref balance route_agreement grad_norm
    grad_norm_stream fifo mastered verdicts resampled signs tokens tokens_total time""".split()
)
TIME = set("step layout play decode pack update tokens_per_s slot_use rss_gib recompiles".split())
SUMMARY = set(
    """steps before after n_problems seconds seconds_by_phase peak_rss_gib tokens best versions
    device command""".split()
)
FAMILIES = set(
    """information_overload statistical_trap semantic_misleading
    instruction_contamination""".split()
)
SCORES = FAMILIES | set(
    "clean hinted correct_hint irrelevant_hint own_adversary warmstart_adversary rare".split()
)
STREAMS = {"seirenes": {"clean", "adversary", "robust"}, "rlvr": {"clean"}}
ROLES = {"reasoner", "adversary"}
VERDICTS = {"right", "wrong", "unreadable", "timeout"}


@pytest.fixture(scope="module")
def baseline(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of the other game."""
    run = tmp_path_factory.mktemp("rlvr") / "run"
    mini.train(run, cache, game="rlvr", steps=3)
    return run


@pytest.fixture(params=["seirenes", "rlvr"])
def a_run(request: pytest.FixtureRequest) -> tuple[str, Path]:
    name = {"seirenes": "undisturbed", "rlvr": "baseline"}[request.param]
    return request.param, request.getfixturevalue(name)


def numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from numbers(inner)
    elif isinstance(value, (int, float)):
        yield value


def test_files_and_metrics(a_run: tuple[str, Path]) -> None:
    game, run = a_run
    assert {file.name for file in run.iterdir()} == FILES
    rows = mini.lines(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        evaluated = {"eval"} if row["step"] % mini.KNOBS["eval.every"] == 0 else set()
        assert row.keys() == METRICS | evaluated
        assert row["time"].keys() >= TIME
        for key in ("live", "loss", "fifo"):
            assert row[key].keys() == STREAMS[game], key
        for key in ("entropy", "length", "stop_length", "reward"):
            assert row[key].keys() == ROLES, key
        assert row["verdicts"].keys() == VERDICTS
        assert all(entry.keys() == {"depth", "age", "evicted"} for entry in row["fifo"].values())
        shares = [row["clean_acc"], row["hinted_acc"], row["stop_length"], row.get("eval", {})]
        assert all(0 <= share <= 1 for share in numbers(dict(enumerate(shares))))
    assert rows[-1]["tokens_total"] == sum(row["tokens"] for row in rows)
    if game == "rlvr":
        assert all(row[key] is None for row in rows for key in ("hinted_acc", "drop", "adv_reward"))
        assert all(not row["gates"] for row in rows)


def test_it_learnt(a_run: tuple[str, Path]) -> None:
    """Every step updates the weights from groups of the same step and of older ones."""
    game, run = a_run
    rows = mini.lines(run / "metrics.jsonl")
    assert all(row["grad_norm"] > 0 for row in rows)
    if game == "seirenes":
        assert all(isinstance(row["loss"]["robust"], float) for row in rows)
        assert any(row["loss"]["adversary"] for row in rows)
        assert any(row["fifo"]["clean"]["age"] > 0 for row in rows)
        assert any(row["gates"] for row in rows)


def test_rollouts(a_run: tuple[str, Path]) -> None:
    game, run = a_run
    rows = mini.lines(run / "rollouts.jsonl")
    steps = len(mini.lines(run / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [step + 1 for step in range(steps) for _ in range(2)]
    for row in rows:
        assert row.keys() == {"step", "problem_id", "question", "answer", "clean", "hints"}
        assert len(row["clean"]) == 4
        assert len(row["hints"]) == (2 if game == "seirenes" else 0)
        for hint in row["hints"]:
            assert hint.keys() >= {"text", "family", "gates", "reward", "hinted"}
            assert len(hint["hinted"]) == (0 if hint["gates"] else 2)
        for answer in (*row["clean"], *(a for hint in row["hints"] for a in hint["hinted"])):
            assert answer.keys() == {"text", "verdict"} and answer["verdict"] in VERDICTS


def test_summary(a_run: tuple[str, Path]) -> None:
    game, run = a_run
    summary = json.loads((run / "summary.json").read_text())
    rows = mini.lines(run / "metrics.jsonl")
    assert summary.keys() == SUMMARY
    assert summary["before"].keys() == summary["after"].keys() == SCORES
    for scores in (summary["before"], summary["after"]):
        assert all(0 <= share <= 1 for share in numbers(scores))
        four = [scores[name] for name in FAMILIES]
        assert scores["hinted"] == pytest.approx(sum(four) / 4)
        assert (scores["own_adversary"] is None) == (game == "rlvr")
        assert len(scores["rare"]) >= 2
    assert summary["n_problems"] == 8 and summary["steps"] == len(rows)
    assert summary["tokens"].keys() == {"warm_start", "play", "eval"}
    assert summary["tokens"]["play"] == rows[-1]["tokens_total"]
    assert summary["tokens"]["eval"] > 0
    assert 0 < summary["peak_rss_gib"] < 4
    assert summary["seconds"] >= summary["seconds_by_phase"]["play"] > 0
    assert summary["command"].startswith("launch/train.py --config=configs/tiny.py")
    assert summary["best"]["step"] % mini.KNOBS["eval.every"] == 0


def test_the_same_command_after_the_end(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    """Shows the table again; measures, plays and rewrites nothing."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    kept = ("metrics.jsonl", "rollouts.jsonl", "summary.json", "eval.json")
    before = {name: (run / name).read_bytes() for name in kept}
    ended = mini.train(run, cache)
    assert "before  ->   after" in ended.out and "goes on after step 6" in ended.out
    assert {name: (run / name).read_bytes() for name in kept} == before


def test_twins(baseline: Path, cache: Path, tmp_path: Path) -> None:
    """The same bits in two folders; the budget of tokens ends a run with the step it falls in."""
    tokens = mini.lines(baseline / "metrics.jsonl")[1]["tokens_total"]
    twin = tmp_path / "elsewhere" / "twin"
    mini.train(twin, cache, game="rlvr", steps=3, budget__tokens=tokens)
    assert len(mini.lines(twin / "metrics.jsonl")) == 2
    mini.train(twin, cache, game="rlvr", steps=3)
    assert mini.read(twin) == mini.read(baseline)


def own_problems(file: Path, rows: int) -> Path:
    """A data file as a user has it: no ids, numbers as answers."""
    told = "Ada has {} pens. She buys {} more. How many pens are there at the end?"
    text = "".join(
        json.dumps({"question": told.format(n, n + 3), "answer": 2 * n + 3}) + "\n"
        for n in range(rows)
    )
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "game", ["seirenes", pytest.param("rlvr", marks=pytest.mark.long)]
)  # fmt: skip
def test_own_data_and_model(undisturbed: Path, cache: Path, tmp_path: Path, game: str) -> None:
    data, run = own_problems(tmp_path / "pens.jsonl", 30), tmp_path / "run"
    mini.train(
        run, cache, game=game, steps=2, problems__path=data, model__path=undisturbed / "hf",
        eval__every=0,
    )  # fmt: skip
    rows = mini.lines(run / "rollouts.jsonl")
    assert len(rows) == 4 and all("pens" in row["question"] for row in rows)
    assert len({row["problem_id"] for row in rows}) > 1
    held_out = json.loads((run / "eval.json").read_text())["problem_ids"]
    assert len(held_out) == 8 and not {row["problem_id"] for row in rows} & {*held_out}
    scores = json.loads((run / "summary.json").read_text())["after"]
    assert scores["rare"] == {} and all(scores[name] is not None for name in FAMILIES)
