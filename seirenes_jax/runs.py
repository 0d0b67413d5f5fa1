"""Run folders at a glance: what was run, which steps are saved, how it goes, is it healthy.

Reads only, so a live run is not disturbed. Never jax.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from seirenes_jax import analysis, stored
from seirenes_jax.console import clock, printable, step_line
from seirenes_jax.errors import ConfigError
from seirenes_jax.folder import LEASE
from seirenes_jax.store import Folder, copy, first_line, is_remote, reached

SMALL = ("config.json", "metrics.jsonl", "summary.json", "events.log")
RECENT = 20  # steps whose time counts
EVENTS = 3  # last ones shown
SHOWN = ("seed", "game", "model", "problems", "init_from")  # of config.json


def look(run: str, *, verify: bool) -> dict[str, Any]:
    """All that is known of a run; `verify`: every array of every saved step is read."""
    place = reached(run, "RUN")
    if not (place / "config.json").is_file():
        raise ConfigError(f"got {run!r}; wanted a run folder (it has config.json)")
    with _here(place) as folder:
        config = analysis.read_config(folder) or {}
        rows = analysis.read_metrics(folder)
        summary = analysis.read_summary(folder)
        log = folder / "events.log"
        events = log.read_text(errors="replace").splitlines() if log.is_file() else []
    saved = [_saved(place / "checkpoints", step, verify) for step in _steps(place)]
    scored = [one for one in saved if one["score"] is not None]
    best = max(scored, key=lambda one: (one["score"], one["step"]))["step"] if scored else None
    times = [row["time"]["step"] for row in rows[-RECENT:] if "step" in row.get("time", {})]
    last = rows[-1] if rows else None
    return {
        "run": run, "config": {key: config.get(key) for key in SHOWN},
        "steps": config.get("steps"), "step": last["step"] if last else 0,
        "health": _health(place, config, summary, saved), "verified": verify,
        "checkpoints": saved, "best": best, "seconds_a_step": median(times) if times else None,
        "tokens": last["tokens_total"] if last else 0, "last": last, "events": events[-EVENTS:],
    }  # fmt: skip


def _steps(place: Folder) -> list[int]:
    return stored.steps(place / "checkpoints")


def _saved(folder: Folder, step: int, verify: bool) -> dict[str, Any]:
    """One checkpoint: its size, its score, and what is wrong with it, if something is."""
    found: dict[str, Any] = {"step": step, "gib": None, "score": None, "fault": None}
    try:
        found["gib"] = stored.size(folder, step) / 2**30
        found["score"] = stored.metric(folder, step)
        if verify:
            stored.check(folder, step)
    except FileNotFoundError:
        found["fault"] = "gone while it was looked at"  # a live run lets go of old ones
    except (OSError, ValueError, KeyError, TypeError) as error:
        found["fault"] = first_line(error)
    return found


def _health(
    place: Folder, config: Mapping[str, Any], summary: Mapping[str, Any] | None,
    saved: Sequence[Mapping[str, Any]],
) -> str:  # fmt: skip
    if (running := _held(place)) or not saved:
        return running or "begun, nothing saved"
    newest = saved[-1]["step"]
    if damaged := [str(one["step"]) for one in saved if one["fault"]]:
        return f"damaged: the checkpoint of step {', '.join(damaged)}"
    if summary is not None and summary["steps"] == newest:
        more = summary["steps"] < config.get("steps", 0)  # a budget of tokens, or steps were raised
        return f"complete after step {newest}" + (" (its budget)" if more else "")
    return f"stopped after step {newest}"


def _held(place: Folder) -> str:
    """`running` where a live process holds the folder; empty where none does."""
    if is_remote(place):
        return "running, or was killed: lease.json is there" if (place / LEASE).exists() else ""
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "running"
    finally:
        os.close(handle)
    return ""


@contextmanager
def _here(place: Folder) -> Iterator[Path]:
    """The small files of a run on this machine."""
    if not is_remote(place):
        yield place
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in SMALL:
            if (place / name).is_file():
                copy(place / name, Path(folder) / name)
        yield Path(folder)


def told(found: Mapping[str, Any]) -> str:
    """The same for people."""
    config, lines = found["config"], [f"{found['run']}: {found['health']}"]
    model = config["model"] or {}
    name = model.get("path") or "x".join(
        str(model.get("shape", {}).get(key, "?")) for key in ("layers", "width")
    )
    problems = (config["problems"] or {}).get("path")
    lines.append(f"  {config['game']} of {problems}, model {name}, seed {config['seed']}")
    if found["checkpoints"]:
        lines.append(f"  {'saved step':>12}  {'GiB':>8}  {'score':>6}")
    for one in found["checkpoints"]:
        score = "-" if one["score"] is None else f"{one['score']:.3f}"
        size = "-" if one["gib"] is None else f"{one['gib']:.3f}"
        note = "  best" if one["step"] == found["best"] else ""
        sound = "  whole" if found["verified"] else ""
        fault = f"  DAMAGED: {one['fault']}" if one["fault"] else sound
        lines.append(f"  {one['step']:>12}  {size:>8}  {score:>6}{note}{fault}")
    if found["last"] is not None:
        pace = found["seconds_a_step"]
        steps = found["steps"] if found["steps"] is not None else found["step"]
        last = step_line(found["last"], steps, pace if pace is not None else 0.0)
        lines += [f"  {line.strip()}" for line in last.splitlines()]
        took = "-" if pace is None else f"{pace:.2f} s" if pace < 60 else clock(pace)
        lines.append(f"  {took} a step, {found['tokens']:,} tokens played")
    return "\n".join(lines + [f"  {printable(line)}" for line in found["events"]])
