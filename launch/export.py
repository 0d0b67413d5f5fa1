"""Write a run's weights as a Hugging Face folder that AutoModelForCausalLM and AutoTokenizer load.

  python launch/export.py --run=runs/tiny --out=exported
  python launch/export.py --run=runs/lora --out=adapter --adapter
  python launch/export.py --run=runs/tiny --step=100 --out=exported --prove

  --run=RUN   a run folder; gs://bucket/run works too
  --out=DIR   the folder to write; it appears when it is whole. gs://bucket/folder works too:
              there config.json comes last
  --step=N    the step whose checkpoint to take; default the newest
  --adapter   of a run with model.lora.rank > 0: its adapters alone, as PEFT loads them onto the
              base; without it they are merged
  --prove     read the folder back, compare every weight bit for bit with the checkpoint,
              and write DIR/proof.json

Exit codes: 0 done; 1 the proof failed or the disk is full; 2 a mistake in the flags.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from seirenes_jax import store  # noqa: E402
from seirenes_jax.cli import guard, need, parse  # noqa: E402
from seirenes_jax.errors import ConfigError  # noqa: E402

FLAGS = {"run": None, "step": None, "out": None}


def main(argv: list[str]) -> int:
    flags, _ = parse(argv, flags=FLAGS, switches=("adapter", "prove"))
    run, out = store.at(need(flags, "run")), need(flags, "out")
    step = flags["step"]
    if step is not None and not step.isdigit():
        raise ConfigError(f"--step: got {step!r}; wanted the number of a saved step")
    if not (run / "config.json").is_file():
        raise ConfigError(f"--run: got {str(run)!r}; wanted a run folder (it has config.json)")
    from seirenes_jax import proof

    folder = store.reached(out, "--out")
    adapter = bool(flags["adapter"])
    number = None if step is None else int(step)
    taken = proof.export_run(run, folder, step=number, adapter=adapter)
    print(f"step {taken} of {run} is in {out}")
    if flags["prove"]:
        count = proof.prove(run, folder, step=taken, adapter=adapter)
        print(f"{folder / 'proof.json'}: {count} weights, equal bit for bit")
    return 0


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
