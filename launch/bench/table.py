"""The JSON of a run as Markdown, and where it stands in a document."""

from pathlib import Path
from typing import Any

from seirenes_jax.errors import DataError

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
NAMES = {"ours": "seirenes_jax", "tunix": "Tunix", "hf": "transformers", "trl": "TRL"}
HEAD = (
    "| | tokens / CPU s | x Tunix | CPU s | wall s | slots used | peak | extra GiB | first call s |"
    "\n|---|---|---|---|---|---|---|---|---|"
)


def markdown(run: dict[str, Any]) -> str:
    """Everything measured: the machine, then a table a case."""
    return "\n".join([machine(run["machine"]), *map(section, run["cases"].items())]).rstrip() + "\n"


def machine(found: dict[str, Any]) -> str:
    where = f"core {found['core']} alone" if found["pinned"] else "not pinned to a core"
    return (
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']:.0f} GiB, "
        f"{found['system']}; {where}, one thread, float32.\n"
    )


def section(named: tuple[str, dict[str, Any]]) -> str:
    name, case = named
    rows = "\n".join(map(row, case["systems"].items()))
    return f"### {name}\n\n{case['what']}\n\n{HEAD}\n{rows}\n\n{remarks(case)}\n"


def row(named: tuple[str, dict[str, Any]]) -> str:
    name, one = named
    ratio = "" if one["x_vs_tunix"] is None else f"{one['x_vs_tunix']:.2f}"
    if ratio and name != "tunix":
        ratio += " [{:.2f}, {:.2f}]".format(*one["x_vs_tunix_range"])
    memory = "" if one["extra_gib"] is None else f"{one['extra_gib']:.2f}"
    cells = [
        f"{NAMES[name]}: {one['setup']}", f"{one['tokens_per_cpu_s']:,.0f}", ratio,
        spread(one["cpu_s"]), spread(one["wall_s"]), f"{one['slot_use']:.0%}",
        f"{one['roofline']:.1%}", memory, f"{one['compile_s']:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def spread(found: dict[str, float]) -> str:
    return "{median:.2f} [{min:.2f}, {max:.2f}]".format(**found)


def remarks(case: dict[str, Any]) -> str:
    load = case["load_of_others"]
    words = [
        f"{case['rounds']} rounds",
        f"{case['rounds_rejected']} more rejected",
        f"load of others {load['min']:.1f} to {load['max']:.1f}",
        f"peak {case['peak_gflops']:.0f} GFLOP/s",
        f"useful work {case['useful_gflop']:.1f} GFLOP, {case['useful_tokens']:,} tokens",
    ]
    lines = ["; ".join(words) + "."]
    if case["rounds_not_calm"]:
        lines.append(
            f"**{case['rounds_not_calm']} of the rounds were not calm: trust ratios of CPU seconds "
            "alone.**"
        )
    lines.append(checked(case["systems"]))
    for name, one in case["systems"].items():
        if len(one["tried"]) > 1:
            tried = ", ".join(f"{how} {cpu:.2f} s" for how, cpu in one["tried"].items())
            lines.append(f"{NAMES[name]}, fastest of: {tried}.")
    return "\n".join(lines)


def checked(systems: dict[str, dict[str, Any]]) -> str:
    first = {name: one["first"] for name, one in systems.items() if one["first"]}
    if not first:
        return "Every answer of every call is, token by token, what it must be."
    words = ", ".join(
        f"{NAMES[name]} {told['loss']:.6g} and {told['grad_norm']:.6g}"
        for name, told in first.items()
    )
    return f"Loss and gradient norm of the first update: {words}."


def put_into(document: Path, text: str) -> None:
    """Between the two marks of a document."""
    whole = document.read_text("utf-8")
    before, mark, rest = whole.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise DataError(
            f"{document}: it has no place for results; wanted the lines {BEGIN} and {END}"
        )
    document.write_text(f"{before}{BEGIN}\n{text}{END}{after}", "utf-8")
