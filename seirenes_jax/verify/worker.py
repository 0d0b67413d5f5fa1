"""A judge worker: batches of cases on stdin, rulings on stdout. Started by `process.py`.

The CPU deadline of a case is a kernel timer whose signal keeps its default action, death, so that
even one long C call cannot outlive it. The case under way is noted in a shared file: that is how
the parent knows which one was fatal. A worker ends when its stdin closes or when its parent has
changed.
"""

import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Sequence

from seirenes_jax.verify.ruling import TIMEOUT, rule
from seirenes_jax.verify.wire import LENGTH_BYTES, Case, frame, pack, unpack, write_all

FLUSH_S = 0.002  # finished rulings wait at most this long, so that a death loses little work
ORPHAN_CHECK_S = 5.0
CLOCK_TICK_S = 0.01


def _read_exactly(fd: int, count: int, parent: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
        # A closed stdin says that the parent is gone, unless a fork of the parent holds the other
        # end.
        if not select.select([fd], [], [], ORPHAN_CHECK_S)[0]:
            if os.getppid() != parent:
                return None
            continue
        part = os.read(fd, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _limit_memory(gib: float) -> None:
    limit = int(gib * 2**30)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ValueError, OSError):
        return  # macOS refuses RLIMIT_AS; the deadline still holds


def _judge(cases: Sequence[Case], *, deadline_s: float, progress: int) -> None:
    """Rule on one batch, in order."""
    done: list[tuple[str, str | None, float]] = []
    flushed = time.monotonic()
    for index, (gold, response, fallback, tolerance) in enumerate(cases):
        os.pwrite(progress, pack(index), 0)
        begun, spent = time.perf_counter(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, deadline_s)
        try:
            verdict, said = rule(gold, response, fallback, tolerance)
        except MemoryError:
            verdict, said = TIMEOUT, None  # out of budget, as if out of time
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        # CPU time, so that a busy machine does not count; where its clock is coarse, wall time.
        spent = time.process_time() - spent + CLOCK_TICK_S
        seconds = min(time.perf_counter() - begun, spent)
        done.append((verdict, said, seconds))
        now = time.monotonic()
        if now - flushed > FLUSH_S or index + 1 == len(cases):
            write_all(1, frame(done))
            done = []
            flushed = now


def main(argv: Sequence[str]) -> None:
    """Serve until stdin closes. argv: CPU deadline (s), memory (GiB), progress file."""
    deadline_s, gib, progress = float(argv[0]), float(argv[1]), int(argv[2])
    parent = os.getppid()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory(gib)
    try:
        write_all(1, frame("ready"))
        while (head := _read_exactly(0, LENGTH_BYTES, parent)) is not None:
            body = _read_exactly(0, unpack(head), parent)
            if body is None:
                return
            _judge(json.loads(body), deadline_s=deadline_s, progress=progress)
    except (BrokenPipeError, MemoryError):
        return  # the parent is gone, or handed in more than fits: it will see this end


if __name__ == "__main__":
    main(sys.argv[1:])
