"""launch/compare.py: what it says of runs nobody trained, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax.compare_page import _names, write_comparison
from seirenes_jax.errors import ConfigError
from tests.made_run import make_run

ROOT = Path(__file__).parents[1]


def made(folder: Path, right: int, **knobs: Any) -> Path:
    """A run whose first `right` of 40 held-out problems are right at the end."""
    run = make_run(folder, steps=6)
    config = json.loads((run / "config.json").read_text()) | knobs
    (run / "config.json").write_text(json.dumps(config))
    marks = [int(i < right) for i in range(40)]
    told = {"problem_ids": [f"p{i}" for i in range(40)],
            "before": {"clean": [1] * 40, "own_adversary": None},
            "after": {"clean": marks, "own_adversary": None}}  # fmt: skip
    (run / "eval.json").write_text(json.dumps(told))
    return run


def parts(page: Path) -> list[dict[str, Any]]:
    """Everything on the page, however deep."""
    text = page.read_text().split('id="page">')[1].split("</script>")[0]
    found: list[dict[str, Any]] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            found.append(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(json.loads(text))
    return found


def tables(page: Path, column: str) -> list[dict[str, Any]]:
    return [p for p in parts(page) if p.get("kind") == "Table" and p["columns"][0][0] == column]


def test_what_differs_is_told_and_nothing_else(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a", 30, seed=1), made(tmp_path / "b", 36, seed=1, game="rlvr")]
    page = write_comparison(runs, tmp_path / "out.html", command="as typed")
    (knobs,) = tables(page, "knob")
    assert knobs["rows"] == [["game", "seirenes", "rlvr"]]
    (paired,) = [t for t in tables(page, "accuracy") if t["title"] == "b minus a"]
    name, count, gap, low, high, chance = paired["rows"][0]
    assert (name, count, gap) == ("clean", 40, 0.15) and len(paired["rows"]) == 1
    assert 0 < low < gap < high < 0.3
    assert 0.02 < chance < 0.05  # six of six signs alike: 2 / 2**6
    (moved,) = tables(page, "problem")
    assert [row[0] for row in moved["rows"]] == [f"p{i}" for i in range(30, 36)]
    assert {row[2] for row in moved["rows"]} == {"+clean"}


def test_curves_lie_over_one_another_and_texts_beside(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a", 30), made(tmp_path / "b", 30)]
    rows = [json.loads(line) for line in (runs[1] / "rollouts.jsonl").read_text().splitlines()]
    rows[0]["hints"][0]["text"] = "</script><script>alert(1)</script>"
    for row in rows[1:]:  # only one problem was kept by both runs
        row["problem_id"] = "else " + row["problem_id"]
    (runs[1] / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_comparison(runs, tmp_path / "out.html", command="as typed")
    charts = [p for p in parts(page) if p.get("kind") == "Lines"]
    clean = next(chart for chart in charts if chart["title"].startswith("Clean accuracy"))
    assert [series["name"] for series in clean["series"]] == ["a", "b"]
    assert clean["series"][0]["x"] == [1, 2, 3, 4, 5, 6]
    (viewer,) = [p for p in parts(page) if p.get("kind") == "Cards"]
    (card,) = viewer["cards"]
    assert card["title"] == rows[0]["problem_id"] and card["aside"] == "2 runs"
    assert "<script>alert" not in page.read_text()


def test_names_are_as_short_as_tells_them_apart() -> None:
    assert _names([Path("/x/runs/tiny"), Path("/x/runs/grpo")]) == ["tiny", "grpo"]
    assert _names([Path("/x/one/runs/t"), Path("/x/two/runs/t")]) == ["one", "two"]
    assert _names([Path("/x/one/runs/t"), Path("/x/two/runs/u"), Path("/x/two/runs/t")]) == [
        "one/t", "two/u", "two/t",
    ]  # fmt: skip


def test_an_unfinished_run_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a", 30), made(tmp_path / "b", 30)]
    (runs[1] / "summary.json").unlink()
    (runs[1] / "eval.json").unlink()
    page = write_comparison(runs, tmp_path / "out.html", command="as typed")
    (about,) = tables(page, "run")
    assert [row[-1] for row in about["rows"]] == ["finished", "not finished"]


def test_mistakes_are_told(tmp_path: Path) -> None:
    run = made(tmp_path / "a", 30)
    for folders, words in (
        ([run], "got 1 runs"), ([run, run], "wanted each run once"),
        ([run, tmp_path], "no config.json"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            write_comparison(folders, tmp_path / "out.html", command="")


def test_from_the_shell(tmp_path: Path) -> None:
    runs = [str(made(tmp_path / name, 30)) for name in "ab"]
    command = [sys.executable, "launch/compare.py", *runs]
    def run(out: str) -> "subprocess.CompletedProcess[str]":
        said = [*command, f"--out={tmp_path}/{out}"]
        return subprocess.run(said, cwd=ROOT, capture_output=True, text=True)

    done = run("c.html")
    assert done.returncode == 0 and "c.html is written" in done.stdout, done.stderr
    bad = run("c")
    assert bad.returncode == 2 and "ending in .html" in bad.stderr
