"""What a game is: two signatures.

A game for ONE problem is a generator. It yields a list whose items are Asks or child generators,
receives as many results (a list of Rollouts for an Ask, what the child returned for a child),
yields again, or returns `(credits, note)`. Children run on their own: they do not wait for their
siblings. A separate pure `remember(memory, notes)` folds the notes into JSON-able memory once a
step, in problem order.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from seirenes_jax.knobs import Adversary, Hints, Prompts, Rollouts, Streams, Tokens
from seirenes_jax.types import Ask, Credit, Messages, Problem, Rollout, Verdict


class TryNote(TypedDict):
    text: str
    verdict: str


class HintNote(TypedDict):
    text: str  # what was passed on; the whole answer where no hint could be read
    written: str  # the policy's own sound hint for this question, "" where it wrote none
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
    prompt_tokens: Callable[[Messages], int]
    write_hint: Callable[[Problem, str, int], str]
    """(problem, source, draw) -> hint; sources `rule`, `random`, `correct`: no model needed."""


Play = Callable[[Problem, Context], Generator[list[Item], list[Any], Result]]
Remember = Callable[[Memory, Sequence[Note]], Memory]


@dataclass(frozen=True, slots=True)
class Game:
    """A name in the table of games."""

    play: Play
    remember: Remember
    streams: tuple[str, ...]


def peers_of(rollout: Rollout, stream: str) -> str:
    """The group of one play of one problem; unique over steps, so waiting groups never mix."""
    return f"{stream}:{rollout.name.problem}#{rollout.name.visit}"


def readable(rollout: Rollout) -> bool:
    """Only right and wrong are evidence; unreadable and timed out say nothing of the policy."""
    return rollout.verdict in (Verdict.RIGHT, Verdict.WRONG)


def solve_rate(rollouts: Sequence[Rollout]) -> float | None:
    """Share of right answers among the readable ones; None where none is readable."""
    seen = [rollout.verdict is Verdict.RIGHT for rollout in rollouts if readable(rollout)]
    return sum(seen) / len(seen) if seen else None


def overlong(length: int, limit: int, buffer: int) -> float:
    """DAPO's soft penalty: 0 up to `limit - buffer` tokens, then linear down to -1 at `limit`."""
    over = length - (limit - buffer)
    return -min(over / buffer, 1.0) if buffer > 0 and over > 0 else 0.0


def reasoner_credit(rollout: Rollout, *, stream: str, peers: str, buffer: int) -> Credit:
    """1 for right, 0 for wrong, less the overlong penalty; no weight unless readable."""
    penalty = overlong(len(rollout.tokens), rollout.ask.max_tokens, buffer)
    reward = float(rollout.verdict is Verdict.RIGHT) + penalty
    return Credit(rollout, stream, peers, reward, float(readable(rollout)))


def try_notes(rollouts: Sequence[Rollout]) -> list[TryNote]:
    """Answers as they stand in rollouts.jsonl."""
    return [TryNote(text=rollout.text, verdict=str(rollout.verdict)) for rollout in rollouts]
