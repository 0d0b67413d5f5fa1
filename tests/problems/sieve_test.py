"""What is left out of a run's problems, and that every row is accounted for."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax.errors import DataError
from seirenes_jax.problems import fit, load, sieve
from seirenes_jax.types import Problem
from seirenes_jax.verify.judge import Judge
from tests.problems import made
from tests.problems.made import jsonl, knobs
from tests.problems.sameness_test import LONG

GOOD = {"question": "1?", "answer": "1"}


def test_ids_by_content_survive_reordering_and_the_order_is_that_of_the_file(
    tmp_path: Path,
) -> None:
    rows = [{"question": f"{n}?", "answer": n} for n in range(4)]
    found = load(str(jsonl(tmp_path, *rows, rows[1])))
    assert [p.question for p in found] == ["0?", "1?", "2?", "3?"]
    ids = {p.question: p.id for p in found}
    assert len(set(ids.values())) == 4
    assert {p.question: p.id for p in load(str(jsonl(tmp_path, *rows[::-1])))} == ids


def test_a_question_is_read_once_however_it_is_dressed(tmp_path: Path) -> None:
    rows = [
        {"question": "Find $\\frac{1}{2} + x$.", "answer": "3"},
        {"question": "find  $\\dfrac{1}{2}+x$", "answer": "$3$"},
        {"question": "Find $\\frac{1}{2} - x$.", "answer": "3"},
        {"id": "named", "question": "Find $\\frac{1}{2} + x$.", "answer": 3},
    ]
    found, account = sieve(knobs(jsonl(tmp_path, *rows)))
    assert [p.question for p in found] == [rows[0]["question"], rows[2]["question"]]
    assert (account.duplicates, account.contradicting) == (2, 0)


def test_where_answers_contradict_each_other_none_is_believed(tmp_path: Path) -> None:
    rows = [
        made.dapo("1+1?", "2"), made.dapo("2+2?", "4"), made.dapo("1+1?", "3"),
        made.dapo("1+1?", "2"), made.dapo("1+1?", "3"), made.dapo("1+1?", "5"),
    ]  # fmt: skip
    found, account = sieve(knobs(jsonl(tmp_path, *rows)))
    assert [p.question for p in found] == ["2+2?"]
    # The first of each answer contradicts; letter by letter the same again is a repeat.
    assert (account.contradicting, account.duplicates, account.whole()) == (3, 2, True)


def test_an_id_stands_for_one_problem(tmp_path: Path) -> None:
    other = {"question": "2?", "answer": "2"}
    rows = [{"id": "a", **GOOD}, {"id": "b", **other}]
    assert len(load(str(jsonl(tmp_path, *rows, rows[0])))) == 2
    with pytest.raises(DataError, match="set.jsonl:3: id 'a' stands already at .*set.jsonl:1"):
        load(str(jsonl(tmp_path, *rows, {"id": "a", **other})))


def test_levels(tmp_path: Path) -> None:
    rows = [made.polaris(f"{n}?", "1", f"{n}/8") for n in range(9)]
    found, account = sieve(knobs(jsonl(tmp_path, *rows), levels=(1, 2, 6)))
    assert [p.level for p in found] == [1, 2, 6] and account.levels == 6
    with pytest.raises(DataError, match="holds no problems(.|\n)*of other levels +9"):
        sieve(knobs(jsonl(tmp_path, *rows), levels=(17,)))


def test_malformed_rows_are_let_through_as_many_as_are_allowed(tmp_path: Path) -> None:
    file = jsonl(tmp_path, GOOD, "{torn", {"question": "2?"}, "[]")
    found, account = sieve(knobs(file, malformed=3))
    assert len(found) == 1 and account.malformed == 3
    assert [fault.split(": ")[0][-11:] for fault in account.faults] == [
        "set.jsonl:2", "set.jsonl:3", "set.jsonl:4",
    ]  # fmt: skip
    with pytest.raises(DataError, match="set.jsonl:4: .*malformed row 3.*allows 2"):
        sieve(knobs(file, malformed=2))


def benchmark(folder: Path, name: str, *questions: str) -> str:
    return str(jsonl(folder, *({"problem": q, "answer": "?"} for q in questions), name=name))


def test_what_a_benchmark_asks_is_left_out_and_said(tmp_path: Path) -> None:
    aime = benchmark(tmp_path, "aime.jsonl", LONG, "What is $1+1$?")
    imo = tmp_path / "imo.csv"
    imo.write_text("Problem ID,Problem,Short Answer\n1,Is it so?,Yes\n2,torn\n")
    rows = [
        made.dapo("Today: " + LONG, "1"), made.dapo("what is 1+1", "2"),
        made.dapo("What is $1-1$?", "0"), made.dapo("Is it so", "1"),
    ]  # fmt: skip
    found, account = sieve(knobs(jsonl(tmp_path, *rows), decontaminate=(aime, str(imo))))
    assert [p.question for p in found] == ["What is $1-1$?"]
    assert account.contaminated == {"aime": 2, "imo": 1}
    said = "\n".join(account.lines())
    assert "contaminated                          3  aime 2, imo 1" in said
    assert '"Today: Jen enters a lottery' in said and 'meets aime (100% of "Jen enters' in said


def test_a_benchmark_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    file = jsonl(tmp_path, GOOD)
    with pytest.raises(DataError, match="no such file"):
        sieve(knobs(file, decontaminate=(str(tmp_path / "none.jsonl"),)))
    bad = jsonl(tmp_path, {"problem": "1?"}, {"text": "2?"}, name="bad.jsonl")
    with pytest.raises(DataError, match="problems.decontaminate: .*bad.jsonl:2: no question"):
        sieve(knobs(file, decontaminate=(str(bad),)))
    torn = jsonl(tmp_path, "{torn", name="torn.jsonl")
    with pytest.raises(DataError, match="problems.decontaminate: .*torn.jsonl:1: not JSON"):
        sieve(knobs(file, decontaminate=(str(torn),)))


def test_answers_that_the_verifier_cannot_read_are_left_out(tmp_path: Path) -> None:
    golds = {
        "5": True, "\\frac{1}{2}": True, "Yes": True, "(1, 2)": True, "x^2+1": True, "7": True,
        "\\frac{": False, "}{": False, "3.14.15": False, "\x00": False, "10^{10^{10}}": False,
        "\\begin{pmatrix}1": False,
    }  # fmt: skip
    rows = [{"question": f"{n}?", "answer": gold} for n, gold in enumerate(golds)]
    with Judge(workers=1) as judge:
        found, account = sieve(knobs(jsonl(tmp_path, *rows)), judge=judge)
    assert [p.answer for p in found] == [gold for gold, reads in golds.items() if reads]
    assert account.unreadable == 6
    assert "without a checkable answer            6" in "\n".join(account.lines())
    assert len(sieve(knobs(jsonl(tmp_path, *rows)))[0]) == len(golds)


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    """Whatever is in a file: what was read is what was left out and what is left."""
    draw = random.Random(0)
    aime = benchmark(tmp_path, "aime.jsonl", LONG)

    def row() -> Any:
        n = draw.randrange(12)
        return draw.choice(
            [
                "{torn", [], made.openr1("", "1"), made.openr1(f"{n}?", None),
                made.openr1(f"{n}?", "1"), made.openr1(f" {n}", "1"), made.openr1(f"{n}!", "2"),
                made.openr1(LONG + str(n), "1"), made.openr1("Why? " * n, "1"),
                made.openr1(f"{n}{n}?", "\\frac{"),
            ]
        )  # fmt: skip

    with Judge(workers=1) as judge:
        for count in (1, 30, 400):
            file = jsonl(tmp_path, made.openr1("So?", "1"), *(row() for _ in range(count)))
            found, account = sieve(
                knobs(file, malformed=10**6, decontaminate=(aime,)), judge=judge,
                room=(40, lambda problem: len(problem.question)),
            )  # fmt: skip
            assert account.whole() and account.read == count + 1
            assert account.left == len(found) == len({p.id for p in found})
    assert min(
        account.malformed, account.duplicates, account.contradicting, account.unanswered,
        account.unreadable, account.contaminated.total(), account.long, account.left,
    ) > 0  # fmt: skip


def test_prompts_that_do_not_fit_are_left_out_by_name() -> None:
    problems = [Problem(str(n), "x" * n, "1", "", None) for n in (1, 5, 9)]
    kept, left = fit(problems, limit=5, count=lambda problem: len(problem.question))
    assert ([p.id for p in kept], left) == (["1", "5"], ["9"])
    with pytest.raises(DataError, match="none of 3.*shortest prompt has 1.*allows 0"):
        fit(problems, limit=0, count=lambda problem: len(problem.question))


def test_repeats_cost_no_memory(tmp_path: Path) -> None:
    """A hundred copies of every row: only the first is kept, in any form."""
    rows = [json.dumps(made.dapo(f"{n}? " + "x" * 500, str(n))) for n in range(300)]

    def peak(copies: int) -> int:
        file = jsonl(tmp_path, *rows * copies)
        tracemalloc.start()
        found, account = sieve(knobs(file))
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(found) == 300 and account.duplicates == 300 * (copies - 1)
        return size

    once = peak(1)
    assert peak(40) < 1.3 * once
