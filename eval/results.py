"""Finished folders read back, and what can be said of several of them together. Pure but for files.

Runs are compared problem by problem, only where both were asked the same rows; every p-value of a
page is corrected for their number.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eval import folder, pins
from eval.measures import Scored, by_problem, mean, share
from eval.study import Study
from seirenes_jax.analysis import (
    Interval,
    holm,
    iter_lines,
    paired_bootstrap,
    read_object,
    sign_flip,
)
from seirenes_jax.errors import ConfigError
from seirenes_jax.rng import stable_hash


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation, graded."""

    path: Path
    name: str  # of the model; with the folder where two are alike
    study: Study
    summary: Mapping[str, Any]
    scored: Mapping[str, Sequence[Scored]]  # by data set

    def clean(self, dataset: str) -> dict[str, float | None]:
        """Accuracy of each problem without hints."""
        plain = [one for one in self.scored[dataset] if one.hint_id is None]
        return {name: share(its) for name, its in by_problem(plain).items()}

    def hinted(self, dataset: str) -> dict[str, float | None]:
        """Accuracy of each problem under its hints, every hint alike."""
        told = by_problem(one for one in self.scored[dataset] if one.hint_id is not None)
        found: dict[str, float | None] = {}
        for name, its in told.items():
            hints = dict.fromkeys(one.hint_id for one in its)
            found[name] = mean(
                share([one for one in its if one.hint_id == hint]) for hint in hints
            )
        return found


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """The folders, each with a name of its own."""
    runs = [_read(path) for path in paths]
    names = [run.study.model for run in runs]
    named: list[Run] = []
    for run, name in zip(runs, names, strict=True):
        twin = names.count(name) > 1
        words = f"{name} ({os.path.normpath(run.path)})" if twin else name
        named.append(Run(run.path, words, run.study, run.summary, run.scored))
    return named


def _read(path: Path) -> Run:
    study, _ = folder.read(path)
    summary = read_object(path / "graded" / "summary.json")
    if summary is None:
        raise ConfigError(f"{path}: not graded yet; python -m eval.run --regrade --out={path}")
    names = [field.name for field in fields(Scored)]
    scored = {
        name: [
            Scored(**{key: row[key] for key in names})
            for row in iter_lines(path / "graded" / f"{name}.jsonl")
        ]
        for name in summary["datasets"]
    }
    return Run(path, study.model, study, summary, scored)


@dataclass(frozen=True, slots=True)
class Gap:
    """A paired comparison over the problems both have measured."""

    dataset: str
    what: str  # accuracy | accuracy under hints
    one: str
    two: str  # the gap is two minus one
    gap: Interval
    p: float
    corrected: float


def gaps(runs: Sequence[Run]) -> list[Gap]:
    """All pairs of runs on all sets they share."""
    found: list[tuple[str, str, str, str, Interval, float]] = []
    for at, one in enumerate(runs):
        for two in runs[at + 1 :]:
            for dataset in _shared(one, two):
                for what, left, right in (
                    ("accuracy", one.clean(dataset), two.clean(dataset)),
                    ("accuracy under hints", one.hinted(dataset), two.hinted(dataset)),
                ):
                    gap = _gap(left, right)
                    if gap is not None:
                        found.append((dataset, what, one.name, two.name, *gap))
    corrected = holm([entry[5] for entry in found])
    return [Gap(*entry, corrected[at]) for at, entry in enumerate(found)]


def _shared(one: Run, two: Run) -> list[str]:
    """Sets of the same rows; under hints, only if it was the same bank."""
    return [
        name
        for name, measured in one.summary["datasets"].items()
        if two.summary["datasets"].get(name, {}).get("data_sha256") == measured["data_sha256"]
    ]


def _gap(
    left: Mapping[str, float | None], right: Mapping[str, float | None]
) -> tuple[Interval, float] | None:
    pairs = [
        (a, b)
        for name in left
        if (a := left[name]) is not None and (b := right.get(name)) is not None
    ]
    if not pairs:
        return None
    before, after = [a for a, _ in pairs], [b for _, b in pairs]
    seed = stable_hash("gap", len(pairs)) % 2**32
    return paired_bootstrap(after, before, seed=seed), sign_flip(after, before, seed=seed)


def notes(runs: Sequence[Run]) -> list[str]:
    """What a reader must know before comparing."""
    found: list[str] = []
    for run in runs:
        for name, one in run.summary["datasets"].items():
            if one["coverage"] is not None and one["coverage"] < 1:
                lost = {
                    key: one[key] for key in ("missing", "context", "distrusted") if one[key]
                }
                reasons = ", ".join(f"{key} {number}" for key, number in lost.items())
                unread = 100 * ((one["unreadable"] or 0) + (one["timeout"] or 0))
                found.append(
                    f"{run.name}, {name}: {one['coverage']:.2%} of the samples have a score"
                    + (f" ({reasons})" if reasons else "")
                    + (f"; {unread:.2f}% unreadable or timed out" if unread else "")
                )
            if one["data_state"] == pins.FIRST:
                found.append(f"{name}: the hash of its rows was not known; pinned at this use")
            if one["excluded"]:
                found.append(f"{name}: without {', '.join(one['excluded'])} (no usable answer)")
            date = run.summary["model"]["date"]
            if date and one["published"] and one["published"] <= date:
                found.append(
                    f"{run.name}, {name}: its problems are of {one['published']}, the model of "
                    f"{date}: it may have been trained on them"
                )
        for name, lie in run.summary["server"]["lies"].items():
            found.append(f"{run.name}: the server ({name}, {lie['count']}): {lie['example']}")
    if len({str(run.summary["sampling"]) for run in runs}) > 1:
        found.append("The runs were not sampled alike: see the parameters below")
    if len({tuple(hint.id for hint in run.study.bank) for run in runs if run.study.bank}) > 1:
        found.append("The runs were not attacked with the same hints")
    return list(dict.fromkeys(found))
