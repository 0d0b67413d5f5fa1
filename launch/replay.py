"""Compute a step with bad numbers again: what was seen, what is found now, whose fault it was.

  python launch/replay.py runs/tiny/bad/step-7

A run keeps such a step when it refuses to apply it (docs/reliability.md).

Exit codes: 0 every number came back; 1 they did not (the machine is the suspect); 2 a mistake in
the flags, or no such step.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax.cli import guard  # noqa: E402
from seirenes_jax.errors import DONE, FAILED, ConfigError  # noqa: E402


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0].startswith("-"):
        raise ConfigError(f"got {' '.join(argv) or 'nothing'}; wanted one folder, RUN/bad/step-N")
    folder = Path(argv[0])
    if not (folder / "evidence.json").is_file():
        raise ConfigError(f"{folder}: no evidence.json; wanted a folder RUN/bad/step-N of a run")
    from seirenes_jax import replay

    return DONE if replay.replay(folder, print) else FAILED


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
