"""`report.html` of a training run: what was learnt, how, and every kept exchange of the two roles.

Made from the run folder alone, whatever part of it exists yet.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from seirenes_jax import alarm_page, analysis
from seirenes_jax.analysis import curve, share_right
from seirenes_jax.console import clock
from seirenes_jax.html import (
    Card,
    Cards,
    Facts,
    Fold,
    Grid,
    Lines,
    Listing,
    Part,
    Row,
    Section,
    Series,
    Table,
    Tries,
    Words,
    page,
)
from seirenes_jax.report import measures, write_text
from seirenes_jax.settings import leaves

CLIP = 6_000  # characters of a text the page keeps; the file has it all
BUDGET = 24_000_000  # characters of all texts together: what a browser opens without a pause
NOT_PHASES = ("tokens_per_s", "slot_use", "rss_gib", "recompiles", "step")
COLORS = {  # a thing keeps its colour in every chart
    "clean": 0, "hinted": 1, "reasoner": 0, "adversary": 1, "robust": 2,
    "information_overload": 3, "statistical_trap": 5, "semantic_misleading": 1,
    "instruction_contamination": 7, "correct_hint": 2, "correct": 2, "irrelevant_hint": 4,
    "irrelevant": 4, "other": 6, "right": 2, "wrong": 1, "unreadable": 6, "timeout": 3,
}  # fmt: skip
Rows = Sequence[Mapping[str, Any]]


def write_report(run_folder: Path) -> Path:
    """Write the page of a run, finished or not; the path of it."""
    folder = Path(run_folder)
    metrics = analysis.read_metrics(folder)
    summary = analysis.read_summary(folder)
    config = analysis.read_config(folder)
    rollouts, note = sample_rollouts(analysis.iter_lines(folder / "rollouts.jsonl"))
    sections = [
        Section("", "", _facts(metrics, summary)),
        _result(summary),
        Section("Learning", _said(metrics), _charts(metrics)),
        _hints(metrics, rollouts),
        alarm_page.section(metrics, list(analysis.iter_lines(folder / "alarms.jsonl"))),
        Section("The two roles", note, _viewer(rollouts)),
        _about(config, summary),
    ]
    path = folder / "report.html"
    title = folder.resolve().name
    write_text(path, page(title, _subtitle(metrics, config), [s for s in sections if s.parts]))
    return path


def _subtitle(metrics: Rows, config: Mapping[str, Any] | None) -> str:
    done = metrics[-1]["step"] if metrics else 0
    if config is None:
        return f"{done} steps"
    return f"{config['game']} \u00b7 {done} of {config['steps']} steps \u00b7 seed {config['seed']}"


def _said(metrics: Rows) -> str:
    if not metrics:
        return "No step is finished yet."
    return (
        "Point at a chart for its values; click a name to hide its line. Thick lines are running "
        "means over the pale ones. Training accuracies are of the step's own rollouts, sampled; "
        "held-out ones are greedy."
    )


# ---- numbers


def _facts(metrics: Rows, summary: Mapping[str, Any] | None) -> tuple[Part, ...]:
    items: list[tuple[str, str, str]] = []
    if summary is not None:
        for words, before, after, inner in measures(summary)[:8]:
            if not inner and after is not None and words.split(" (")[0] in ("clean", "hinted"):
                was = "" if before is None else f"held-out; before {before:.1%}"
                items.append((words.split(" (")[0].capitalize(), f"{after:.1%}", was))
        items.append(("Time", clock(summary["seconds"]), f"{summary['device']}"))
        items.append(("Tokens generated", f"{sum(summary['tokens'].values()):,}", "all phases"))
    elif metrics:
        last = metrics[-1]
        for name, key in (("Clean", "clean_acc"), ("Hinted", "hinted_acc")):
            if last.get(key) is not None:
                items.append((name, f"{last[key]:.1%}", "training rollouts, last step"))
        if last.get("tokens_total") is not None:
            items.append(("Tokens generated", f"{last['tokens_total']:,}", "in play, so far"))
    return (Facts(tuple(items)),) if items else ()


def _result(summary: Mapping[str, Any] | None) -> Section:
    if summary is None:
        return Section("", "", ())
    rows = measures(summary)
    table = Table(
        columns=(
            ("accuracy", "text"), ("before", "percent"), ("after", "percent"), ("change", "points")
        ),
        rows=tuple(
            (words, before, after, None if before is None or after is None else after - before)
            for words, before, after, _ in rows
        ),
        inner=tuple(i for i, row in enumerate(rows) if row[3]),
        sortable=False,
    )  # fmt: skip
    seconds, tokens = summary["seconds_by_phase"], summary["tokens"]
    phases = Table(
        columns=(("phase", "text"), ("time", "seconds"), ("tokens", "whole")),
        rows=tuple(
            (name.replace("_", " "), seconds.get(name), tokens.get(name))
            for name in dict.fromkeys((*seconds, *tokens))
        ),
    )
    note = f"{summary['n_problems']} held-out problems, answered greedily. Change is in points."
    return Section("Before and after", note, (Grid((table, phases)),))


def _lines(
    rows: Rows,
    title: str,
    names: Mapping[str, str],
    *,
    format: str = "number",
    note: str = "",
    stacked: bool = False,
) -> list[Part]:
    """One chart of {dotted key: name}; no chart where nothing was measured."""
    series = []
    for index, (path, name) in enumerate(names.items()):
        steps, values = curve(rows, path)
        if steps:
            color = COLORS.get(path.split(".")[-1].removesuffix("_acc"), index)
            series.append(Series(name, steps, values, color))
    if not series:
        return []
    smooth = 0 if stacked else len(series[0].x) // 40 * 2 + 1
    unit = (0.0, 1.0) if format == "percent" and not stacked else None
    if stacked:
        series = _on_common(rows, series)
    return [
        Lines(title, tuple(series), note=note, format=format, range=unit, smooth=smooth,
              stacked=stacked)
    ]  # fmt: skip


def _on_common(rows: Rows, series: Sequence[Series]) -> list[Series]:
    """Areas can only be stacked over the same steps: what is missing counts as nothing."""
    steps = [row["step"] for row in rows]
    found = []
    for one in series:
        value = dict(zip(one.x, one.y, strict=True))
        found.append(Series(one.name, steps, [value.get(step, 0.0) for step in steps], one.color))
    return found


def _inside(rows: Rows, key: str) -> dict[str, str]:
    """{`key.name`: name} of every name some row has under that key."""
    names = (name for row in rows if isinstance(row.get(key), Mapping) for name in row[key])
    return {f"{key}.{name}": name.replace("_", " ") for name in dict.fromkeys(names)}


def _charts(rows: Rows) -> tuple[Part, ...]:
    phases = {
        path: name
        for path, name in _inside(rows, "time").items()
        if path.removeprefix("time.") not in NOT_PHASES
    }
    accuracy = {"clean_acc": "clean", "hinted_acc": "hinted"}
    stop = _inside(rows, "stop_length")
    first = [
        *_lines(rows, "Accuracy, training rollouts", accuracy, format="percent"),
        *_lines(rows, "Accuracy, held-out", _inside(rows, "eval"), format="percent"),
        *_lines(rows, "Reward of the adversary", {"adv_reward": "reward", "drop": "drop"}),
        *_lines(rows, "Live groups", _inside(rows, "live"), note="groups that carry a signal"),
        *_lines(rows, "Entropy", _inside(rows, "entropy"), note="nats a token"),
        *_lines(rows, "Length", _inside(rows, "length"), note="tokens an answer"),
    ]
    more = [
        *_lines(rows, "Reward", _inside(rows, "reward")),
        *_lines(rows, "Loss", _inside(rows, "loss")),
        *_lines(rows, "Gradient norm", {"grad_norm": "norm"}),
        *_lines(rows, "Largest ratio", {"ratio_max": "ratio"}),
        *_lines(rows, "Clipped tokens", {"clip_frac": "share"}),
        *_lines(rows, "KL of trainer and sampler", {"kl_behaviour": "KL"}),
        *_lines(rows, "Cut at the limit", stop, format="percent"),
        *_lines(rows, "Verdicts", _inside(rows, "verdicts"), stacked=True),
        *_lines(rows, "Mastered problems", {"mastered": "problems"}),
        *_lines(rows, "Speed", {"time.tokens_per_s": "tokens/s"}, note="tokens a second"),
        *_lines(rows, "Time of a step", phases, note="seconds by phase", stacked=True),
        *_lines(rows, "Memory", {"time.rss_gib": "resident"}, note="GiB, all processes"),
    ]
    if not first and not more:
        return ()
    parts: list[Part] = [Grid(tuple(first))] if first else []
    return (*parts, Fold("Optimizer, verdicts, speed and memory", (Grid(tuple(more)),)))


def _hints(metrics: Rows, rollouts: Rows) -> Section:
    counted = any(row.get("families") for row in metrics)
    steps, shares = analysis.family_shares(metrics if counted else rollouts)
    parts: list[Part] = []
    if len(steps) > 1:
        series = tuple(
            Series(
                name.replace("_", " ").replace("/", ": "), steps, values, COLORS.get(name, index)
            )
            for index, (name, values) in enumerate(shares.items())
        )
        parts.append(
            Lines("Families of hints", series, note="share of the kept hints", format="percent",
                  range=(0.0, 1.0), stacked=True)
        )  # fmt: skip
    parts += _lines(metrics, "Hints refused, by gate", _inside(metrics, "gates"))
    stats = analysis.hint_statistics(rollouts)
    if len(stats) > 1:
        names = {"distinct_1": "distinct words", "distinct_2": "distinct pairs",
                 "repeated": "said twice", "gated": "refused"}  # fmt: skip
        parts += _lines(stats, "Variety of hints", names, format="percent")
        parts += _lines(stats, "Length of hints", {"words": "words"}, note="words a hint")
    note = "What the adversary writes, and how that moves." if parts else ""
    return Section("Hints", note, (Grid(tuple(parts)),) if parts else ())


# ---- the viewer


def sample_rollouts(rows: Iterator[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """Rows for the page, long texts clipped, steps thinned evenly where all would be too much."""
    kept: list[tuple[int, dict[str, Any]]] = []
    total, stride, seen, steps = 0, 1, -1, 0
    for row in rows:
        if row["step"] != seen:
            seen, steps = row["step"], steps + 1
        if (steps - 1) % stride:
            continue
        clipped = _clip(row)
        kept.append((steps - 1, clipped))
        total += _size(clipped)
        while total > BUDGET and stride < steps:
            stride *= 2
            kept = [(at, one) for at, one in kept if at % stride == 0]
            total = sum(_size(one) for _, one in kept)
    note = f"{len(kept)} problems with all their tries and hints."
    if stride > 1:
        note += f" Every {stride}th step is shown; rollouts.jsonl has them all."
    note += " Choose a try by its sign: \u2713 right, \u2717 wrong, ? unreadable, \u25f7 timed out."
    return [row for _, row in kept], note


def _clip(value: Any) -> Any:
    if isinstance(value, str) and len(value) > CLIP:
        half = CLIP // 2
        left = f"\n\u2026 {len(value) - CLIP} characters left out \u2026\n"
        return value[:half] + left + value[-half:]
    if isinstance(value, list):
        return [_clip(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _clip(inner) for key, inner in value.items()}
    return value


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value) + 4
    if isinstance(value, dict):
        return sum(_size(inner) for inner in value.values())
    return sum(_size(inner) for inner in value) if isinstance(value, list) else 4


def _viewer(rollouts: Rows) -> tuple[Part, ...]:
    if not rollouts:
        return ()
    hints = [hint for row in rollouts for hint in row["hints"]]
    families = sorted({hint["family"] for hint in hints})
    filters = [("lost", "An answer was not read")]
    if hints:
        filters = [
            ("broke", "The hint broke it"), ("helped", "The hint helped"), ("gated", "Refused"),
            *filters,
        ]  # fmt: skip
    facets = tuple((f"family:{name}", name.replace("_", " ")) for name in families)
    return (Cards(tuple(_card(row) for row in rollouts), tuple(filters), "Any family", facets),)


def _card(row: Mapping[str, Any]) -> Card:
    clean = share_right(row["clean"])
    question = Words("problem", row["question"], ((f"answer {row['answer']}", ""),))
    tries = Tries("Reasoner, clean", _tries(row["clean"]), _first(row["clean"], "right"))
    rows = [Row(((question,), (tries,)), _lost(row["clean"]), "problem", always=True)]
    rows += [_hint_row(number, hint, clean) for number, hint in enumerate(row["hints"], 1)]
    return Card(row["step"], f"Step {row['step']}", row["problem_id"], tuple(rows))


def _hint_row(number: int, hint: Mapping[str, Any], clean: float | None) -> Row:
    hinted = share_right(hint["hinted"])
    flags = [f"family:{hint['family']}", *_lost(hint["hinted"])]
    badges = [(hint["family"].replace("_", " "), "")]
    badges += [(f"refused: {gate}", "bad") for gate in hint["gates"]]
    if hint["gates"]:
        flags.append("gated")
    if clean is not None and hinted is not None and hinted != clean:
        broke = hinted < clean
        flags.append("broke" if broke else "helped")
        badges.append((
            f"{'broke it' if broke else 'helped'}: {clean:.0%} \u2192 {hinted:.0%}",
            "bad" if broke else "good",
        ))  # fmt: skip
    if hint["reward"] is not None:
        badges.append((f"reward {hint['reward']:.2f}", ""))
    words = Words(f"Adversary, hint {number}", hint["text"], tuple(badges))
    first = _first(hint["hinted"], "wrong")
    tries = Tries(f"Reasoner, under hint {number}", _tries(hint["hinted"]), first)
    tone = "hint flagged" if "broke" in flags else "hint"
    return Row(((words,), (tries,)), tuple(flags), tone)


def _tries(tries: Rows) -> tuple[tuple[str, str], ...]:
    return tuple((one["verdict"], one["text"]) for one in tries)


def _first(tries: Rows, verdict: str) -> int:
    """The try that tells most stands open."""
    return next((i for i, one in enumerate(tries) if one["verdict"] == verdict), 0)


def _lost(tries: Rows) -> tuple[str, ...]:
    return ("lost",) if any(t["verdict"] in ("unreadable", "timeout") for t in tries) else ()


# ---- what it was


def _about(config: Mapping[str, Any] | None, summary: Mapping[str, Any] | None) -> Section:
    parts: list[Part] = []
    if summary is not None:
        parts.append(Listing(str(summary["command"])))
        versions = tuple((name, str(version)) for name, version in summary["versions"].items())
        columns = (("package", "text"), ("version", "code"))
        parts.append(Fold("Versions", (Table(columns, versions),)))
    if config is not None:
        knobs = tuple((name, _knob(value)) for name, value in leaves(config))
        columns = (("knob", "code"), ("value", "code"))
        parts.append(Fold("Every knob", (Table(columns, knobs),)))
    return Section("How it was made", "", tuple(parts))


def _knob(value: object) -> str | int | float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
