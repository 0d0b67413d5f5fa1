"""What a process holds of the machine it runs on, and what outlives it there."""

import os
import resource
from pathlib import Path

import jax


def set_up_compile_cache(cache_dir: Path) -> None:
    """Compiled programs outlive the process."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


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
