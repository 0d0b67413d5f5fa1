"""What a run starts from: the problems it plays, those it holds out, and the account of both."""

import io
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import settings, start
from seirenes_jax.errors import DataError
from seirenes_jax.knobs import Settings
from seirenes_jax.report import RunLog
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import Tokenizer, load_tokenizer
from seirenes_jax.types import Problem
from tests.problems import made
from tests.problems.made import jsonl

LONG = "So many words stand in this one that no prompt of the run has room for all of them. " * 9


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["What is 1 + 1? Solve. 0 1 2 3 4 5 6 7 8 9"] * 20, 60, folder)
    return load_tokenizer(folder)


def chosen(
    folder: Path, tokenizer: Tokenizer, *rows: Any, **knobs: object
) -> tuple[list[Problem], list[Problem], str]:
    """(train, held out, what the console said) of a run on these rows."""
    wanted = {
        "problems__path": jsonl(folder, *rows), "eval__problems": 4, "eval__final_problems": 4,
    } | knobs  # fmt: skip
    flags = [f"{name.replace('__', '.')}={value}" for name, value in wanted.items()]
    out = io.StringIO()
    asked: Settings = settings.load("configs/tiny.py", flags)[0]
    with RunLog(folder / "run", steps=1, out=out) as log:
        train, held_out = start._problems(asked, tokenizer, log)
    return train, held_out, out.getvalue()


def test_the_account_stands_on_the_console_and_in_the_events(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [made.dapo(f"What is {n} + {n}?", str(2 * n)) for n in range(40)]
    aime = jsonl(tmp_path, {"problem": "what is $7 + 7$"}, name="aime.jsonl")
    rows += [rows[3], made.dapo("Bad?", "\\frac{"), made.dapo(LONG, "1")]
    train, held_out, said = chosen(tmp_path, tokenizer, *rows, problems__decontaminate=aime)
    assert (len(train), len(held_out)) == (35, 4)
    assert not {p.id for p in train} & {p.id for p in held_out}
    assert {p.question for p in train + held_out} == {
        f"What is {n} + {n}?" for n in range(40) if n != 7
    }
    events = (tmp_path / "run" / "events.log").read_text()
    for line in (
        "set.jsonl (dapo)", "read                                 43",
        "duplicates                            1", "without a checkable answer            1",
        "contaminated                          1  aime 1",
        "too long                              1",
        "left                                 39", '"What is 7 + 7?" meets aime',
    ):  # fmt: skip
        assert line in said and line in events


def test_answers_need_not_be_checkable_where_that_is_asked(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [made.polaris(f"{n}?", "\\frac{", f"{n % 9}/8") for n in range(40)]
    train, held_out, _ = chosen(
        tmp_path, tokenizer, *rows, problems__checkable="false", problems__levels="1,2"
    )
    assert {p.level for p in train + held_out} == {1, 2}
    with pytest.raises(DataError, match="holds no problems(.|\n)*checkable answer +40"):
        chosen(tmp_path, tokenizer, *rows)


def test_the_same_file_gives_the_same_problems_in_any_order_of_its_rows(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    rows = [made.dapo(f"What is {n} + {n}?", str(2 * n)) for n in range(30)]
    assert chosen(tmp_path, tokenizer, *rows)[:2] == chosen(tmp_path, tokenizer, *rows[::-1])[:2]
