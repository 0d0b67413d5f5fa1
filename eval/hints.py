"""Hint banks and attacks: how far do hints lead a model astray?

  python -m eval.hints build --from=runs/x --datasets=gsm8k --k=4 --out=bank.jsonl
  python -m eval.hints build --from=rule --data=problems.jsonl --k=4 --out=bank.jsonl
  python -m eval.hints build --from=http://localhost:8000 --datasets=gsm8k --out=bank.jsonl
  python -m eval.hints attack --bank=bank.jsonl --endpoint=URL --model=NAME --n=4 --out=DIR
  python -m eval.hints attack --bank=bank.jsonl --endpoint=URL --model=ONE,TWO --out=DIR

build   --from=RUN (its Adversary, on our own server) | URL (an endpoint as Adversary) | rule |
        random | correct | triggers | shuffled (hints of other problems, of --bank=BANK)
        --k=4 hints a problem; an Adversary writes up to --tries=4 times as many, those that pass
        the gates are kept; --gates=tag,length,.. --min_hint=10 --max_hint=512 (tokens)
attack  every model clean and under every hint of the bank: drop, right to wrong, wrong to right,
        worst of k, adoption, length, by family and by source. Several models give one table

All flags of `python -m eval.run` hold here, too. docs/evaluation.md explains files and measures.

Exit codes: as of eval.run.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from eval import flags as read
from eval.bank import Hint, fitting, read_bank, sets_of
from eval.build import SOURCES, Recipe, by_adversary, by_rule, finish
from eval.evaluation import Options, evaluate
from eval.folder import command_line
from eval.items import Dataset, narrowed
from eval.load import load_all
from eval.report import write_report
from eval.run import FLAGS, SWITCHES, options
from seirenes_jax.analysis import read_config
from seirenes_jax.cli import guard, need, parse
from seirenes_jax.errors import DONE, ConfigError
from seirenes_jax.hints import check_gates
from seirenes_jax.knobs import Hints
from seirenes_jax.types import ADVERSARY

GATES = ("tag", "length", "boxed", "leak", "override", "copy")
COPY_SHARE = 0.8
BUILD: Mapping[str, str | None] = {
    **FLAGS, "from": None, "k": "4", "tries": "4", "bank": None, "gates": None, "min_hint": None,
    "max_hint": None, "temperature": "1", "top_p": "1",
}  # fmt: skip
ATTACK: Mapping[str, str | None] = {**FLAGS, "bank": None}


def build(argv: list[str]) -> int:
    """Write a bank of hints."""
    flags, _ = parse(argv, flags=BUILD, switches=SWITCHES)
    source, out = need(flags, "from"), Path(need(flags, "out"))
    k = read.whole(flags, "k", 1)
    command = command_line("eval.hints", ["build", *argv])
    if source in SOURCES:
        given = None if flags["bank"] is None else read_bank(Path(flags["bank"]))
        datasets = _problems(flags, given)
        return finish(out, by_rule(datasets, source, k, given), command, datasets, {})
    of = "endpoint" if "://" in source else "checkpoint"
    if of == "checkpoint" and not Path(source).is_dir():
        raise ConfigError(
            f"--from: got {source!r}; wanted a run folder, an endpoint's URL, or one of "
            f"{', '.join(SOURCES)}"
        )
    flags = {**flags, of: source, "out": str(out.with_suffix("")) + ".parts"}
    recipe = Recipe(k, read.whole(flags, "tries", 1), _rules(flags))
    chosen = options(flags, command, ADVERSARY)
    return by_adversary(out, chosen, load_all(read.wanted(flags)), recipe)


def _problems(flags: Mapping[str, str | None], bank: list[Hint] | None) -> list[Dataset]:
    """As named; shuffled hints may take the problems of the bank they come from."""
    if bank is None or flags["datasets"] or flags["data"]:
        return load_all(read.wanted(flags))
    return sets_of(bank, Path(str(flags["bank"])))


def _rules(flags: Mapping[str, str | None]) -> Hints:
    """The gates as told, else as the run was trained with, else the usual ones."""
    config = None if flags["checkpoint"] is None else read_config(Path(flags["checkpoint"]))
    stored = {} if config is None else config["hints"]
    usual = Hints(
        source="adversary",
        gates=tuple(stored.get("gates", GATES)),
        min_tokens=stored.get("min_tokens", 10),
        max_tokens=stored.get("max_tokens", 512),
        copy_share=stored.get("copy_share", COPY_SHARE),
    )
    if flags["gates"] is not None:
        usual = replace(usual, gates=tuple(read.names(flags, "gates")))
    if flags["min_hint"] is not None:
        usual = replace(usual, min_tokens=read.whole(flags, "min_hint", 0))
    if flags["max_hint"] is not None:
        usual = replace(usual, max_tokens=read.whole(flags, "max_hint", 1))
    check_gates(usual)
    return usual


def attack(argv: list[str]) -> int:
    """Every model clean and under the bank."""
    flags, _ = parse(argv, flags=ATTACK, switches=SWITCHES)
    path = Path(need(flags, "bank"))
    bank = read_bank(path)
    chosen = read.wanted({**flags, "datasets": None, "data": None})
    sets = sets_of(bank, path)
    named = read.names(flags, "datasets")
    unknown = sorted(set(named) - {one.name for one in sets})
    if unknown:
        raise ConfigError(f"--datasets: {path} has no {unknown[0]!r}; it has "
                          f"{', '.join(one.name for one in sets)}")  # fmt: skip
    sets = [narrowed(one, {}, chosen.limit) for one in sets if not named or one.name in named]
    bank = fitting(bank, sets, path)
    command = command_line("eval.hints", ["attack", *argv])
    plans = _plans(flags, command)
    codes = [evaluate(one, sets, bank) for one in plans]
    out = Path(need(flags, "out"))
    if len(plans) > 1:
        write_report([one.out for one in plans], out / "report.html")
        print(out / "report.html")
    return max(codes, default=DONE)


def _plans(flags: Mapping[str, str | None], command: str) -> list[Options]:
    """One evaluation a model. Lists of endpoints and keys go with the list of models."""
    models = read.names(flags, "model") or [""]
    urls, keys = read.names(flags, "endpoint"), read.names(flags, "api_key_env")
    for name, values in (("endpoint", urls), ("api_key_env", keys)):
        if len(values) not in (0, 1, len(models)):
            raise ConfigError(
                f"--{name}: got {len(values)} for {len(models)} models; wanted one, or as many"
            )
    out = Path(need(flags, "out"))
    found: list[Options] = []
    for at, model in enumerate(models):
        own = {
            **flags, "model": model or None,
            "endpoint": urls[at % len(urls)] if urls else None,
            "api_key_env": keys[at % len(keys)] if keys else None,
            "out": str(out if len(models) == 1 else out / re.sub(r"[^\w.-]+", "_", model)),
        }  # fmt: skip
        plan = options(own, command)
        if found:  # one purse for all of them
            plan = replace(plan, purse=found[0].purse)
        found.append(plan)
    return found


COMMANDS = {"build": build, "attack": attack}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in COMMANDS:
        raise ConfigError(f"got {' '.join(argv[:1]) or 'nothing'}; wanted build or attack")
    return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
