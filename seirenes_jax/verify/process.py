"""One judge worker process as its owner sees it: start, ask, learn how it died, bury."""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from seirenes_jax.types import Verdict
from seirenes_jax.verify.wire import LENGTH_BYTES, Case, frame, pack, unpack, write_all

WALL_BACKSTOP_S = 60.0  # plus 20 deadlines without any progress: only a stuck machine gets here
_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True, slots=True)
class Ruling:
    """What came of one case. `seconds`: of that case alone; the deadline after a timeout."""

    verdict: Verdict
    extracted: str | None
    seconds: float


class End(Enum):
    """How a worker died: CPU deadline, wall backstop, before it was ready, or otherwise."""

    CPU = "cpu"
    WALL = "wall"
    STILLBORN = "stillborn"
    DEATH = "death"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rulings in the order of the cases; where the worker died, at which case and how."""

    rulings: Sequence[Ruling]
    fatal: int | None = None
    end: End | None = None


class Worker:
    """One process and its pipes. Used by one thread at a time."""

    def __init__(self, deadline_s: float, memory_gib: float) -> None:
        self.judged = 0
        self._patience_ms = 1000 * (WALL_BACKSTOP_S + 20 * deadline_s)
        self._ready = False
        self._buffer = bytearray()
        self._progress = tempfile.TemporaryFile()
        self._progress.write(pack(0))
        self._progress.flush()
        fd = self._progress.fileno()
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [
            # -P: a file in the working directory must not shadow the standard library.
            *(sys.executable, "-P", "-m", "seirenes_jax.verify.worker"),
            *(repr(float(deadline_s)), repr(float(memory_gib)), str(fd)),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            pass_fds=(fd,),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C at the terminal is its owner's business
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def alive(self) -> bool:
        """The process has not ended."""
        return self._process.poll() is None

    def judge(self, cases: Sequence[Case]) -> Outcome:
        """Hand in one batch and wait for its rulings, or for the death of the worker."""
        os.pwrite(self._progress.fileno(), pack(0), 0)
        rulings: list[Ruling] = []
        if not self._ready:
            if self._read_frame() is None:
                self._bury()
                return Outcome(rulings, 0, End.STILLBORN)
            self._ready = True
        try:
            write_all(self._in.fileno(), frame(cases))
        except BrokenPipeError:
            return Outcome(rulings, 0, self._bury())
        while len(rulings) < len(cases):
            message = self._read_frame()
            if message is None:
                at = max(self.at(), len(rulings))
                return Outcome(rulings, at, self._bury())
            for verdict, said, seconds in json.loads(message):
                rulings.append(Ruling(Verdict(verdict), said, seconds))
        self.judged += len(cases)
        return Outcome(rulings)

    def close(self) -> None:
        """Ask it to end by closing its stdin; insist after two seconds. May be called twice."""
        if not self._in.closed:
            self._in.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._progress.close()

    def at(self) -> int:
        """Index of the case it noted last."""
        return unpack(os.pread(self._progress.fileno(), LENGTH_BYTES, 0))

    def _bury(self) -> End:
        """Wait for a process that has hung up; kill one that is stuck."""
        try:
            # Its pipe is closed, so it is ending; a stuck one still holds its pipe.
            code = self._process.wait(5.0 if self._hung_up() else 0.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return End.WALL
        return End.CPU if code == -signal.SIGPROF else End.DEATH

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._out.fileno(), select.POLLIN)
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))

    def _read_frame(self) -> bytes | None:
        """The next message, or None once the worker has hung up or makes no progress at all."""
        if not self._fill(LENGTH_BYTES):
            return None
        length = unpack(bytes(self._buffer[:LENGTH_BYTES]))
        if not self._fill(LENGTH_BYTES + length):
            return None
        body = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + length])
        del self._buffer[: LENGTH_BYTES + length]
        return body

    def _fill(self, count: int) -> bool:
        fd = self._out.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        while len(self._buffer) < count:
            at = self.at()
            if not poll.poll(self._patience_ms):
                if self.at() == at:
                    return False
                continue
            part = os.read(fd, 1 << 20)
            if not part:
                return False
            self._buffer += part
        return True
