"""Grade a file of responses: python -m seirenes_jax.verify FILE.jsonl --out=FILE.

Rows in: `id`, `gold`, `response`, perhaps `tolerance` (absolute error); other keys are kept. Rows
out, in the same order: the same keys, and `verdict`, `extracted`, `seconds`.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from seirenes_jax.errors import DONE, DataError, SeirenesError
from seirenes_jax.types import Verdict
from seirenes_jax.verify.extract import final_answer
from seirenes_jax.verify.judge import Judge, Ruling, Ticket
from seirenes_jax.verify.second import Opinion, second_opinion

WINDOW = 256  # rows handed to the judge at a time
WINDOWS = 8  # handed in before the first must be back
PROGRESS_S = 0.5

Row = dict[str, Any]


def rows(path: Path) -> Iterator[Row]:
    """The rows of a file, checked; names file and line where one cannot be used."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8"))
            except (ValueError, RecursionError) as error:
                raise DataError(
                    f"{where}: not a line of JSON ({error}); want one object a line"
                ) from error
            yield _checked(row, where)


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(
            f"{where}: got {type(row).__name__}, want an object with id, gold, response"
        )
    missing = [key for key in ("id", "gold", "response") if key not in row]
    if missing:
        got = ", ".join(map(str, row)) or "nothing"
        raise DataError(f"{where}: no {', '.join(missing)}; got the keys {got}")
    if isinstance(row["gold"], (int, float)) and not isinstance(row["gold"], bool):
        row["gold"] = str(row["gold"])  # AIME files hold integers
    for key in ("gold", "response"):
        if not isinstance(row[key], str):
            raise DataError(f"{where}: {key} is {type(row[key]).__name__}, want text")
    tolerance = row.get("tolerance")
    if tolerance is not None:
        try:
            good = float(str(tolerance)) >= 0
        except ValueError:
            good = False
        if not good:
            raise DataError(f"{where}: tolerance is {tolerance!r}, want a number such as 1e-1")
    checked: Row = row
    return checked


class _Progress:
    """One line on stderr, rewritten at most twice a second on a terminal."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._begun = self._shown = time.monotonic()

    def add(self, verdict: str) -> None:
        """One more row."""
        self.counts[verdict] += 1
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown > PROGRESS_S:
            self._shown = now
            print(f"\r{self.line()}", end="", file=sys.stderr, flush=True)

    def line(self) -> str:
        """What has been judged so far."""
        total = sum(self.counts.values())
        seconds = max(time.monotonic() - self._begun, 1e-9)
        each = "  ".join(f"{verdict} {self.counts[verdict]}" for verdict in Verdict)
        return f"{total} rows  {each}  {total / seconds:.0f} rows/s"

    def finish(self) -> None:
        """The last line."""
        start = "\r" if sys.stderr.isatty() else ""
        print(f"{start}{self.line()}", file=sys.stderr)


def _graded(row: Row, ruling: Ruling, fallback: bool) -> Row:
    extracted = ruling.extracted
    if extracted is None and ruling.verdict is not Verdict.WRONG:
        extracted = final_answer(row["response"], fallback)  # its worker died with it
    return {
        **row,
        "verdict": ruling.verdict.value,
        "extracted": extracted,
        "seconds": round(ruling.seconds, 6),
    }


def _disagreement(row: Row, opinion: Opinion) -> Row | None:
    """What to log where the second opinion differs."""
    if row["extracted"] is None or row["verdict"] == Verdict.TIMEOUT.value:
        return None
    theirs = opinion(row["gold"], row["extracted"])
    if theirs is None or theirs == (row["verdict"] == Verdict.RIGHT.value):
        return None
    kept = {key: row[key] for key in ("id", "gold", "extracted", "verdict")}
    return {**kept, "second": "right" if theirs else "wrong"}


def _write(file: IO[str], row: Row) -> None:
    file.write(json.dumps(row, ensure_ascii=True) + "\n")


def grade_file(flags: argparse.Namespace) -> None:
    """Judge every row; the output appears under its name only once it is whole."""
    out = Path(flags.out)
    opinion = second_opinion() if flags.second else None
    unfinished = out.with_name(out.name + ".part")
    progress = _Progress()
    waiting: deque[tuple[list[Row], Ticket]] = deque()
    with ExitStack() as stack:
        judge = stack.enter_context(
            Judge(flags.workers, flags.deadline, flags.memory, fallback=flags.fallback)
        )
        file = stack.enter_context(unfinished.open("w", encoding="utf-8"))
        log = stack.enter_context(open(flags.second, "w")) if flags.second else None

        def settle() -> None:
            window, ticket = waiting.popleft()
            for row, ruling in zip(window, judge.rulings(ticket), strict=True):
                graded = _graded(row, ruling, flags.fallback)
                _write(file, graded)
                progress.add(graded["verdict"])
                if log is not None and opinion is not None:
                    other = _disagreement(graded, opinion)
                    if other is not None:
                        _write(log, other)
            file.flush()

        for window in _windows(rows(Path(flags.file))):
            cases = [(row["gold"], row["response"]) for row in window]
            limits = [
                None if row.get("tolerance") is None else str(row["tolerance"]) for row in window
            ]
            waiting.append((window, judge.submit(cases, limits)))
            if len(waiting) >= WINDOWS:
                settle()
        while waiting:
            settle()
    os.replace(unfinished, out)
    progress.finish()


def _windows(stream: Iterator[Row]) -> Iterator[list[Row]]:
    window: list[Row] = []
    for row in stream:
        window.append(row)
        if len(window) == WINDOW:
            yield window
            window = []
    if window:
        yield window


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m seirenes_jax.verify", description="Grade a file of responses."
    )
    parser.add_argument("file", help="jsonl with id, gold, response (and tolerance)")
    parser.add_argument("--out", required=True, help="jsonl with verdict, extracted, seconds added")
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 16))
    parser.add_argument("--deadline", type=float, default=1.0, help="CPU seconds a row may take")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB a worker may take")
    parser.add_argument(
        "--fallback", action="store_true", help='also accept "the answer is 5" and "#### 5"'
    )
    parser.add_argument("--second", help="log rows where math-verify disagrees to this file")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    """Exit code: 0 graded, 2 a mistake in the flags or the file."""
    flags = _flags(argv)
    try:
        if not Path(flags.file).is_file():
            raise DataError(f"{flags.file}: no such file; want a jsonl with id, gold, response")
        if not Path(flags.out).absolute().parent.is_dir():
            raise DataError(f"--out={flags.out}: the folder does not exist; make it first")
        grade_file(flags)
    except SeirenesError as error:
        Path(flags.out + ".part").unlink(missing_ok=True)
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return DONE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
