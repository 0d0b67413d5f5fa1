"""How fast, beside others: decoding and training, on one core, the same work for all.

  bash launch/bench/prepare.sh                        # once: the peers, in .venv-bench
  python launch/bench.py --json=bench.json            # decode-S and train-S, all systems, 7 rounds
  python launch/bench.py --json=bench.json --systems=ours --quick         # seconds, without peers
  python launch/bench.py --table=bench.json --into=docs/benchmarks.md     # the table, in its place

Every answer is checked token by token, loss and gradient norm of all systems against each other,
before a time counts. What is in the file already, of the same code and settings, is not measured
again. docs/benchmarks.md says what is measured and how.

  --cases=A,B           decode-S decode-M decode-constant decode-plain decode-prefix decode-single
                        decode-long train-S train-M train-plain; default decode-S,train-S
  --systems=A,B         ours tunix hf trl; default all; each where it plays (hf decodes, trl trains)
  --rounds=N            rounds that count; default 7
  --json=FILE           where results go, case by case
  --peers=PYTHON        what runs the peers; default .venv-bench/bin/python
  --core=N              the core everything runs on; default the last
  --tunix_batches=A,B   batches Tunix decodes in, the fastest counts; default as many as slots
  --quick               decode-quick and train-quick, 2 rounds: does everything work?
  --again               measure what is there already, too
  --table=FILE          measure nothing; print the table of such a file
  --into=FILE           put the table between the marks of a document, too

Exit codes: 0 done; 1 a system failed or did other work; 2 a mistake in flags; 75 stopped, the same
command goes on with the next case.
"""

import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).resolve().parent.parent),
    str(Path(__file__).resolve().parent / "bench"),
]

import order  # noqa: E402

from seirenes_jax.cli import guard  # noqa: E402

if __name__ == "__main__":
    sys.exit(guard(order.main, sys.argv[1:], doc=str(__doc__)))
