"""One offline page and one Markdown table out of finished evaluations.

  python -m eval.report RUN [RUN ...] --out=FILE.html

The Markdown stands beside the page, with the suffix .md. Several runs are compared problem by
problem, their p-values corrected for the number of comparisons.

Exit codes: 0 done; 2 a folder is no graded evaluation.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from eval import report_parts as parts
from eval.measures import ends, tenths
from eval.results import Gap, Run, gaps, notes, read_runs
from seirenes_jax.cli import guard, parse
from seirenes_jax.errors import DONE, ConfigError
from seirenes_jax.html import Listing, Section, page
from seirenes_jax.report import saving, write_text

SIGNS = "\\|*`<>[]#"


def write_report(paths: Sequence[Path], out: Path) -> None:
    """FILE.html and FILE.md."""
    runs = read_runs(paths)
    compared = gaps(runs)
    texts, note = parts.viewer(runs)
    caveats = notes(runs)
    sections = [
        Section("", "", (parts.facts(runs),)),
        Section("Results", _said(runs), (parts.results(runs),)),
        Section("To be known", "", (Listing("\n".join(caveats)),) if caveats else ()),
        Section("Several tries", "pass@k: one of k is right, unbiased. maj@k: the answer given "
                "most often among k is right, ties by expectation.", parts.curves(runs)),
        Section("Under hints", "", parts.attacks(runs)),
        Section("Differences", "Paired over problems; intervals by bootstrap, p by random signs, "
                f"corrected for {len(compared)} comparisons (Holm).",
                parts.differences(compared)),
        Section("Problem by problem", "", parts.heats(runs)),
        Section("Answers", note, texts),
        Section("How it was made", "", parts.made(runs)),
    ]  # fmt: skip
    names = ", ".join(dict.fromkeys(run.study.model for run in runs))
    sets = ", ".join(dict.fromkeys(name for run in runs for name in run.summary["datasets"]))
    with saving(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, page(f"Evaluation of {names}", sets, [one for one in sections if one.parts]))
    write_text(out.with_suffix(".md"), markdown(runs, compared, caveats))


def _said(runs: Sequence[Run]) -> str:
    return (
        "avg@k is the mean accuracy over k samples, every problem alike; low and high are its 95% "
        "interval, drawn over problems. Unreadable and timed-out answers carry no score; coverage "
        "is the share of the samples that do. cut: answers that ended at the token limit."
    )


def markdown(runs: Sequence[Run], compared: Sequence[Gap], caveats: Sequence[str]) -> str:
    """Tables for a paper: models down, benchmarks across."""
    names = list(dict.fromkeys(name for run in runs for name in run.summary["datasets"]))
    rows = [[run.name, *(_cell(run, name) for name in names)] for run in runs]
    text = "Accuracy in percent: avg@k [95% interval over problems], pass@k, maj@k.\n\n"
    text += _table(["model", *names], rows)
    attacked = [
        [run.name, name, _percent(one["clean"]), _percent(one["hinted"]),
         f"{_percent(one['drop'])} {ends(one['drop_ci95'], '')}",
         _percent(one["right_to_wrong"]), _percent(one["wrong_to_right"]),
         _percent(one["worst_of_k"]), _percent(one["adoption"])]
        for run in runs
        for name, one in run.summary["hints"].items()
    ]  # fmt: skip
    if attacked:
        head = ["model", "benchmark", "clean", "hinted", "drop", "right to wrong",
                "wrong to right", "worst of k", "adopted"]  # fmt: skip
        text += "\nUnder hints, in percent; the drop in points with its paired 95% interval.\n\n"
        text += _table(head, attacked)
    if compared:
        head = ["benchmark", "measure", "model", "minus", "gap in points", "p", "p, Holm"]
        text += "\nPaired differences over problems.\n\n" + _table(head, [
            [one.dataset, one.what, one.two, one.one,
             f"{_signed(one.gap.mean)} {ends((one.gap.low, one.gap.high), '')}",
             f"{one.p:.4f}", f"{one.corrected:.4f}"]
            for one in compared
        ])  # fmt: skip
    sets = {
        (name, one["data_sha256"]): [name, str(one["data_rows"]), one["data_sha256"],
                                     one["published"]]
        for run in runs
        for name, one in run.summary["datasets"].items()
    }  # fmt: skip
    text += "\n" + _table(["data set", "rows", "sha256", "published"], list(sets.values()))
    text += "".join(f"\n- {_escaped(words)}" for words in caveats) + ("\n" if caveats else "")
    for run in runs:
        told = ", ".join(f"{key} {value}" for key, value in run.summary["sampling"].items())
        text += f"\n{_escaped(run.name)}: {_escaped(told)}; verifier "
        text += f"{run.summary['versions']['verifier']}\n\n    {run.summary['command']}\n"
    return text


def _cell(run: Run, name: str) -> str:
    one = run.summary["datasets"].get(name)
    if one is None or one["avg"] is None:
        return "\u2013"
    n = one["n"]
    text = f"{_percent(one['avg'])} {ends(one['ci95'], '')}"
    if n > 1:
        text += f", {_percent(one['pass'][str(n)])}, {_percent(one['maj'])}"
    scored = "" if one["coverage"] == 1 else f", {tenths(one['coverage'])} scored"
    return f"{text} (k={n}){scored}"


def _percent(value: float | None) -> str:
    return "\u2013" if value is None else tenths(value, "")


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + tenths(value, "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        "| " + " | ".join(cell if line is lines[1] else _escaped(cell) for cell in line) + " |\n"
        for line in lines
    )


def _escaped(text: str) -> str:
    """Names and values come from files: none may write markup of its own."""
    plain = " ".join(text.split())
    return "".join(f"\\{sign}" if sign in SIGNS else sign for sign in plain)


def main(argv: list[str]) -> int:
    runs = [word for word in argv if not word.startswith("-")]
    flags, _ = parse([word for word in argv if word.startswith("-")], flags={"out": "report.html"})
    if not runs:
        raise ConfigError("got no folders; wanted python -m eval.report RUN [RUN ...]")
    out = Path(str(flags["out"]))
    if out.suffix != ".html":
        raise ConfigError(f"--out: got {str(out)!r}; wanted FILE.html")
    write_report([Path(run) for run in runs], out)
    print(f"{out} {out.with_suffix('.md')}")
    return DONE


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
