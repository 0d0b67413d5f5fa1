"""A sampler and a judge that play from a script: games are tested without a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np

from seirenes_jax.games import GAMES
from seirenes_jax.games.base import Context, Rules
from seirenes_jax.play import Played, play
from seirenes_jax.rng import stable_hash
from seirenes_jax.settings import load
from seirenes_jax.types import ADVERSARY, Ask, Name, Problem, Rollout, Verdict

Say = Callable[[Name, Ask], str | None]

CONFIG = Path(__file__).parents[1] / "configs" / "base.py"
SAID = {  # a scripted answer names its own verdict
    "right": Verdict.RIGHT,
    "wrong": Verdict.WRONG,
    "garbage": Verdict.UNREADABLE,
    "endless": Verdict.TIMEOUT,
}


class Sampler:
    """Holds every sample back until the script has a text for it; notes all that was opened.

    `say(name, ask)` is asked once a round for each sample that is out; None = not finished yet.
    `turn` orders what finishes in one round: 1 as opened, -1 reversed.
    """

    def __init__(self, say: Say, turn: int = 1) -> None:
        self.say, self.turn = say, turn
        self.out: dict[Name, Ask] = {}
        self.opened: list[list[tuple[Name, Ask]]] = []

    def ask(self, opened: list[tuple[Name, Ask]]) -> list[Rollout]:
        self.opened.append(list(opened))
        for name, ask in opened:
            for sample in range(ask.n):
                self.out[replace(name, sample=sample)] = ask
        finished = []
        for name, ask in list(self.out.items())[:: self.turn]:
            text = self.say(name, ask)
            if text is not None:
                finished.append(rollout(name, ask, text))
                del self.out[name]
        return finished

    @property
    def asks(self) -> list[tuple[Name, Ask]]:
        return [pair for round_ in self.opened for pair in round_]


class Judge:
    """Reads the verdict off the answer and remembers what it was shown."""

    def __init__(self) -> None:
        self.cases: list[tuple[str, str]] = []

    def submit(self, cases: Sequence[tuple[str, str]]) -> list[Verdict]:
        self.cases += cases
        return [SAID[response.split()[0]] for _, response in cases]

    def collect(self, ticket: list[Verdict]) -> list[Verdict]:
        return ticket


def rollout(name: Name, ask: Ask, text: str) -> Rollout:
    """A finished sample; one token a word, cut where the text ends in `...`."""
    stop = "length" if text.endswith("...") else "eos"
    length = ask.max_tokens if stop == "length" else len(text.split())
    tokens = np.arange(length, dtype=np.int32)
    return Rollout(ask, name, text, tokens, np.full(length, -0.5, np.float32), stop, None, 0)


def problem(key: str = "p", answer: str = "12") -> Problem:
    return Problem(key, f"Question {key}: how many apples are there?", answer, "test", None)


def context(
    *,
    clean: int = 4,
    hints: int = 2,
    hinted: int = 4,
    step: int = 1,
    memory: Mapping[str, Any] | None = None,
    knobs: Sequence[str] = (),
) -> Context:
    """The full config but for small numbers and no gate except the tag."""
    sizes = [f"rollouts.clean={clean}", f"rollouts.hints={hints}", f"rollouts.hinted={hinted}"]
    base = ["hints.gates=tag", "tokens.reasoner=64", "tokens.adversary=32", *sizes]
    settings, _ = load(str(CONFIG), [*base, *knobs])
    return Context(
        step=step,
        seed=0,
        rules=Rules(
            settings.rollouts, settings.tokens, settings.prompts, settings.adversary,
            settings.hints, settings.streams,
        ),
        memory={} if memory is None else memory,
        prompt_tokens=lambda messages: sum(len(words.split()) for _, words in messages),
        count_tokens=lambda text: len(text.split()),
        write_hint=lambda problem, source, draw: f"{source} hint for {problem.id} drawn {draw}",
    )  # fmt: skip


def played(n: int, seats: Sequence[int] | None = None) -> Played:
    """A step of n problems of the real game, or only those at some seats: every try by its name."""

    def say(name: Name, ask: Ask) -> str:
        if ask.role == ADVERSARY:
            return f"<hint>look at {name.problem} once more {name.turn}</hint>"
        return ("right", "wrong")[stable_hash(*map(str, astuple(name))) % 2] + f" {name.sample}"

    chosen = [(problem(f"p{i}"), 0) for i in (range(n) if seats is None else seats)]
    return play(chosen, GAMES["seirenes"], context(), ask=Sampler(say).ask, judge=Judge())
