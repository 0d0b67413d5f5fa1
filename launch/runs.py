"""What is in these run folders: config, saved steps, sizes, scores, pace, health.

  python launch/runs.py runs/tiny
  python launch/runs.py runs/* --json
  python launch/runs.py gs://bucket/run --verify

  RUN...      run folders, here or on gs://; a live run is not disturbed
  --verify    read every array of every saved step and compare it with what was saved
  --json      one JSON object a run, in a list

Exit codes: 0; 1 a checkpoint is damaged; 2 a mistake in the flags.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax import runs  # noqa: E402
from seirenes_jax.cli import guard, parse  # noqa: E402
from seirenes_jax.errors import DONE, FAILED, ConfigError  # noqa: E402


def main(argv: list[str]) -> int:
    names = [word for word in argv if not word.startswith("--")]
    flags, _ = parse(
        [word for word in argv if word.startswith("--")], flags={}, switches=("verify", "json")
    )
    if not names:
        raise ConfigError("got no run; wanted RUN..., such as runs/tiny (--help shows examples)")
    found = [runs.look(name, verify=bool(flags["verify"])) for name in names]
    if flags["json"]:
        print(json.dumps(found, indent=2))
    else:
        print("\n\n".join(map(runs.told, found)))
    return FAILED if any(one["fault"] for run in found for one in run["checkpoints"]) else DONE


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
