"""Which answers are the same answer: for majority votes, and for answers taken from a hint."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from seirenes_jax.types import Verdict
from seirenes_jax.verify.judge import Judge

Pair = tuple[str, str]
PLAIN = re.compile(r"[-+]?\d{1,60}(?:\.\d{1,60})?")
DRAWS = 64  # subsets of k drawn to estimate maj@k below n
NO_ANSWER = -1


def ordered(one: str, two: str) -> Pair:
    return (one, two) if one <= two else (two, one)


def _at_once(pair: Pair) -> bool | None:
    """Spelled alike, or both plain numbers: no judge is needed."""
    one, two = ("".join(answer.split()).strip("$") for answer in pair)
    if one == two:
        return True
    if PLAIN.fullmatch(one) and PLAIN.fullmatch(two):
        try:
            return Decimal(one) == Decimal(two)
        except InvalidOperation:
            return None
    return None


def same(pairs: Iterable[Pair], judge: Judge) -> dict[Pair, bool]:
    """For each (ordered) pair of answers: do they mean the same?"""
    found: dict[Pair, bool] = {}
    hard: list[Pair] = []
    for pair in dict.fromkeys(pairs):
        quick = _at_once(pair)
        if quick is None:
            hard.append(pair)
        else:
            found[pair] = quick
    cases = [(one, rf"\boxed{{{two}}}") for one, two in hard]
    verdicts = judge.collect(judge.submit(cases)) if cases else []
    found |= {pair: v is Verdict.RIGHT for pair, v in zip(hard, verdicts, strict=True)}
    return found


def pairs_of(answers: Sequence[str]) -> list[Pair]:
    """All pairs of different spellings among wrong answers."""
    spelled = sorted(set(answers))
    return [ordered(a, b) for i, a in enumerate(spelled) for b in spelled[i + 1 :]]


def ballots(
    answers: Sequence[tuple[bool, str | None]], known: Mapping[Pair, bool]
) -> list[int]:
    """The vote of each (right, answer): 0 for the right one, 1.. for classes of wrong ones.

    All right answers equal the gold, so they are one class. No answer is no vote.
    """
    classes: list[str] = []
    votes: list[int] = []
    for right, answer in answers:
        if right:
            votes.append(0)
        elif answer is None:
            votes.append(NO_ANSWER)
        else:
            alike = [one == answer or known[ordered(one, answer)] for one in classes]
            if True not in alike:
                classes.append(answer)
                alike.append(True)
            votes.append(1 + alike.index(True))
    return votes


def wins(votes: Sequence[int]) -> float:
    """Chance that the majority is right, ties drawn at random; 0 where nobody votes."""
    counts = Counter(vote for vote in votes if vote != NO_ANSWER)
    if not counts:
        return 0.0
    top = max(counts.values())
    winners = [vote for vote, count in counts.items() if count == top]
    return (0 in winners) / len(winners)


def maj_at(votes: Sequence[int], k: int, seed: int) -> float:
    """Expected `wins` of k of the votes."""
    if k >= len(votes):
        return wins(votes)
    if k == 1:
        return votes.count(0) / len(votes)
    rng = random.Random(seed)
    return sum(wins(rng.sample(votes, k)) for _ in range(DRAWS)) / DRAWS
