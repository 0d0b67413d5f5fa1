"""The parts of the evaluation page: tables, curves, heat maps, and the viewer of all answers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.bank import Hint
from eval.items import Item
from eval.measures import ends, tenths
from eval.responses import Responses
from eval.results import Gap, Run
from seirenes_jax.html import (
    Card,
    Cards,
    Cell,
    Facts,
    Fold,
    Grid,
    Heat,
    Lines,
    Listing,
    Part,
    Prose,
    Row,
    Series,
    Table,
    Tries,
    Words,
)

BUDGET = 24_000_000  # characters of all texts together: what a browser opens without a pause
SHORTEST = 400  # a text is never clipped below this; fewer are shown instead
WIDE = 20  # problems in a row of a heat map
MEASURES = (
    ("benchmark", "text"), ("model", "text"), ("k", "whole"), ("avg@k", "percent"),
    ("95%", "number"), ("pass@k", "percent"), ("maj@k", "percent"),
    ("problems", "whole"), ("coverage", "percent"), ("cut", "percent"), ("no answer", "percent"),
    ("unreadable", "percent"), ("timed out", "percent"), ("tokens, ours", "number"),
    ("tokens, server", "number"),
)  # fmt: skip
ATTACK = (
    ("benchmark", "text"), ("model", "text"), ("clean", "percent"), ("hinted", "percent"),
    ("drop, points", "number"), ("95%", "number"), ("right \u2192 wrong", "percent"),
    ("wrong \u2192 right", "percent"), ("worst of k", "percent"), ("same, clean", "percent"),
    ("adopted", "percent"), ("same, clean", "percent"), ("length", "number"), ("hints", "whole"),
    ("coverage", "percent"),
)  # fmt: skip


def _range(of: Sequence[float] | None) -> str:
    return ends(of, "").replace(" ", "\u00a0")  # stays on one line


def facts(runs: Sequence[Run]) -> Facts:
    """Large numbers; of several models the benchmarks' means."""
    items: list[tuple[str, str, str]] = []
    for run in runs:
        sets = run.summary["datasets"]
        known = [one["avg"] for one in sets.values() if one["avg"] is not None]
        if len(runs) > 1 or len(sets) > 8:
            words = tenths(sum(known) / len(known)) if known else "\u2013"
            of = f"mean of {len(known)} benchmarks" if len(sets) > 1 else next(iter(sets))
            items.append((run.name, words, of))
            continue
        for name, one in sets.items():
            words = "\u2013" if one["avg"] is None else tenths(one["avg"])
            items.append((f"{name}, avg@{one['n']}", words, ends(one["ci95"])))
    return Facts(tuple(items))


def results(runs: Sequence[Run]) -> Table:
    """One row a benchmark and model."""
    rows: list[tuple[Cell, ...]] = []
    for name, run, one in _by_dataset(runs):
        rows.append((
            name, run.name, one["n"], one["avg"], _range(one["ci95"]),
            one["pass"][str(one["n"])],
            one["maj"], one["n_problems"], one["coverage"], one["truncated"], one["no_answer"],
            one["unreadable"], one["timeout"], one["tokens_ours"], one["tokens_server"],
        ))  # fmt: skip
    return Table(MEASURES, tuple(rows))


def _by_dataset(runs: Sequence[Run]) -> Iterator[tuple[str, Run, Mapping[str, Any]]]:
    names = dict.fromkeys(name for run in runs for name in run.summary["datasets"])
    for name in names:
        for run in runs:
            if name in run.summary["datasets"]:
                yield name, run, run.summary["datasets"][name]


def curves(runs: Sequence[Run]) -> tuple[Part, ...]:
    """pass@k and maj@k over k, one chart a benchmark."""
    charts: list[Part] = []
    for name in dict.fromkeys(name for name, _, _ in _by_dataset(runs)):
        lines: list[Series] = []
        for color, run in enumerate(runs):
            one = run.summary["datasets"].get(name)
            if one is None or one["n"] < 2:
                continue
            ks = [int(k) for k in one["pass"]]
            bands = [one["pass_ci95"][str(k)] or (None, None) for k in ks]
            lines.append(Series(
                f"pass@k, {run.name}", ks, [one["pass"][str(k)] for k in ks], 2 * color,
                [low for low, _ in bands], [high for _, high in bands],
            ))  # fmt: skip
            majority = [one["maj_k"][str(k)] for k in ks]
            lines.append(Series(f"maj@k, {run.name}", ks, majority, 2 * color + 1))
        if lines:
            charts.append(Lines(name, tuple(lines), format="percent", x_label="k",
                                note="bands: 95% over problems"))  # fmt: skip
    return (Grid(tuple(charts)),) if charts else ()


def attacks(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Clean against hinted: all hints, then by family and by source."""
    whole: list[tuple[Cell, ...]] = []
    parts: list[Part] = []
    for run in runs:
        for name, one in run.summary["hints"].items():
            whole.append((name, run.name, *_attack(one)))
    if not whole:
        return ()
    parts.append(Table(ATTACK, tuple(whole)))
    for kind in ("family", "source"):
        rows = [
            (name, run.name, words.replace("_", " "), *_attack(one))
            for run in runs
            for name, told in run.summary["hints"].items()
            for words, one in told[f"by_{kind}"].items()
        ]
        columns = (*ATTACK[:2], (kind, "text"), *ATTACK[2:])
        parts.append(Fold(f"By {kind} of hint", (Table(columns, tuple(rows)),)))
    parts.append(Prose(
        "drop is clean minus hinted, in points, its interval paired over problems. right \u2192 "
        "wrong: share of what is right without a hint that is wrong under one, in expectation. "
        "worst of k: right under every hint of a problem, one sample each; beside it right in as "
        "many clean samples. adopted: the answer is one that the hint offers; beside it how often "
        "that happens without the hint. length: of an answer, under hints over without."
    ))  # fmt: skip
    return tuple(parts)


def _attack(one: Mapping[str, Any]) -> tuple[Cell, ...]:
    drop = None if one["drop"] is None else round(100 * one["drop"], 1)
    return (
        one["clean"], one["hinted"], drop, _range(one["drop_ci95"]), one["right_to_wrong"],
        one["wrong_to_right"], one["worst_of_k"], one["worst_of_k_clean"], one["adoption"],
        one["adoption_clean"], one["length_inflation"], one["n_hints"], one["coverage"],
    )  # fmt: skip


def differences(found: Sequence[Gap]) -> tuple[Part, ...]:
    """Paired gaps between models."""
    if not found:
        return ()
    columns = (
        ("benchmark", "text"), ("measure", "text"), ("model", "text"), ("minus", "text"),
        ("gap, points", "points"), ("95%", "number"), ("p", "number"),
        ("p, corrected", "number"), ("problems", "whole"),
    )  # fmt: skip
    rows = [
        (one.dataset, one.what, one.two, one.one, one.gap.mean,
         _range((one.gap.low, one.gap.high)), one.p, one.corrected, one.gap.n)
        for one in found
    ]  # fmt: skip
    return (Table(columns, tuple(rows)),)


# ---- problem by problem


def anchor(dataset: str, problem: str) -> str:
    """Where a problem stands in the page: letters and digits only."""
    safe = "".join(c if c.isalnum() and c.isascii() else f"_{ord(c):x}" for c in problem)
    return f"{''.join(c if c.isalnum() else '_' for c in dataset)}--{safe}"


def heats(runs: Sequence[Run]) -> tuple[Part, ...]:
    """A cell a problem, linked to its answers."""
    parts: list[Part] = []
    for name, run, _ in _by_dataset(runs):
        items = _items(run, name)
        shares = {"": run.clean(name), ", under hints": run.hinted(name)}
        for words, values in shares.items():
            if values:
                parts.append(_heat(f"{name}, {run.name}{words}", name, items, values))
    return tuple(parts)


def _heat(
    title: str, dataset: str, items: Sequence[Item], values: Mapping[str, float | None]
) -> Heat:
    rows = [items[at : at + WIDE] for at in range(0, len(items), WIDE)]
    wide = min(WIDE, len(items))

    def link(item: Item) -> tuple[str, str]:
        value = values.get(item.id)
        said = "not measured" if value is None else f"{value:.0%}"
        return anchor(dataset, item.id), f"{item.id}: {said}"

    return Heat(
        title, tuple(f"from {at * WIDE + 1}" for at in range(len(rows))),
        tuple(str(at + 1) for at in range(wide)),
        tuple(tuple(values.get(one.id) for one in row) + (None,) * (wide - len(row))
              for row in rows),
        note="percent right, problem by problem; a cell leads to its answers", format="share",
        low=0.0, high=1.0,
        links=tuple(tuple(map(link, row)) + (None,) * (wide - len(row)) for row in rows),
    )  # fmt: skip


def _items(run: Run, dataset: str) -> list[Item]:
    one = next(one for one in run.study.datasets if one.name == dataset)
    return [item for item in one.items if not item.fault]


def viewer(runs: Sequence[Run]) -> tuple[tuple[Part, ...], str]:
    """Every problem with all its answers; a note of what was left out for size."""
    total = sum(len(one) for run in runs for one in run.scored.values())
    clip = max(SHORTEST, BUDGET // max(1, total))
    most = max(1, BUDGET * 1_000 // max(1, total * SHORTEST))  # per mille of the answers
    cards: list[Card] = []
    clipped = False
    for name in dict.fromkeys(name for name, _, _ in _by_dataset(runs)):
        its = [run for run in runs if name in run.summary["datasets"]]
        texts = [_texts(run, name, clip, most) for run in its]
        clipped = clipped or any(cut for _, cut in texts)
        items = {item.id: item for run in its for item in _items(run, name)}
        cards += [
            _card(name, item, its, [one for one, _ in texts]) for item in items.values()
        ]
    note = "Choose a try by its sign: \u2713 right, \u2717 wrong, ? unreadable, \u25f7 timed out."
    if clipped:
        note += (
            " Long answers are clipped and some left out, for size; responses/ in the run's folder "
            "has all of them whole."
        )
    families = sorted({hint.family for run in runs for hint in run.study.bank})
    names = dict.fromkeys(name for name, _, _ in _by_dataset(runs))
    facets = [(f"set:{name}", name) for name in names]
    facets += [(f"family:{name}", name.replace("_", " ")) for name in families]
    filters = [("never", "Never right"), ("cut", "Cut at the limit"), ("lost", "Not read")]
    if len(runs) > 1:
        filters.insert(0, ("apart", "Models differ"))
    if families:
        filters.insert(0, ("broke", "A hint broke it"))
    if not cards:
        return (), ""
    return (
        Cards(tuple(cards), tuple(filters), "Any benchmark or family", tuple(facets), False),
    ), note  # fmt: skip


Answers = dict[tuple[str, str | None], list[tuple[str, str, str | None]]]
"""(problem, hint) -> [(verdict, text, finish)]"""


def _texts(run: Run, dataset: str, clip: int, most: int) -> tuple[Answers, bool]:
    """The answers of one run on one set, clipped; whether anything was left out."""
    found: Answers = {}
    cut = False
    rulings = {
        (one.problem_id, one.hint_id, one.sample): one.verdict or one.status
        for one in run.scored[dataset]
    }
    few = max(1, run.study.n * most // 1_000)
    with Responses(run.path / "responses" / f"{dataset}.jsonl") as file:
        for row in file.every():
            key = (row["problem_id"], row["hint_id"], row["sample"])
            if key not in rulings or row["sample"] >= few:
                cut = cut or key in rulings
                continue
            said = row["text"] or row.get("error") or ""
            if row["reasoning"]:
                said = f"{row['reasoning']}\n\n\u2014 said aloud \u2014\n{said}"
            if len(said) > clip:
                cut = True
                gone = f"\n\u2026 {len(said) - clip} characters left out \u2026\n"
                said = said[: clip // 2] + gone + said[-(clip // 2) :]
            one = (rulings[key], said, row["finish"])
            found.setdefault(key[:2], []).append(one)
    return found, cut


def _card(
    dataset: str, item: Item, runs: Sequence[Run], answers: Sequence[Answers]
) -> Card:
    clean = [one.get((item.id, None), []) for one in answers]
    shares = [_share(one) for one in clean]
    flags = [f"set:{dataset}", *_flags(clean)]
    if len({value for value in shares if value is not None}) > 1:
        flags.append("apart")
    question = Words("problem", item.question, ((f"answer {item.answer}", ""),))
    rows = [Row(((question,), _tries(runs, clean)), tuple(flags), "problem", always=True)]
    hints = {hint.id: hint for run in runs for hint in run.study.bank
             if (hint.dataset, hint.problem_id) == (dataset, item.id)}  # fmt: skip
    for hint in hints.values():
        told = [one.get((item.id, hint.id), []) for one in answers]
        rows.append(_hint_row(dataset, hint, runs, told, shares))
    aside = ", ".join(f"{name} {value}" for name, value in item.slices.items())
    return Card(0, f"{dataset}: {item.id}", aside, tuple(rows), anchor(dataset, item.id))


def _hint_row(
    dataset: str, hint: Hint, runs: Sequence[Run], told: Sequence[Sequence[tuple[str, str, Any]]],
    clean: Sequence[float | None],
) -> Row:  # fmt: skip
    flags = [f"set:{dataset}", f"family:{hint.family}", *_flags(told)]
    badges = [(hint.family.replace("_", " "), ""), (hint.source, "")]
    for run, answers, before in zip(runs, told, clean, strict=True):
        after = _share(answers)
        if before is not None and after is not None and after != before:
            broke = after < before
            flags.append("broke" if broke else "helped")
            name = f"{run.name}: " if len(runs) > 1 else ""
            badges.append((f"{name}{before:.0%} \u2192 {after:.0%}", "bad" if broke else "good"))
    words = Words(f"hint {hint.id}", hint.text, tuple(badges))
    return Row(((words,), _tries(runs, told)), tuple(flags), "hint")


def _tries(
    runs: Sequence[Run], answers: Sequence[Sequence[tuple[str, str, Any]]]
) -> tuple[Tries, ...]:
    return tuple(
        Tries(run.name, tuple((verdict, said) for verdict, said, _ in its),
              next((i for i, one in enumerate(its) if one[0] == "wrong"), 0))
        for run, its in zip(runs, answers, strict=True)
    )  # fmt: skip


def _share(answers: Sequence[tuple[str, str, Any]]) -> float | None:
    seen = [verdict for verdict, _, _ in answers if verdict in ("right", "wrong")]
    return seen.count("right") / len(seen) if seen else None


def _flags(answers: Sequence[Sequence[tuple[str, str, Any]]]) -> list[str]:
    every = [one for its in answers for one in its]
    found = []
    if every and not any(verdict == "right" for verdict, _, _ in every):
        found.append("never")
    if any(finish == "length" for _, _, finish in every):
        found.append("cut")
    if any(verdict not in ("right", "wrong") for verdict, _, _ in every):
        found.append("lost")
    return found


def made(runs: Sequence[Run]) -> tuple[Part, ...]:
    """Commands, parameters, data sets, versions: all it takes to do it again."""
    parts: list[Part] = [Listing("\n".join(dict.fromkeys(run.summary["command"] for run in runs)))]
    sets: dict[tuple[str, str], tuple[Cell, ...]] = {}
    for name, run, one in _by_dataset(runs):
        sets[name, one["data_sha256"]] = (
            name, one["data_rows"], one["published"] or None, run.summary["model"]["date"],
            one["data_sha256"], one["data_state"], one["data_from"], one["license"] or None,
        )  # fmt: skip
    columns = (
        ("data set", "text"), ("rows", "whole"), ("published", "text"), ("model of", "text"),
        ("sha256", "code"), ("hash", "text"), ("from", "code"), ("licence", "text"),
    )  # fmt: skip
    parts.append(Table(columns, tuple(sets.values()), title="Data sets"))
    for title, key in (
        ("Sampling", "sampling"), ("Prompts", "prompts"), ("Servers", "server"),
        ("Grading", "grading"), ("Versions", "versions"),
    ):  # fmt: skip
        flat = {run.name: _flat(run.summary[key]) for run in runs}
        names = dict.fromkeys(name for one in flat.values() for name in one)
        rows = tuple((name, *(one.get(name) for one in flat.values())) for name in names)
        wide = (("", "code"), *((name, "code") for name in flat))
        parts.append(Fold(title, (Table(wide, rows, sortable=False),)))
    return tuple(parts)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for key, one in value.items():
        if isinstance(one, Mapping):
            found |= _flat(one, f"{prefix}{key}.")
        else:
            whole = isinstance(one, (int, float)) and not isinstance(one, bool)
            found[prefix + key] = one if whole else str(one)
    return found
