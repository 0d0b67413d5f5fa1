"""Grids of runs: read an ablation config, plan its cells, run them one process each, gather them.

A sweep folder holds `runs/<cell>-<seed>/` (run folders), `cells/<cell>-<seed>.json` (what is kept
of each) and the tables and pictures of `gather.py`. Whatever stops it, the same command goes on: a
cell with its file is done, a begun run is resumed by its own command. No jax: runs and probes are
children.
"""

import contextlib
import difflib
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seirenes_jax import analysis, gather, settings
from seirenes_jax.checks import check
from seirenes_jax.errors import DONE, MISTAKE, RESUMABLE, ConfigError, SeirenesError, Stopped
from seirenes_jax.gather import Record
from seirenes_jax.report import saving, write_json, write_text

ROOT = Path(__file__).resolve().parent.parent
TRAIN = (sys.executable, str(ROOT / "launch" / "train.py"))
PROBE = (sys.executable, "-m", "seirenes_jax.probe")
PARTS = ("BASE", "COMMON", "CELLS", "SEEDS", "COMPARE", "CROSSPLAY")
# Knobs that change how a cell is kept and seen, not what it measures.
BESIDE = ("checkpoint", "report", "profile", "preempt", "judge", "mesh")
POLL_S = 0.1
GATHERED = ("table.md", "table.json", "*.png")


@dataclass(frozen=True, slots=True)
class Sweep:
    """An ablation config, read."""

    file: Path
    base: str  # the config all cells start from, FILE or FILE:VARIANT
    common: Mapping[str, Any]  # knobs of all cells
    cells: Mapping[str, Mapping[str, Any]]  # knobs of each
    seeds: Mapping[str, tuple[int, ...]]  # of each cell
    compare: tuple[tuple[str, str], ...]  # (cell, baseline)
    crossplay: tuple[str, ...]  # cells whose kept checkpoints play each other

    @property
    def name(self) -> str:
        return self.file.stem


@dataclass(frozen=True, slots=True)
class Job:
    """One cell under one seed."""

    cell: str
    seed: int
    overrides: Mapping[str, Any]
    knobs: Mapping[str, Any]  # all of them, as JSON has them
    crossplay: bool

    @property
    def key(self) -> str:
        return f"{self.cell}-{self.seed}"

    def flags(self) -> list[str]:
        """Of the train command."""
        return [f"--config.{override}" for override in _as_flags(self.overrides, self.seed)]


# ---- reading and planning


def read(file: str | Path) -> Sweep:
    """An ablation config: plain data in a Python file; anything else is a ConfigError."""
    path = Path(file)
    if not path.is_file():
        raise ConfigError(
            f"--config: no such file: got {str(file)!r}; wanted one like "
            "configs/ablations/tiny_first.py"
        )
    try:
        said = runpy.run_path(str(path))
    except (SyntaxError, NameError, TypeError, ImportError) as error:
        raise ConfigError(f"--config: {path} cannot be read: {error}") from error
    found = {name: value for name, value in said.items() if name[0] != "_" and name.isupper()}
    for name in found.keys() - set(PARTS):
        raise ConfigError(f"{path}: {name} means nothing here; wanted {', '.join(PARTS)}")
    for name in PARTS:
        if name not in found:
            raise ConfigError(f"{path}: it defines no {name}; wanted {', '.join(PARTS)}")
    _check_parts(path, found)
    seeds = found["SEEDS"]
    if not isinstance(seeds, Mapping):
        seeds = {cell: seeds for cell in found["CELLS"]}
    return Sweep(
        file=path,
        base=str(ROOT / found["BASE"]),
        common=found["COMMON"],
        cells=found["CELLS"],
        seeds={cell: tuple(seeds[cell]) for cell in found["CELLS"]},
        compare=tuple((cell, baseline) for cell, baseline in found["COMPARE"]),
        crossplay=tuple(found["CROSSPLAY"]),
    )


def _check_parts(path: Path, found: Mapping[str, Any]) -> None:
    def want(fine: bool, name: str, wanted: str) -> None:
        if not fine:
            raise ConfigError(f"{path}: {name}: got {found[name]!r}; wanted {wanted}")

    def is_seeds(value: object) -> bool:
        if not isinstance(value, (tuple, list)) or not value or len(set(value)) < len(value):
            return False
        return all(isinstance(seed, int) and seed >= 0 for seed in value)

    cells, seeds = found["CELLS"], found["SEEDS"]
    want(isinstance(found["BASE"], str), "BASE", "a config file such as 'configs/tiny.py'")
    want(isinstance(found["COMMON"], Mapping), "COMMON", "{knob: value}")
    fine = isinstance(cells, Mapping) and bool(cells)
    want(fine and all(isinstance(knobs, Mapping) for knobs in cells.values()), "CELLS",
         "{name: {knob: value}}, at least one")  # fmt: skip
    want(all(re.fullmatch(r"\w+", str(cell)) for cell in cells), "CELLS",
         "names of letters, digits and _: they become file names")  # fmt: skip
    if isinstance(seeds, Mapping):
        want(seeds.keys() == cells.keys() and all(map(is_seeds, seeds.values())), "SEEDS",
             "different whole numbers, or such a tuple for every cell by name")  # fmt: skip
    else:
        want(is_seeds(seeds), "SEEDS", "different whole numbers from 0, such as (0, 1)")
    pairs = found["COMPARE"]
    fine = isinstance(pairs, (tuple, list)) and all(
        isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs
    )
    want(fine, "COMPARE", "((cell, baseline), ...)")
    want(isinstance(found["CROSSPLAY"], (tuple, list)), "CROSSPLAY", "(cell, ...)")
    for part, names in (("COMPARE", [n for pair in pairs for n in pair]),
                        ("CROSSPLAY", found["CROSSPLAY"])):  # fmt: skip
        for name in names:
            want(name in cells, part, f"names of CELLS: {', '.join(cells)}")


def plan(
    sweep: Sweep, *, cells: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> list[Job]:
    """The cells asked for, seed after seed; every knob of every cell is checked."""
    for cell in cells or ():
        if cell not in sweep.cells:
            near = difflib.get_close_matches(cell, sweep.cells, n=1, cutoff=0.4)
            advice = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(
                f"--cells: {sweep.name} has no cell {cell!r}.{advice} It has "
                f"{', '.join(sweep.cells)}"
            )
    known = sorted({seed for each in sweep.seeds.values() for seed in each})
    for seed in seeds or ():
        if seed not in known:
            raise ConfigError(
                f"--seeds: {sweep.name} has no seed {seed}; it has {', '.join(map(str, known))}; "
                f"add it to SEEDS in {sweep.file}"
            )
    jobs = [_job(sweep, cell, seed) for seed in known for cell in sweep.cells
            if seed in sweep.seeds[cell]]  # fmt: skip
    return [
        job for job in jobs
        if (cells is None or job.cell in cells) and (seeds is None or job.seed in seeds)
    ]  # fmt: skip


def _job(sweep: Sweep, cell: str, seed: int) -> Job:
    overrides = {**sweep.common, **sweep.cells[cell]}
    if "seed" in overrides:
        raise ConfigError(f"{sweep.file}, cell {cell}: seed is no knob of a cell; use SEEDS")
    try:
        built, config = settings.load(sweep.base, _as_flags(overrides, seed))
        check(built)
    except ConfigError as error:
        raise ConfigError(f"{sweep.file}, cell {cell}: {error}") from error
    knobs = {path: _as_json(value) for path, value in settings.leaves(config)}
    for path, value in overrides.items():
        if knobs[path] != _as_json(value):
            raise ConfigError(
                f"{sweep.file}, cell {cell}: {path}: got {value!r}, which is read as "
                f"{knobs[path]!r}; wanted a value of the knob's own type"
            )
    overrides = {path: _as_json(value) for path, value in overrides.items()}
    return Job(cell, seed, overrides, knobs, cell in sweep.crossplay)


def _as_flags(overrides: Mapping[str, Any], seed: int) -> list[str]:
    """`path=value` as the train command reads it."""
    return [f"{path}={_as_text(value)}" for path, value in {**overrides, "seed": seed}.items()]


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(tuple(value)) if isinstance(value, (tuple, list)) else str(value)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


# ---- running


@dataclass(slots=True, eq=False)
class _Running:
    """A job and the commands it still needs."""

    job: Job
    run: Path
    todo: deque[list[str]]
    process: "subprocess.Popen[bytes] | None" = None


def run(
    sweep: Sweep, jobs: Sequence[Job], *, out: Path, workers: int = 1,
    train: Sequence[str] = TRAIN, probe: Sequence[str] = PROBE,
) -> None:  # fmt: skip
    """Run what is not measured yet, `workers` at a time.

    A cell that fails does not keep the others from running: it is named at the end. A child that
    was stopped, or Ctrl-C here, stops all, and the same command goes on.
    """
    for job in jobs:
        refuse_other_knobs(out, job)
    waiting = deque(job for job in jobs if not cell_file(out, job).exists())
    _say(f"{sweep.name}: {len(jobs) - len(waiting)} of {len(jobs)} cells are measured already")
    with saving(out):
        (out / "cells").mkdir(parents=True, exist_ok=True)
        (out / "runs").mkdir(exist_ok=True)
    running: list[_Running] = []
    failed: dict[str, int] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.popleft()
                folder = out.absolute() / "runs" / job.key
                begin = [*train, f"--config={sweep.base}", f"--workdir={folder}", *job.flags()]
                todo = deque([begin] + [[*probe, str(folder)]] * job.crossplay)
                running.append(_Running(job, folder, todo))
                _say(f"cell {job.key}: begun, {len(waiting)} wait")
            for one in list(running):
                if _goes_on(one, failed, alone=workers == 1):
                    continue
                running.remove(one)
                if one.job.key not in failed:
                    write_json(cell_file(out, one.job), record(sweep, one.job, one.run))
                    _say(f"cell {one.job.key}: measured")
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        raise Stopped("stopped by Ctrl-C; the same command goes on") from None
    finally:
        _stop(running)
    if failed:
        which = ", ".join(f"{key} (exit code {code})" for key, code in failed.items())
        raise SeirenesError(
            f"{sweep.name}: {len(failed)} of {len(jobs)} cells failed: {which}; what each said "
            f"stands above or in {out}/runs/<cell>.log; the same command tries them again"
        )


def _goes_on(one: _Running, failed: dict[str, int], *, alone: bool) -> bool:
    """Look after a job's child; False once the job is over, well or as one of the failed."""
    code = DONE if one.process is None else one.process.poll()
    if code is None:
        return True
    if code == RESUMABLE:
        raise Stopped(f"cell {one.job.key} was stopped; the same command goes on with it")
    if code == MISTAKE:
        raise ConfigError(f"cell {one.job.key} was refused; its own message stands "
                          + ("above" if alone else f"in {one.run}.log"))  # fmt: skip
    if code != DONE:
        failed[one.job.key] = code
        return False
    if not one.todo:
        return False
    one.process = _begin(one.todo.popleft(), None if alone else Path(f"{one.run}.log"))
    return True


def _begin(command: Sequence[str], log: Path | None) -> "subprocess.Popen[bytes]":
    """Start a child. Without a log its bars are the console's: for one child at a time."""
    path = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    with contextlib.ExitStack() as stack:
        said = None if log is None else stack.enter_context(log.open("ab"))
        # A session of its own: Ctrl-C reaches it once, through `_stop`.
        return subprocess.Popen(
            list(command), env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
            stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip


def _stop(running: Sequence[_Running]) -> None:
    """Ask every child to save and end, and wait until all have."""
    alive = [p for one in running if (p := one.process) is not None and p.poll() is None]
    if alive:
        _say(f"asking {len(alive)} running cells to save and stop")
    for process in alive:
        process.terminate()
    for process in alive:
        process.wait()


def _say(text: str) -> None:
    """Before the children's own lines, even into a file."""
    print(text, flush=True)


# ---- what is measured


def cell_file(out: Path, job: Job) -> Path:
    """Where a measured cell is kept."""
    return out / "cells" / f"{job.key}.json"


def record(sweep: Sweep, job: Job, run_folder: Path) -> Record:
    """A finished run as it is kept."""
    return {
        "cell": job.cell, "seed": job.seed, "base": _shown(Path(sweep.base)),
        "overrides": dict(job.overrides), **gather.distil(run_folder), "knobs": dict(job.knobs),
    }  # fmt: skip


def other_knobs(stored: Record, job: Job) -> list[str]:
    """Knobs in which a measured cell differs from what is planned now; newer knobs do not count."""
    old = stored["knobs"]
    return [
        f"{path}: measured under {old[path]!r}, planned {value!r}"
        for path, value in job.knobs.items()
        if path in old and old[path] != value and path.split(".")[0] not in BESIDE
    ]


def refuse_other_knobs(out: Path, job: Job) -> None:
    """A cell that was measured under another config is not passed off as this one."""
    stored = analysis.read_object(cell_file(out, job))
    if stored is not None and (changed := other_knobs(stored, job)):
        raise ConfigError(
            f"{cell_file(out, job)} was measured under other knobs:\n  " + "\n  ".join(changed)
            + f"\nUse another --out, or remove that file to measure the cell again (and its run "
            f"{out}/runs/{job.key}, unless only steps and budgets differ)"
        )


def read_cells(out: Path, jobs: Sequence[Job]) -> tuple[gather.Found, list[str]]:
    """Measured cells by name and seed, and which are missing or measured under other knobs."""
    found: dict[str, dict[int, Record]] = {job.cell: {} for job in jobs}
    missing = []
    for job in jobs:
        stored = analysis.read_object(cell_file(out, job))
        if stored is None:
            missing.append(f"{job.key}: not measured yet")
        elif changed := other_knobs(stored, job):
            missing.append(f"{job.key}: left out; {'; '.join(changed)}")
        else:
            found[job.cell][job.seed] = stored
    return found, missing


def report(sweep: Sweep, *, out: Path) -> Record:
    """Write table.md, table.json and the pictures from whatever cells there are; the table."""
    found, missing = read_cells(out, plan(sweep))
    table = gather.tabulate(sweep.name, found, pairs=sweep.compare, missing=missing)
    with saving(out):
        out.mkdir(parents=True, exist_ok=True)
    command = f"python launch/ablate.py --config={_shown(sweep.file)}"
    write_text(out / "table.md", gather.markdown(table, command))
    write_json(out / "table.json", table)
    gather.draw(found, out, closely=sweep.crossplay)
    return table


def _shown(file: Path) -> str:
    path = file.resolve()
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else file)


def collect(sweep: Sweep, *, out: Path, into: Path) -> list[Path]:
    """Copy the cells, the table and the pictures to where results are kept."""
    cells = [file for job in plan(sweep) if (file := cell_file(out, job)).exists()]
    files = cells + sorted(file for pattern in GATHERED for file in out.glob(pattern))
    with saving(into):
        (into / "cells").mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copyfile(file, into / file.relative_to(out))
    return [into / file.relative_to(out) for file in files]
