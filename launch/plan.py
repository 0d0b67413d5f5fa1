"""Will it fit, and how fast could it be? Answered before a device is touched, or paid for.

  python launch/plan.py --config=configs/qwen4b.py:v5e --topology=v5e:8x8
  python launch/plan.py --config=configs/qwen7b.py:h200 --topology=h200:1 --json=plan.json
  python launch/plan.py --config=configs/qwen4b.py:v5e --topology=v5e:8x8 --config.batch.rows=128

Compiles the programs of a step for that machine, on any Linux CPU, with its own compiler: pip
install "jax[tpu]" for TPUs, "jax[cuda13]" for GPUs. Without it the answer is weaker, and says so.

  --config=FILE[:VARIANT]  a file of configs/
  --config.PATH=VALUE      one knob
  --topology=NAME          v5e:8x8, v5p:2x2x4, v6e:4x4, v4:2x2x4, h100:8, h200:1, l4:1, ...
  --json=FILE              the answer as JSON
  --cache_dir=DIR          what was compiled before; default $SEIRENES_CACHE, else
                           ~/.cache/seirenes_jax

Exit codes: 0 it fits; 1 it does not; 2 a mistake in flags or configuration.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax import settings  # noqa: E402
from seirenes_jax.cli import guard, parse  # noqa: E402

FLAGS = {"config": None, "topology": None, "json": None, "cache_dir": None}


def main(argv: list[str]) -> int:
    flags, overrides = parse(argv, flags=FLAGS)
    if flags["config"] is not None:
        settings.load(flags["config"], overrides)  # a mistake is told before jax is loaded
    from seirenes_jax import plan

    return plan.main(argv)


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
