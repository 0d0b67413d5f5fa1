"""What only checkpoints can tell: cross-play, one checkpoint's hints against another's Reasoner.

  python -m seirenes_jax.probe runs/tiny
  python -m seirenes_jax.probe runs/tiny --problems=500 --checkpoints=0,50,100,150

  --problems=N         held-out problems; default 200, or all where a run holds out fewer
  --checkpoints=A,B    steps of kept checkpoints, 0 = the start; default up to 6, evenly spread
  --cache_dir=DIR      default $SEIRENES_CACHE, else ~/.cache/seirenes_jax

Writes crossplay.json and crossplay.png into the run folder.
"""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from seirenes_jax import folder, gather, hints, knobs, machine, sharding
from seirenes_jax.base import first_adapters
from seirenes_jax.checkpoint import load_params
from seirenes_jax.cli import guard, parse
from seirenes_jax.errors import DONE, ConfigError
from seirenes_jax.evaluate import Evaluator, Marks
from seirenes_jax.hosts import players
from seirenes_jax.models import ModelConfig, init_params, join, trained
from seirenes_jax.models.config import fitted
from seirenes_jax.report import RunLog, write_json
from seirenes_jax.sampler import Sampler
from seirenes_jax.settings import build
from seirenes_jax.signals import listening
from seirenes_jax.start import begin, model_of_run, starting_params
from seirenes_jax.state import Params
from seirenes_jax.verify.judge import Judge

START = 0  # the step of the starting weights
MOST = 6  # checkpoints played where none are named
PROBLEMS = 200  # where no number is named
FLAGS = {"problems": None, "checkpoints": None, "cache_dir": None}


def main(argv: list[str]) -> int:
    """One run's cross-play."""
    words = [word for word in argv if not word.startswith("--")]
    if len(words) != 1:
        raise ConfigError(f"got {words}; wanted one run folder, and flags as --name=value")
    flags, _ = parse([word for word in argv if word.startswith("--")], flags=FLAGS)
    run = Path(words[0])
    asked = flags["checkpoints"]
    steps = None if asked is None else [_number("checkpoints", s) for s in asked.split(",")]
    count = flags["problems"]
    problems = None if count is None else _number("problems", count)
    cache_dir = folder.cache_dir(flags["cache_dir"] or "")
    crossplay(run, steps=steps, problems=problems, cache_dir=cache_dir)
    print(f"{run / 'crossplay.json'} and {run / 'crossplay.png'} are written")
    return DONE


def crossplay(
    run: Path, *, steps: Sequence[int] | None, problems: int | None, cache_dir: Path
) -> dict[str, Any]:
    """Play the checkpoints of a run against each other; writes and returns crossplay.json."""
    settings = build(ConfigDict(folder.read_config(run)))
    chosen = choose(kept_steps(run / "checkpoints"), steps)
    with ExitStack() as stack:
        stop = stack.enter_context(listening(settings.preempt.grace_s))
        machine.set_up_compile_cache(cache_dir)
        # The run may still be going: nothing is opened in its folder.
        scratch = Path(stack.enter_context(TemporaryDirectory()))
        log = stack.enter_context(RunLog(scratch, steps=settings.steps))
        start = begin(settings, cache_dir, log, check=stop.check)
        mesh = sharding.make_mesh(settings.mesh)
        config, tokenizer = model_of_run(run, settings)
        config = fitted(config, settings.model, mesh)
        start = replace(start, config=config, tokenizer=tokenizer)
        held_out = len(start.held_out)
        count = min(PROBLEMS, held_out) if problems is None else problems
        if not 0 < count <= held_out:
            raise ConfigError(f"--problems: got {count}; wanted 1 to {held_out}, all it holds out")
        judge = stack.enter_context(
            Judge(settings.judge.workers, settings.judge.deadline_s, settings.judge.memory_gib)
        )
        tokens = settings.tokens
        sampler = Sampler(
            config, tokenizer, settings.sampler, seed=settings.seed, prompt_tokens=tokens.prompt,
            answer_tokens=max(tokens.reasoner, tokens.adversary),
        )  # fmt: skip
        evaluator = Evaluator(
            settings, start, sampler, judge, hosts=players(1, mesh), log=log, stop=stop
        )
        base = None
        if config.lora is not None:
            base = starting_params(start, settings, run, mesh)

        def begin_anew() -> Params:
            if base is None:
                return starting_params(start, settings, run, mesh)
            return first_adapters(config, settings.seed, mesh)

        weights = reader(run / "checkpoints", config, settings.mesh, begin_anew, base)
        found = play_all(evaluator, weights, chosen, count, say=log.say)
    write_json(run / "crossplay.json", found)
    gather.draw_crossplay(found, run / "crossplay.png", run.name)
    return found


def reader(
    checkpoints: Path, config: ModelConfig, mesh: knobs.Mesh, begin_anew: Callable[[], Params],
    base: Params | None = None,
) -> Callable[[int], Params]:  # fmt: skip
    """Weights of a step. The start comes from its own checkpoint where that was kept, else anew.
    `base`: what its adapters stand on."""
    shapes = trained(jax.eval_shape(lambda: init_params(config, 0)), config)
    shardings = sharding.param_shardings(shapes, sharding.make_mesh(mesh))
    abstract = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, shardings
    )
    saved = kept_steps(checkpoints)

    def weights(step: int) -> Params:
        if step == START and START not in saved:
            return join(base, jax.device_put(begin_anew(), shardings))
        return join(base, load_params(checkpoints, abstract, step)[1])

    return weights


def kept_steps(checkpoints: Path) -> list[int]:
    """Steps that can be played: those on disk, and the start, whose weights can be made again."""
    if not checkpoints.is_dir():
        raise ConfigError(f"{checkpoints}: no such folder; wanted the checkpoints of a run")
    return sorted(int(file.name) for file in checkpoints.iterdir() if file.name.isdigit())


def choose(saved: Sequence[int], asked: Sequence[int] | None) -> list[int]:
    """The steps to play, oldest first; by default at most MOST, evenly spread, with both ends."""
    steps = sorted({START, *saved})
    if asked is not None:
        unknown = sorted(set(asked) - set(steps))
        if unknown or not asked:
            raise ConfigError(f"--checkpoints: no checkpoint of step {unknown}; there are {steps}")
        return sorted(set(asked))
    places = np.linspace(0, len(steps) - 1, min(MOST, len(steps))).round().astype(int)
    return [steps[place] for place in places]


def play_all(
    evaluator: Evaluator, weights: Callable[[int], Params], steps: Sequence[int], problems: int,
    *, say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """Row i, column j: the Reasoner of step j, greedy, under one sound hint a problem of step i."""
    written: list[list[str | None]] = []
    clean: list[Marks] = []
    for step in steps:
        params = weights(step)
        written.append(evaluator.written(params, problems))
        clean.append(evaluator.marks(params, None, problems))
        say(f"step {step}: hints for {sum(t is not None for t in written[-1])} of {problems}")
    hinted: list[list[Marks]] = [[] for _ in steps]
    for step in steps:
        params = weights(step)  # read again: all of them at once might not fit
        for row, texts in zip(hinted, written, strict=True):
            row.append(evaluator.marks(params, texts, problems))
        say(f"step {step}: its Reasoner played under the hints of all {len(steps)}")
    return {
        "checkpoints": list(steps), "problems": problems,
        "hints": [sum(text is not None for text in texts) for texts in written],
        "families": [family_shares(texts) for texts in written],
        "clean": [mean_of(marks) for marks in clean],
        "hinted": [[mean_of(marks) for marks in row] for row in hinted],
        "cost": [[cost(c, h) for c, h in zip(clean, row, strict=True)] for row in hinted],
    }  # fmt: skip


def mean_of(marks: Marks) -> float | None:
    """Share of right answers among those measured; None where none was."""
    seen = [mark for mark in marks if mark is not None]
    return sum(seen) / len(seen) if seen else None


def cost(clean: Marks, hinted: Marks) -> float | None:
    """Clean minus hinted over the problems where both were measured."""
    gaps = [c - h for c, h in zip(clean, hinted, strict=True) if c is not None and h is not None]
    return sum(gaps) / len(gaps) if gaps else None


def family_shares(texts: Sequence[str | None]) -> dict[str, float]:
    """Families of the hints that were written, most frequent first."""
    counts = Counter(hints.classify(text)[0] for text in texts if text is not None)
    return {family: count / counts.total() for family, count in counts.most_common()}


def _number(flag: str, text: str) -> int:
    if not text.strip().isdigit():
        raise ConfigError(f"--{flag}: got {text!r}; wanted whole numbers")
    return int(text)


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
