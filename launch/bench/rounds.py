"""The protocol: who plays a case, what must agree before a time counts, which rounds count."""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import weights
import wire
import work

from seirenes_jax.errors import ConfigError, NumbersError, SeirenesError

# Of each kind of work, who does it and in which variants; the fastest of them counts.
PLAYERS: dict[str, dict[str, tuple[str, ...]]] = {
    "decode": {"ours": ("",), "tunix": ("",), "hf": ("",)},
    "train": {
        "ours": ("4x320", "4x512", "16x512"),
        "tunix": ("NONE", "DECODER"),
        "trl": ("checkpointing", "none"),
    },
}
SYSTEMS = ("ours", "tunix", "hf", "trl")
SLOWER = 1.3  # a round does not count whose matmul took so many times the fastest
OTHERS = 3.0  # ... or while others had a load average above this
ALIKE = 1e-4  # relative: losses and gradient norms of all systems


@dataclass(frozen=True)
class Order:
    """What was asked for."""

    systems: tuple[str, ...]
    rounds: int
    core: int
    peers: str | None  # the Python that has the peers
    tunix_batches: tuple[str, ...]


@dataclass(frozen=True)
class Player:
    """A system ready to play: its process and what its first calls told."""

    process: wire.Process
    variant: str
    first: dict[str, Any]
    warmed: dict[str, Any]
    tried: dict[str, float]  # CPU seconds of a warmed call, by how it was set up


def kind_of(case: str) -> str:
    if case in work.DECODE:
        return "decode"
    if case in work.TRAIN:
        return "train"
    known = ", ".join([*work.DECODE, *work.TRAIN])
    raise ConfigError(f"--cases: got {case!r}; wanted some of {known}")


def players(case: str, order: Order) -> dict[str, tuple[str, ...]]:
    """Who of the systems asked for does this work, in which variants."""
    found = {s: v for s, v in PLAYERS[kind_of(case)].items() if s in order.systems}
    if not found:
        raise ConfigError(
            f"{case}: none of --systems={','.join(order.systems)} does it; wanted one of "
            f"{', '.join(PLAYERS[kind_of(case)])}"
        )
    if case.endswith("quick"):  # one will do to see that it works
        found = {system: variants[:1] for system, variants in found.items()}
    if kind_of(case) == "decode" and "tunix" in found and order.tunix_batches:
        found["tunix"] = order.tunix_batches
    return found


def calls(case: str, order: Order) -> int:
    """How often `note` will be called, if every round counts."""
    found = players(case, order)
    return sum(2 * len(variants) for variants in found.values()) + order.rounds * len(found)


def play(
    case: str, order: Order, models: Path, gauge: wire.Process, note: Callable[[str], None]
) -> dict[str, Any]:
    """One case from the first process to its medians."""
    find = work.DECODE if kind_of(case) == "decode" else work.TRAIN
    folder = model_folder(find[case].shape, models, countdown=kind_of(case) == "decode")
    with ExitStack() as stack, named_failures(case):
        found = {
            system: stack.enter_context(fastest(system, variants, case, order, folder, note))
            for system, variants in players(case, order).items()
        }
        agree(case, {s: player.first for s, player in found.items()})
        rounds = play_rounds(case, order, gauge, found, note)
    counted, rejected = counting(rounds, order.rounds)
    return summary(case, found, counted, rejected)


def model_folder(shape: str, models: Path, *, countdown: bool) -> Path:
    folder = models / f"{shape}-{'countdown' if countdown else 'random'}"
    if not folder.exists():
        weights.write_model(work.SHAPES[shape], folder, countdown=countdown)
    return folder


@contextmanager
def named_failures(case: str) -> Iterator[None]:
    try:
        yield
    except wire.Lost as lost:
        raise SeirenesError(f"{case}: {lost}") from lost
    except work.Wrong as wrong:
        raise NumbersError(f"{case}: {wrong}; nothing was timed") from wrong


@contextmanager
def gauge(order: Order) -> Iterator[wire.Process]:
    """What says before each round how fast the machine is."""
    with process("gauge", {"kind": "gauge", "case": "", "folder": "", "variant": ""}, order) as one:
        one.call()
        yield one


@contextmanager
def process(system: str, words: dict[str, str], order: Order) -> Iterator[wire.Process]:
    python = sys.executable if system in ("ours", "gauge") else str(order.peers)
    with tempfile.TemporaryDirectory() as logs:
        one = wire.Process(
            f"run_{system}.py", words, python=python, core=order.core, log=Path(logs) / "log"
        )
        try:
            yield one
        finally:
            one.close()


@contextmanager
def fastest(
    system: str, variants: Sequence[str], case: str, order: Order, folder: Path,
    note: Callable[[str], None],
) -> Iterator[Player]:  # fmt: skip
    """Warm every variant up, measure its memory, keep the fastest and let the others go."""
    best: Player | None = None
    tried: dict[str, float] = {}
    with ExitStack() as kept:
        for variant in variants:
            with ExitStack() as stack:
                words = {
                    "kind": kind_of(case), "case": case, "folder": str(folder), "variant": variant
                }  # fmt: skip
                one = stack.enter_context(process(system, words, order))
                note(f"{case} {system}: first call")
                first = checked(case, system, one.call())
                note(f"{case} {system}: memory")
                warmed = checked(case, system, one.call(memory=True))
                tried[one.ready["setup"]] = warmed["cpu_s"]
                if best is None or warmed["cpu_s"] < best.warmed["cpu_s"]:
                    kept.close()
                    kept.push(stack.pop_all())
                    best = Player(one, variant, first, warmed, tried)
        assert best is not None, "a system without variants"
        yield best


def checked(case: str, system: str, told: dict[str, Any]) -> dict[str, Any]:
    """What a call told, if the work was done; answers are looked at token by token."""
    try:
        if kind_of(case) == "decode":
            work.DECODE[case].refuse_wrong(told.pop("answers"))
        elif not math.isfinite(told["loss"] + told["grad_norm"]):
            raise work.Wrong(f"loss {told['loss']}, gradient norm {told['grad_norm']}")
    except work.Wrong as wrong:
        raise work.Wrong(f"{system}: {wrong}") from wrong
    return told


def agree(case: str, first: dict[str, dict[str, Any]]) -> None:
    """All systems' first update starts from the same weights: its loss and gradient are one."""
    if kind_of(case) == "decode":
        return
    for name in ("loss", "grad_norm"):
        found = {system: told[name] for system, told in first.items()}
        low, high = min(found.values()), max(found.values())
        if high - low > ALIKE * max(abs(low), abs(high)):
            raise work.Wrong(f"{name} of the first update: {found}; wanted {ALIKE} relative")


def play_rounds(
    case: str, order: Order, gauge: wire.Process, found: dict[str, Player],
    note: Callable[[str], None],
) -> list[dict[str, Any]]:  # fmt: skip
    """A, B, C, D, A, ... until enough rounds count, or twice as many were played."""
    rounds: list[dict[str, Any]] = []
    while len(rounds) < 2 * order.rounds:
        calm = sum(map(is_calm(rounds), rounds))
        if calm == order.rounds:
            break
        one: dict[str, Any] = {"gauge": gauge.call(), "load": others()}
        for system, player in found.items():
            note(f"{case} {system}: round {calm + 1}/{order.rounds}")
            one[system] = checked(case, system, player.process.call())
        rounds.append(one)
    return rounds


def others() -> float:
    """Load average of a minute without our own: of all our processes one runs at a time."""
    return max(0.0, os.getloadavg()[0] - 1.0)


def is_calm(rounds: Sequence[dict[str, Any]]) -> Callable[[dict[str, Any]], bool]:
    fastest = min((one["gauge"]["took_s"] for one in rounds), default=0.0)
    return lambda one: one["gauge"]["took_s"] <= SLOWER * fastest and one["load"] <= OTHERS


def counting(
    rounds: Sequence[dict[str, Any]], wanted: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rounds that count, and those rejected. Where too few were calm the calmest of the others
    fill up, and each says so."""
    calm = is_calm(rounds)
    order = sorted(rounds, key=lambda one: (not calm(one), one["gauge"]["took_s"]))
    return [{**one, "calm": calm(one)} for one in order[:wanted]], list(order[wanted:])


def summary(
    case: str, found: dict[str, Player], counted: Sequence[dict[str, Any]],
    rejected: Sequence[dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """The case as it stands in the JSON."""
    task = work.DECODE[case] if kind_of(case) == "decode" else work.TRAIN[case]
    peak = max(one["gauge"]["flops"] for one in [*counted, *rejected])
    return {
        "rounds": len(counted),
        "rounds_not_calm": sum(not one["calm"] for one in counted),
        "rounds_rejected": len(rejected),
        "load_of_others": spread([one["load"] for one in counted]),
        "peak_gflops": peak / 1e9,
        "useful_gflop": task.useful_flops() / 1e9,
        "useful_tokens": task.tokens,
        "systems": {
            system: row(system, player, task, counted, peak) for system, player in found.items()
        },
    }


def row(
    system: str, player: Player, task: work.Requests | work.Lessons,
    counted: Sequence[dict[str, Any]], peak: float,
) -> dict[str, Any]:  # fmt: skip
    cpu = [one[system]["cpu_s"] for one in counted]
    # Of each round by itself: what slows a round down slows all of it.
    ratios = [one["tunix"]["cpu_s"] / one[system]["cpu_s"] for one in counted if "tunix" in one]
    return {
        "setup": player.process.ready["setup"],
        "versions": player.process.ready["versions"],
        "cpu_s": spread(cpu),
        "wall_s": spread([one[system]["wall_s"] for one in counted]),
        "tokens_per_cpu_s": task.tokens / median(cpu),
        "x_vs_tunix": median(ratios) if ratios else None,
        "x_vs_tunix_range": [min(ratios), max(ratios)] if ratios else None,
        "slot_use": player.warmed["slot_use"],
        "roofline": task.useful_flops() / median(cpu) / peak,
        "extra_gib": player.warmed["extra_gib"],
        "compile_s": player.first["wall_s"],
        "first": {k: player.first[k] for k in ("loss", "grad_norm") if k in player.first},
        "tried": player.tried,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
