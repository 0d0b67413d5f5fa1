"""What a game is: two signatures.

A game for ONE problem is a generator. It yields a list whose items are Asks or child generators, receives
as many results (a list of Rollouts for an Ask, what the child returned for a child), yields again, or
returns `(credits, note)`. Children run on their own: they do not wait for their siblings.
A separate pure `remember(memory, notes)` folds the notes into JSON-able memory once a step, in problem order.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from seirenes_jax.knobs import Adversary, Hints, Prompts, Rollouts, Streams, Tokens
from seirenes_jax.types import Ask, Credit, Problem


class TryNote(TypedDict):
    text: str
    verdict: str


class HintNote(TypedDict):
    text: str  # what was passed on; the whole answer where no hint could be read
    family: str
    gates: list[str]  # names of the gates it failed
    reward: float
    hinted: list[TryNote]


class Note(TypedDict):
    """One played problem, JSON-able: a line of rollouts.jsonl but for `step`."""

    problem_id: str
    question: str
    answer: str
    clean: list[TryNote]
    hints: list[HintNote]


Item = Ask | Generator[Any, Any, Any]
Result = tuple[list[Credit], Note]
Memory = dict[str, Any]  # JSON-able


@dataclass(frozen=True, slots=True)
class Rules:
    """The sections of the config that a game may read."""

    rollouts: Rollouts
    tokens: Tokens
    prompts: Prompts
    adversary: Adversary
    hints: Hints
    streams: Streams


@dataclass(frozen=True, slots=True)
class Context:
    """What a game may know besides its problem; the same for every game of a step, read-only."""

    step: int
    seed: int
    rules: Rules
    memory: Mapping[str, Any]
    count_tokens: Callable[[str], int]
    write_hint: Callable[[Problem, str, int], str]
    """(problem, source, draw) -> hint text, for sources `rule`, `random`, `correct`: no model needed."""


Play = Callable[[Problem, Context], Generator[list[Item], list[Any], Result]]
Remember = Callable[[Memory, Sequence[Note]], Memory]


@dataclass(frozen=True, slots=True)
class Game:
    """A name in the table of games."""

    play: Play
    remember: Remember
    streams: tuple[str, ...]
