"""What a person sees while it runs: how far, how right, how fast, and when it will be done."""

import sys
import time
from collections import deque
from typing import TextIO

from eval.responses import OK, Row
from eval.study import Job
from seirenes_jax.console import Bar
from seirenes_jax.types import Verdict
from seirenes_jax.verify.judge import Judge, Ticket

RECENT_S = 60.0  # tokens a second are of the last minute


class Running:
    """A bar with the running accuracy; the judge works beside the requests, nobody waits for it.

    Without a judge: what comes is no answer to a problem.
    """

    def __init__(self, total: int, judge: Judge | None, out: TextIO = sys.stderr) -> None:
        self._bar = Bar("answers", total, unit="answer", out=out)
        self._judge = judge
        self._tickets: deque[Ticket] = deque()
        self._right = self._judged = 0
        self._paces: deque[tuple[float, float]] = deque()  # (when, tokens) of late
        self._begun = time.monotonic()

    def heard(self, rows: list[Row], job: Job) -> None:
        """One more reply: hand it to the judge, say how it stands."""
        answers = [row for row in rows if row["status"] == OK]
        item = job.question.item
        if answers and self._judge is not None:
            cases = [(item.answer, row["text"]) for row in answers]
            self._tickets.append(self._judge.submit(cases, [item.tolerance] * len(cases)))
        while self._judge is not None and self._tickets and self._tickets[0].done():
            verdicts = self._judge.collect(self._tickets.popleft())
            self._right += verdicts.count(Verdict.RIGHT)
            self._judged += verdicts.count(Verdict.RIGHT) + verdicts.count(Verdict.WRONG)
        now = time.monotonic()
        self._paces.append((now, sum(row["tokens_server"] or 0 for row in answers)))
        while self._paces[0][0] < now - RECENT_S:
            self._paces.popleft()
        self._bar.advance(len(rows), self._note(now))

    def _note(self, now: float) -> str:
        words = []
        if self._judged:
            words.append(f"acc {self._right / self._judged:.1%}")
        tokens = sum(count for _, count in self._paces)
        if tokens:
            span = max(1e-3, now - max(self._begun, now - RECENT_S))
            words.append(f"{tokens / span:,.0f} tok/s")
        return "  ".join(words)

    def close(self) -> None:
        self._bar.close()
