"""A run in seconds: the tiny world made mini, and how the tests start it as a user would."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "launch/train.py")
KNOBS = {
    "steps": 6, "problems_per_step": 4,
    "model.shape.width": 32, "model.shape.layers": 2, "model.shape.ff": 128,
    "warm_start.steps": 150, "warm_start.batch": 16, "warm_start.problems": 2000,
    "rollouts.clean": 4, "rollouts.hints": 2, "rollouts.hinted": 2,
    "tokens.reasoner": 56,
    "tokens.overlong_buffer": 56,  # long answers are paid less: groups live though none is right
    "hints.gates": "length,leak,copy", "adversary.reward": "linear",
    "advantage.kind": "ema",  # a baseline to be remembered,
    "streams.groups.clean": 3, "streams.groups.robust": 4,  # groups that wait for their step
    "optimizer.lr": 1e-3, "optimizer.warmup_steps": 1,
    "sampler.slots": 16, "batch.rows": 2, "checkpoint.every": 2, "checkpoint.keep": 2,
    "eval.every": 3, "eval.problems": 4, "eval.final_problems": 8,
    "alarms.window": 2,  # what is remembered counts from the second step on
    "preempt.grace_s": 600,  # however slow the machine is
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment() -> dict[str, str]:
    """One device, as a laptop has; the tests' own eight stay here."""
    mine = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "SEIRENES_CACHE")}
    return mine | {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def flags(workdir: Path, cache: Path, **knobs: object) -> list[str]:
    """Of a mini run; `a__b` stands for the knob a.b."""
    wanted = KNOBS | {name.replace("__", "."): value for name, value in knobs.items()}
    return [
        "--config=configs/tiny.py", f"--workdir={workdir}", f"--cache_dir={cache}",
        *(f"--config.{name}={value}" for name, value in wanted.items()),
    ]  # fmt: skip


def start(arguments: Sequence[str], command: Sequence[str] = COMMAND) -> subprocess.Popen[str]:
    """The command in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment(), text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def end(process: subprocess.Popen[str]) -> Ended:
    """Wait for it. Whatever happened, a user never sees a traceback."""
    out, err = process.communicate(timeout=600)
    assert "Traceback" not in out + err, out + err
    return Ended(process.returncode, out, err)


def launch(arguments: Sequence[str], command: Sequence[str] = COMMAND) -> Ended:
    """Start it and wait for it."""
    return end(start(arguments, command))


def train(workdir: Path, cache: Path, **knobs: object) -> Ended:
    """A run that must end well."""
    ended = launch(flags(workdir, cache, **knobs))
    assert ended.code == 0, ended
    return ended


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def read(run: Path) -> dict[str, Any]:
    """All of a run that no clock may change."""
    metrics = lines(run / "metrics.jsonl")
    assert all(row.pop("time") for row in metrics)
    return {
        "metrics": metrics,
        "rollouts": (run / "rollouts.jsonl").read_bytes(),
        "alarms": (run / "alarms.jsonl").read_bytes(),
        "weights": (run / "hf" / "model.safetensors").read_bytes(),
        "eval": (run / "eval.json").read_bytes(),
    }
