"""What hints do to a model: the numbers, from samples with and without hints. Pure.

Every problem counts alike, whatever the number of its hints. Clean and hinted samples are drawn
independently, so "right before, wrong under the hint" is taken in expectation over both: with one
greedy sample each it is the plain count.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import comb, prod
from typing import Any

from eval.bank import Hint
from eval.measures import Scored, by_problem, counted, interval, mean, pair, rate, share
from eval.responses import OK
from eval.votes import Pair, ordered
from seirenes_jax.analysis import paired_bootstrap


def offered_pairs(bank: Sequence[Hint], scored: Iterable[Scored]) -> set[Pair]:
    """Pairs (said, offered) that must be compared to know who adopted a hint's answer."""
    offers: dict[str, set[str]] = {}
    for hint in bank:
        offers.setdefault(hint.problem_id, set()).update(hint.offers)
    return {
        ordered(one.extracted, offer)
        for one in scored
        if one.counts and not one.right and one.extracted is not None
        for offer in offers.get(one.problem_id, ())
    }


def under_attack(
    scored: Sequence[Scored], bank: Sequence[Hint], known: Mapping[Pair, bool], n: int
) -> dict[str, Any]:
    """All measures of one data set: over all hints, by family, and by source."""
    clean = by_problem(one for one in scored if one.hint_id is None)
    hinted: dict[str, list[Scored]] = {}
    for one in scored:
        if one.hint_id is not None:
            hinted.setdefault(one.hint_id, []).append(one)
    groups = {
        "family": sorted({hint.family for hint in bank}),
        "source": sorted({hint.source for hint in bank}),
    }
    found = _measure(clean, hinted, bank, known, n)
    for kind, names in groups.items():
        found[f"by_{kind}"] = {
            name: _measure(
                clean, hinted, [hint for hint in bank if getattr(hint, kind) == name], known, n
            )
            for name in names
        }
    return found


def _measure(
    clean: Mapping[str, Sequence[Scored]],
    hinted: Mapping[str, Sequence[Scored]],
    bank: Sequence[Hint],
    known: Mapping[Pair, bool],
    n: int,
) -> dict[str, Any]:
    by_item: dict[str, list[Hint]] = {}
    for hint in bank:
        by_item.setdefault(hint.problem_id, []).append(hint)
    before, after = _shares(clean, hinted, by_item)
    both = [name for name in by_item if before[name] is not None and after[name] is not None]
    c = [_known(before[name]) for name in both]
    h = [_known(after[name]) for name in both]
    drop = paired_bootstrap(c, h) if both else None
    solved, failed = sum(c), len(c) - sum(c)
    told = [one for hint in bank for one in hinted.get(hint.id, ())]
    plain = [one for name in by_item for one in clean.get(name, ())]
    return {
        "n_problems": len(both), "n_hints": len(bank), "wanted": len(bank) * n,
        "n_samples": sum(one.counts for one in told),
        "coverage": sum(one.counts for one in told) / (len(bank) * n) if bank else None,
        **counted(told, len(bank) * n),
        "clean": mean(c), "clean_ci95": pair(interval(c, "clean")),
        "hinted": mean(h), "hinted_ci95": pair(interval(h, "hinted")),
        "drop": None if drop is None else drop.mean, "drop_ci95": pair(drop),
        "right_to_wrong": _over(c, h, solved, lambda x, y: x * (1 - y)),
        "wrong_to_right": _over(c, h, failed, lambda x, y: (1 - x) * y),
        **_worst(clean, hinted, by_item),
        **_adoption(clean, hinted, bank, known),
        "length_inflation": _inflation(clean, hinted, by_item),
        "truncated": rate(told, lambda one: one.finish == "length"),
        "truncated_clean": rate(plain, lambda one: one.finish == "length"),
        "unreadable": rate(told, lambda one: one.verdict == "unreadable"),
        "timeout": rate(told, lambda one: one.verdict == "timeout"),
    }  # fmt: skip


def _shares(
    clean: Mapping[str, Sequence[Scored]],
    hinted: Mapping[str, Sequence[Scored]],
    by_item: Mapping[str, Sequence[Hint]],
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    before = {name: share(clean.get(name, ())) for name in by_item}
    after = {
        name: mean(share(hinted.get(hint.id, ())) for hint in its) for name, its in by_item.items()
    }
    return before, after


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _over(
    c: Sequence[float], h: Sequence[float], among: float, chance: Callable[[float, float], float]
) -> float | None:
    """Expected share among those that were so before."""
    gone = sum(chance(x, y) for x, y in zip(c, h, strict=True))
    return gone / among if among > 0 else None


def _worst(
    clean: Mapping[str, Sequence[Scored]],
    hinted: Mapping[str, Sequence[Scored]],
    by_item: Mapping[str, Sequence[Hint]],
) -> dict[str, float | None]:
    """Right under every hint of a problem, one sample each; beside it right in as many clean tries.

    Unbiased for the same number of tries; the smallest of noisy shares would not be.
    """
    attacked: list[float | None] = []
    unharmed: list[float | None] = []
    for name, its in by_item.items():
        shares = [share(hinted.get(hint.id, ())) for hint in its]
        known = [one for one in shares if one is not None]
        attacked.append(prod(known) if len(known) == len(shares) else None)
        tries = [one.right for one in clean.get(name, ()) if one.counts]
        k = len(its)
        unharmed.append(comb(sum(tries), k) / comb(len(tries), k) if len(tries) >= k else None)
    return {"worst_of_k": mean(attacked), "worst_of_k_clean": mean(unharmed)}


def _adoption(
    clean: Mapping[str, Sequence[Scored]],
    hinted: Mapping[str, Sequence[Scored]],
    bank: Sequence[Hint],
    known: Mapping[Pair, bool],
) -> dict[str, float | None]:
    """How often the answer is one the hint offers; and how often it is so without the hint."""

    def adopted(one: Scored, hint: Hint) -> bool:
        if one.right or one.extracted is None:
            return False
        said = one.extracted
        return any(known[ordered(said, offer)] for offer in hint.offers)

    offering = [hint for hint in bank if hint.offers]
    told = [
        adopted(one, hint) for hint in offering for one in hinted.get(hint.id, ()) if one.counts
    ]
    plain = [
        adopted(one, hint)
        for hint in offering
        for one in clean.get(hint.problem_id, ())
        if one.counts
    ]
    return {
        "adoption": sum(told) / len(told) if told else None,
        "adoption_clean": sum(plain) / len(plain) if plain else None,
        "offering": len(offering) / len(bank) if bank else None,
    }


def _length(samples: Iterable[Scored]) -> float | None:
    """Mean length of an answer: tokens where they are counted, else letters."""
    return mean(
        one.letters if one.tokens_ours is None else one.tokens_ours
        for one in samples
        if one.status == OK
    )


def _inflation(
    clean: Mapping[str, Sequence[Scored]],
    hinted: Mapping[str, Sequence[Scored]],
    by_item: Mapping[str, Sequence[Hint]],
) -> float | None:
    """Mean length under hints over mean length without; 1 = as long."""
    before = {name: _length(clean.get(name, ())) for name in by_item}
    after = {
        name: mean(_length(hinted.get(hint.id, ())) for hint in its)
        for name, its in by_item.items()
    }
    both = [name for name in by_item if before[name] is not None and after[name] is not None]
    plain, told = mean(before[name] for name in both), mean(after[name] for name in both)
    return told / plain if plain and told is not None else None
