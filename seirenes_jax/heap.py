"""Freed memory stays with the process where the host is the device. Never jax: it is to be told
before the first thread.
"""

import ctypes
import importlib.util
import os
from pathlib import Path

GOOGLE = "0x1ae0"  # on the bus, whose devices TPUs are
# Names of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_what_is_freed() -> None:
    """A program on CPU takes its temporaries from malloc and frees them, hundreds of MB every
    step. Given back to the kernel, each page is cleared and mapped again: half of the time of a
    small step. Only glibc is asked; elsewhere nothing happens.
    """
    if may_have_accelerators():
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_ARENA_MAX, 1)  # others hold no large block; a thread that has one keeps it


def may_have_tpu(bus: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Is a device of theirs on the bus?"""
    return any(file.read_text().strip() == GOOGLE for file in bus.glob("*/vendor"))


def may_have_accelerators() -> bool:
    """Told without starting jax."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms != "cpu"
    return may_have_tpu() or importlib.util.find_spec("jax_plugins") is not None
