"""What one call costs: CPU seconds of this process, wall seconds, memory at its peak."""

import ctypes
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
KIB_A_GIB = 2**20


def measured(call: Callable[[], dict[str, Any]], *, memory: bool) -> dict[str, Any]:
    """What the call returned, with `cpu_s`, `wall_s` and, where asked for, `extra_gib`."""
    gc.collect()
    before = _settled() if memory else None
    cpu, wall = time.process_time(), time.perf_counter()
    told = call()
    told["cpu_s"], told["wall_s"] = time.process_time() - cpu, time.perf_counter() - wall
    if memory:
        told["extra_gib"] = None if before is None else (_status("VmHWM") - before) / KIB_A_GIB
    return told


def _settled() -> int | None:
    """Resident KiB, after what was freed went back to the system and the peak was forgotten."""
    if not CLEAR.exists():
        return None  # not Linux
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None, f"no {name} in {STATUS}"
    return int(found[1])
