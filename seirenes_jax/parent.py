"""A small parent for each process of a run of many: it turns the runtime's abort into exit code 75.

When the coordinator dies, the runtime ends every other process at once with SIGABRT, which nothing
inside can catch. Never jax.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from types import FrameType

from seirenes_jax.errors import DONE, RESUMABLE

CHILD = "SEIRENES_PARENT"  # set in the process that does the work, to whom it belongs
FATAL = b"JAX distributed service detected fatal errors"  # what the runtime says as it aborts
TAIL = 50  # lines of the child's stderr to look for it in
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def needed(coordinator: str | None) -> bool:
    """Is this a run of many whose parent is still to be made?"""
    return coordinator is not None and CHILD not in os.environ


def leave(code: int) -> None:
    """End the process; at once where the run did not end well: the runtime would wait for processes
    that are gone, and threads of a save that failed for signals that never come."""
    if code != DONE:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def watch_over(command: Sequence[str]) -> int:
    """Run the command as a child, pass signals on and its stderr through; its exit code."""
    child = subprocess.Popen(
        command, env={**os.environ, CHILD: str(os.getpid())}, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip

    def pass_on(number: int, _: FrameType | None) -> None:
        child.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, pass_on)
    assert child.stderr is not None
    said: deque[bytes] = deque(maxlen=TAIL)
    while chunk := child.stderr.readline():
        said.append(chunk)
        sys.stderr.buffer.write(chunk)
        sys.stderr.buffer.flush()
    code = child.wait()
    if code == -signal.SIGABRT and any(FATAL in line for line in said):
        print(
            "the coordinator (process 0) was lost; what was saved is whole, the same command on "
            "all processes goes on",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return RESUMABLE
    return code if code >= 0 else 128 - code
