"""A run of the bench: its flags, what of an earlier run stands, case after case, the file."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import rounds
import table
import wire
import work

from seirenes_jax.cli import need, parse, whole_number
from seirenes_jax.console import Bar
from seirenes_jax.errors import DONE, ConfigError, DataError

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / ".venv-bench" / "bin" / "python"
FLAGS = {
    "cases": "decode-S,train-S", "systems": ",".join(rounds.SYSTEMS), "rounds": "7", "json": None,
    "core": None, "peers": None, "tunix_batches": None, "table": None, "into": None,
}  # fmt: skip
QUICK = {"cases": "decode-quick,train-quick", "rounds": "2"}


def main(argv: list[str]) -> int:
    flags, _ = parse(argv, flags=FLAGS, switches=("again", "quick"))
    if flags["quick"]:
        flags |= QUICK
    if flags["table"] is None:
        file, run = bench(flags)
    else:
        file = Path(flags["table"])
        run = read(file)
    text = table.markdown(run)
    if flags["into"] is not None:
        table.put_into(Path(flags["into"]), text)
    print(text, end="")
    return DONE


def bench(flags: dict[str, str | None]) -> tuple[Path, dict[str, Any]]:
    """Every case that was asked for and is not there yet; the file after each."""
    file = Path(need(flags, "json"))
    cases, order = words(flags, "cases"), ordered(flags)
    total = {case: rounds.calls(case, order) for case in cases}  # refuses unknown ones
    run = read(file) if file.exists() else {"cases": {}}
    version = code_version()
    asked = {case: settings(case, order) for case in cases}
    if not cases:
        raise ConfigError("--cases: got none; wanted some, as decode-S,train-S")
    todo = [c for c in cases if flags["again"] or not is_kept(run["cases"], c, asked[c], version)]
    for case in cases:
        if case not in todo:
            print(f"{case}: kept from {file}; --again measures it again", file=sys.stderr)
    run["machine"] = machine(order.core)
    with (
        tempfile.TemporaryDirectory() as models,
        rounds.gauge(order) as gauge,
        Bar("bench", sum(total[c] for c in todo), unit="calls", out=sys.stderr) as bar,
    ):

        def note(text: str) -> None:
            bar.advance(int(bar.done < bar.total), text)  # rejected rounds were not planned

        for case in todo:
            found = rounds.play(case, order, Path(models), gauge, note)
            what = {"what": about(case), "settings": asked[case], "code": version}
            run["cases"][case] = what | found
            write(file, run)
    return file, run


def words(flags: dict[str, str | None], name: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in need(flags, name).split(",") if word.strip())


def ordered(flags: dict[str, str | None]) -> rounds.Order:
    systems = words(flags, "systems")
    unknown = set(systems) - set(rounds.SYSTEMS)
    if unknown:
        raise ConfigError(
            f"--systems: got {', '.join(sorted(unknown))}; wanted some of "
            f"{', '.join(rounds.SYSTEMS)}"
        )
    peers = flags["peers"] if flags["peers"] is not None else str(PEERS)
    theirs = [system for system in systems if system != "ours"]
    if theirs and not os.access(peers, os.X_OK):
        raise ConfigError(
            f"--peers: no Python at {peers}, so {', '.join(theirs)} cannot run; make their "
            "environment with: bash launch/bench/prepare.sh; or name one with --peers=PYTHON; or "
            "measure --systems=ours alone"
        )
    count, core = whole_number(flags, "rounds"), whole_number(flags, "core")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    if not count:
        raise ConfigError("--rounds: got 0; wanted at least 1")
    if core is not None and core not in cores:
        raise ConfigError(f"--core: got {core}; this machine has {', '.join(map(str, cores))}")
    batches = words(flags, "tunix_batches") if flags["tunix_batches"] is not None else ()
    if not all(map(str.isdigit, batches)):
        raise ConfigError(f"--tunix_batches: got {','.join(batches)}; wanted numbers, as 16,64,256")
    # The last core: interrupts mostly go to the first.
    return rounds.Order(systems, count, cores[-1] if core is None else core, peers, batches)


def settings(case: str, order: rounds.Order) -> dict[str, Any]:
    """What must be the same for an earlier result to stand."""
    return {
        "systems": {system: list(v) for system, v in rounds.players(case, order).items()},
        "rounds": order.rounds,
    }


def is_kept(there: dict[str, Any], case: str, asked: dict[str, Any], version: str) -> bool:
    if case not in there:
        return False
    return bool(there[case]["settings"] == asked and there[case]["code"] == version)


def code_version() -> str:
    """Of everything that decides what is measured: ours, the adaptors, the peers' versions."""
    files = sorted(
        [*(ROOT / "seirenes_jax").rglob("*.py"), *(ROOT / "launch" / "bench").glob("*.py"),
         ROOT / "configs" / "base.py", ROOT / "requirements.txt",
         ROOT / "launch" / "bench_requirements.txt"]
    )  # fmt: skip
    read_all = b"".join(file.read_bytes() for file in files)
    return hashlib.blake2b(read_all, digest_size=8).hexdigest()


def about(case: str) -> str:
    task = work.DECODE[case] if case in work.DECODE else work.TRAIN[case]
    return task.about()


def machine(core: int) -> dict[str, Any]:
    cpu, memory = platform.processor() or platform.machine(), 0.0
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": cpu, "cores": os.cpu_count(), "memory_gib": memory, "core": core,
        "pinned": bool(wire.pinned(core)), "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(), "commit": commit(),
    }  # fmt: skip


def commit() -> str | None:
    """Of the checkout; None where there is none."""
    try:
        told = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True,
            text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return told.stdout.strip()


def read(file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(file.read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"{file}: no results of the bench ({error}); name a file that --json wrote"
        ) from error
    return found


def write(file: Path, run: dict[str, Any]) -> None:
    """All or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_text(json.dumps(run, indent=1) + "\n", "utf-8")
    part.replace(file)
