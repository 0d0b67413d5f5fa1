"""A run's lives: started, struck, begun again, and at last compared with a run nobody disturbed."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seirenes_jax import stored
from seirenes_jax.packing import LENGTH, unpacked
from tests.whole import mini

STRUCK = (sys.executable, "tests/chaos/struck.py")
PATIENCE_S = 1800.0


@dataclass(frozen=True, slots=True)
class Strike:
    """Where and how a life is hit; see struck.py."""

    phase: str
    place: str
    nth: int
    delay_s: float
    how: str
    note: str


@dataclass(frozen=True, slots=True)
class Layout:
    """How the run is played: processes, knobs, whether its journal is kept to be compared."""

    name: str
    processes: int
    knobs: tuple[tuple[str, object], ...]
    journal: bool


ALONE = Layout("alone", 1, (), False)
PAIR = Layout("two processes", 2, (("mesh__data", 2),), False)
JOURNAL = Layout(
    "journal", 1, (("checkpoint__journal", "true"), ("checkpoint__every", 4)), True
)


@dataclass(frozen=True, slots=True)
class Life:
    """How one ended: exit codes, seconds it had, seconds until it stood where the last one fell."""

    codes: tuple[int, ...]
    seconds: float
    back_s: float | None
    said: str


def live(
    run: Path, cache: Path, layout: Layout, strikes: Sequence[Strike], *, until: int
) -> Life:
    """One life of a run; `until`: the step that the life before had come to."""
    plan = {"strikes": [asdict(one) for one in strikes], "keep_journal": layout.journal}
    quiet = {**plan, "strikes": []}
    arguments = mini.flags(run, cache, **dict(layout.knobs))
    port = _free_port() if layout.processes > 1 else 0
    victim = layout.processes - 1 if strikes and strikes[0].nth % 2 else 0  # at random
    started = time.monotonic()
    processes = []
    for i in range(layout.processes):
        many = [f"--coordinator=localhost:{port}", f"--processes={layout.processes}",
                f"--process={i}"]  # fmt: skip
        told = json.dumps(plan if i == victim else quiet)
        processes.append(
            mini.start([told, *arguments, *(many if layout.processes > 1 else [])], STRUCK)
        )
    back = _watched(processes, run, until, started)
    ended = [mini.end(process) for process in processes]
    return Life(
        tuple(one.code for one in ended), time.monotonic() - started, back,
        "\n".join(one.err for one in ended),
    )  # fmt: skip


def _watched(
    processes: Sequence["subprocess.Popen[str]"], run: Path, until: int, started: float
) -> float | None:
    """Wait for the end; when did the run stand where it had been?"""
    back, metrics, events = None, run / "metrics.jsonl", run / "events.log"
    before = events.stat().st_size if events.is_file() else 0
    while any(process.poll() is None for process in processes):
        if time.monotonic() - started > PATIENCE_S:
            raise TimeoutError(f"a life of {PATIENCE_S:g} s has not ended")
        # It says that it goes on when its files are cut back.
        begun = events.is_file() and events.stat().st_size > before
        if back is None and begun and last_step(metrics) >= max(1, until):
            back = time.monotonic() - started
        time.sleep(0.05)
    return back


def last_step(metrics: Path) -> int:
    """The last whole line's step; 0 where there is none."""
    if not metrics.is_file():
        return 0
    whole = [line for line in metrics.read_bytes().splitlines(keepends=True) if line[-1:] == b"\n"]
    return int(json.loads(whole[-1])["step"]) if whole else 0


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port: int = free.getsockname()[1]
        return port


def fresh_cache(reference: Path, folder: Path) -> Path:
    """Compiled programs are shared; the warm start is to be made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "xla").symlink_to(reference / "xla")
    return folder


# ---- compared


def differences(run: Path, reference: Path, *, bits: bool) -> list[str]:
    """What of a run is not as undisturbed; `bits`: to the last bit, else every answer alone."""
    found = _other_answers(run, reference) if not bits else []
    ours, theirs = mini.lines(run / "metrics.jsonl"), mini.lines(reference / "metrics.jsonl")
    if [row["step"] for row in ours] != [row["step"] for row in theirs]:
        found.append(f"metrics.jsonl: steps {[row['step'] for row in ours]}")
    if not bits:
        return found
    for one, other in zip(ours, theirs, strict=False):
        keys = (one.keys() | other.keys()) - {"time"}
        found += [
            f"metrics.jsonl, step {one['step']}: {key} = {one.get(key)}; wanted {other.get(key)}"
            for key in sorted(keys) if one.get(key) != other.get(key)
        ]  # fmt: skip
    names = ["rollouts.jsonl", "eval.json"]
    names += [f"hf/{file.name}" for file in sorted((reference / "hf").iterdir())]
    for name in names:
        if (run / name).read_bytes() != (reference / name).read_bytes():
            found.append(f"{name}: other bytes")
    try:
        mine, other = _last_record(run), _last_record(reference)
    except (OSError, ValueError) as error:
        return [*found, f"the last checkpoint: {error}"]
    keys = sorted(mine.keys() | other.keys())
    return found + [f"the last checkpoint: {k} differs" for k in keys if mine[k] != other[k]]


def _last_record(run: Path) -> dict[str, Any]:
    """All of the last checkpoint that no clock decides; the state by its fingerprints, which are
    compared with the arrays themselves first."""
    folder = run / "checkpoints"
    step = stored.steps(folder)[-1]
    stored.check(folder, step)
    head, arrays = stored.record(folder, step)
    own = {k: v for k, v in head["json"].items() if k != "seconds"}
    raw = {name: array.tobytes() for name, array in arrays.items()}
    return {"step": step, "metric": head["metric"], **head["leaves"], **own, **raw}


def answers(run: Path) -> dict[tuple[int, str], list[tuple[np.ndarray, np.ndarray]]]:
    """Every answer in a run's journal by step and name; as often as it was written down."""
    found: dict[tuple[int, str], list[tuple[np.ndarray, np.ndarray]]] = {}
    for file in sorted((run / "journal").iterdir()):
        data, at = file.read_bytes(), 0
        while (start := at + LENGTH) <= len(data):
            length = int.from_bytes(data[at:start], "little")
            try:
                head, arrays = unpacked(data[start : start + length])
            except ValueError:
                break  # torn by a kill
            place = (int(file.name[:8]), str(head["name"]))
            found.setdefault(place, []).append((arrays["tokens"], arrays["logprobs"]))
            at = start + length
    return found


def _other_answers(run: Path, reference: Path) -> list[str]:
    ours, theirs = answers(run), answers(reference)
    found = [f"{place}: only in one of them" for place in sorted(ours.keys() ^ theirs.keys())]
    for place in sorted(ours.keys() & theirs.keys()):
        tokens, logprobs = theirs[place][0]
        for again, at in ours[place]:
            if not np.array_equal(tokens, again):
                found.append(f"{place}: tokens {again.tolist()}; wanted {tokens.tolist()}")
            elif np.abs(at - logprobs).max() > 1e-5:
                found.append(f"{place}: logprobs differ by {np.abs(at - logprobs).max():.2e}")
    return found
