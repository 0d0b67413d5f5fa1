"""What is kept of plans: one JSON a preset, the table of docs/plans.md and the presets' docstrings
made from them.

  python -m seirenes_jax.plan_table           after a plan: write the table and the docstrings anew
  python -m seirenes_jax.plan_table commands  the command that makes each preset's JSON

A preset names its machine in its docstring, by its command; nowhere else.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seirenes_jax.cli import guard
from seirenes_jax.errors import DONE, ConfigError

ROOT = Path(__file__).parent.parent
KEPT = "docs/results/plans"  # {config}-{variant}.json
PAGE = "docs/plans.md"
BEGIN, END = "<!-- the table: python -m seirenes_jax.plan_table -->", "<!-- end -->"
COMMAND = re.compile(r"python launch/plan\.py --config=configs/(\w+)\.py:(\w+) --topology=(\S+)")
PLAN = re.compile(r"( +)Plan: [^\n]*\n(?: +[^\n\"]+\n)*")  # to the end of its paragraph
WIDTH = 100


@dataclass(frozen=True, slots=True)
class Preset:
    """A function of a file of configs/, and the machine that its docstring names."""

    config: str
    variant: str
    topology: str

    @property
    def spec(self) -> str:
        return f"configs/{self.config}.py:{self.variant}"

    @property
    def kept(self) -> str:
        return f"{KEPT}/{self.config}-{self.variant}.json"


def presets(root: Path = ROOT) -> Iterator[Preset]:
    """Every function of configs/qwen*.py whose docstring says how it is planned."""
    for file in sorted((root / "configs").glob("qwen*.py"), key=_by_size):
        for node in ast.parse(file.read_text()).body:
            said = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            found = COMMAND.search(said or "")
            if isinstance(node, ast.FunctionDef) and found:
                config, variant, topology = found.groups()
                if (config, variant) != (file.stem, node.name):
                    raise ConfigError(
                        f"{file.name}: the docstring of {node.name} plans {config}.py:{variant}; "
                        f"wanted {file.stem}.py:{node.name}"
                    )
                yield Preset(config, variant, topology)


def _by_size(file: Path) -> int:
    return int(re.sub(r"\D", "", file.stem))


def answers(root: Path = ROOT) -> dict[Preset, dict[str, Any]]:
    """What is kept: presets that were planned, in order."""
    files = {preset: root / preset.kept for preset in presets(root)}
    return {
        preset: json.loads(file.read_text()) for preset, file in files.items() if file.is_file()
    }


def fullest(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The phase that needs most."""
    most: Mapping[str, Any] = max(answer["phases"], key=lambda phase: phase["peak_gib"])
    return most


def sentence(answer: Mapping[str, Any]) -> str:
    """What a docstring says of its plan."""
    phase = fullest(answer)
    return (
        f"Plan: {phase['name']} fills {phase['peak_gib']:.1f} of {answer['device_limit_gib']:.1f} "
        f"GiB a device ({phase['how']}); {_round(answer['modelled']['tokens_per_s'])} tokens/s, "
        "modelled."
    )


def _round(x: float) -> str:
    """Two digits: it is a model."""
    return f"{float(f'{x:.1e}'):,.0f}"


def table(root: Path = ROOT) -> list[str]:
    """Of every preset that was planned, a row."""
    rows = [
        "| preset | machine | GiB a device: layout, prefill, decode, score, train | of | "
        "modelled tokens/s | programs, compiled in | by |",
        "|---|---|---|---|---|---|---|",
    ]
    for preset, answer in answers(root).items():
        peaks = {phase["name"]: phase for phase in answer["phases"]}
        order = ("layout", "prefill", "decode", "score", "train")
        sizes = ", ".join(_size(peaks[name], fullest(answer)) for name in order)
        minutes = answer["compile_seconds"] / 60
        rows.append(
            f"| `{preset.config}.py:{preset.variant}` | {preset.topology} | {sizes} | "
            f"{answer['device_limit_gib']:.1f} | {_round(answer['modelled']['tokens_per_s'])} | "
            f"{answer['programs_of_a_run']}, {minutes:.1f} min | {fullest(answer)['how']} |"
        )
    return rows


def _size(phase: Mapping[str, Any], most: Mapping[str, Any]) -> str:
    said = f"{phase['peak_gib']:.1f}" + ("" if phase["fits"] else " (full)")
    return f"**{said}**" if phase is most else said


def write(root: Path = ROOT) -> None:
    """Page and docstrings anew."""
    page = root / PAGE
    before, rest = page.read_text().split(BEGIN)
    lines = "\n".join(table(root))
    page.write_text(f"{before}{BEGIN}\n{lines}\n{END}{rest.split(END)[1]}")
    for preset, answer in answers(root).items():
        file = root / "configs" / f"{preset.config}.py"
        file.write_text(with_sentence(file.read_text(), preset, sentence(answer)))


def with_sentence(source: str, preset: Preset, said: str) -> str:
    """The config file with that sentence in the docstring of the preset."""
    head, mark, tail = source.partition(f"def {preset.variant}(")
    found = PLAN.search(tail)
    if not mark or not found:
        raise ConfigError(
            f"configs/{preset.config}.py: the docstring of {preset.variant} wants a line that "
            "begins with 'Plan:'"
        )
    lines = wrapped(said, found[1])
    return head + mark + tail[: found.start()] + lines + tail[found.end() :]


def wrapped(said: str, indent: str) -> str:
    """In lines of at most WIDTH."""
    lines = [indent.rstrip("\n")]
    for word in said.split():
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append(indent)
        lines[-1] += word if not lines[-1].strip() else f" {word}"
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str]) -> int:
    if list(argv) == ["commands"]:
        for preset in presets():
            print(f"python launch/plan.py --config={preset.spec} --topology={preset.topology} "
                  f"--json={preset.kept}")  # fmt: skip
    elif argv:
        raise ConfigError(f"got {' '.join(argv)!r}; wanted nothing, or: commands")
    else:
        write()
    return DONE


if __name__ == "__main__":
    sys.exit(guard(main, sys.argv[1:], doc=str(__doc__)))
