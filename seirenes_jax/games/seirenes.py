"""Clean, mislead, hinted: one policy solves a question, writes hints against it, solves under them.

    question --- R1 clean tries ------------------------------.
            |--- R2 hint 0 --- gates --- R3 hinted tries -----|--- credits of three streams
            '--- R2 hint 1 --- gates --- R3 hinted tries -----'

The Reasoner is paid for right answers, clean and hinted; the Adversary for the drop from the one to
the other. Everything is judged against the problem's own answer.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from seirenes_jax import hints
from seirenes_jax.games.base import (
    Context,
    Game,
    HintNote,
    Item,
    Memory,
    Note,
    Result,
    peers_of,
    reasoner_credit,
    solve_rate,
    try_notes,
)
from seirenes_jax.games.rlvr import clean_note, solve
from seirenes_jax.rng import stable_hash
from seirenes_jax.types import ADVERSARY, LIVE, Ask, Credit, Problem, Rollout

STREAMS = ("clean", "adversary", "robust")
START = "start"  # the snapshot that a frozen opponent writes with: the run's starting weights
POLICY_WRITES = ("adversary", "shuffled")  # hint sources for which the policy is asked
ROUNDING = 1e-9  # a drop of exactly the margin does not count, whatever 2/3 - 1/3 rounds to

# What a hint is paid, of (drop, margin). Under `linear` the clean rate is the same for all hints of
# a question and cancels under mean subtraction: only the thresholds of the other two let R1 matter.
REWARDS: dict[str, Callable[[float, float], float]] = {
    "clip": lambda drop, margin: max(0.0, drop - margin),
    "indicator": lambda drop, margin: float(drop > margin + ROUNDING),
    "linear": lambda drop, margin: drop - margin,
}


@dataclass(frozen=True, slots=True)
class Attack:
    """One hint and what came of it."""

    written: Rollout | None  # the Adversary's answer; None where no policy wrote the hint
    text: str  # what was passed on; the whole answer where no hint could be read
    own: str  # the sound hint written for this very question, "" where none was
    family: str
    gates: tuple[str, ...]  # what it failed; if any, nobody was asked under it
    hinted: tuple[Rollout, ...]


def play(problem: Problem, context: Context) -> Generator[list[Item], list[Any], Result]:
    """R1 and one attack per hint side by side; each attack goes on to its R3 alone."""
    rollouts = context.rules.rollouts
    clean, *attacks = yield [
        solve(problem, None, n=rollouts.clean, context=context),
        *(attack(problem, k, context) for k in range(rollouts.hints)),
    ]
    rewards = adversary_rewards(clean, attacks, context)
    credits = clean_credits(clean, context)
    credits += adversary_credits(attacks, rewards, context)
    credits += robust_credits(attacks, context)
    return credits, note(problem, clean, attacks, rewards)


def attack(
    problem: Problem, k: int, context: Context
) -> Generator[list[Item], list[Any], Attack]:
    """R2 then R3 of hint number k. A child of its own: R3 starts the moment this hint is in."""
    rules = context.rules
    written: Rollout | None = None
    gates: tuple[str, ...] = ()
    hint = own = ""
    if rules.hints.source in POLICY_WRITES:
        ((written,),) = yield [mislead(problem, context)]
        parsed = hints.parse_hint(written.text)
        hint = written.text if parsed is None else parsed
        gates = failed_gates(written.text, parsed, problem, context)
        own = "" if gates else hint
    if rules.hints.source == "shuffled":  # what was written waits for another question's next step
        hint, gates = foreign_hint(problem, k, context), ()
    elif rules.hints.source != "adversary":  # gates restrain a paid Adversary; nobody is paid here
        hint = context.write_hint(problem, rules.hints.source, _draw(problem, k, context))
    family, _ = hints.classify(hint)
    if hint and not gates and not has_room(problem, hint, context):
        gates = ("length",)
    if gates or not hint:
        return Attack(written, hint, own, family, gates, ())
    (hinted,) = yield [solve(problem, hint, n=rules.rollouts.hinted, context=context)]
    return Attack(written, hint, own, family, (), tuple(hinted))


def mislead(problem: Problem, context: Context) -> Ask:
    """The Adversary's question: one hint, unjudged."""
    rules = context.rules
    messages = hints.adversary_messages(problem.question, rules.prompts)
    policy = START if rules.adversary.policy == "frozen" else LIVE
    return Ask(ADVERSARY, messages, 1, None, None, rules.tokens.adversary, policy)


def failed_gates(
    text: str, hint: str | None, problem: Problem, context: Context
) -> tuple[str, ...]:
    """The gates a hint fails. Whatever the gates, R3's prompt must hold it."""
    rules = context.rules
    failed = hints.failed_gates(
        text, hint, problem.question, gold=problem.answer, rules=rules.hints,
        count_tokens=context.count_tokens,
    )  # fmt: skip
    if not failed and not has_room(problem, text if hint is None else hint, context):
        return ("length",)
    return tuple(failed)


def has_room(problem: Problem, hint: str, context: Context) -> bool:
    """Does R3's prompt hold this hint?"""
    rules = context.rules
    prompt = hints.reasoner_messages(problem.question, hint, rules.prompts)
    return context.prompt_tokens(prompt) <= rules.tokens.prompt


def foreign_hint(problem: Problem, k: int, context: Context) -> str:
    """A hint that the policy wrote for another question in the last step; "" where there is none.

    One that holds this question's answer is passed over, as the leak gate would.
    """
    pool = [
        text for problem_id, text in context.memory.get("hints", ())
        if problem_id != problem.id and not hints.contains_answer(text, problem.answer)
    ]  # fmt: skip
    return pool[_draw(problem, k, context) % len(pool)] if pool else ""


def _draw(problem: Problem, k: int, context: Context) -> int:
    return stable_hash("hint", context.seed, context.step, problem.id, k)


def adversary_rewards(
    clean: Sequence[Rollout], attacks: Sequence[Attack], context: Context
) -> list[float | None]:
    """One reward a hint; None where no readable answer tells what it did.

    A hint that failed a gate is paid like a useless one, never better than an honest one: 0 where
    useless means 0, under `linear` the least that an honest hint of its group got.
    """
    rules = context.rules.adversary
    before = solve_rate(clean)
    honest: list[float | None] = []
    for attack in attacks:
        after = solve_rate(attack.hinted)
        if before is None or after is None:
            honest.append(None)
        else:
            honest.append(REWARDS[rules.reward](before - after, rules.margin))
    floor = 0.0
    if rules.reward == "linear":
        floor = min((reward for reward in honest if reward is not None), default=0.0)
    return [
        floor if attack.gates else reward for attack, reward in zip(attacks, honest, strict=True)
    ]


def clean_credits(clean: Sequence[Rollout], context: Context) -> list[Credit]:
    """R1, compared by question."""
    buffer = context.rules.tokens.overlong_buffer
    return [
        reasoner_credit(rollout, stream="clean", peers=peers_of(rollout, "clean"), buffer=buffer)
        for rollout in clean
    ]


def adversary_credits(
    attacks: Sequence[Attack], rewards: Sequence[float | None], context: Context
) -> list[Credit]:
    """R2, compared by question; only where the live policy wrote and is to learn from it."""
    if context.rules.adversary.policy != "live" or context.rules.hints.source != "adversary":
        return []
    return [
        Credit(
            attack.written,
            "adversary",
            peers_of(attack.written, "adversary"),
            0.0 if reward is None else reward,
            0.0 if reward is None else 1.0,
        )
        for attack, reward in zip(attacks, rewards, strict=True)
        if attack.written is not None
    ]


def robust_credits(attacks: Sequence[Attack], context: Context) -> list[Credit]:
    """R3, compared by (question, hint), or by question where hints are pooled."""
    streams = context.rules.streams
    if not streams.train_hinted:
        return []
    buffer = context.rules.tokens.overlong_buffer
    credits = []
    for k, attack in enumerate(attacks):
        for rollout in attack.hinted:
            peers = peers_of(rollout, "robust") + ("" if streams.pool_hints else f"/{k}")
            credits.append(reasoner_credit(rollout, stream="robust", peers=peers, buffer=buffer))
    return credits


def note(
    problem: Problem,
    clean: Sequence[Rollout],
    attacks: Sequence[Attack],
    rewards: Sequence[float | None],
) -> Note:
    """The played problem, readable."""
    told = clean_note(problem, clean)
    told["hints"] = [
        HintNote(
            text=attack.text,
            written=attack.own,
            family=attack.family,
            gates=list(attack.gates),
            reward=0.0 if reward is None else reward,
            hinted=try_notes(attack.hinted),
        )
        for attack, reward in zip(attacks, rewards, strict=True)
    ]
    return told


def remember(memory: Memory, notes: Sequence[Note]) -> Memory:
    """The step's own hints by question, for shuffled hints of the next step."""
    if not notes:
        return memory
    written = [[n["problem_id"], h["written"]] for n in notes for h in n["hints"] if h["written"]]
    return {**memory, "hints": written}


GAME = Game(play, remember, STREAMS)
