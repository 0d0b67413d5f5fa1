"""The watchdog: every wait has a name, and one that takes far longer than usual is told of.

A thread looks at the open waits. What exceeds a multiple of its own median says what it waits for
and shows the stacks of all threads, once and then at every doubling; what exceeds the hard limit
ends the process with the exit code that means: the same command goes on.
"""

import sys
import threading
import time
import traceback
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Protocol, Self

from seirenes_jax import knobs, signals

REMEMBERED = 101  # laps of a name, the newest
LOOK_S = 1.0  # between two looks; a quarter of the shortest limit where that is less

What = Callable[[], str]


def nothing() -> str:
    """A wait that has no more to say than its name."""
    return ""


class Watch(Protocol):
    """Names what is done inside; `what` says what it waits for, should it take too long."""

    def __call__(self, name: str, what: What = ..., /) -> AbstractContextManager[None]: ...


@contextmanager
def unwatched(name: str, what: What = nothing, /) -> Iterator[None]:
    """Where nobody watches."""
    yield


@dataclass(slots=True, eq=False)
class _Wait:
    """One that is open now."""

    name: str
    number: int  # how many of this name there were, this one among them
    what: What
    started: float
    told: int = 0  # times


class Watchdog:
    """Watches the waits of one process; a context manager, for it has a thread.

    >>> with Watchdog(settings.watchdog, tell=log.event) as dog, dog.watch("play"):
    ...     play()
    """

    def __init__(
        self, limits: knobs.Watchdog, *, tell: Callable[[str], None],
        others: What = nothing, leave: Callable[[str], None] = signals.leave,
        now: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.limits = limits
        self._tell, self._others, self._leave, self._now = tell, others, leave, now
        self._open: list[_Wait] = []  # the outermost first
        self._laps: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._begun: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._over.set()
        self._thread.join()

    @contextmanager
    def watch(self, name: str, what: What = nothing, /) -> Iterator[None]:
        """A wait of this name, as long as the inside takes. One that is left by an exception says
        nothing of how long such a thing takes."""
        with self._lock:
            self._begun[name] += 1
            wait = _Wait(name, self._begun[name], what, self._now())
            self._open.append(wait)
        whole = False
        try:
            yield
            whole = True
        finally:
            with self._lock:
                self._open.remove(wait)
                if whole:
                    self._laps[name].append(self._now() - wait.started)

    def path(self) -> str:
        """What is open now, the outermost first: `play #4 > decode #210`."""
        with self._lock:
            return " > ".join(f"{wait.name} #{wait.number}" for wait in self._open)

    def look(self) -> None:
        """Tell what is overdue; leave where the hard limit is reached."""
        now = self._now()
        with self._lock:
            waits = list(self._open)
            late = [words for wait in waits if (words := self._overdue(wait, now))]
        hard = self.limits.hard_s
        ends = next((w for w in waits if 0 < hard < now - w.started), None)
        if not late and ends is None:
            return
        told = "; ".join(late) or f"{ends.name if ends else ''} reached the hard limit"
        self._tell(f"watchdog: {told}\n{self._scene(waits, now)}\n{stacks()}")
        if ends is not None:
            self._leave(
                f"watchdog: {ends.name} has taken {now - ends.started:.0f} s; watchdog.hard_s = "
                f"{hard:g} s are over{_said(ends)}"
            )

    def _overdue(self, wait: _Wait, now: float) -> str:
        """How much too long it takes, where that is to be told now; else nothing."""
        limits, laps = self.limits, self._laps[wait.name]
        if len(laps) < max(1, limits.laps):
            return ""
        usual = median(laps)
        patience = max(limits.floor_s, limits.factor * usual)
        if now - wait.started <= patience * 2**wait.told:
            return ""
        while now - wait.started > patience * 2**wait.told:
            wait.told += 1
        return (
            f"{wait.name} has taken {now - wait.started:.1f} s; its median is {usual:.3g} s, of "
            f"{len(laps)} laps"
        )

    def _scene(self, waits: list[_Wait], now: float) -> str:
        """Every open wait with what it waits for, and where other processes are."""
        lines = [f"  {w.name} #{w.number}, for {now - w.started:.1f} s{_said(w)}" for w in waits]
        if others := self._others():
            lines.append(others)
        return "\n".join(lines)

    def _work(self) -> None:
        limits = self.limits
        shortest = min(limits.floor_s, limits.hard_s or limits.floor_s)
        while not self._over.wait(min(LOOK_S, shortest / 4)):
            self.look()


def _said(wait: _Wait) -> str:
    try:
        words = wait.what()
    except Exception as error:  # it reads what another thread changes; the rest must be told
        words = f"(what it waits for cannot be told: {error})"
    return f": {words}" if words else ""


def stacks() -> str:
    """Where every thread of this process is, the innermost call last."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            lines = "".join(traceback.format_stack(frame)).rstrip()
            parts.append(f"  thread {names.get(ident, ident)}:\n{lines}")
    return "\n".join(parts)
