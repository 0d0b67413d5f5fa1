"""The page of `launch/compare.py`: several runs side by side, made from their folders alone.

Curves over one another, the knobs in which they differ, before and after with paired tests, and
what each of them made of the same problems.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seirenes_jax import analysis
from seirenes_jax.analysis import share_right
from seirenes_jax.errors import ConfigError
from seirenes_jax.html import (
    Card,
    Cards,
    Cell,
    Fold,
    Grid,
    Lines,
    Listing,
    Part,
    Prose,
    Row,
    Section,
    Series,
    Table,
    Tries,
    Words,
    page,
)
from seirenes_jax.report import measures, write_text
from seirenes_jax.report_page import sample_rollouts
from seirenes_jax.settings import leaves

MOST = 8  # runs: as many as there are colours
SHOWN = 300  # problems that several runs played
HINTS = 4  # of a problem, a run
MARKED = 60  # held-out problems on which runs differ, in one table


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read."""

    name: str
    folder: Path
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None
    marks: Mapping[str, Any] | None  # eval.json: held-out marks, problem by problem


def read(folders: Sequence[Path]) -> list[Run]:
    """Runs by their shortest telling names; ConfigError where a folder holds no run."""
    if not 2 <= len(folders) <= MOST:
        raise ConfigError(f"got {len(folders)} runs; wanted 2 to {MOST} run folders")
    runs = []
    for name, folder in zip(_names(folders), folders, strict=True):
        config = analysis.read_config(folder)
        if config is None:
            raise ConfigError(f"{folder}: no config.json there; wanted a run folder")
        runs.append(Run(
            name, folder, config, analysis.read_metrics(folder), analysis.read_summary(folder),
            analysis.read_object(folder / "eval.json"),
        ))  # fmt: skip
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """The ends of the paths, as long as tells them apart, without what all have in common."""
    paths = [folder.resolve().parts for folder in folders]
    if len(set(paths)) < len(paths):
        raise ConfigError(f"got {', '.join(map(str, folders))}; wanted each run once")
    for count in range(1, max(map(len, paths)) + 1):
        ends = [path[-count:] for path in paths]
        if len(set(ends)) == len(ends):
            break
    own = [at for at in range(1, count + 1) if len({end[-at:][:1] for end in ends}) > 1]
    return ["/".join(end[-at] for at in reversed(own) if at <= len(end)) for end in ends]


def write_comparison(folders: Sequence[Path], out: Path, *, command: str) -> Path:
    """Write the page; its path."""
    runs = read(folders)
    sections = [
        _runs(runs),
        _outcome(runs),
        Section("Curves", "By step, and held-out accuracy by tokens too: steps differ in length.",
                _curves(runs)),
        _side_by_side(runs),
        Section("How it was made", "", (Listing(command),)),
    ]  # fmt: skip
    title = " against ".join(run.name for run in runs)
    text = page(title, f"{len(runs)} runs", [section for section in sections if section.parts])
    write_text(out, text)
    return out


# ---- what they are


def _runs(runs: Sequence[Run]) -> Section:
    table = Table(
        (("run", "text"), ("steps", "whole"), ("tokens of play", "whole"), ("time", "seconds"),
         ("device", "text"), ("state", "text")),
        tuple(_about(run) for run in runs), sortable=False,
    )  # fmt: skip
    knobs = [dict(leaves(run.config)) for run in runs]
    paths = list(dict.fromkeys(path for one in knobs for path in one))
    rows = tuple(
        (path, *(_knob(one[path]) if path in one else None for one in knobs))
        for path in paths
        if len({repr(one.get(path)) for one in knobs}) > 1
    )
    differing = Table((("knob", "code"), *((run.name, "code") for run in runs)), rows)
    told: Part = differing if rows else Prose("All knobs are the same.")
    return Section("The runs", "Knobs in which they differ; a dash: that run knows no such knob.",
                   (table, told))  # fmt: skip


def _about(run: Run) -> tuple[Cell, ...]:
    steps = run.metrics[-1]["step"] if run.metrics else 0
    tokens = run.metrics[-1]["tokens_total"] if run.metrics else 0
    summary = run.summary
    if summary is None:
        return run.name, steps, tokens, None, None, "not finished"
    return run.name, steps, tokens, summary["seconds"], summary["device"], "finished"


def _knob(value: object) -> str | int | float:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


# ---- what came of them


def _outcome(runs: Sequence[Run]) -> Section:
    """After training, every run against the first."""
    ended = [run for run in runs if run.summary is not None]
    if not ended:
        return Section("", "", ())
    found = [{words: (b, a) for words, b, a, _ in measures(run.summary or {})} for run in ended]
    names = list(dict.fromkeys(words for one in found for words in one))
    columns = [("accuracy", "text")]
    for run in ended:
        columns += [(f"{run.name}, before", "percent"), (f"{run.name}, after", "percent")]
    rows = tuple(
        (name, *(value for one in found for value in one.get(name, (None, None))))
        for name in names
    )
    parts: list[Part] = [Table(tuple(columns), rows, sortable=False)]
    marked = [run for run in ended if run.marks is not None]
    for other in marked[1:]:
        parts += _paired(marked[0], other)
    note = (
        "Held-out problems, greedy. Differences are paired problem by problem: mean with a 95% "
        "bootstrap interval over problems; p by random signs, corrected for the number of rows "
        "(Holm). They say what these two sets of weights do, not what other seeds would."
    )
    return Section("Before and after", note, tuple(parts))


def _paired(first: Run, other: Run) -> list[Part]:
    """Rows (measure, problems, difference with interval, p), and problems that tell them apart."""
    ours, theirs = first.marks or {}, other.marks or {}
    at = {one: i for i, one in enumerate(ours["problem_ids"])}
    pairs = [(at[one], j) for j, one in enumerate(theirs["problem_ids"]) if one in at]
    if not pairs:
        return [Prose(f"{other.name} and {first.name} were measured on no common problem.")]
    gaps = {
        name: ([float(theirs["after"][name][j]) for _, j in pairs],
               [float(ours["after"][name][i]) for i, _ in pairs])
        for name in ours["after"] if ours["after"][name] and theirs["after"].get(name)
    }  # fmt: skip
    chances = analysis.holm([analysis.sign_flip(*gap) for gap in gaps.values()])
    rows = []
    for (name, gap), chance in zip(gaps.items(), chances, strict=True):
        found = analysis.paired_bootstrap(*gap)
        rows.append((name.replace("_", " "), found.n, found.mean, found.low, found.high, chance))
    title = f"{other.name} minus {first.name}"
    table = Table(
        (("accuracy", "text"), ("problems", "whole"), ("difference", "points"), ("from", "points"),
         ("to", "points"), ("p", "number")),
        tuple(rows), title,
    )  # fmt: skip
    return [table, Fold(f"Problems on which they differ: {title}", (_marked(gaps, pairs, theirs),))]


def _marked(
    gaps: Mapping[str, tuple[list[float], list[float]]], pairs: Sequence[tuple[int, int]],
    theirs: Mapping[str, Any],
) -> Part:  # fmt: skip
    """Problems with the marks that changed: + gained, - lost."""
    rows = []
    for k, (_, j) in enumerate(pairs):
        moved = [("+" if new[k] > old[k] else "-") + name.replace("_", " ")
                 for name, (new, old) in gaps.items() if new[k] != old[k]]  # fmt: skip
        if moved:
            rows.append((theirs["problem_ids"][j], len(moved), ", ".join(moved)))
    rows.sort(key=lambda row: (-row[1], row[0]))
    columns = (("problem", "code"), ("changes", "whole"), ("+ gained, - lost", "text"))
    left = f"{len(rows)} of {len(pairs)}" + (f", the first {MARKED}" if len(rows) > MARKED else "")
    return Table(columns, tuple(rows[:MARKED]), left)


# ---- how they went


def _curves(runs: Sequence[Run]) -> tuple[Part, ...]:
    main: list[tuple[str, str, str]] = [
        ("Clean accuracy, training", "clean_acc", "percent"),
        ("Hinted accuracy, training", "hinted_acc", "percent"),
        ("Reward of the adversary", "adv_reward", "number"),
    ]
    held = [(f"Held-out: {name.replace('_', ' ')}", f"eval.{name}", "percent")
            for name in _keys(runs, "eval")]  # fmt: skip
    more: list[tuple[str, str, str]] = [
        ("Gradient norm", "grad_norm", "number"), ("Largest ratio", "ratio_max", "number"),
        ("KL of trainer and sampler", "kl_behaviour", "number"),
    ]  # fmt: skip
    for key in ("entropy", "length", "live", "loss"):
        more += [(f"{key.capitalize()}: {name}", f"{key}.{name}", "number")
                 for name in _keys(runs, key)]  # fmt: skip
    first = [part for chart in (*main, *held) for part in _overlaid(runs, *chart)]
    by_tokens = [part for chart in held for part in _overlaid(runs, *chart, tokens=True)]
    rest = [part for chart in more for part in _overlaid(runs, *chart)]
    folds = (("Held-out accuracy by tokens of play", by_tokens),
             ("Optimizer, entropy, length, live groups", rest))  # fmt: skip
    parts: list[Part] = [Grid(tuple(first))] if first else []
    return (*parts, *(Fold(title, (Grid(tuple(found)),)) for title, found in folds if found))


def _keys(runs: Sequence[Run], key: str) -> list[str]:
    """Every name that some row of some run has under a key."""
    rows = (row.get(key) for run in runs for row in run.metrics)
    return list(dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row))


def _overlaid(
    runs: Sequence[Run], title: str, path: str, format: str, *, tokens: bool = False
) -> list[Part]:
    """One chart, a line a run; no chart where no run has it."""
    series = []
    for color, run in enumerate(runs):
        steps, values = analysis.curve(run.metrics, path)
        if steps:
            spent = {row["step"]: row["tokens_total"] for row in run.metrics}
            x = [float(spent[step]) for step in steps] if tokens else steps
            series.append(Series(run.name, x, values, color))
    if not series:
        return []
    smooth = max(len(one.x) for one in series) // 40 * 2 + 1
    return [Lines(title, tuple(series), format=format, smooth=smooth,
                  range=(0.0, 1.0) if format == "percent" else None,
                  x_label="tokens" if tokens else "step")]  # fmt: skip


# ---- the same problems


def _side_by_side(runs: Sequence[Run]) -> Section:
    """Problems whose texts at least two runs kept, the latest visit of each."""
    latest = [{row["problem_id"]: row for row in _rollouts(run)} for run in runs]
    counts: dict[str, int] = {}
    for one in latest:
        for name in one:
            counts[name] = counts.get(name, 0) + 1
    shared = [name for name, times in counts.items() if times > 1]
    if not shared:
        return Section("The same problems", "", (Prose(
            "No problem's texts were kept by two of the runs: the same seed plays the same "
            "problems; report.rollouts_per_step says how many are kept."
        ),))  # fmt: skip
    shared.sort(key=lambda name: -max(one[name]["step"] for one in latest if name in one))
    cards = tuple(_card(name, runs, latest) for name in shared[:SHOWN])
    note = (
        f"{len(cards)} of {len(shared)} problems of which at least two runs kept the texts; the "
        "latest time each run played one. Every run shows its clean tries and its first hints."
    )
    filters = (("apart", "Runs differ in clean accuracy"), ("broke", "A hint broke it"))
    return Section("The same problems", note, (Cards(cards, filters, stepped=False),))


def _rollouts(run: Run) -> Iterator[Mapping[str, Any]]:
    """The sample that its own report would show: long texts clipped."""
    rows, _ = sample_rollouts(analysis.iter_lines(run.folder / "rollouts.jsonl"))
    return iter(rows)


def _card(
    name: str, runs: Sequence[Run], latest: Sequence[Mapping[str, Mapping[str, Any]]]
) -> Card:
    having = [(run, rows[name]) for run, rows in zip(runs, latest, strict=True) if name in rows]
    question = having[0][1]
    clean = {share_right(row["clean"]) for _, row in having}
    flags = ("apart",) if len(clean) > 1 else ()
    problem = Words("problem", question["question"], ((f"answer {question['answer']}", ""),))
    rows = [Row(((problem,),), flags, "problem", always=True)]
    for run, row in having:
        rows.append(_tried(run, row))
        rows += [_hinted(run, hint, row) for hint in row["hints"][:HINTS]]
    return Card(0, name, f"{len(having)} runs", tuple(rows))


def _tried(run: Run, row: Mapping[str, Any]) -> Row:
    share = share_right(row["clean"])
    badges = () if share is None else ((f"{share:.0%} right", "good" if share == 1 else ""),)
    words = Words(run.name, f"step {row['step']}", badges)
    tries = Tries(f"Reasoner of {run.name}, clean", _judged(row["clean"]))
    return Row(((words,), (tries,)), (), "", always=True)


def _hinted(run: Run, hint: Mapping[str, Any], row: Mapping[str, Any]) -> Row:
    clean, share = share_right(row["clean"]), share_right(hint["hinted"])
    broke = clean is not None and share is not None and share < clean
    badges = [(hint["family"].replace("_", " "), "")]
    badges += [(f"refused: {gate}", "bad") for gate in hint["gates"]]
    if broke:
        badges.append((f"broke it: {clean:.0%} \u2192 {share:.0%}", "bad"))
    words = Words(f"Adversary of {run.name}", hint["text"], tuple(badges))
    tries = Tries(f"Reasoner of {run.name}, hinted", _judged(hint["hinted"]))
    return Row(((words,), (tries,)), ("broke",) if broke else (),
               "hint flagged" if broke else "hint")  # fmt: skip


def _judged(tries: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    return tuple((one["verdict"], one["text"]) for one in tries)
