"""The small files of a sweep's cells: a run distilled into one, and what they say together.

Comparisons are paired by seed: the mean difference with its t-interval over seeds and, beside it,
an interval over problems with the seeds as they are. No jax.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from seirenes_jax import analysis
from seirenes_jax.analysis import Curve
from seirenes_jax.errors import DataError
from seirenes_jax.hints import FAMILIES
from seirenes_jax.report import MEASURES
from seirenes_jax.rng import stable_hash

Record = dict[str, Any]  # cells/<cell>-<seed>.json
Found = Mapping[str, Mapping[int, Record]]  # cell -> seed -> record

KEPT = (
    "before", "after", "n_problems", "seconds", "seconds_by_phase", "peak_rss_gib", "tokens",
    "versions", "device",
)  # fmt: skip
WINDOW = 5  # steps averaged into one point: the same for all runs, so that seeds share their points
FAMILY_WINDOWS = 20
DIGITS = 4


# ---- one run -> one record


def distil(run: Path) -> Record:
    """What is kept of a finished run: a few kB and a digit for every graded answer."""
    summary = analysis.read_summary(run)
    rows = analysis.read_metrics(run)
    if summary is None or not rows:
        raise DataError(f"{run}: no summary.json with metrics; wanted the folder of a finished run")
    steps, shares = analysis.family_shares(rows, FAMILY_WINDOWS)
    record = {
        "summary": {key: summary[key] for key in KEPT if key in summary},
        "steps": rows[-1]["step"],
        "marks": _marks(run),
        "eval": _evals(rows),
        "adv_reward": _smooth(analysis.curve(rows, "adv_reward")),
        "families": {"steps": steps, "shares": shares},
        "crossplay": analysis.read_object(run / "crossplay.json"),
    }
    rounded: Record = _rounded(record)
    return rounded


def _marks(run: Path) -> Record | None:
    """Every answer of the first and last evaluation: 1 right, 0 wrong, - not measured."""
    found = analysis.read_object(run / "eval.json")
    if found is None:
        return None
    signs = {1: "1", 0: "0", None: "-"}
    return {
        "problems": f"{stable_hash(*found['problem_ids']):016x}",  # cells pair on equal ones only
        **{
            when: {name: "".join(signs[m] for m in marks) for name, marks in found[when].items()}
            for when in ("before", "after")
        },
    }


def _evals(rows: Sequence[Mapping[str, Any]]) -> Record:
    """Evaluations in the loop: steps, tokens generated until then, accuracy by name."""
    seen = [row for row in rows if isinstance(row.get("eval"), Mapping)]
    names = dict.fromkeys(name for row in seen for name in row["eval"])
    return {
        "steps": [row["step"] for row in seen],
        "tokens": [row["tokens_total"] for row in seen],
        "accuracy": {name: [row["eval"].get(name) for row in seen] for name in names},
    }


def _smooth(curve: Curve) -> Record:
    bins: dict[int, list[float]] = {}
    for step, value in zip(*curve, strict=True):
        bins.setdefault((step - 1) // WINDOW, []).append(value)
    return {"steps": [(b + 1) * WINDOW for b in bins], "values": [fmean(v) for v in bins.values()]}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


# ---- records -> comparisons


def words() -> dict[str, str]:
    """Measures of a summary in their order, with their words."""
    return {key: ("- " if inner else "") + name for key, name, inner in MEASURES}


def scores(record: Record, when: str) -> dict[str, float]:
    """{measure: accuracy} `before` or `after`; attacks rare at the start as `rare: name`."""
    told = record["summary"][when]
    flat = {key: told[key] for key in words() if told.get(key) is not None}
    rare = told.get("rare") or {}
    return flat | {f"rare: {name}": value for name, value in rare.items() if value is not None}


def answers(record: Record, measure: str) -> np.ndarray | None:
    """1 or 0 for every problem after training, NaN where not measured; None where not kept."""
    if record["marks"] is None:
        return None
    kept = record["marks"]["after"]
    names = FAMILIES if measure == "hinted" else (measure.removeprefix("rare: "),)
    if any(name not in kept for name in names):
        return None
    digits = {"1": 1.0, "0": 0.0, "-": math.nan}
    table = np.array([[digits[sign] for sign in kept[name]] for name in names])
    mean: np.ndarray = table.mean(0)
    return mean


def compare(found: Found, cell: str, baseline: str) -> list[Record]:
    """After training, cell minus baseline, for the measures and over the seeds that both have."""
    seeds = sorted(set(found.get(cell, {})) & set(found.get(baseline, {})))
    pairs = [(found[cell][seed], found[baseline][seed]) for seed in seeds]
    if not pairs:
        return []
    ours, theirs = ([scores(pair[i], "after") for pair in pairs] for i in (0, 1))
    rows = []
    for measure in ours[0]:
        if not all(measure in each for each in (*ours, *theirs)):
            continue
        mine, other = ([each[measure] for each in side] for side in (ours, theirs))
        over_seeds, p = analysis.paired_t(mine, other)
        rows.append({
            "cell": cell, "baseline": baseline, "measure": measure, "seeds": seeds,
            "each_seed": [a - b for a, b in zip(mine, other, strict=True)],
            "mean": over_seeds.mean, "low": over_seeds.low, "high": over_seeds.high, "p": p,
            "problems": _over_problems(pairs, measure),
        })  # fmt: skip
    return rows


def _over_problems(pairs: Sequence[tuple[Record, Record]], measure: str) -> Record | None:
    """The bootstrap over problems; a problem is drawn with its answers in all seeds."""
    gaps = []
    for ours, theirs in pairs:
        mine, other = answers(ours, measure), answers(theirs, measure)
        if mine is None or other is None:
            return None
        gaps.append(mine - other)
    if len({record["marks"]["problems"] for pair in pairs for record in pair}) != 1:
        return None
    table = np.array(gaps)
    measured = ~np.isnan(table)
    kept = measured.any(0)
    if not kept.any():
        return None
    means = np.where(measured, table, 0.0).sum(0)[kept] / measured.sum(0)[kept]
    interval = analysis.bootstrap(means.tolist())
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}


def crossplay_gain(crossplay: Record) -> dict[str, float | None]:
    """What hints cost the starting Reasoner: those of the start, those of the end."""
    cost = crossplay["cost"]
    first, last = cost[0][0], cost[-1][0]
    gain = None if first is None or last is None else last - first
    return {"start_hints": first, "final_hints": last, "gain": gain}


def tabulate(
    name: str, found: Found, *, pairs: Sequence[tuple[str, str]], missing: Sequence[str]
) -> Record:
    """All that table.md says, as data."""
    cells = {
        cell: {
            "seeds": sorted(records),
            "before": _mean([scores(r, "before") for r in records.values()]),
            "after": _mean([scores(r, "after") for r in records.values()]),
            "steps": fmean(r["steps"] for r in records.values()),
            "tokens": fmean(r["summary"]["tokens"]["play"] for r in records.values()),
            "minutes": fmean(r["summary"]["seconds"] for r in records.values()) / 60,
        }
        for cell, records in found.items()
        if records
    }
    everyone = [record for records in found.values() for record in records.values()]
    crossplay = [
        {"cell": cell, "seed": seed, **crossplay_gain(record["crossplay"])}
        for cell, records in found.items()
        for seed, record in sorted(records.items())
        if record["crossplay"] is not None
    ]
    return {
        "name": name,
        "n_problems": sorted({r["summary"]["n_problems"] for r in everyone}),
        "start": _mean([scores(r, "before") for r in everyone]),
        "cells": cells,
        "comparisons": [row for cell, baseline in pairs for row in compare(found, cell, baseline)],
        "crossplay": crossplay,
        "missing": list(missing),
    }


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By measure, over those that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: fmean(row[name] for row in rows if name in row) for name in names}


# ---- comparisons -> words and pictures


def markdown(table: Record, command: str) -> str:
    """The table as committed and read."""
    problems = " or ".join(f"{n:,}" for n in table["n_problems"]) or "no"
    lines = [
        f"# {table['name']}", "", f"`{command}`", "",
        f"{problems} held-out problems, greedy answers; accuracy in percent after training, mean "
        "over seeds. *start*: the weights that all cells begin with.", "",
    ]  # fmt: skip
    if table["cells"]:
        lines += _accuracies(table)
    lines += _differences(table["comparisons"])
    lines += _crossplay(table["crossplay"])
    if table["missing"]:
        lines += ["", "## Missing", "", *(f"- {text}" for text in table["missing"])]
    return "\n".join(lines) + "\n"


def _accuracies(table: Record) -> list[str]:
    cells = table["cells"]
    rows = [["", "start", *cells], ["---", *["---:"] * (1 + len(cells))]]
    columns = [table["start"], *(cell["after"] for cell in cells.values())]
    for measure in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(measure) for column in columns]
        rows.append([_word(measure), *("" if v is None else f"{100 * v:.1f}" for v in values)])
    for key, form in (("tokens", "{:,.0f}"), ("steps", "{:.0f}"), ("minutes", "{:.1f}")):
        rows.append([key, "", *(form.format(cell[key]) for cell in cells.values())])
    rows.append(["seeds", "", *(", ".join(map(str, cell["seeds"])) for cell in cells.values())])
    return _rows(rows)


def _differences(comparisons: Sequence[Record]) -> list[str]:
    lines: list[str] = []
    for cell, baseline in dict.fromkeys((row["cell"], row["baseline"]) for row in comparisons):
        rows = [
            ["points", "difference", "95% over seeds", "95% over problems", "each seed"],
            ["---", *["---:"] * 4],
        ]
        for row in comparisons:
            if (row["cell"], row["baseline"]) == (cell, baseline):
                each = ", ".join(_points(value) for value in row["each_seed"])
                spans = [_span(row), _span(row["problems"])]
                rows.append([_word(row["measure"]), _points(row["mean"]), *spans, each])
        lines += ["", f"## {cell} minus {baseline}", "", *_rows(rows)]
    return lines


def _crossplay(gains: Sequence[Record]) -> list[str]:
    if not gains:
        return []
    head = ["points", "hints of the start", "hints of the end", "gain"]
    rows = [head, ["---", *["---:"] * 3]]
    for row in gains:
        costs = [_points(row[key]) for key in ("start_hints", "final_hints", "gain")]
        rows.append([f"{row['cell']}, seed {row['seed']}", *costs])
    return ["", "## What hints cost the starting Reasoner", "", *_rows(rows)]


def _word(measure: str) -> str:
    return words().get(measure, measure.replace("_", " "))


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}"


def _span(interval: Mapping[str, Any] | None) -> str:
    if interval is None or not math.isfinite(interval["high"]):
        return "unknown"
    return f"{_points(interval['low'])} to {_points(interval['high'])}"


def _rows(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


def draw(found: Found, folder: Path, *, closely: Sequence[str]) -> None:
    """Curves of all cells; of those looked at closely, hint families and the first cross-play."""
    panels = {"clean": _clean, "wrong hints, mean of four": _wrong, "pay of a hint": _pay}
    lines = {
        cell: {title: [c for r in records.values() if (c := read(r))[0]]
               for title, read in panels.items()}
        for cell, records in found.items()
    }  # fmt: skip
    # A line's colour is its place: cells without some panel come last, so that no colour shifts.
    order = sorted(lines, key=lambda cell: sum(not curves for curves in lines[cell].values()))
    most = len(analysis.OKABE_ITO)
    for start in range(0, len(order), most):
        part = order[start : start + most]
        shown = {t: {cell: lines[cell][t] for cell in part if lines[cell][t]} for t in panels}
        shown = {title: each for title, each in shown.items() if each}
        if shown:
            stem = f"curves-{start // most + 1}" if start else "curves"
            analysis.plot_curves(shown, folder / f"{stem}.png")
    looked_at = {
        f"{cell}, seed {seed}": record
        for cell in closely
        for seed, record in sorted(found.get(cell, {}).items())
    }
    tastes = {title: r["families"] for title, r in looked_at.items() if r["families"]["steps"]}
    seen = {name for taste in tastes.values() for name in taste["shares"]}
    rank = {family: i for i, family in enumerate(FAMILIES)}
    names = sorted(seen, key=lambda name: (rank.get(name.partition("/")[0], len(rank)), name))
    families = {  # in one order everywhere, never written = 0: a family keeps its colour
        title: {
            name.rpartition("/")[2].replace("_", " "): [
                (taste["steps"], taste["shares"].get(name, [0.0] * len(taste["steps"])))
            ]
            for name in names[:most]
        }
        for title, taste in tastes.items()
    }
    if families:
        analysis.plot_curves(families, folder / "families.png")
    played = [(title, r["crossplay"]) for title, r in looked_at.items() if r["crossplay"]]
    if played:
        title, crossplay = played[0]
        draw_crossplay(crossplay, folder / "crossplay.png", title)


def draw_crossplay(crossplay: Record, path: Path, title: str) -> None:
    """The matrix of accuracies under hints."""
    steps = [str(step) if step else "start" for step in crossplay["checkpoints"]]
    matrix = np.array(crossplay["hinted"], np.float64)  # null: no sound hint
    analysis.plot_crossplay(matrix, path, adversaries=steps, reasoners=steps, title=title)


def _clean(record: Record) -> Curve:
    return _known(record["eval"]["steps"], record["eval"]["accuracy"].get("clean", ()))


def _wrong(record: Record) -> Curve:
    found = [record["eval"]["accuracy"].get(name, ()) for name in FAMILIES]
    means = [None if None in each else fmean(each) for each in zip(*found, strict=True)]
    return _known(record["eval"]["steps"], means)


def _pay(record: Record) -> Curve:
    return record["adv_reward"]["steps"], record["adv_reward"]["values"]


def _known(steps: Sequence[int], values: Sequence[float | None]) -> Curve:
    pairs = [(s, v) for s, v in zip(steps, values, strict=False) if v is not None]
    return [s for s, _ in pairs], [v for _, v in pairs]
