"""The alarms of a run as a part of its report: when each held, its value against the threshold, and
the rollouts that triggered it.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from seirenes_jax.html import Cell, Fold, Grid, Lines, Part, Section, Series, Table

Rows = Sequence[Mapping[str, Any]]
SHOWN_SPANS = 5  # of an alarm, whose rollouts are shown: the first ones


def section(metrics: Rows, alarms: Rows) -> Section:
    """What `metrics.jsonl` and `alarms.jsonl` say; empty where nothing was looked at."""
    if not any("signs" in row for row in metrics):
        return Section("", "", ())
    if not alarms:
        return Section("Alarms", "None: no sign of reward hacking crossed its threshold.",
                       (Fold("The signs", _signs(metrics)),))  # fmt: skip
    names = list(dict.fromkeys(row["name"] for row in alarms))
    found = {name: spans([row for row in alarms if row["name"] == name]) for name in names}
    table = Table(
        columns=(("alarm", "code"), ("from step", "whole"), ("to step", "whole"),
                 ("threshold", "number"), ("worst", "number")),
        rows=tuple(
            (name, span[0]["step"], span[-1]["step"], span[0]["threshold"], _worst(span))
            for name in names for span in found[name]
        ),
    )  # fmt: skip
    charts = tuple(_chart(metrics, name, found[name]) for name in names)
    rollouts = tuple(_rollouts(name, found[name]) for name in names)
    note = (
        "What looks like reward hacking, pooled over some steps, against the thresholds of the "
        "knobs alarms.*. Nothing was done about it: read the rollouts that triggered it."
    )
    return Section("Alarms", note, (table, Grid(charts), *rollouts,
                                    Fold("All signs", _signs(metrics))))  # fmt: skip


def spans(rows: Rows) -> list[list[Mapping[str, Any]]]:
    """One alarm's rows, cut where it began anew."""
    found: list[list[Mapping[str, Any]]] = []
    for row in rows:
        if row["began"] or not found:
            found.append([])
        found[-1].append(row)
    return found


def _worst(span: Rows) -> float:
    values = [float(row["value"]) for row in span]
    return max(values) if values[0] > span[0]["threshold"] else min(values)


def _values(metrics: Rows, name: str) -> tuple[list[int], list[float]]:
    seen = [
        (int(row["step"]), row["signs"][name]) for row in metrics
        if "signs" in row and row["signs"].get(name) is not None
    ]  # fmt: skip
    return [step for step, _ in seen], [float(value) for _, value in seen]


def _chart(metrics: Rows, name: str, found: Sequence[Rows]) -> Lines:
    """Its value, what was beyond the threshold in another colour, and the threshold."""
    steps, values = _values(metrics, name)
    threshold = float(found[-1][0]["threshold"])
    on = {int(row["step"]) for span in found for row in span}
    beyond = [value if step in on else None for step, value in zip(steps, values, strict=True)]
    return Lines(name, (
        Series("value", steps, values, 0), Series("alarm", steps, beyond, 1),
        Series("threshold", steps, [threshold] * len(steps), 6),
    ))  # fmt: skip


def _rollouts(name: str, found: Sequence[Rows]) -> Fold:
    """Those kept where each span began and where it was worst."""
    rows: list[tuple[Cell, ...]] = []
    for span in found[:SHOWN_SPANS]:
        worst = next(row for row in span if row["value"] == _worst(span))
        for row in (span[0],) if worst is span[0] else (span[0], worst):
            rows += [
                (row["step"], problem, text)
                for problem, text in zip(row["problem_ids"], row["excerpts"], strict=True)
            ]
    columns = (("step", "whole"), ("problem", "code"), ("rollout", "text"))
    return Fold(f"Rollouts: {name}", (Table(columns, tuple(rows), sortable=False),))


def _signs(metrics: Rows) -> tuple[Part, ...]:
    """Every sign's curve, those of one kind in one chart."""
    names = dict.fromkeys(name for row in metrics if "signs" in row for name in row["signs"])
    charts = []
    for kind, group in groupby(sorted(names), key=lambda name: name.split("/")[0]):
        series = []
        for index, name in enumerate(group):
            steps, values = _values(metrics, name)
            if steps:
                series.append(Series(name, steps, values, index))
        if series:
            charts.append(Lines(kind.replace("_", " "), tuple(series)))
    return (Grid(tuple(charts)),)
