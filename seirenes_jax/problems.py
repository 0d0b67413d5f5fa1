"""Files of problems: .jsonl or .parquet -> Problem, every row checked, complaints name the line.

Columns: `question` (or `problem`, or `prompt`), `answer`; where present `id`, `level`, `source`.
Other columns are left alone.
"""

import hashlib
import importlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seirenes_jax.errors import DataError
from seirenes_jax.types import Problem

QUESTIONS = ("question", "problem", "prompt")


def load(path: str | Path) -> list[Problem]:
    """The problems of a file, in its order.

    Rows without an id get one from their content, so it survives reordering; where such rows repeat
    each other word for word the first is kept.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such file; wanted a .jsonl or .parquet file of problems")
    if file.suffix not in READERS:
        raise DataError(f"{file}: got suffix {file.suffix!r}; wanted a .jsonl or .parquet file")
    problems: dict[str, Problem] = {}
    places: dict[str, str] = {}
    for place, row in READERS[file.suffix](file):
        problem, named = _problem(row, place, source=file.stem)
        if problem.id not in problems:
            problems[problem.id], places[problem.id] = problem, place
        elif named or problems[problem.id] != problem:
            raise DataError(
                f"{place}: id {problem.id!r} stands already at {places[problem.id]};"
                " wanted every id once: rename or remove one"
            )
    if not problems:
        raise DataError(f"{file}: holds no problems; wanted at least one row")
    return list(problems.values())


def fit(
    problems: Sequence[Problem], *, limit: int, count: Callable[[Problem], int]
) -> tuple[list[Problem], list[str]]:
    """Problems whose prompt has at most `limit` tokens, and the ids of those that were left out."""
    lengths = [count(problem) for problem in problems]
    kept = [p for p, length in zip(problems, lengths, strict=True) if length <= limit]
    left = [p.id for p, length in zip(problems, lengths, strict=True) if length > limit]
    if not kept:
        raise DataError(
            f"none of {len(problems)} problems fits: the shortest prompt has"
            f" {min(lengths, default=0)} tokens, tokens.prompt allows {limit}; raise it"
        )
    return kept, left


def _jsonl(file: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        if line.strip():
            yield f"{file}:{number}", _parse(line, f"{file}:{number}")


def _parse(line: bytes, place: str) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except ValueError as error:  # not JSON, or a number of thousands of digits
        shown = _shown(line.decode("utf-8", "replace"))
        raise DataError(
            f"{place}: not JSON ({error}): got {shown}; wanted one object a line"
        ) from error


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{file}: reading .parquet needs pyarrow, which is not installed;"
            " pip install pyarrow, or convert the file to .jsonl"
        )
    pyarrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(file)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{file}: not a readable .parquet file ({error})") from error
    for number, row in enumerate(table.to_pylist(), start=1):
        yield f"{file}: row {number}", row


READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _problem(row: Any, place: str, *, source: str) -> tuple[Problem, bool]:
    """The problem of a row, and whether the row named it."""
    if not isinstance(row, Mapping):
        raise DataError(f"{place}: got {_shown(row)}; wanted an object with question and answer")
    column = next((name for name in QUESTIONS if row.get(name) is not None), None)
    if column is None:
        raise DataError(
            f"{place}: no question; got columns {', '.join(map(str, row)) or 'none'};"
            f" wanted one of {', '.join(QUESTIONS)}"
        )
    question = row[column]
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"{place}: {column}: got {_shown(question)}; wanted text")
    answer = _scalar(row.get("answer"), f"{place}: answer")
    named = row.get("id") is not None
    return Problem(
        id=_scalar(row["id"], f"{place}: id") if named else content_id(question, answer),
        question=question,
        answer=answer,
        source=source if row.get("source") is None else _scalar(row["source"], f"{place}: source"),
        level=_level(row.get("level"), f"{place}: level"),
    ), named


def content_id(question: str, answer: str) -> str:
    """The same problem has the same id in every file and order."""
    packed = json.dumps([question, answer]).encode()
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


def _scalar(value: Any, what: str) -> str:
    """Text, or a number as it would be written: 12, and 12.0 too, as 12."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    plain = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
    if isinstance(value, bool) or not plain or not str(value).strip():
        raise DataError(f"{what}: got {_shown(value)}; wanted text or a number")
    return str(value)


def _level(value: Any, what: str) -> int | None:
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
        raise DataError(f"{what}: got {_shown(value)}; wanted a whole number or nothing")
    return int(found[1])


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else words[:57] + "..."
