"""Being asked to stop, inside a process that goes on living: a notebook's kernel."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from seirenes_jax.errors import RESUMABLE, Stopped
from seirenes_jax.signals import Stop, listening


def test_what_ran_here_is_stopped_and_the_process_lives_past_the_grace_time() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped), listening(0.2) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        stop.check()
    assert not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())
    time.sleep(0.3)
    assert signal.getsignal(signal.SIGINT) is before


def test_nobody_asked() -> None:
    with listening(0.001) as stop:
        stop.check()
    assert stop.asked is None


def test_in_another_thread_nobody_listens_but_others_may_tell() -> None:
    told: list[str | None] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with listening(600.0) as stop:
            assert signal.getsignal(signal.SIGTERM) is before
            stop.hear("a notice")
            told.append(stop.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == ["a notice"]


@pytest.mark.parametrize("grace_s", [0.1, 600.0])
def test_who_does_not_end_is_ended(grace_s: float) -> None:
    """By the clock, or by a second signal."""
    source = (
        "import os, signal, time\nfrom seirenes_jax.signals import listening\n"
        f"with listening({grace_s}):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(1.5)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(60)\n"
    )
    ended = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)
    assert ended.returncode == RESUMABLE, ended
    words = "stopped at once" if grace_s > 1 else "preempt.grace_s = 0.1 s are over"
    assert words in ended.stderr and "the same command goes on" in ended.stderr


def test_an_echo_of_the_same_request_is_no_second_one() -> None:
    stop = Stop(600.0)
    stop(signal.SIGTERM, None)
    stop(signal.SIGTERM, None)
    assert stop.asked == "SIGTERM"
    stop.close()
