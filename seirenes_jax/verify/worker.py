"""A judge worker: reads batches of cases on stdin, writes rulings on stdout. Started by `judge.py`.

Frames are a 4-byte big-endian length and JSON. The CPU deadline of a case is a kernel timer whose signal keeps
its default action, death, so that even one long C call cannot outlive it. The case under way is noted in a
shared file: that is how the parent knows which one was fatal. A worker ends when its stdin closes or when
its parent has changed.
"""

import json
import os
import resource
import select
import signal
import struct
import sys
import time

from seirenes_jax.verify.ruling import TIMEOUT, rule

FLUSH_S = 0.002  # finished rulings wait at most this long, so that a death loses little work
ORPHAN_CHECK_S = 5.0
_LENGTH = struct.Struct(">I")


def frame(message: object) -> bytes:
    """One message as it goes over a pipe."""
    body = json.dumps(message).encode("ascii")
    return _LENGTH.pack(len(body)) + body


def _read_exactly(fd: int, count: int, parent: int) -> bytes | None:
    parts: list[bytes] = []
    while count:
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


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _limit_memory(gib: float) -> None:
    limit = int(gib * 2**30)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ValueError, OSError):
        return  # macOS refuses RLIMIT_AS; the deadline still holds


def _judge(cases: list[tuple[str, str, bool]], *, deadline_s: float, progress: int) -> None:
    """Rule on one batch, in order."""
    done: list[tuple[str, str | None, float]] = []
    flushed = time.monotonic()
    for index, (gold, response, fallback) in enumerate(cases):
        os.pwrite(progress, _LENGTH.pack(index), 0)
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, deadline_s)
        try:
            verdict, said = rule(gold, response, fallback)
        except MemoryError:
            verdict, said = TIMEOUT, None  # out of budget, as if out of time
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        done.append((verdict, said, time.process_time() - begun))
        now = time.monotonic()
        if now - flushed > FLUSH_S or index + 1 == len(cases):
            _write_all(1, frame(done))
            done = []
            flushed = now


def main(argv: list[str]) -> None:
    """Serve until stdin closes: argv is deadline in CPU seconds, memory in GiB, progress file descriptor."""
    deadline_s, gib, progress = float(argv[0]), float(argv[1]), int(argv[2])
    parent = os.getppid()
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _limit_memory(gib)
    while (head := _read_exactly(0, _LENGTH.size, parent)) is not None:
        body = _read_exactly(0, _LENGTH.unpack(head)[0], parent)
        if body is None:
            return
        try:
            _judge(json.loads(body), deadline_s=deadline_s, progress=progress)
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
