"""How a row is read: one visible table of data sets, each with its columns and what is stripped.

`plain` is any file of ours: `question` (or `problem`, or `prompt`), `answer`; where present `id`,
`level`, `source`. Other columns are left alone.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from seirenes_jax.errors import ConfigError
from seirenes_jax.problems.rows import shown
from seirenes_jax.types import Problem
from seirenes_jax.verify.extract import final_answer

QUESTIONS = ("question", "problem", "prompt", "Question", "Problem")
LONGEST = 1_000_000  # characters of a question or an answer
BY_COLUMNS = ""  # problems.format: by the columns of the file


class Fault(ValueError):
    """What is wrong with a row, in words."""


class Cells(NamedTuple):
    """What a row says, as it stands there."""

    question: Any
    answer: Any  # None: the row has none, and the data set is known for such rows
    level: Any = None
    source: Any = None
    id: Any = None


class Format(NamedTuple):
    """How the rows of one data set are read."""

    fits: Callable[[Collection[str]], bool]  # told by the columns
    reads: tuple[str, ...]  # all columns that are looked at
    cells: Callable[[Mapping[str, Any]], Cells]
    strips: tuple[re.Pattern[str], ...] = ()  # instructions in the question; ours stand in prompts


# "Solve the following ... Answer: $Answer ...\n\n" and "Remember to put your answer on ...": both
# ask for another form of answer than the prompts here.
ANSWER_LINE = (
    re.compile(r"\A\s*Solve the following math problem step by step\.[^\n]*\bAnswer:[^\n]*\n+"),
    re.compile(r'\s*Remember to put your answer on its own line after "Answer:"\.?\s*\Z'),
)
BOXED = (
    re.compile(
        r"\s*(?:Let's think step by step and output|Please reason step by step,? and put your|"
        r"Please put your|Put your|Please output) (?:the )?final answer (?:with)?in \\boxed\{\}"
        r"\.?\s*\Z"
    ),
)


def _dapo(row: Mapping[str, Any]) -> Cells:
    """prompt = [{role, content}] or text, reward_model.ground_truth."""
    answer = row["reward_model"]["ground_truth"]
    return Cells(_asked(row["prompt"]), answer, None, row.get("data_source"))


def _asked(prompt: Any) -> Any:
    """What the user says last, of a conversation or of plain text."""
    if isinstance(prompt, str):
        return prompt
    return next(turn["content"] for turn in reversed(prompt) if turn["role"] == "user")


def _openr1(row: Mapping[str, Any]) -> Cells:
    """Proofs, and answers that were not found, have none."""
    answer = row["answer"]
    proof = row["question_type"] == "proof"
    missing = proof or answer is None or str(answer).strip().lower() in ("", "proof", "notfound")
    return Cells(row["problem"], None if missing else answer, None, row.get("source"))


def _deepmath(row: Mapping[str, Any]) -> Cells:
    """difficulty 5.5 is level 5."""
    level = row.get("difficulty")
    return Cells(row["question"], row["final_answer"], level and math.floor(level))


def _math(row: Mapping[str, Any]) -> Cells:
    """The answer is the last box of the solution. "Level ?" is none."""
    level = row["level"]
    return Cells(
        row["problem"], final_answer(row["solution"]), None if level == "Level ?" else level,
        row.get("type"),
    )  # fmt: skip


def _polaris(row: Mapping[str, Any]) -> Cells:
    """difficulty "3/8", three of eight tries of a 7B model right, is level 3: 0 is hardest."""
    tries = re.fullmatch(r"\s*(\d+)\s*/\s*\d+\s*", str(row["difficulty"]))
    if tries is None:
        raise Fault(f"difficulty: got {shown(row['difficulty'])}; wanted the like of 3/8")
    return Cells(row["problem"], row["answer"], int(tries[1]))


def _gsm8k(row: Mapping[str, Any]) -> Cells:
    """The answer stands behind the #### of the solution, with commas between thousands."""
    solution, mark, answer = row["answer"].rpartition("####")
    return Cells(row["question"], answer.strip().replace(",", "") if mark and solution else None)


def plain(question: str = "", answer: str = "") -> Format:
    """A file of ours, with its columns named or by their usual names."""
    asked = (question,) if question else QUESTIONS
    gold = answer if answer else "answer"

    def cells(row: Mapping[str, Any]) -> Cells:
        column = next((name for name in asked if row.get(name) is not None), None)
        if column is None:
            raise Fault(
                f"no question; got columns {', '.join(map(str, row)) or 'none'}; wanted "
                f"{'' if question else 'one of '}{', '.join(asked)}"
            )
        if row.get(gold) is None:
            raise Fault(
                f"{gold}: got None; wanted text or a number (problems.answer_column names another "
                "column, problems.malformed lets some such rows pass)"
            )
        return Cells(row[column], row[gold], row.get("level"), row.get("source"), row.get("id"))

    return Format(lambda names: True, (*asked, gold, "id", "level", "source"), cells)


FORMATS: Mapping[str, Format] = {  # the first that fits is taken
    "dapo": Format(
        {"prompt", "reward_model"}.issubset, ("prompt", "reward_model", "data_source"), _dapo,
        (*ANSWER_LINE, *BOXED),
    ),
    "deepmath": Format(
        {"question", "final_answer"}.issubset, ("question", "final_answer", "difficulty"),
        _deepmath,
    ),
    "openr1": Format(
        {"problem", "answer", "question_type"}.issubset,
        ("problem", "answer", "question_type", "source"), _openr1,
    ),
    "math": Format(
        lambda names: {"problem", "solution", "level"} <= set(names) and "answer" not in names,
        ("problem", "solution", "level", "type"), _math,
    ),
    "polaris": Format(
        lambda names: {"problem", "answer", "difficulty"} == set(names),
        ("problem", "answer", "difficulty"), _polaris, BOXED,
    ),
    "plain": plain(),
    "gsm8k": Format(lambda names: False, ("question", "answer"), _gsm8k),  # looks like plain: ask
}  # fmt: skip


def of(names: Collection[str], *, format: str, question: str, answer: str) -> tuple[str, Format]:
    """The format of a file: as asked, else by its columns."""
    if question or answer:
        if format not in (BY_COLUMNS, "plain"):
            raise ConfigError(
                f"problems.format: got {format!r} beside a named column; {format} has its own "
                "columns: leave one of them empty"
            )
        return "plain", plain(question, answer)
    if format != BY_COLUMNS:
        return format, FORMATS[format]
    return next((name, one) for name, one in FORMATS.items() if one.fits(names))


def cells(row: Any, format: Format) -> Cells:
    """What a row says; Fault where it is not of the format."""
    if not isinstance(row, Mapping):
        raise Fault(f"got {shown(row)}; wanted an object with question and answer")
    try:
        return format.cells(row)
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        got = ", ".join(map(str, row)) or "none"
        raise Fault(
            f"not of its format ({type(error).__name__}: {error}); got columns {got}; wanted "
            f"{', '.join(format.reads)}"
        ) from error


def question_of(row: Any) -> str:
    """The question of a benchmark's row, whatever else it holds."""
    column = next((name for name in QUESTIONS if name in row), None) if row else None
    if column is None:
        raise Fault(f"no question: got {shown(row)}; wanted one of {', '.join(QUESTIONS)}")
    found = _asked(row[column]) if isinstance(row[column], list) else row[column]
    return _stripped(_text(found, column), (*ANSWER_LINE, *BOXED))


def _stripped(question: str, instructions: Sequence[re.Pattern[str]]) -> str:
    for instruction in instructions:
        question = instruction.sub("", question)
    return question


def problem(found: Cells, format: Format, *, source: str) -> Problem | None:
    """The problem of a row, checked; None where it has no answer."""
    question = _stripped(_text(found.question, "question"), format.strips)
    if not question.strip():
        raise Fault(f"question: got {shown(found.question)}; wanted a problem in it")
    if found.answer is None:
        return None
    answer = _scalar(found.answer, "answer")
    return Problem(
        id=content_id(question, answer) if found.id is None else _scalar(found.id, "id"),
        question=question,
        answer=answer,
        source=source if found.source is None else _scalar(found.source, "source"),
        level=_level(found.level),
    )


def content_id(question: str, answer: str) -> str:
    """The same problem has the same id in every file and order."""
    packed = json.dumps([question, answer]).encode()
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"{what}: got {shown(value)}; wanted text")
    if len(value) > LONGEST:
        raise Fault(f"{what}: {len(value):,} characters; wanted at most {LONGEST:,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # "\\ud800" in JSON: no tokenizer takes it
        raise Fault(f"{what}: got half a character, {shown(value)}; wanted whole ones") from error
    return value


def _scalar(value: Any, what: str) -> str:
    """Text, or a number as it would be written: 12, and 12.0 too, as 12."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    number = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    if number and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise Fault(f"{what}: got {shown(value)}; wanted text or a number")
    return _text(value, what)


def _level(value: Any) -> int | None:
    """A whole number, also where written as text: 3, "3", "Level 3"."""
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    words = value.strip() if isinstance(value, str) else ""
    found = re.fullmatch(r"(?:level\s*)?(\d+)", words, re.IGNORECASE)
    if found is None:
        raise Fault(f"level: got {shown(value)}; wanted a whole number or nothing")
    return int(found[1])
