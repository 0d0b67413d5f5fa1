"""One voice: a failing save is told once, by us.

The libraries under a checkpoint report the same failure from each of their threads, with traces.
The save that waits for them raises it; nothing is lost by keeping them quiet.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_voice() -> Iterator[None]:
    """While inside, threads of the checkpoint library end without a word of their own."""
    of_threads, of_natives = threading.excepthook, sys.unraisablehook
    log = logging.getLogger("absl")

    def thread_hook(told: threading.ExceptHookArgs) -> None:
        if not type(told.thread).__module__.startswith("orbax."):
            of_threads(told)

    def native_hook(told: "sys.UnraisableHookArgs") -> None:
        # Native code that comes back to a loop which the failed save has left.
        if told.object is not None or not isinstance(told.exc_value, RuntimeError):
            of_natives(told)

    threading.excepthook, sys.unraisablehook = thread_hook, native_hook
    log.addFilter(_told_elsewhere)
    yield
    # Only after a good end: those of a failed save may still be ending when the process does.
    threading.excepthook, sys.unraisablehook = of_threads, of_natives
    log.removeFilter(_told_elsewhere)


def _told_elsewhere(record: logging.LogRecord) -> bool:
    """Does a record stay? Not an error with its trace out of the checkpoint library."""
    return not (record.exc_info and "orbax" in record.pathname)
