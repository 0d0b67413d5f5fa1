"""One role, one turn: clean tries, paid by the judge. GRPO on verifiable rewards, the baseline."""

from collections.abc import Generator, Sequence
from typing import Any

from seirenes_jax import hints
from seirenes_jax.games.base import (
    Context,
    Game,
    Item,
    Memory,
    Note,
    Result,
    peers_of,
    reasoner_credit,
    try_notes,
)
from seirenes_jax.types import REASONER, Ask, Problem, Rollout

CLEAN = "clean"
JUDGE = "math"


def play(problem: Problem, context: Context) -> Generator[list[Item], list[Any], Result]:
    """Ask, compare the tries with each other."""
    (clean,) = yield [solve(problem, None, n=context.rules.rollouts.clean, context=context)]
    buffer = context.rules.tokens.overlong_buffer
    credits = [
        reasoner_credit(rollout, stream=CLEAN, peers=peers_of(rollout, CLEAN), buffer=buffer)
        for rollout in clean
    ]
    return credits, clean_note(problem, clean)


def solve(problem: Problem, hint: str | None, *, n: int, context: Context) -> Ask:
    """The Reasoner's question, with or without a hint; judged against the problem's own answer."""
    messages = hints.reasoner_messages(problem.question, hint, context.rules.prompts)
    return Ask(REASONER, messages, n, problem.answer, JUDGE, context.rules.tokens.reasoner)


def clean_note(problem: Problem, clean: Sequence[Rollout]) -> Note:
    """A note without hints."""
    return Note(
        problem_id=problem.id,
        question=problem.question,
        answer=problem.answer,
        clean=try_notes(clean),
        hints=[],
    )


def remember(memory: Memory, notes: Sequence[Note]) -> Memory:
    """Nothing: every step starts afresh."""
    return memory


GAME = Game(play, remember, (CLEAN,))
