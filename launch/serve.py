"""Serve a model over an OpenAI-compatible endpoint: chat and text completions.

  python launch/serve.py --model=runs/tiny
  python launch/serve.py --model=exported --port=8080 --slots=32
  MY_KEY=... python launch/serve.py --model=runs/tiny --host=0.0.0.0 --api_key_env=MY_KEY

Prints `serving MODEL at http://HOST:PORT` once it is ready. docs/serving.md says what it can.

  --model=DIR          a run folder (its newest checkpoint), a Hugging Face folder, or a hub id
  --host=127.0.0.1     who may come: this machine alone, unless told
  --port=8000          0 = any that is free
  --api_key_env=NAME   of the environment variable that holds the key clients must send
  --name=NAME          under which the model answers; default the folder's name
  --slots=N            answers written at once; default as the run, else 64
  --max_queue=1024     answers that may wait for a slot; beyond them clients get 429
  --max_context=N      tokens of a prompt and its answer together, at most: default as the run,
                       else 4096; never more than the model has
  --cache_dir=DIR      compiled programs; default $SEIRENES_CACHE, else ~/.cache/seirenes_jax

Exit codes: 0 ended by SIGTERM or Ctrl-C; 1 the sampler failed; 2 a mistake in the flags.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from seirenes_jax import serve, settings  # noqa: E402
from seirenes_jax.cli import guard, parse  # noqa: E402


def main(argv: list[str]) -> int:
    flags, _ = parse(argv, flags=serve.FLAGS)
    chosen = serve.options(flags)
    usual, _ = settings.load(str(ROOT / "configs" / "base.py"))
    return serve.main(chosen, usual)


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__), programs=True))
