"""The judge: a pool of killable worker processes with a CPU deadline for every case.

Owns the pool. `submit` never blocks, `collect` waits; both may be called from any thread. A case
that passes its CPU deadline takes its worker with it and is a timeout; any other death of a worker
is retried once in a fresh one. Wall time is only a distant backstop, so a busy machine cannot
change a verdict.
"""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from seirenes_jax.errors import ConfigError, JudgeError
from seirenes_jax.types import Verdict
from seirenes_jax.verify.process import End, Outcome, Ruling, Worker
from seirenes_jax.verify.ruling import rule
from seirenes_jax.verify.wire import Case

__all__ = ["Judge", "Ruling", "Ticket", "grade"]

BATCH = 64  # cases a message, at most
BATCH_CHARS = 1 << 20
RECYCLE = 20_000  # cases a worker may judge before a fresh one takes over
SHOWN = 200  # characters of a case that is awaited
STILLBORN = 3  # workers in a row that die before they are ready: the judge itself is broken


def grade(
    gold: str, response: str, fallback: bool = False, tolerance: str | None = None
) -> tuple[Verdict, str | None]:
    """Verdict and extracted answer, in this process and without a deadline."""
    verdict, said = rule(gold, response, fallback, tolerance)
    return Verdict(verdict), said


class Ticket:
    """A batch on its way. Filled by the judge, read by `collect`."""

    def __init__(self, count: int) -> None:
        self._rulings: list[Ruling | None] = [None] * count
        self._left = count
        self._broken: JudgeError | None = None
        self._changed = threading.Condition()

    def done(self) -> bool:
        """All verdicts are in, or the judge has failed: `collect` will not block."""
        with self._changed:
            return not self._left or self._broken is not None

    def fill(self, index: int, ruling: Ruling) -> None:
        """Note the ruling of one case; wake whoever waits once all are in."""
        with self._changed:
            self._rulings[index] = ruling
            self._left -= 1
            if not self._left:
                self._changed.notify_all()

    def fail(self, error: JudgeError) -> None:
        """The judge cannot go on; whoever waits gets this error."""
        with self._changed:
            self._broken = error
            self._changed.notify_all()

    def wait(self) -> list[Ruling]:
        """Block until all rulings are in."""
        with self._changed:
            while self._left and self._broken is None:
                self._changed.wait()
            if self._broken is not None:
                raise self._broken
            return [ruling for ruling in self._rulings if ruling is not None]


@dataclass(slots=True)
class _Batch:
    """Part of a ticket: cases of one message and where they stand in the ticket."""

    ticket: Ticket
    indices: list[int]
    cases: list[Case]
    deaths: dict[int, int] = field(
        default_factory=dict
    )  # index in the ticket -> workers it has cost


class Judge:
    """A pool of workers. Use as a context manager, or call `close`."""

    def __init__(
        self, workers: int, deadline_s: float = 1.0, memory_gib: float = 1.0, fallback: bool = False
    ) -> None:
        if workers < 1 or deadline_s <= 0 or memory_gib < 0.125:
            raise ConfigError(
                f"cannot start a judge: got workers={workers}, deadline_s={deadline_s}, "
                f"memory_gib={memory_gib}; want workers >= 1, deadline_s > 0, memory_gib >= 0.125"
            )
        self.workers = workers
        self.deadline_s = deadline_s
        self.memory_gib = memory_gib
        self.fallback = fallback
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._broken: JudgeError | None = None
        self._at: list[tuple[Worker, list[Case]] | None] = [None] * workers  # who judges what now
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), name=f"judge-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(
        self, cases: Sequence[tuple[str, str]], tolerances: Sequence[str | None] | None = None
    ) -> Ticket:
        """Hand in (gold, response) pairs; returns at once. `tolerances`: absolute, one a case."""
        ticket = Ticket(len(cases))
        size = max(1, min(BATCH, -(-len(cases) // (2 * self.workers))))
        batch = _Batch(ticket, [], [])
        batches = [batch]
        chars = 0
        for index, (gold, response) in enumerate(cases):
            long = len(gold) + len(response)
            if batch.cases and (len(batch.cases) >= size or chars + long > BATCH_CHARS):
                batch, chars = _Batch(ticket, [], []), 0
                batches.append(batch)
            batch.indices.append(index)
            tolerance = None if tolerances is None else tolerances[index]
            batch.cases.append((gold, response, self.fallback, tolerance))
            chars += long
        with self._lock:
            if self._closed:
                raise JudgeError("this judge is closed; submit before close(), or start another")
            if self._broken is not None:
                raise self._broken
            for batch in batches:
                self._queue.put(batch)
        return ticket

    def collect(self, ticket: Ticket) -> list[Verdict]:
        """Wait for a batch; verdicts in the order of its cases."""
        return [ruling.verdict for ruling in ticket.wait()]

    def rulings(self, ticket: Ticket) -> list[Ruling]:
        """Wait for a batch; verdict, extracted answer and seconds of each case."""
        return ticket.wait()

    def waits_for(self) -> str:
        """Which worker is at which case; for whoever wonders why no verdict comes."""
        said = [_at_case(*at) for at in self._at if at is not None]
        waiting = f"{self._queue.qsize()} batches wait for a worker"
        return "; ".join(said + [waiting]) if said else f"no worker is at work, {waiting}"

    def close(self) -> None:
        """Finish what was handed in, then end every worker. Safe to call twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int) -> None:
        """One thread per worker: it feeds it, buries it and starts the next one."""
        batch: _Batch | None = None
        try:
            worker = Worker(self.deadline_s, self.memory_gib)
            try:
                while (batch := self._queue.get()) is not None:
                    worker = self._finish(worker, batch, number)
                    self._at[number] = None
            finally:
                worker.close()
        except (JudgeError, OSError) as error:
            self._break(error, batch)

    def _finish(self, worker: Worker, batch: _Batch, number: int) -> Worker:
        """Judge a batch to its end, however many workers that costs; the last one lives on."""
        stillborn = 0
        while batch.cases:
            if worker.judged >= RECYCLE or not worker.alive():
                worker.close()
                worker = Worker(self.deadline_s, self.memory_gib)
            self._at[number] = (worker, batch.cases)
            outcome = worker.judge(batch.cases)
            if outcome.end is End.STILLBORN:
                stillborn += 1
                if stillborn == STILLBORN:
                    worker.close()
                    raise JudgeError(
                        f"{STILLBORN} judge workers in a row died before they were ready; look at "
                        f"their messages on stderr; memory_gib={self.memory_gib} may be too small"
                    )
                continue
            self._advance(batch, outcome)
        return worker

    def _advance(self, batch: _Batch, outcome: Outcome) -> None:
        """Book the rulings, and the fatal case if there was one; keep the rest in the batch."""
        for index, ruling in zip(batch.indices, outcome.rulings, strict=False):
            batch.ticket.fill(index, ruling)
        made = len(outcome.rulings)
        if outcome.fatal is None:
            batch.indices, batch.cases = [], []
            return
        # Cases that the worker had judged but not yet reported (2 ms worth) are judged again.
        victim = batch.indices[outcome.fatal]
        batch.indices, batch.cases = batch.indices[made:], batch.cases[made:]
        batch.deaths[victim] = batch.deaths.get(victim, 0) + 1
        if outcome.end is End.DEATH and batch.deaths[victim] < 2:
            return
        verdict = Verdict.UNREADABLE if outcome.end is End.DEATH else Verdict.TIMEOUT
        place = batch.indices.index(victim)
        del batch.indices[place], batch.cases[place]
        batch.ticket.fill(victim, Ruling(verdict, None, self.deadline_s))

    def _break(self, error: JudgeError | OSError, batch: _Batch | None) -> None:
        """No verdict will come any more: say so to everyone who waits, now and later."""
        reason = error if isinstance(error, JudgeError) else JudgeError(f"judge failed: {error}")
        with self._lock:
            self._broken = reason
        if batch is not None:
            batch.ticket.fail(reason)
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return
            if waiting is None:  # closing: the marks for the other threads come last
                self._queue.put(None)
                return
            waiting.ticket.fail(reason)


def _at_case(worker: Worker, cases: list[Case]) -> str:
    index = min(worker.at(), len(cases) - 1)
    gold, response, *_ = cases[index]
    return (
        f"worker {worker.pid} at case {index + 1} of {len(cases)}: gold {gold[:SHOWN]!r}, answer "
        f"...{response[-SHOWN:]!r}"
    )
