"""How a process settles on the machine it runs on, and what it holds of it."""

import ctypes
import importlib.util
import os
import resource
from pathlib import Path

import jax

from seirenes_jax import cli

# Names of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def settle(cache_dir: Path) -> None:
    """Before the first program: compiled programs outlive the process, and where the host is the
    device freed memory stays with it."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    if not _may_have_accelerators():
        _keep_what_is_freed()


def _may_have_accelerators() -> bool:
    """Told without starting jax: what it has allocated by then stays where it is."""
    platforms: str | None = jax.config.jax_platforms  # type: ignore[attr-defined]
    if platforms:
        return platforms != "cpu"
    return cli.may_have_tpu() or importlib.util.find_spec("jax_plugins") is not None


def _keep_what_is_freed() -> None:
    """A program on CPU takes its temporaries from malloc and frees them, hundreds of MB every
    step. Given back to the kernel, each page is cleared and mapped again: half of the time of a
    small step. Only glibc is asked; elsewhere nothing happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # later ones hold no large block, and are told too late


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
