"""What a config will cost on a machine, before one is touched: memory by phase, operations, time.

The programs of a step are compiled ahead of time for devices that are not there, and what else
lives in each phase is added up. Nothing is allocated.
"""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax

from seirenes_jax import folder, hf, roofline, topologies
from seirenes_jax import settings as config_files
from seirenes_jax.cheapest import cheapest_change
from seirenes_jax.checks import check
from seirenes_jax.cli import need, parse
from seirenes_jax.console import clock
from seirenes_jax.errors import DONE, FAILED, ConfigError
from seirenes_jax.footprint import ALIVE, GIB, Judged, held_bytes, temporary
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig
from seirenes_jax.models.config import from_shape
from seirenes_jax.programs import Program, Scene, count_programs, programs, set_scene
from seirenes_jax.report import write_text
from seirenes_jax.start import MAX_POSITIONS, TINY_VOCAB
from seirenes_jax.topologies import ANALYTIC, CPU, CUDA_AOT, Topology

FLAGS: Mapping[str, str | None] = {
    "config": None, "topology": None, "json": None, "cache_dir": None,
}  # fmt: skip
SHAPES = Path(__file__).parent / "assets" / "shapes"  # config.json of known models, by hub id
SPARE = 0.95  # of a device's memory may be filled
UNITS = {"K": 2.0**-20, "M": 2.0**-10, "G": 1.0, "T": 2.0**10}
# What the compiler says a program would have needed.
NEEDED = (
    re.compile(r"Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm"),
    re.compile(r"required for HLO temporaries \(([\d.]+)([KMGT])\)"),
)
WEAK = {
    CPU: "compiled for CPU: the arguments are exact, what a program needs besides is estimated; "
    'pip install "jax[tpu]" (or "jax[cuda13]") for the compiler of the machine itself',
    ANALYTIC: "estimated: nothing can be compiled ahead of time for this machine",
    CUDA_AOT: "compiled without tuning for a GPU that is not there: kernels, and what they need, "
    "may differ a little",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phase:
    """A line of the answer."""

    name: str
    program_peak_gib: float
    resident_gib: float
    peak_gib: float
    limit_gib: float
    fits: bool
    flops: float
    modelled_seconds: float
    how: str


def main(argv: Sequence[str]) -> int:
    """`launch/plan.py`: print the plan; 0 it fits, 1 it does not."""
    flags, overrides = parse(argv, flags=FLAGS)
    spec, topology = need(flags, "config"), topologies.parse(need(flags, "topology"))
    settings, _ = config_files.load(spec, overrides)
    check(settings)
    _check_size(settings, topology)
    cache = folder.cache_dir(flags["cache_dir"] or "") / "plans"
    cache.mkdir(exist_ok=True)
    topologies.get_ready(topology)
    answer = plan(settings, topology, cache=cache, name=" ".join([spec, *overrides]))
    for line in table(answer):
        print(line)
    if flags["json"] is not None:
        write_text(Path(flags["json"]), json.dumps(answer, indent=1) + "\n")
    return DONE if all(phase["fits"] for phase in answer["phases"]) else FAILED


def _check_size(settings: Settings, topology: Topology) -> None:
    """Devices that nothing is laid on are paid for, too."""
    sizes = asdict(settings.mesh)
    used = math.prod(sizes.values())
    if used < topology.count:
        raise ConfigError(
            f"mesh: {' x '.join(sizes)} = {used} devices of the {topology.count} of "
            f"{topology.name}; wanted all of them: raise mesh.*, or take a smaller machine"
        )


def plan(
    settings: Settings, topology: Topology, *, cache: Path | None, name: str
) -> dict[str, Any]:
    """The whole answer, as it is written to --json."""
    model = model_config(settings)
    scene = set_scene(settings, model, topology)
    todo, judged = programs(scene), []
    for i, program in enumerate(todo):
        print(f"[{i + 1}/{len(todo)}] {program.name} ...", end=" ", flush=True)
        judged.append(judge(program, scene, topology, cache))
        print(_said(judged[-1]), flush=True)
    copies = scene.islands * scene.island.shape["data"]
    costs = roofline.costs(settings, model, topology, copies=copies)
    phases = [_phase(name, judged, scene, topology, costs[name]) for name in ALIVE]
    load = roofline.work(settings)
    seconds = sum(phase.modelled_seconds for phase in phases)
    change = None
    if not all(phase.fits for phase in phases):
        change = cheapest_change(settings, model, topology, judged, scene, SPARE)
    return {
        "config": name, "topology": topology.name, "device_limit_gib": topology.kind.gib,
        "phases": [asdict(phase) for phase in phases], "cheapest_change": change,
        "modelled": {
            "tokens_per_step": round(load.drawn), "seconds_per_step": seconds,
            "tokens_per_s": load.drawn / seconds, "mean_share_of_limits": roofline.SHARE,
        },
        "devices": topology.count, "islands": scene.islands, "copies": copies,
        "parameters": roofline.parameters(model),
        "arrays_gib": {name: size / GIB for name, size in scene.sizes.items()},
        "programs": [asdict(one) for one in judged],
        "programs_of_a_run": count_programs(scene),
        "compile_seconds": sum(one.seconds for one in judged),
        "versions": _versions(),
    }  # fmt: skip


def model_config(settings: Settings) -> ModelConfig:
    """What the config trains; a hub id is looked up among the shapes known here, not fetched."""
    model = settings.model
    read = {"dtype": model.dtype, "param_dtype": model.param_dtype, "remat": model.remat}
    if not model.path:
        return from_shape(model, vocab=TINY_VOCAB, max_positions=MAX_POSITIONS)
    known = SHAPES / model.path
    if (known / "config.json").is_file():
        return hf.read_config(str(known), **read)
    if "://" in model.path or Path(model.path).expanduser().is_dir():
        return hf.read_config(hf.find(model.path), **read)
    names = sorted(str(file.parent.relative_to(SHAPES)) for file in SHAPES.rglob("config.json"))
    raise ConfigError(
        f"model.path: no folder {model.path!r} here, and a plan fetches nothing; wanted a folder "
        f"with the model's config.json, or one of {', '.join(names)}"
    )


def judge(
    program: Program, scene: Scene, topology: Topology, cache: Path | None
) -> Judged:
    """What one program needs. The same program for the same machine is compiled once."""
    means = topologies.how(topology)
    arguments = held_bytes(scene, program)
    which = program.phase, program.name, program.held, means
    if program.trace is None:
        return Judged(*which, arguments / GIB, arguments / GIB, 0.0)
    if means == ANALYTIC:
        peak = (arguments + temporary(scene, program.name)) / GIB
        return Judged(*which, peak, arguments / GIB, 0.0)
    traced = program.trace()
    lowered = traced.lower(lowering_platforms=("cuda",)) if means == CUDA_AOT else traced.lower()
    text = f"{topology.name} {means} {_versions()}\n{lowered.as_text()}"
    file = cache and cache / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
    if file and file.is_file():
        peak, taken, seconds = json.loads(file.read_text())
    else:
        peak, taken, seconds = _compile(lowered, arguments)
        if file:
            write_text(file, json.dumps([peak, taken, seconds]))
    if means == CPU:
        peak = taken + temporary(scene, program.name) / GIB
    return Judged(*which, peak, taken, seconds)


def _compile(lowered: Any, arguments: float) -> tuple[float, float, float]:
    """Peak and arguments in GiB, and the seconds it took; a program too large says its size."""
    started = time.monotonic()
    try:
        memory = lowered.compile().memory_analysis()
        peak = memory.peak_memory_in_bytes / GIB
        taken = memory.argument_size_in_bytes / GIB
        # An argument that a program never reads is dropped from it, and is there all the same.
        unread = max(0.0, arguments / GIB - taken)
        peak, taken = peak + unread, taken + unread
    except jax.errors.JaxRuntimeError as error:
        said = [pattern.search(str(error)) for pattern in NEEDED]
        if not any(said):
            raise
        peak = max(float(found[1]) * UNITS[found[2]] for found in said if found)
        taken = arguments / GIB
        if said[0] is None:
            peak += taken
    return peak, taken, time.monotonic() - started


def _phase(
    name: str, judged: Sequence[Judged], scene: Scene, topology: Topology, cost: roofline.Cost
) -> Phase:
    """A phase is as large as the largest of its programs."""
    limit = SPARE * topology.kind.gib
    sizes = [(one.peak_gib, one.resident_gib(scene)) for one in judged if one.phase == name]
    peak, resident = max(sizes, key=sum)
    how = next(one.how for one in judged if one.phase == name)
    return Phase(
        name, peak, resident, peak + resident, limit, peak + resident <= limit, cost.flops,
        cost.seconds, how,
    )  # fmt: skip


def table(answer: Mapping[str, Any]) -> list[str]:
    """The answer, to be read."""
    limit, phases = answer["device_limit_gib"], answer["phases"]
    lines = [
        "",
        f"{answer['config']} on {answer['topology']}: {answer['parameters'] / 1e9:.1f} billion "
        f"parameters, {answer['devices']} devices of {limit:g} GiB, {answer['copies']} copies to "
        f"decode on {answer['islands']} islands",
        "",
        "GiB a device   program  resident      peak     limit          TFLOP  seconds  by",
    ]
    for phase in phases:
        lines.append(
            f"{phase['name']:<11}{phase['program_peak_gib']:>11.2f}{phase['resident_gib']:>10.2f}"
            f"{phase['peak_gib']:>10.2f}{phase['limit_gib']:>10.2f} "
            f"{'fits' if phase['fits'] else 'FULL':<5}{phase['flops'] / 1e12:>9.0f}"
            f"{phase['modelled_seconds']:>9.2f}  {phase['how']}"
        )
    model = answer["modelled"]
    lines += [
        "",
        f"modelled, at the roofline: {model['seconds_per_step']:.0f} s a step of "
        f"{model['tokens_per_step']:,} tokens, {model['tokens_per_s']:,.0f} tokens/s (answers of "
        f"{model['mean_share_of_limits']:.0%} of their limit; nothing real is as fast)",
        f"{answer['programs_of_a_run']} programs in a run; {len(answer['programs'])} were looked "
        f"at, compiled in {clock(answer['compile_seconds'])}",
    ]
    how = phases[0]["how"]
    if how in WEAK:
        lines.append(f"{how}: {WEAK[how]}")
    if all(phase["fits"] for phase in phases):
        lines.append(f"fits, with at least {1 - SPARE:.0%} to spare")
    else:
        full = ", ".join(phase["name"] for phase in phases if not phase["fits"])
        lines += [f"does not fit: {full}", f"cheapest change: {answer['cheapest_change']}"]
    return lines


def _said(one: Judged) -> str:
    taken = f"{one.peak_gib:.2f} GiB a device, arguments {one.argument_gib:.2f}"
    return f"{taken} ({one.seconds:.0f} s to compile)" if one.seconds else taken


def _versions() -> dict[str, str]:
    found = {"jax": version("jax"), "jaxlib": version("jaxlib")}
    for name in ("libtpu", "jax-cuda13-plugin"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            pass
    if "TPU_LIBRARY_PATH" in os.environ:
        found["libtpu"] = f"of {Path(os.environ['TPU_LIBRARY_PATH']).stat().st_size} bytes"
    return found
