"""Kill a tiny run again and again, at random points, and compare what survives.

  python -m tests.chaos --kills=50
  python -m tests.chaos --kills=50 --seed=7 --work=/tmp/chaos --json=chaos.json

  --kills=N   how many have to hit (default 50). From 8 on an eighth of them each falls on runs of
              two processes, of which one is killed, and on runs with checkpoint.journal
  --seed=N    draws where they hit; printed, and random where it is not given
  --work=DIR  where the runs go; what nobody disturbed is kept there for the next series
  --json=FILE the table as data

Exit codes: 0 every run is as if nothing had happened; 1 one differs, and how.
"""

import json
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from seirenes_jax.cli import guard, parse, whole_number
from seirenes_jax.errors import DONE, FAILED
from tests.chaos.fire import Fire, shares, table

FLAGS = {"kills": "50", "seed": None, "work": None, "json": None}


def main(argv: list[str]) -> int:
    flags, _ = parse(argv, flags=FLAGS)
    kills, asked = whole_number(flags, "kills"), whole_number(flags, "seed")
    seed = random.SystemRandom().randrange(10**6) if asked is None else asked
    assert kills is not None
    print(f"python -m tests.chaos --kills={kills} --seed={seed}", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(flags["work"] or scratch).absolute()
        work.mkdir(parents=True, exist_ok=True)
        fire = Fire(work, work / "cache", random.Random(seed), lambda said: print(said, flush=True))
        for layout, n in shares(kills).items():
            if n:
                fire.through(layout, n, fire.reference(layout))
    print(f"\n{table(fire.hits)}\n")
    print(f"{len(fire.hits)} kills, {fire.runs} runs, {time.monotonic() - started:.0f} s, "
          f"seed {seed}: {'DIFFERENT' if fire.wrong else 'all equal'}")  # fmt: skip
    print("\n".join(fire.wrong))
    if flags["json"]:
        told = {"seed": seed, "kills": [asdict(hit) for hit in fire.hits], "wrong": fire.wrong}
        Path(flags["json"]).write_text(json.dumps(told, indent=1) + "\n")
    return FAILED if fire.wrong else DONE


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
