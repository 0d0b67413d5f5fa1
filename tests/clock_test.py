"""Peak memory is this program's own."""

import os
import subprocess
import sys

import pytest

from seirenes_jax.clock import peak_rss_gib

SAY = "from seirenes_jax.clock import peak_rss_gib; print(peak_rss_gib())"


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="only Linux keeps it by program")
def test_what_the_starting_process_held_is_not_counted() -> None:
    held = b"x" * (800 * 2**20)
    child = subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True)
    assert 0.01 < float(child.stdout) < 0.7 < len(held) / 2**30 < peak_rss_gib()
