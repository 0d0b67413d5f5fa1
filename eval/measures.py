"""Scored samples -> the numbers of a benchmark. Pure: no files, no judge, no clock.

What was not judged right or wrong carries no score: it is counted under its own name, and
`coverage` says how much of what was asked for the averages stand on. `floor` is what the average
would be if all of it were wrong.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import numpy as np

from eval.items import Item
from eval.responses import CONTEXT, FAILED, OK, OTHER_MODEL, OVER_LIMIT
from eval.votes import maj_at
from seirenes_jax.analysis import Interval, bootstrap, pass_at_k
from seirenes_jax.rng import stable_hash

COPY = "copy"  # of another sample of the same problem, by a server that does not sample
MOST_SLICES = 20
LONG = 32  # characters from which equal texts are no accident


@dataclass(frozen=True, slots=True)
class Scored:
    """One sample after grading."""

    problem_id: str
    hint_id: str | None
    sample: int
    status: str
    verdict: str | None  # None: there was nothing to judge
    extracted: str | None
    finish: str | None
    letters: int
    tokens_ours: int | None
    tokens_server: float | None

    @property
    def counts(self) -> bool:
        return self.status == OK and self.verdict in ("right", "wrong")

    @property
    def right(self) -> bool:
        return self.verdict == "right"


Problems = Mapping[str, Sequence[Scored]]


def by_problem(scored: Iterable[Scored]) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    for one in scored:
        found.setdefault(one.problem_id, []).append(one)
    return found


def marks(samples: Iterable[Scored]) -> list[bool]:
    """Right or not, of those that count."""
    return [one.right for one in samples if one.counts]


def share(samples: Iterable[Scored]) -> float | None:
    seen = marks(samples)
    return sum(seen) / len(seen) if seen else None


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    seen = [value for value in values if value is not None]
    return sum(seen) / len(seen) if seen else None


def rate(samples: Sequence[Scored], test: Callable[[Scored], bool]) -> float | None:
    return sum(map(test, samples)) / len(samples) if samples else None


def powers(n: int) -> list[int]:
    """1, 2, 4, ... and n itself."""
    return sorted({2**i for i in range(n.bit_length()) if 2**i <= n} | {n})


def tenths(share: float, sign: str = "%") -> str:
    """A share in percent to one decimal, halves up, as the page's own script writes it."""
    return f"{Decimal(100 * share).quantize(Decimal('0.1'), ROUND_HALF_UP)}{sign}"


def ends(of: Sequence[float] | None, sign: str = "%") -> str:
    """An interval: [46.3%, 71.2%]."""
    return "" if of is None else f"[{tenths(of[0], sign)}, {tenths(of[1], sign)}]"


def pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]


def interval(values: Sequence[float], name: str) -> Interval | None:
    return bootstrap(values, seed=stable_hash("interval", name) % 2**32) if values else None


def measure(
    scored: Sequence[Scored], items: Sequence[Item], n: int, votes: Mapping[str, Sequence[int]]
) -> dict[str, Any]:
    """The summary of one benchmark, clean. `votes` are the ballots of every problem."""
    problems = by_problem(scored)
    shares = {item.id: share(problems.get(item.id, ())) for item in items}
    known = [value for value in shares.values() if value is not None]
    wanted = len(items) * n
    rights = sum(one.right for one in scored if one.counts)
    avg = interval(known, "avg")
    answered = [one for one in scored if one.status in (OK, COPY)]
    return {
        "avg": None if avg is None else avg.mean,
        "ci95": pair(avg),
        "floor": rights / wanted if wanted else None,
        **_passes(problems, n),
        **_majority(votes, n),
        "n": n,
        "n_problems": len(items),
        "n_samples": sum(one.counts for one in scored),
        "wanted": wanted,
        "coverage": sum(one.counts for one in scored) / wanted if wanted else None,
        **counted(scored, wanted),
        "truncated": rate(answered, lambda one: one.finish == "length"),
        "no_answer": rate(answered, lambda one: one.verdict == "wrong" and one.extracted is None),
        "unreadable": rate(answered, lambda one: one.verdict == "unreadable"),
        "timeout": rate(answered, lambda one: one.verdict == "timeout"),
        "tokens_ours": mean(one.tokens_ours for one in answered),
        "tokens_server": mean(one.tokens_server for one in answered),
        "slices": slices(items, shares),
    }


def counted(scored: Sequence[Scored], wanted: int) -> dict[str, int]:
    """How many samples have no score, and why."""
    status = [one.status for one in scored]
    return {
        "missing": wanted - len(scored) + status.count(FAILED),
        "context": status.count(CONTEXT),
        "distrusted": sum(status.count(name) for name in (OTHER_MODEL, OVER_LIMIT, COPY)),
    }


def _passes(problems: Problems, n: int) -> dict[str, Any]:
    """Unbiased pass@k, over the problems with at least k scored samples."""
    seen = [marks(samples) for samples in problems.values()]
    passes: dict[str, float | None] = {}
    ranges: dict[str, list[float] | None] = {}
    stands: dict[str, int] = {}
    for k in powers(n):
        values = [pass_at_k(len(one), sum(one), k) for one in seen if len(one) >= k]
        found = interval(values, "pass")
        passes[str(k)] = None if found is None else found.mean
        ranges[str(k)] = pair(found)
        stands[str(k)] = len(values)
    return {"pass": passes, "pass_ci95": ranges, "pass_problems": stands}


def _majority(votes: Mapping[str, Sequence[int]], n: int) -> dict[str, Any]:
    """maj@k: the answer given most often among k, ties by expectation."""
    curve: dict[str, float | None] = {}
    whole: Interval | None = None
    for k in powers(n):
        values = [
            maj_at(one, k, stable_hash("maj", problem, k))
            for problem, one in votes.items()
            if len(one) >= k
        ]
        whole = interval(values, "maj")
        curve[str(k)] = None if whole is None else whole.mean
    return {
        "maj": None if whole is None else whole.mean,
        "maj_ci95": pair(whole),
        "maj_k": curve,
    }


def slices(items: Sequence[Item], shares: Mapping[str, float | None]) -> dict[str, Any]:
    """Accuracy by category, level, ...: every column of few values."""
    columns = dict.fromkeys(name for item in items for name in item.slices)
    found: dict[str, Any] = {}
    for column in columns:
        groups: dict[str, list[float | None]] = {}
        for item in items:
            if column in item.slices:
                groups.setdefault(item.slices[column], []).append(shares[item.id])
        if 2 <= len(groups) <= MOST_SLICES:
            found[column] = {
                value: {"avg": mean(one), "n_problems": len(one)}
                for value, one in sorted(groups.items())
            }
    return found


def copies(texts: Mapping[str, Sequence[tuple[str, str]]], drawn: bool) -> set[str]:
    """Keys of samples that only repeat: {question: [(key, text)]}; empty where sampling shows.

    A server that ignores temperature, or gives every request the same seed, answers word for word
    alike; its copies are no samples. Short texts may be equal by themselves.
    """
    several = [one for one in texts.values() if len(one) > 1 and len(one[0][1]) >= LONG]
    same = [one for one in several if len({text for _, text in one}) == 1]
    if not drawn or not several or len(same) < 0.8 * len(several):
        return set()
    return {key for one in same for key, _ in one[1:]}


def usage_gap(scored: Sequence[Scored]) -> str:
    """Words where the server's token counts and ours lie far apart; empty where they agree."""
    both = [
        (one.tokens_ours, one.tokens_server)
        for one in scored
        if one.tokens_ours is not None and one.tokens_server is not None
    ]
    if not both:
        return ""
    ours, theirs = np.asarray(both, np.float64).mean(axis=0)
    if abs(theirs - ours) <= 2.5 + 0.25 * max(ours, theirs):
        return ""
    return f"mean tokens an answer: {theirs:.1f} by the server, {ours:.1f} by our tokenizer"
