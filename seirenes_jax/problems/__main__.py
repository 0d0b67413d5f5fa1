"""Look at a data set before a run is spent on it: python -m seirenes_jax.problems PLACE.

Prints the account that a run would print (but for prompts that are too long, which depend on the
model) and a few problems as the run would see them.
"""

import argparse
import json
import sys
from contextlib import ExitStack

from seirenes_jax.cli import guard
from seirenes_jax.console import Bar, printable
from seirenes_jax.errors import DONE
from seirenes_jax.knobs import Problems
from seirenes_jax.problems.formats import BY_COLUMNS, FORMATS
from seirenes_jax.problems.sieve import sieve
from seirenes_jax.verify.judge import Judge

SAMPLES = 3
WORKERS = 2


def main(argv: list[str]) -> int:
    """Exit code: 0 read, 2 a mistake in the flags or the data."""
    flags = _flags(argv)
    knobs = Problems(
        path=flags.place, format=flags.format, question_column=flags.question_column,
        answer_column=flags.answer_column, levels=tuple(flags.levels),
        decontaminate=tuple(flags.decontaminate), overlap=flags.overlap,
        checkable=not flags.unchecked, malformed=flags.malformed, mastered_share=0.0,
    )  # fmt: skip

    def open_bar(name: str, total: int, unit: str) -> Bar:
        return Bar(name, total, unit=unit, out=sys.stderr)

    with ExitStack() as stack:
        judge = stack.enter_context(Judge(WORKERS)) if knobs.checkable else None
        found, account = sieve(knobs, judge=judge, open_bar=open_bar)
    print(printable("\n".join(account.lines())))
    middle = sorted({0, len(found) // 2, len(found) - 1})
    for problem in [found[index] for index in middle][:SAMPLES]:
        print(f"\n-- {problem.id}  source {problem.source}  level {problem.level}")
        print(printable(problem.question))
        print(f"answer: {printable(json.dumps(problem.answer, ensure_ascii=False))}")
    return DONE


def _flags(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m seirenes_jax.problems", description="Look at a file of problems."
    )
    parser.add_argument("place", help="file, folder, pattern, gs://... or ORG/NAME on the hub")
    parser.add_argument("--format", default=BY_COLUMNS, choices=FORMATS, help="else by its columns")
    parser.add_argument("--question_column", default="", help="of a plain file")
    parser.add_argument("--answer_column", default="", help="of a plain file")
    parser.add_argument("--levels", default=[], type=_levels, help="1,2,3: these alone")
    parser.add_argument(
        "--decontaminate", default=[], type=lambda text: text.split(","), metavar="PLACES",
        help="benchmarks, with commas between",
    )  # fmt: skip
    parser.add_argument("--overlap", default=0.0, type=float, help="share of 13-grams let through")
    parser.add_argument("--malformed", default=0, type=int, help="unreadable rows let through")
    parser.add_argument(
        "--unchecked", action="store_true", help="keep answers the verifier cannot read"
    )
    return parser.parse_args(argv)


def _levels(text: str) -> list[int]:
    return [int(level) for level in text.split(",")]


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:]))
