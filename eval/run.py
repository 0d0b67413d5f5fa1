"""Evaluate a model on benchmarks through any OpenAI-compatible endpoint.

  python -m eval.run --endpoint=http://localhost:8000 --datasets=aime24,aime25 --n=32 --out=DIR
  python -m eval.run --checkpoint=runs/tiny --data=problems.jsonl --out=DIR
  python -m eval.run --hf=FOLDER --datasets=gsm8k,math500 --out=DIR
  python -m eval.run --regrade --out=DIR

The same command again goes on where it stopped. docs/evaluation.md explains every flag and file.

  what answers    --endpoint=URL | --checkpoint=RUN | --hf=DIR   --model --served_as --model_date
                  --api_key_env=NAME (of the variable that holds the key)   --tokenizer=DIR
  what is asked   --datasets=NAME,.. --data=FILE|NAME=FILE,.. --question_column --answer_column
                  --id_column --slice=KEY=VALUE,.. --limit=N --hints=BANK --lock=FILE
  how             --n=1 --temperature=0.6 --top_p=0.95 --top_k=0 --max_tokens=8192 --seed=0
                  --per_request=8 --api=chat|completions --tokens_key --extra=JSON --stream
                  --prompt=TEXT|@FILE --position --frame
  how fast        --concurrency=16 --timeout=1800 --retries=6 --backoff=1 --rpm=0
  at what cost    --max_cost_usd --price_in --price_out (dollars a million tokens) --expect_tokens
  how graded      --fallback --workers --deadline=1 --regrade --skip_probe

Exit codes: 0 every sample has an answer; 1 some are missing or cannot be trusted; 2 a mistake in
flags or data, or the endpoint refuses; 75 stopped early, run the same command again.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from eval import flags as read
from eval.bank import fitting, read_bank
from eval.client import Endpoint
from eval.cost import Purse
from eval.evaluation import Options, evaluate, regrade
from eval.folder import command_line
from eval.load import load_all
from seirenes_jax.cli import guard, need, parse
from seirenes_jax.errors import ConfigError
from seirenes_jax.types import REASONER

FLAGS: Mapping[str, str | None] = {
    **read.WHERE, **read.WHAT, **read.HOW, **read.PACE, "hints": None, "out": None,
}  # fmt: skip
SWITCHES = ("regrade", "stream", "fallback", "skip_probe")


def options(
    flags: Mapping[str, str | None], command: str, role: str = REASONER
) -> Options:
    """All flags of a command, read and checked."""
    where = read.where(flags)
    sampling = read.sampling(flags, role)
    expect = None if flags["expect_tokens"] is None else read.whole(flags, "expect_tokens", 1)
    return Options(
        out=Path(need(flags, "out")),
        where=where,
        served_as=flags["served_as"],
        model_date=flags["model_date"],
        sampling=sampling,
        prompts=read.prompts(flags),
        n=read.whole(flags, "n", 1),
        per_request=read.whole(flags, "per_request", 1),
        endpoint=Endpoint(
            url="", model="", key=where.key, timeout_s=read.number(flags, "timeout", 0.01),
            retries=read.whole(flags, "retries", 0, 100),
            backoff_s=read.number(flags, "backoff", 0), rpm=read.number(flags, "rpm", 0),
            stream=flags["stream"] is not None,
            concurrency=read.whole(flags, "concurrency", 1, 4096),
        ),
        max_context=read.max_context(flags, sampling.max_tokens),
        purse=Purse(
            read.number(flags, "price_in", 0), read.number(flags, "price_out", 0),
            read.maybe(flags, "max_cost_usd", 0),
        ),
        expect_tokens=expect,
        workers=workers(flags),
        deadline_s=read.number(flags, "deadline", 0.05),
        fallback=flags["fallback"] is not None,
        skip_probe=flags["skip_probe"] is not None,
        command=command,
    )  # fmt: skip


def workers(flags: Mapping[str, str | None]) -> int:
    """Judge processes."""
    if flags["workers"] is None:
        return min(os.cpu_count() or 1, 16)
    return read.whole(flags, "workers", 1, 256)


def main(argv: list[str]) -> int:
    flags, _ = parse(argv, flags=FLAGS, switches=SWITCHES)
    if flags["regrade"]:
        out = Path(need(flags, "out"))
        return regrade(
            out, workers(flags), read.number(flags, "deadline", 0.05),
            fallback=flags["fallback"] is not None, tokenizer=flags["tokenizer"],
        )  # fmt: skip
    chosen = options(flags, command_line("eval.run", argv))
    if chosen.purse.cap is not None and not (chosen.purse.price_in or chosen.purse.price_out):
        raise ConfigError("--max_cost_usd: nothing has a price; give --price_in and --price_out")
    datasets = load_all(read.wanted(flags))
    if flags["hints"] is None:
        return evaluate(chosen, datasets, [])
    path = Path(flags["hints"])
    return evaluate(chosen, datasets, fitting(read_bank(path), datasets, path))


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
