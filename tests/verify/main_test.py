"""python -m seirenes_jax.verify: rows in, rows out, mistakes named."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax.verify.__main__ import main


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_from_the_shell(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "gold": "5", "response": r"\boxed{5}", "model": "m", "sample": 3},
        {"id": 2, "gold": 7, "response": r"\boxed{8}"},
        {"id": "c", "gold": "5", "response": "the answer is 5"},
        {"id": "d", "gold": "5", "response": r"\boxed{\frac{}{}}"},
        {"id": "e", "gold": "4.2", "response": r"\boxed{4.25}", "tolerance": "1e-1"},
        {"id": "f", "gold": "5", "response": r"\boxed{" + "9^{" * 9 + "9" + "}" * 9 + "}"},
    ]
    source = _write(tmp_path / "in.jsonl", rows)
    command = [sys.executable, "-m", "seirenes_jax.verify", str(source), f"--out={tmp_path}/out"]
    run = subprocess.run([*command, "--workers=2"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    out = _read(tmp_path / "out")
    assert [row["verdict"] for row in out] == [
        "right", "wrong", "wrong", "unreadable", "right", "unreadable",
    ]  # fmt: skip
    assert [row["extracted"] for row in out[:3]] == ["5", "8", None]
    assert out[0]["model"] == "m" and out[0]["sample"] == 3 and out[0]["id"] == "a"
    assert all(0 <= row["seconds"] < 1.2 for row in out)
    assert "6 rows" in run.stderr and "right 2" in run.stderr
    assert not list(tmp_path.glob("*.part"))


def test_fallback_is_off_unless_asked_for(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", [{"id": 1, "gold": "5", "response": "#### 5"}])
    out = tmp_path / "out"
    assert main([str(source), f"--out={out}", "--workers=1"]) == 0
    assert _read(out)[0]["verdict"] == "wrong"
    assert main([str(source), f"--out={out}", "--workers=1", "--fallback"]) == 0
    assert _read(out)[0]["verdict"] == "right"


def test_order_is_kept_over_many_windows(tmp_path: Path) -> None:
    rows = [{"id": i, "gold": str(i % 3), "response": rf"\boxed{{{i % 2}}}"} for i in range(2500)]
    source = _write(tmp_path / "in.jsonl", rows)
    assert main([str(source), f"--out={tmp_path}/out", "--workers=2"]) == 0
    out = _read(tmp_path / "out")
    assert [row["id"] for row in out] == list(range(2500))
    assert all((row["verdict"] == "right") == (row["id"] % 3 == row["id"] % 2) for row in out)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{broken", "line 2: not a line of JSON"),
        ("[1, 2]", "line 2: got list, want an object"),
        ('{"id": 1, "gold": "5"}', "line 2: no response; got the keys id, gold"),
        ('{"id": 1, "gold": null, "response": ""}', "line 2: gold is NoneType, want text"),
        ('{"id": 1, "gold": "5", "response": 5}', "line 2: response is int, want text"),
        ('{"id": 1, "gold": "5", "response": "", "tolerance": "x"}', "line 2: tolerance is 'x'"),
        ("[" * 100_000, "line 2: not a line of JSON"),
    ],
)
def test_mistakes_name_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, says: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"id": 0, "gold": "5", "response": "x"}\n' + line + "\n")
    assert main([str(source), f"--out={tmp_path}/out", "--workers=1"]) == 2
    message = capsys.readouterr().err
    assert f"{source}, {says}" in message and "Traceback" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]  # no half of an output


def test_files_and_flags_that_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = _write(tmp_path / "in.jsonl", [])
    assert main([f"{tmp_path}/none.jsonl", f"--out={tmp_path}/out"]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main([str(source), f"--out={tmp_path}/no/out"]) == 2
    assert "folder does not exist" in capsys.readouterr().err
    assert main([str(source), f"--out={tmp_path}/out", "--workers=0"]) == 2
    assert "workers >= 1" in capsys.readouterr().err
    assert main([str(source), f"--out={tmp_path}/out", "--workers=1"]) == 0
    assert _read(tmp_path / "out") == []


def test_where_another_grader_differs_is_written_down(tmp_path: Path) -> None:
    rows = [
        {"id": "same", "gold": "5", "response": r"\boxed{5}"},
        {"id": "mixed", "gold": "7/2", "response": r"\boxed{3 1/2}"},  # math-verify reads 3, 1/2
        {"id": "none", "gold": "5", "response": "no box"},
    ]
    source = _write(tmp_path / "in.jsonl", rows)
    # On its own: math-verify sets alarms, for which it must have the main thread.
    command = [sys.executable, "-m", "seirenes_jax.verify", str(source), f"--out={tmp_path}/out",
               f"--second={tmp_path}/log"]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [row["verdict"] for row in _read(tmp_path / "out")] == ["right", "right", "wrong"]
    assert _read(tmp_path / "log") == [
        {"id": "mixed", "gold": "7/2", "extracted": "3 1/2", "verdict": "right", "second": "wrong"}
    ]
