"""The command that shows a data set before a run is spent on it."""

from pathlib import Path

import pytest

from seirenes_jax.cli import guard
from seirenes_jax.problems.__main__ import main
from tests.problems import made
from tests.problems.made import jsonl


def test_it_prints_the_account_and_a_few_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [made.dapo(f"What is ${n}+{n}$?", str(2 * n)) for n in range(9)]
    file = jsonl(tmp_path, *rows, rows[0], made.dapo("Bad?\x1b[2J", "\\frac{"))
    assert guard(main, [str(file)]) == 0
    said = capsys.readouterr().out
    assert f"problems of {file} (dapo)" in said
    for line in (
        "read                                 11", "duplicates                            1",
        "without a checkable answer            1", "left                                  9",
        "What is $0+0$?", "What is $4+4$?", 'answer: "16"',
    ):  # fmt: skip
        assert line in said
    assert "Solve the following" not in said and said.count("\n-- ") == 3
    assert guard(main, [str(file), "--unchecked", f"--decontaminate={file},{file}"]) == 2
    assert "holds no problems" in capsys.readouterr().err
    assert guard(main, [str(file), "--unchecked", "--overlap=0.5"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_mistakes_are_told_in_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert guard(main, [str(tmp_path / "none.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--format=csv"])
    assert ended.value.code == 2
    file = jsonl(tmp_path, *(made.polaris(f"{n}?", "1", f"{n}/8") for n in range(9)))
    assert guard(main, [str(file), "--levels=3,4"]) == 0
    assert "of other levels                       7" in capsys.readouterr().out
