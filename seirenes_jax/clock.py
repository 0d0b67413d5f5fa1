"""Seconds by phase, compiles counted, memory seen: all that `time` in metrics.jsonl may hold."""

import os
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax

from seirenes_jax.watchdog import Watch, What, nothing, unwatched

COMPILED = "/jax/core/compile/backend_compile_duration"


class Clock:
    """Adds up where the time of a step goes; `lap` hands it over and starts anew. Every phase is a
    wait that is watched."""

    def __init__(self, watch: Watch = unwatched) -> None:
        self._watch = watch
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._compiles = 0
        self._start = time.monotonic()
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        self._compiles += event == COMPILED

    @contextmanager
    def __call__(self, phase: str, what: What = nothing) -> Iterator[None]:
        """Count the time inside as this phase's."""
        started = time.monotonic()
        try:
            with self._watch(phase, what):
                yield
        finally:
            self._seconds[phase] += time.monotonic() - started

    def lap(self) -> tuple[dict[str, float], int]:
        """Seconds by phase and compiled programs since the last lap; `step` is the wall time."""
        now = time.monotonic()
        seconds = {"step": now - self._start, **self._seconds}
        compiles, self._compiles = self._compiles, 0
        self._seconds.clear()
        self._start = now
        return seconds, compiles


def set_up_compile_cache(cache_dir: Path) -> None:
    """Compiled programs outlive the process."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@contextmanager
def profiled(steps: Sequence[int], step: int, folder: Path) -> Iterator[None]:
    """Trace the chosen steps into RUN/profile, for xprof and TensorBoard."""
    if step not in steps:
        yield
        return
    with jax.profiler.trace(str(folder / "profile")):
        yield


def peak_rss_gib() -> float:
    """Highest resident memory of this process so far, plus what its children hold now."""
    return (_own_peak() + _children_rss()) / 2**30


def _own_peak() -> int:
    """In bytes. Where the system keeps it by program it is read there: getrusage also counts what
    the process that started this one held at that moment.
    """
    for line in _lines(Path("/proc/self/status")):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1024 if os.uname().sysname == "Linux" else 1)


def _children_rss() -> int:
    """Bytes resident in direct children; 0 where the system does not tell."""
    lines = [_lines(task / "children") for task in Path(f"/proc/{os.getpid()}/task").glob("*")]
    children = [child for found in lines for line in found for child in line.split()]
    held = [_lines(Path(f"/proc/{child}/statm")) for child in children]
    return sum(int(found[0].split()[1]) for found in held if found) * os.sysconf("SC_PAGE_SIZE")


def _lines(file: Path) -> list[str]:
    """Of a file of /proc; none where its thread or process has ended meanwhile, or without one."""
    try:
        return file.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return []
