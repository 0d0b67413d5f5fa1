"""Runs side by side on one offline page.

  python launch/compare.py runs/tiny runs/tiny_grpo --out=comparison.html

Curves over one another, the knobs in which the runs differ, before and after with paired tests
against the first run, and what each made of the same problems. Finished or not.

Exit codes: 0 done; 2 a mistake in flags or folders.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax.cli import guard, parse  # noqa: E402
from seirenes_jax.compare_page import write_comparison  # noqa: E402
from seirenes_jax.errors import DONE, ConfigError  # noqa: E402


def main(argv: list[str]) -> int:
    folders = [Path(word) for word in argv if not word.startswith("--")]
    named = [word for word in argv if word.startswith("--")]
    flags, _ = parse(named, flags={"out": "comparison.html"})
    out = Path(flags["out"] or "")
    if out.suffix != ".html":
        raise ConfigError(f"--out: got {str(out)!r}; wanted the name of a file ending in .html")
    command = " ".join(["python launch/compare.py", *map(str, folders), f"--out={out}"])
    print(f"{write_comparison(folders, out, command=command)} is written")
    return DONE


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
