"""Train by adversarial self-play.

  python launch/train.py --config=configs/tiny.py
  python launch/train.py --config=configs/tiny.py --config.steps=300   goes on with a finished run
  python launch/train.py --config=configs/tiny.py --config.seed=1 --workdir=runs/tiny-seed1
  python launch/train.py --config=configs/tiny.py --fork=runs/tiny-lr --config.optimizer.lr=1e-4

The same command again goes on where the run stopped, from its newest good checkpoint.

  --config=FILE[:VARIANT]  a file of configs/
  --config.PATH=VALUE      one knob; configs/base.py lists them all with unit and reason
  --workdir=DIR            the run folder, here or on gs://; default runs/<config name>[-<variant>]
  --fork=DIR               go on in DIR, under other knobs, from where the run folder stands
  --cache_dir=DIR          warm starts and compiled programs;
                           default $SEIRENES_CACHE, else ~/.cache/seirenes_jax

Many processes, one per host (launch/tpu_pod.sh, slurm.sh and gke.yaml start them):
  --coordinator=auto       ask the cluster (TPU pod, SLURM, ...) who takes part
  --coordinator=HOST:PORT --processes=N --process=I   or say so: process 0 listens at HOST:PORT

Exit codes: 0 done; 1 the run failed; 2 a mistake in flags, configuration or data; 75 stopped
early (Ctrl-C, SIGTERM), nothing is lost, run the same command again.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax import parent, settings  # noqa: E402
from seirenes_jax.cli import TRAIN_FLAGS, guard, need, parse  # noqa: E402


def main(argv: list[str]) -> int:
    flags, overrides = parse(argv, flags=TRAIN_FLAGS)
    settings.load(need(flags, "config"), overrides)  # a mistake is told before jax is loaded
    if parent.needed(flags["coordinator"]):
        return parent.watch_over([sys.executable, *sys.argv])
    from seirenes_jax import train

    return train.main(argv)


if __name__ == "__main__":
    parent.leave(guard(main, sys.argv[1:], doc=str(__doc__), programs=True))
