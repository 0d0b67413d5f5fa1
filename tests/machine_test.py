"""Peak memory is this program's own; on CPU freed memory stays with it."""

import os
import platform
import subprocess
import sys

import pytest

from seirenes_jax import heap
from seirenes_jax.machine import peak_rss_gib

SAY = "from seirenes_jax.machine import peak_rss_gib; print(peak_rss_gib())"
SETTLED = """
from seirenes_jax import heap, settings
heap.keep_what_is_freed()
from seirenes_jax import train  # and all that comes with it
"""
PROGRAM = """
import resource
import statistics
import jax, jax.numpy as jnp
def step(x):
    y = jnp.sin(x @ jnp.ones((64, 512)))
    return x + 1e-3 * (y @ jnp.ones((512, 64)))
step = jax.jit(step)
x, seen = jnp.ones((50_000, 64)), [0]
for _ in range(15):
    x = step(x).block_until_ready()
    seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(round(statistics.median(b - a for a, b in zip(seen[5:], seen[6:]))))
"""


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux keeps it by program")
def test_what_the_starting_process_held_is_not_counted() -> None:
    held = b"x" * (800 * 2**20)
    child = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert 0.01 < float(child.stdout) < 0.7 < len(held) / 2**30 < peak_rss_gib()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_what_a_program_frees_is_not_mapped_again() -> None:
    """Page faults of a program with temporaries of 100 MB: none once it is warm."""
    faults = {}
    for settled in (False, True):
        source = SETTLED if settled else ""
        child = subprocess.run(
            [sys.executable, "-c", source + PROGRAM], capture_output=True, text=True, check=True,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
        )  # fmt: skip
        faults[settled] = int(child.stdout)
    assert faults[True] < 1000 < 10_000 < faults[False], faults


def test_a_machine_with_accelerators_keeps_its_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap.importlib.util, "find_spec", lambda name: None)
    for platforms, tpu, wanted in [
        ("cpu", True, False), ("tpu,cpu", False, True), ("cuda", False, True),
        ("", True, True), ("", False, False),
    ]:  # fmt: skip
        monkeypatch.setenv("JAX_PLATFORMS", platforms)
        monkeypatch.setattr(heap, "may_have_tpu", lambda tpu=tpu: tpu)
        assert heap.may_have_accelerators() is wanted, platforms
    monkeypatch.setattr(heap.importlib.util, "find_spec", lambda name: "jax[cuda13]'s")
    assert heap.may_have_accelerators() is True
