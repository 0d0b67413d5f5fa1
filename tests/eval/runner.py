"""Runs the commands in this process, and reads what they leave."""

import json
from pathlib import Path
from typing import Any

from eval import hints, run
from seirenes_jax.cli import guard
from tests.eval.fake_server import MODEL, Fake, sums

QUICK = ("--workers=1", "--backoff=0.001", "--retries=3", "--timeout=20", "--max_tokens=64")
LATER = ("time",)  # what a clock decides


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def problems(folder: Path, count: int = 6) -> Path:
    """A file of problems the fake server can solve."""
    return write_rows(folder / "sums.jsonl", sums(count))


def evaluate(server: Fake, data: Path, out: Path, *flags: str) -> int:
    """python -m eval.run on the fake server."""
    argv = [f"--endpoint={server.url}", f"--model={MODEL}", f"--data={data}", f"--out={out}"]
    return guard(run.main, [*argv, *QUICK, *flags])


def command(module: Any, *argv: str) -> int:
    return guard(module.main, list(argv))


def build(*flags: str) -> int:
    """python -m eval.hints build."""
    return guard(hints.main, ["build", *flags])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def responses(out: Path, name: str = "sums") -> list[dict[str, Any]]:
    return rows_of(out / "responses" / f"{name}.jsonl")


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "graded" / "summary.json").read_text())
    return found


def timeless(out: Path) -> dict[str, Any]:
    """Everything a folder holds, but what a clock decides."""
    found: dict[str, Any] = {}
    for file in sorted(out.rglob("*")):
        if file.suffix == ".jsonl":
            found[str(file.relative_to(out))] = [
                {key: value for key, value in row.items() if key not in LATER}
                for row in rows_of(file)
            ]
        elif file.is_file():
            found[str(file.relative_to(out))] = file.read_text()
    return found
