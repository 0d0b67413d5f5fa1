"""Files of problems: what is read, and what is said of rows that cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax.errors import DataError
from seirenes_jax.problems import fit, load
from seirenes_jax.types import Problem


def write(folder: Path, *rows: Any) -> Path:
    file = folder / "set.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_rows_become_problems(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {"id": "a", "question": "1+1?", "answer": "2", "level": 3, "source": "x", "extra": [1]},
        {"id": 7, "problem": "2+2?", "answer": 4, "level": "Level 5"},
        "",
        {"id": "c", "prompt": "π?", "answer": 2.5, "level": None},
        {"id": "d", "question": "12.0?", "answer": 12.0, "level": "2"},
    )
    assert load(file) == [
        Problem("a", "1+1?", "2", "x", 3),
        Problem("7", "2+2?", "4", "set", 5),
        Problem("c", "π?", "2.5", "set", None),
        Problem("d", "12.0?", "12", "set", 2),
    ]
    assert load(str(file)) == load(file)


def test_ids_by_content_survive_reordering_and_repeats_are_read_once(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": n} for n in range(4)]
    ids = {p.question: p.id for p in load(write(tmp_path, *rows, rows[1]))}
    assert len(set(ids.values())) == 4
    assert {p.question: p.id for p in load(write(tmp_path, *rows[::-1]))} == ids
    # The same text with another answer is another problem.
    other = load(write(tmp_path, rows[0], {"question": "0?", "answer": 1}))
    assert len({p.id for p in other}) == 2


GOOD = {"question": "1?", "answer": "1"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "wanted an object"),
        ({"answer": "1"}, "no question.*got columns answer"),
        ({}, "no question.*none"),
        ({"question": 3, "answer": "1"}, "question: got 3"),
        ({"question": "  ", "answer": "1"}, "question: got '  '"),
        ({"question": "1?"}, "answer: got None"),
        ({"question": "1?", "answer": ""}, "answer: got ''"),
        ({"question": "1?", "answer": True}, "answer: got True"),
        ({"question": "1?", "answer": ["1"]}, "answer: got \\['1'\\]"),
        ('{"question": "1?", "answer": NaN}', "answer: got nan"),
        ('{"question": "1?", "answer": Infinity}', "answer: got inf"),
        ('{"question": "1?", "answer": ' + "1" * 5000 + "}", "not JSON"),
        ({**GOOD, "id": [1]}, "id: got \\[1\\]"),
        ({**GOOD, "level": "hard"}, "level: got 'hard'"),
        ({**GOOD, "level": 2.5}, "level: got 2.5"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: Any, words: str) -> None:
    file = write(tmp_path, {"id": "ok", **GOOD}, row)
    with pytest.raises(DataError, match=f"set.jsonl:2: .*{words}") as caught:
        load(file)
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 400


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(b'{"question": "\xff", "answer": "1"}\n')
    with pytest.raises(DataError, match="set.jsonl:1: not UTF-8"):
        load(file)


def test_an_id_stands_once(tmp_path: Path) -> None:
    file = write(tmp_path, {"id": "a", **GOOD}, {"id": "b", **GOOD}, {"id": "a", **GOOD})
    with pytest.raises(DataError, match="set.jsonl:3: id 'a' stands already at .*set.jsonl:1"):
        load(file)


def test_files_that_are_not_there_not_known_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path)
    with pytest.raises(DataError, match="holds no problems"):
        load(write(tmp_path, "", "  "))
    (tmp_path / "set.csv").write_text("a,b")
    with pytest.raises(DataError, match="'.csv'; wanted a .jsonl or .parquet"):
        load(tmp_path / "set.csv")


def test_parquet_without_its_reader_or_content_is_told(tmp_path: Path) -> None:
    file = tmp_path / "set.parquet"
    file.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="set.parquet: (reading .parquet needs pyarrow|not a read)"):
        load(file)


def test_prompts_that_do_not_fit_are_left_out_by_name() -> None:
    problems = [Problem(str(n), "x" * n, "1", "", None) for n in (1, 5, 9)]
    kept, left = fit(problems, limit=5, count=lambda problem: len(problem.question))
    assert ([p.id for p in kept], left) == (["1", "5"], ["9"])
    with pytest.raises(DataError, match="none of 3.*shortest prompt has 1.*allows 0"):
        fit(problems, limit=0, count=lambda problem: len(problem.question))
