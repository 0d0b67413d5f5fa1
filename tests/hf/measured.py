"""python -m tests.hf.measured FOLDER PARAM_DTYPE: what an import takes, in a process of its own.

Prints one JSON object, in bytes: the parameters, and how much anonymous memory stood at the most
above what the process had before.
"""

import json
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp

from seirenes_jax import hf
from tests.hf import made


def anonymous() -> int:
    """Of this process now. Pages of files that the kernel keeps do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main(folder: str, param_dtype: str) -> None:
    config = hf.read_config(folder, dtype="float32", param_dtype=param_dtype, remat="none")
    abstract = made.abstract(config)
    jnp.zeros(()).block_until_ready()
    before, most, done = anonymous(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    params = hf.load(folder, config, abstract)
    done.set()
    watcher.join()
    held = sum(x.nbytes for x in jax.tree.leaves(params))
    print(json.dumps({"params": held, "most": max(most, anonymous()) - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
