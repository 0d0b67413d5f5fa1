"""Run a grid of cells and compare them, paired by seed.

  python launch/ablate.py --config=configs/ablations/tiny_first.py
  python launch/ablate.py --config=configs/ablations/tiny_first.py --cells=seirenes,frozen --seeds=0
  python launch/ablate.py --config=configs/ablations/tiny_first.py --collect=docs/results/tiny_first

The same command again goes on: measured cells are passed over, begun ones resumed. Tables and
pictures are made after every call from whatever cells there are.

  --out=DIR       cells/*.json, table.md, *.png, runs/*; default runs/ablations/<config name>
  --cells=A,B --seeds=0,1   only these
  --jobs=N        cells at a time; default 1
  --collect=DIR   copy cells, tables and pictures there

Exit codes: 0 done; 1 a cell failed; 2 a mistake in flags or configuration; 75 stopped early.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax import sweep  # noqa: E402
from seirenes_jax.cli import guard, need, parse  # noqa: E402
from seirenes_jax.errors import DONE, ConfigError  # noqa: E402

FLAGS = {"config": None, "out": None, "cells": None, "seeds": None, "jobs": "1", "collect": None}


def main(argv: list[str]) -> int:
    flags, overrides = parse(argv, flags=FLAGS)
    if overrides:
        raise ConfigError(f"--config.{overrides[0]}: knobs of a grid stand in its file")
    grid = sweep.read(need(flags, "config"))
    cells, seeds = _split(flags["cells"]), _split(flags["seeds"])
    chosen = None if seeds is None else [_number("seeds", seed) for seed in seeds]
    jobs = sweep.plan(grid, cells=cells, seeds=chosen)
    out = Path(flags["out"] or f"runs/ablations/{grid.name}")
    try:
        sweep.run(grid, jobs, out=out, workers=max(1, _number("jobs", need(flags, "jobs"))))
    finally:
        sweep.report(grid, out=out)
        if flags["collect"] is not None:
            sweep.collect(grid, out=out, into=Path(flags["collect"]))
    print((out / "table.md").read_text())
    return DONE


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _number(flag: str, text: str) -> int:
    if not text.isdigit():
        raise ConfigError(f"--{flag}: got {text!r}; wanted a whole number")
    return int(text)


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
