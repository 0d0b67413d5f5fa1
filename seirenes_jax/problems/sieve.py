"""From a place to the problems of a run: what is read, what is left out, and the account of it.

The order of the file is kept; nothing here is drawn.
"""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath

from seirenes_jax.console import Bar
from seirenes_jax.errors import DataError
from seirenes_jax.knobs import Problems
from seirenes_jax.problems import formats, places, rows
from seirenes_jax.problems.account import EXAMPLES, Account
from seirenes_jax.problems.formats import Fault, Format
from seirenes_jax.problems.sameness import Benchmarks, normal
from seirenes_jax.types import Problem, Verdict
from seirenes_jax.verify.judge import Judge

OpenBar = Callable[[str, int, str], Bar]
MEBI = 1 << 20
AT_ONCE = 4096  # answers handed to the judge together
OTHER = "\\boxed{7}"  # any answer at all: can the gold one be compared with it?


def quiet(name: str, total: int, unit: str) -> Bar:
    """A bar that nobody sees."""
    return Bar(name, total, unit=unit, out=io.StringIO())


def load(path: str | Path) -> list[Problem]:
    """The problems of a file, in its order, read by its columns; the first bad row is an error."""
    knobs = Problems(
        path=str(path), format=formats.BY_COLUMNS, question_column="", answer_column="", levels=(),
        decontaminate=(), overlap=0.0, checkable=False, malformed=0, mastered_share=0.0,
    )  # fmt: skip
    return sieve(knobs)[0]


def sieve(
    knobs: Problems,
    *,
    judge: Judge | None = None,
    room: tuple[int, Callable[[Problem], int]] | None = None,
    open_bar: OpenBar = quiet,
) -> tuple[list[Problem], Account]:
    """The problems that the knobs let through, and the account.

    `judge` reads the answers; `room` = how many tokens a prompt may have, and how they are counted.
    """
    account = Account(knobs.path)
    found = _Reader(knobs, account).read(open_bar)
    if knobs.levels:
        kept = [problem for problem in found if problem.level in knobs.levels]
        account.levels, found = len(found) - len(kept), kept
    if knobs.decontaminate:
        found = _decontaminated(found, knobs, account, open_bar)
    if judge is not None:
        kept = _readable(found, judge, open_bar)
        account.unreadable, found = len(found) - len(kept), kept
    if found and room is not None:
        found, gone = fit(found, limit=room[0], count=room[1], open_bar=open_bar)
        account.long = len(gone)
    account.left = len(found)
    if not found:
        raise DataError(
            f"{knobs.path}: holds no problems that can be used; wanted at least one row\n"
            + "\n".join(account.lines())
        )
    return found, account


def fit(
    problems: Sequence[Problem],
    *,
    limit: int,
    count: Callable[[Problem], int],
    open_bar: OpenBar = quiet,
) -> tuple[list[Problem], list[str]]:
    """Problems whose prompt has at most `limit` tokens, and the ids of those that were left out."""
    lengths = []
    with open_bar("counting tokens", len(problems), "prompt") as bar:
        for problem in problems:
            lengths.append(count(problem))
            bar.advance()
    kept = [p for p, length in zip(problems, lengths, strict=True) if length <= limit]
    left = [p.id for p, length in zip(problems, lengths, strict=True) if length > limit]
    if not kept:
        raise DataError(
            f"none of {len(problems)} problems fits: the shortest prompt has"
            f" {min(lengths, default=0)} tokens, tokens.prompt allows {limit}; raise it"
        )
    return kept, left


class _Reader:
    """Reads all files of a place, each question once."""

    def __init__(self, knobs: Problems, account: Account) -> None:
        self.knobs, self.account = knobs, account
        self._kept: list[Problem | None] = []  # None: taken back, its answers contradict each other
        self._letters: set[tuple[str, str]] = set()  # (question, answer) as they stood there
        self._index: dict[bytes, tuple[int, str]] = {}  # of a question -> (place in kept, answer)
        self._ids: dict[str, tuple[str, bytes, str]] = {}  # named ids -> (where, question, answer)

    def read(self, open_bar: OpenBar) -> list[Problem]:
        """Every file of the place, under a bar that counts bytes."""
        files = places.find(self.knobs.path)
        known = places.known(self.knobs.path)
        self.account.expected = known.rows if known else None
        total = sum(file.stat().length for file in files)
        with open_bar("reading problems", -(-total // MEBI), "MB") as bar:
            behind = 0

            def moved(count: int) -> None:
                nonlocal behind
                behind, before = behind + count, behind
                bar.advance(behind // MEBI - before // MEBI)

            for file in files:
                self._read_file(file, moved)
        return [problem for problem in self._kept if problem is not None]

    def _read_file(self, file: epath.Path, moved: rows.Moved) -> None:
        knobs = self.knobs
        name, format = formats.of(
            rows.columns(file), format=knobs.format, question=knobs.question_column,
            answer=knobs.answer_column,
        )  # fmt: skip
        self.account.formats.add(name)
        source = file.name.partition(".")[0] if name == "plain" else name
        for row in rows.read(file, format.reads, moved):
            self.account.read += 1
            try:
                self._read_row(row, format, source=source, file=file)
            except Fault as fault:
                self._malformed(f"{rows.place(file, row.number)}: {fault}", fault)

    def _read_row(self, row: rows.Row, format: Format, *, source: str, file: epath.Path) -> None:
        if row.fault:
            raise Fault(row.fault)
        cells = formats.cells(row.value, format)
        letters = (cells.question, cells.answer)
        comparable = isinstance(letters[0], str) and isinstance(letters[1], str)
        if comparable and cells.id is None and letters in self._letters:
            self.account.duplicates += 1  # the quick way: most rows of some data sets are repeats
            return
        problem = formats.problem(cells, format, source=source)
        if problem is None:
            self.account.unanswered += 1
            return
        at = rows.place(file, row.number) if cells.id is not None else None
        self._keep(problem, at)
        if comparable:
            self._letters.add(letters)

    def _keep(self, problem: Problem, at: str | None) -> None:
        """Keep a problem unless its question was there before. `at`: where its id is named."""
        question = hashlib.blake2b(normal(problem.question).encode(), digest_size=16).digest()
        answer = normal(problem.answer)
        if at is not None:
            before = self._ids.setdefault(problem.id, (at, question, answer))
            if before[1:] != (question, answer):
                raise DataError(
                    f"{at}: id {problem.id!r} stands already at {before[0]}; wanted every id once:"
                    " rename or remove one"
                )
        if question not in self._index:
            self._index[question] = (len(self._kept), answer)
            self._kept.append(problem)
            return
        place, known_answer = self._index[question]
        if answer == known_answer:
            self.account.duplicates += 1
            return
        self.account.contradicting += 1
        if self._kept[place] is not None:
            self._kept[place] = None
            self.account.contradicting += 1

    def _malformed(self, words: str, fault: Fault) -> None:
        account, allowed = self.account, self.knobs.malformed
        account.malformed += 1
        if account.malformed > allowed:
            more = f" (malformed row {account.malformed}; problems.malformed allows {allowed})"
            raise DataError(words + (more if allowed else "")) from fault
        if len(account.faults) < EXAMPLES:
            account.faults.append(words)


def _decontaminated(
    found: list[Problem], knobs: Problems, account: Account, open_bar: OpenBar
) -> list[Problem]:
    """Without the problems that a benchmark asks, too."""
    benchmarks = Benchmarks(_questions(knobs.decontaminate), overlap=knobs.overlap)
    kept = []
    with open_bar("decontaminating", len(found), "problem") as bar:
        for problem in found:
            hit = benchmarks.meets(problem.question)
            bar.advance()
            if hit is None:
                kept.append(problem)
                continue
            account.contaminated[hit.benchmark] += 1
            if account.contaminated[hit.benchmark] <= 1 or len(account.hits) < EXAMPLES:
                account.hits.append((problem.question, hit))
    return kept


def _questions(specs: Sequence[str]) -> list[tuple[str, str]]:
    """(benchmark, question) of every row of every file; a row without a question is an error."""
    found = []
    for spec in specs:
        for file in places.find(spec):
            for row in rows.read(file, formats.QUESTIONS, lambda count: None):
                try:
                    found.append((places.label(file), formats.question_of(row.value)))
                except Fault as fault:
                    at = f"problems.decontaminate: {rows.place(file, row.number)}"
                    raise DataError(f"{at}: {row.fault or fault}") from fault
    return found


def _readable(found: list[Problem], judge: Judge, open_bar: OpenBar) -> list[Problem]:
    """Problems whose answer the verifier finds equal to itself and can compare with another."""
    kept = []
    with open_bar("reading answers", len(found), "answer") as bar:
        for start in range(0, len(found), AT_ONCE):
            some = found[start : start + AT_ONCE]
            itself = judge.submit([(p.answer, f"\\boxed{{{p.answer}}}") for p in some])
            other = judge.submit([(p.answer, OTHER) for p in some])
            verdicts = zip(judge.collect(itself), judge.collect(other), strict=True)
            kept += [
                problem for problem, (same, compared) in zip(some, verdicts, strict=True)
                if same == Verdict.RIGHT and compared in (Verdict.RIGHT, Verdict.WRONG)
            ]  # fmt: skip
            bar.advance(len(some))
    return kept
