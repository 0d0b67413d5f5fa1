"""The judge: killable worker processes with a CPU deadline -> Verdict{right, wrong, unreadable, timeout}.

Owns the processes. `submit` never blocks, `collect` waits; both may be called from any thread. A case that
passes its CPU deadline takes its worker with it and is a timeout; any other death of a worker is retried once
in a fresh one. Wall time is only a distant backstop, so a busy machine cannot change a verdict.
"""

import json
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from seirenes_jax.errors import JudgeError
from seirenes_jax.types import Verdict
from seirenes_jax.verify.ruling import rule

BATCH = 64  # cases a message, at most
BATCH_CHARS = 1 << 20
RECYCLE = 20_000  # cases a worker may judge before a fresh one takes over
WALL_BACKSTOP_S = 60.0  # plus 20 deadlines: only a stuck machine gets here
_LENGTH = struct.Struct(">I")
_ROOT = str(Path(__file__).resolve().parents[2])


def grade(gold: str, response: str, fallback: bool = False) -> tuple[Verdict, str | None]:
    """Verdict and extracted answer, in this process and without a deadline: for tests and notebooks."""
    verdict, said = rule(gold, response, fallback)
    return Verdict(verdict), said


@dataclass(frozen=True, slots=True)
class Ruling:
    """What came of one case. `seconds` is CPU time of that case alone."""

    verdict: Verdict
    extracted: str | None
    seconds: float


class Ticket:
    """A batch on its way. Filled by the judge, read by `collect`."""

    def __init__(self, count: int) -> None:
        self.rulings: list[Ruling | None] = [None] * count
        self.left = count
        self.ready = threading.Condition()
        self.broken: JudgeError | None = None

    def fill(self, index: int, ruling: Ruling) -> None:
        """Note the ruling of one case and wake whoever waits once all are in."""
        with self.ready:
            self.rulings[index] = ruling
            self.left -= 1
            if not self.left:
                self.ready.notify_all()

    def fail(self, error: JudgeError) -> None:
        """The judge cannot go on; whoever waits gets this error."""
        with self.ready:
            self.broken = error
            self.ready.notify_all()


@dataclass(slots=True)
class _Batch:
    ticket: Ticket
    indices: list[int]
    cases: list[tuple[str, str, bool]]
    deaths: dict[int, int] = field(default_factory=dict)  # index in the ticket -> workers it has cost


class _Worker:
    """One process and its pipes."""

    def __init__(self, deadline_s: float, memory_gib: float) -> None:
        self.deadline_s = deadline_s
        self.judged = 0
        self.progress: IO[bytes] = tempfile.TemporaryFile()
        self.progress.write(_LENGTH.pack(0))
        self.progress.flush()
        fd = self.progress.fileno()
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        # -P: a file in the working directory must not shadow the standard library.
        # A session of its own: Ctrl-C at the terminal is the trainer's business.
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "seirenes_jax.verify.worker",
             repr(deadline_s), repr(memory_gib), str(fd)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, pass_fds=(fd,),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, start_new_session=True,
        )

    def judge(self, cases: list[tuple[str, str, bool]]) -> tuple[list[Ruling], int | None, str]:
        """Rulings in order; where the worker died, (rulings so far, index of the fatal case, how)."""
        assert self.process.stdin is not None and self.process.stdout is not None
        os.pwrite(self.progress.fileno(), _LENGTH.pack(0), 0)
        body = json.dumps(cases).encode("ascii")
        rulings: list[Ruling] = []
        try:
            _write_all(self.process.stdin.fileno(), _LENGTH.pack(len(body)) + body)
        except BrokenPipeError:
            return rulings, self._at(), self._end()
        while len(rulings) < len(cases):
            message = self._read_frame()
            if message is None:
                return rulings, self._at(), self._end()
            rulings += [Ruling(Verdict(v), said, seconds) for v, said, seconds in json.loads(message)]
        self.judged += len(cases)
        return rulings, None, ""

    def _at(self) -> int:
        return int(_LENGTH.unpack(os.pread(self.progress.fileno(), _LENGTH.size, 0))[0])

    def _end(self) -> str:
        """How it died: "cpu" (deadline), "wall" (backstop) or "death"."""
        stuck = self.process.poll() is None and not self._hung_up()
        if stuck:
            self.process.kill()
        code = self.process.wait()
        if code == -signal.SIGPROF:
            return "cpu"
        return "wall" if stuck else "death"

    def _hung_up(self) -> bool:
        """The other end of stdout is closed: the process is going."""
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout.fileno(), select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def _read_frame(self) -> bytes | None:
        head = self._read_exactly(_LENGTH.size)
        return None if head is None else self._read_exactly(_LENGTH.unpack(head)[0])

    def _read_exactly(self, count: int) -> bytes | None:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        parts: list[bytes] = []
        while count:
            at = self._at()
            if not poll.poll(1000 * (WALL_BACKSTOP_S + 20 * self.deadline_s)):
                if self._at() == at:
                    return None
                continue
            part = os.read(fd, min(count, 1 << 20))
            if not part:
                return None
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Ask it to end by closing its stdin; insist after two seconds."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.progress.close()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Judge:
    """A pool of workers. Use as a context manager, or call `close`."""

    def __init__(
        self, workers: int, deadline_s: float = 1.0, memory_gib: float = 1.0, fallback: bool = False
    ) -> None:
        if workers < 1 or deadline_s <= 0 or memory_gib < 0.125:
            raise JudgeError(
                f"cannot start a judge with workers={workers}, deadline_s={deadline_s}, "
                f"memory_gib={memory_gib}; needs workers >= 1, deadline_s > 0, memory_gib >= 0.125"
            )
        self.workers = workers
        self.deadline_s = deadline_s
        self.memory_gib = memory_gib
        self.fallback = fallback
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, name=f"judge-{i}", daemon=True)
            for i in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Judge":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def submit(self, cases: Sequence[tuple[str, str]]) -> Ticket:
        """Hand in (gold, response) pairs; returns at once."""
        if self._closed.is_set():
            raise JudgeError("this judge is closed; submit before close() or start another")
        ticket = Ticket(len(cases))
        size = max(1, min(BATCH, -(-len(cases) // (2 * self.workers))))
        indices: list[int] = []
        chars = 0
        for index, (gold, response) in enumerate(cases):
            long = len(gold) + len(response)
            if indices and (len(indices) >= size or chars + long > BATCH_CHARS):
                self._put(ticket, cases, indices)
                indices, chars = [], 0
            indices.append(index)
            chars += long
        if indices:
            self._put(ticket, cases, indices)
        return ticket

    def _put(self, ticket: Ticket, cases: Sequence[tuple[str, str]], indices: list[int]) -> None:
        self._queue.put(
            _Batch(ticket, indices, [(*cases[i], self.fallback) for i in indices])
        )

    def collect(self, ticket: Ticket) -> list[Verdict]:
        """Wait for a batch; verdicts in the order of its cases."""
        return [ruling.verdict for ruling in self.rulings(ticket)]

    def rulings(self, ticket: Ticket) -> list[Ruling]:
        """Wait for a batch; verdict, extracted answer and CPU seconds of each case."""
        with ticket.ready:
            while ticket.left and ticket.broken is None:
                ticket.ready.wait()
        if ticket.broken is not None:
            raise ticket.broken
        return [ruling for ruling in ticket.rulings if ruling is not None]

    def close(self) -> None:
        """Finish what was handed in, then end every worker. Safe to call twice."""
        if self._closed.is_set():
            return
        self._closed.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """One thread per worker: it feeds it, buries it and starts the next one."""
        worker = _Worker(self.deadline_s, self.memory_gib)
        try:
            while (batch := self._queue.get()) is not None:
                while batch.cases:
                    if worker.process.poll() is not None or worker.judged >= RECYCLE:
                        worker.close()
                        worker = _Worker(self.deadline_s, self.memory_gib)
                    self._advance(worker, batch)
        finally:
            worker.close()

    def _advance(self, worker: _Worker, batch: _Batch) -> None:
        """Judge what is left of a batch up to its end or to the death of the worker."""
        rulings, fatal, how = worker.judge(batch.cases)
        for index, ruling in zip(batch.indices, rulings, strict=False):
            batch.ticket.fill(index, ruling)
        if fatal is None:
            batch.indices, batch.cases = [], []
            return
        # Rulings the worker had made but not sent are made again: cases up to FLUSH_S of work.
        victim = batch.indices[max(fatal, len(rulings))]
        batch.indices, batch.cases = batch.indices[len(rulings) :], batch.cases[len(rulings) :]
        batch.deaths[victim] = batch.deaths.get(victim, 0) + 1
        if how == "death" and batch.deaths[victim] < 2:
            return
        place = batch.indices.index(victim)
        verdict = Verdict.UNREADABLE if how == "death" else Verdict.TIMEOUT
        batch.ticket.fill(victim, Ruling(verdict, None, self.deadline_s))
        del batch.indices[place], batch.cases[place]


def wait_seconds(judge: Judge, cases: Sequence[tuple[str, str]]) -> float:
    """Wall seconds a batch takes, for reports."""
    begun = time.monotonic()
    judge.collect(judge.submit(cases))
    return time.monotonic() - begun
