"""Seconds by phase, compiles counted: what `time` in metrics.jsonl holds; and traces."""

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


@contextmanager
def profiled(steps: Sequence[int], step: int, folder: Path) -> Iterator[None]:
    """Trace the chosen steps into RUN/profile, for xprof and TensorBoard."""
    if step not in steps:
        yield
        return
    with jax.profiler.trace(str(folder / "profile")):
        yield
