"""Every data set's rows become problems; what is told of rows that cannot."""

import json
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax.errors import ConfigError, DataError
from seirenes_jax.knobs import CHOICES
from seirenes_jax.problems import FORMATS, content_id, load, sieve
from seirenes_jax.types import Problem
from tests.problems import made
from tests.problems.made import jsonl, knobs

GOOD = {"question": "1?", "answer": "1"}


def test_rows_become_problems(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        {"id": "a", "question": "1+1?", "answer": "2", "level": 3, "source": "x", "extra": [1]},
        {"id": 7, "problem": "2+2?", "answer": 4, "level": "Level 5"},
        "",
        {"id": "c", "prompt": "π?", "answer": 2.5, "level": None},
        {"id": "d", "question": "12.0?", "answer": 12.0, "level": "2"},
    )
    assert load(str(file)) == [
        Problem("a", "1+1?", "2", "x", 3),
        Problem("7", "2+2?", "4", "set", 5),
        Problem("c", "π?", "2.5", "set", None),
        Problem("d", "12.0?", "12", "set", 2),
    ]


def made_problem(question: str, answer: str, source: str, level: int | None) -> Problem:
    return Problem(content_id(question, answer), question, answer, source, level)


KNOWN = {
    "dapo": (
        [made.dapo("What is $1+1$?", "2"), {**made.dapo("", "4"), "prompt": "What is $2+2$?"}],
        [
            made_problem("What is $1+1$?", "2", "math_dapo", None),
            made_problem("What is $2+2$?", "4", "math_dapo", None),
        ],
    ),
    "openr1": (
        [
            made.openr1("Find $x$.", "\\frac{1}{2}"),
            made.openr1("Prove it.", "Q.E.D.", "proof"),
            made.openr1("Show it.", "proof"),
            made.openr1("Guess it.", None),
        ],
        [made_problem("Find $x$.", "\\frac{1}{2}", "olympiads", None)],
    ),
    "deepmath": (
        [made.deepmath("Is it?", "Yes", 5.5), made.deepmath("Why?", "\\pi", 7.0)],
        [
            made_problem("Is it?", "Yes", "deepmath", 5),
            made_problem("Why?", "\\pi", "deepmath", 7),
        ],
    ),
    "math": (
        [
            made.math("How far?", "First \\boxed{3}, no: $\\boxed{\\frac{3}{4}}$."),
            made.math("How long?", "It is \\boxed{5}.", "Level ?"),
            made.math("How?", "So."),
        ],
        [
            made_problem("How far?", "\\frac{3}{4}", "Geometry", 4),
            made_problem("How long?", "5", "Geometry", None),
        ],
    ),
    "polaris": (
        [
            made.polaris("How many?", "12", "0/8"),
            made.polaris(
                "Who? Let's think step by step and output the final answer within \\boxed{}.", "3"
            ),
        ],
        [
            made_problem("How many?", "12", "polaris", 0),
            made_problem("Who?", "3", "polaris", 3),
        ],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("asked", [True, False])
def test_known_data_sets_are_read_and_known_by_their_columns(
    tmp_path: Path, name: str, asked: bool
) -> None:
    rows, wanted = KNOWN[name]
    found, account = sieve(knobs(jsonl(tmp_path, *rows), format=name if asked else ""))
    assert found == wanted
    assert account.formats == {name}
    assert (account.unanswered, account.malformed) == (len(rows) - len(wanted), 0)


def test_the_solutions_of_gsm8k_are_read_when_asked_for(tmp_path: Path) -> None:
    rows = [
        {"question": "How many eggs?", "answer": "3*4=<<3*4=12>>12\n#### 1,200"},
        {"question": "None?", "answer": "There is no mark."},
    ]
    found, account = sieve(knobs(jsonl(tmp_path, *rows), format="gsm8k"))
    assert [(p.question, p.answer) for p in found] == [("How many eggs?", "1200")]
    assert account.unanswered == 1


def test_rows_with_more_columns_than_a_data_set_has_are_plain(tmp_path: Path) -> None:
    row = {**made.polaris("How many?", "12"), "difficulty": 2.0, "unique_id": "test/1.json"}
    found, account = sieve(knobs(jsonl(tmp_path, row)))
    assert (found[0].level, account.formats) == (None, {"plain"})
    row = {**made.math("How?", "\\boxed{1}"), "answer": "1", "level": 2}
    assert sieve(knobs(jsonl(tmp_path, row)))[0][0].level == 2


def test_any_other_file_by_the_names_of_its_columns(tmp_path: Path) -> None:
    file = jsonl(tmp_path, {"Aufgabe": "1+1?", "Short Answer": 2, "question": "no", "answer": "9"})
    by_name = knobs(file, question_column="Aufgabe", answer_column="Short Answer")
    assert [(p.question, p.answer) for p in sieve(by_name)[0]] == [("1+1?", "2")]
    with pytest.raises(DataError, match="no question; got columns .*; wanted Frage"):
        sieve(knobs(file, question_column="Frage"))
    with pytest.raises(ConfigError, match="dapo has its own columns"):
        sieve(knobs(file, question_column="Aufgabe", format="dapo"))


def test_the_knob_knows_every_format() -> None:
    assert set(CHOICES["problems.format"]) == {"", *FORMATS}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{not json", "not JSON"),
        ("[1, 2]", "wanted an object"),
        ("[" * 100_000, "not JSON"),
        ({"answer": "1"}, "no question.*got columns answer"),
        ({}, "no question.*none"),
        ({"question": 3, "answer": "1"}, "question: got 3"),
        ({"question": "  ", "answer": "1"}, "question: got '  '"),
        ({"question": "x" * 1_000_001, "answer": "1"}, "1,000,001 characters"),
        ('{"question": "\\ud800?", "answer": "1"}', "half a character"),
        ({"question": "1?"}, "answer: got None"),
        ({"question": "1?", "answer": ""}, "answer: got ''"),
        ({"question": "1?", "answer": True}, "answer: got True"),
        ({"question": "1?", "answer": ["1"]}, "answer: got \\['1'\\]"),
        ('{"question": "1?", "answer": NaN}', "answer: got nan"),
        ('{"question": "1?", "answer": Infinity}', "answer: got inf"),
        ('{"question": "1?", "answer": ' + "1" * 5000 + "}", "not JSON"),
        ({**GOOD, "id": [1]}, "id: got \\[1\\]"),
        ({"question": "2?", "answer": "1", "level": "hard"}, "level: got 'hard'"),
        ({"question": "2?", "answer": "1", "level": 2.5}, "level: got 2.5"),
    ],
)
def test_a_bad_row_is_named_with_file_and_line(tmp_path: Path, row: Any, words: str) -> None:
    file = jsonl(tmp_path, {"id": "ok", **GOOD}, row)
    with pytest.raises(DataError, match=f"set.jsonl:2: .*{words}") as caught:
        load(str(file))
    assert caught.value.exit_code == 2
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("dapo", {**made.dapo("1?", "1"), "prompt": [{"content": "1?", "role": "system"}]}),
        ("dapo", {**made.dapo("1?", "1"), "reward_model": None}),
        ("dapo", made.dapo("", "1")),
        ("deepmath", made.deepmath("1?", "1", "hard")),  # type: ignore[arg-type]
        ("math", {**made.math("1?", "1"), "solution": 3}),
        ("polaris", made.polaris("1?", "1", "often")),
        ("openr1", {**made.openr1("1?", "1"), "problem": ["1?"]}),
    ],
)
def test_a_bad_row_of_a_known_data_set_is_named(
    tmp_path: Path, name: str, row: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="set.jsonl:1: "):
        sieve(knobs(jsonl(tmp_path, row), format=name))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_bytes(json.dumps(GOOD).encode() + b'\n{"question": "\xff", "answer": "1"}\n')
    with pytest.raises(DataError, match="set.jsonl:2: not UTF-8"):
        load(str(file))
