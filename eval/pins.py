"""Row counts and hashes of benchmarks: what is known is checked, the rest pinned at first use."""

import json
import os
from pathlib import Path

from eval.benchmarks import Benchmark
from seirenes_jax.analysis import read_object
from seirenes_jax.errors import DataError
from seirenes_jax.report import saving, write_json

KNOWN, FIRST, PINNED, LOCAL = "known", "first use", "as at first use", "local"


def cache_folder() -> Path:
    """$SEIRENES_CACHE, else ~/.cache/seirenes_jax."""
    return Path(os.environ.get("SEIRENES_CACHE") or "~/.cache/seirenes_jax").expanduser()


def check(
    name: str, benchmark: Benchmark, sha256: str, *, rows: int, origin: str, lock: Path
) -> str:
    """How well this hash is known; DataError where count or hash are not what they were."""
    if benchmark.rows and rows not in benchmark.rows:
        raise DataError(
            f"{name}: got {rows} rows from {origin}; wanted "
            f"{' or '.join(map(str, benchmark.rows))}. It is another split or another revision"
        )
    if sha256 in benchmark.sha256:
        return KNOWN
    pins = read_object(lock) or {}
    pinned = pins.get(name, {})
    if sha256 in pinned:
        return PINNED
    if pinned:
        raise DataError(
            f"{name}: the rows from {origin} have sha256 {sha256}, but at first use they had "
            f"{' or '.join(pinned)} (pinned in {lock}). If the change is meant, take that entry "
            "out of the file"
        )
    pins[name] = {sha256: {"rows": rows, "origin": origin}}
    with saving(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
    write_json(lock, json.loads(json.dumps(pins, sort_keys=True)))
    return FIRST
