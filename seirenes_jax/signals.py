"""Being asked to stop: SIGTERM and Ctrl-C set a flag; the loop looks at it between chunks.

A second signal, or one that the loop has not answered within the grace time, ends the process at
once: what was saved stays.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from seirenes_jax.errors import RESUMABLE, Stopped

ASKING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)  # USR1: what SLURM is often told to send

ECHO_S = 1.0  # the same request heard twice: `timeout` tells a process and then its whole group


class Stop:
    """Whether somebody asked to stop, and which signal it was."""

    def __init__(self, grace_s: float) -> None:
        self.grace_s = grace_s
        self.asked: str | None = None
        self._heard = 0.0
        self._last_call: threading.Timer | None = None
        self._over = False
        self._lock = threading.RLock()  # a signal may come while its own thread holds it

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.asked is not None:
            if time.monotonic() - self._heard > ECHO_S:
                leave("stopped at once")
            return
        self.hear(signal.Signals(number).name)

    def hear(self, asked: str) -> None:
        """Somebody asks; from now on the grace time runs."""
        with self._lock:
            self.asked, self._heard = asked, time.monotonic()
            if self._over:
                return
            self._last_call = threading.Timer(
                self.grace_s, leave, (f"preempt.grace_s = {self.grace_s:g} s are over",)
            )
            self._last_call.daemon = True
            self._last_call.start()

    def close(self) -> None:
        """What was to be stopped has ended: a notebook or a test it ran in lives on."""
        with self._lock:
            self._over = True
            if self._last_call is not None:
                self._last_call.cancel()
                self._last_call.join()

    def check(self) -> None:
        """Leave the step that is being played; nothing of it has touched the state."""
        if self.asked is not None:
            raise Stopped(
                f"stopped by {self.asked}; nothing that was saved is lost, the same command goes on"
            )


def leave(why: str) -> None:
    """The only way out of a wait that does not end. No file is closed and no step finished; the
    words go past Python's own buffers."""
    said = f"\n{why}; the same command goes on from what was saved last\n"
    os.write(2, said.encode())
    os._exit(RESUMABLE)


@contextmanager
def listening(grace_s: float) -> Iterator[Stop]:
    """Hear signals while inside (the main thread only; elsewhere nobody listens)."""
    stop = Stop(grace_s)
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop) for number in ASKING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
