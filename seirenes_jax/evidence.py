"""What is kept of a step whose numbers went bad: RUN/bad/step-N, enough to compute them again.

`batch.npz` holds the micro-batches as they were learnt from, `evidence.json` what can be read:
complaints, the numbers that were seen, and every completion with its prompt, credit and name. The
weights are those of the checkpoint it names, which retention leaves alone.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from seirenes_jax.batch import Piece, Row
from seirenes_jax.errors import ConfigError
from seirenes_jax.masked import Total
from seirenes_jax.report import plain, saving, write_json
from seirenes_jax.state import TrainBatch

FOLDER = "bad"
FIELDS = tuple(field.name for field in fields(TrainBatch))
MIB = 2**20

Numbers = dict[str, float]  # by name of a total; as float32 has them


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One step, on the host."""

    step: int
    checkpoint: int  # the saved step whose weights are those it was computed with
    complaints: tuple[str, ...]
    seen: Numbers  # of the whole step
    parts: tuple[Numbers, ...]  # of each micro-batch
    kept: tuple[int, ...]  # which micro-batches are here; the others were too much
    batches: tuple[TrainBatch, ...]  # those, NumPy
    completions: tuple[dict[str, Any], ...]  # of those


def numbers_of(totals: Mapping[str, Total]) -> Numbers:
    """Every total's value, on the host."""
    return {name: float(total.value()) for name, total in totals.items() if total.count > 0}


def place(run: Path, step: int) -> Path:
    """Where a step of this run is kept."""
    return run / FOLDER / f"step-{step}"


def command(folder: Path) -> str:
    """What computes it again."""
    return f"python launch/replay.py {folder}"


def chosen(bad: Sequence[int], sizes: Sequence[int], most_mib: float) -> tuple[int, ...]:
    """Which micro-batches are kept: the bad ones first, the rest in order, as many as fit; one
    always is."""
    order = sorted(range(len(sizes)), key=lambda i: (i not in bad, i))
    kept, room = [order[0]], most_mib * MIB - sizes[order[0]]
    for i in order[1:]:
        if sizes[i] > room:
            break
        kept.append(i)
        room -= sizes[i]
    return tuple(sorted(kept))


def size_of(batch: TrainBatch) -> int:
    """Bytes of its arrays."""
    arrays = (getattr(batch, name) for name in FIELDS)
    return sum(int(x.nbytes) for x in arrays if x is not None)


def completions(
    rows: Sequence[Row], per_batch: int, kept: Sequence[int],
    *, read: Callable[[Sequence[Sequence[int]]], list[str]], streams: Sequence[str],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every completion of these micro-batches with its place in them, as `batch.fill` laid it."""
    found: list[dict[str, Any]] = []
    for index in kept:
        for b, row in enumerate(rows[index * per_batch : (index + 1) * per_batch]):
            segment = 0
            for prompt, pieces in row:
                segment += len(prompt) > 1
                (words,) = read([prompt])
                texts = read([piece.tokens.tolist() for piece in pieces])
                for piece, text in zip(pieces, texts, strict=True):
                    segment += 1
                    found.append(
                        {"micro_batch": index, "row": b, "segment": segment,
                         "stream": streams[piece.stream], **_credited(piece),
                         "advantage": piece.advantage, "weight": piece.weight,
                         "tokens": len(piece.tokens), "prompt": words, "completion": text}
                    )  # fmt: skip
    return found


def _credited(piece: Piece) -> dict[str, Any]:
    if piece.credit is None:
        return {}
    credit, rollout = piece.credit, piece.credit.rollout
    return {
        "name": asdict(rollout.name), "role": rollout.ask.role, "peers": credit.peers,
        "reward": credit.reward, "credit_weight": credit.weight,
        "verdict": None if rollout.verdict is None else str(rollout.verdict), "stop": rollout.stop,
        "policy_step": rollout.policy_step,
    }  # fmt: skip


def write(run: Path, it: Evidence) -> Path:
    """All of it or nothing; the folder."""
    folder = place(run, it.step)
    part = folder.with_name(f".{folder.name}.part")
    with saving(folder):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        arrays = {
            f"{index}.{name}": getattr(batch, name)
            for index, batch in zip(it.kept, it.batches, strict=True)
            for name in FIELDS if getattr(batch, name) is not None
        }  # fmt: skip
        np.savez_compressed(part / "batch.npz", **arrays)
        write_json(part / "evidence.json", {
            "step": it.step, "checkpoint": it.checkpoint, "complaints": it.complaints,
            "command": command(folder), "micro_batches": len(it.parts), "kept": it.kept,
            "seen": _spelled(it.seen), "parts": [_spelled(part) for part in it.parts],
            "completions": [_spelled(one) for one in it.completions],
        })  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    return folder


def read(folder: Path) -> Evidence:
    """What `write` was given; ConfigError where it is no such folder."""
    try:
        told = json.loads((folder / "evidence.json").read_text())
        with np.load(folder / "batch.npz") as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder}: no step with bad numbers can be read there ({error}); wanted RUN/bad/step-N"
        ) from error
    batches = []
    for index in told["kept"]:
        found: dict[str, Any] = {name: arrays.get(f"{index}.{name}") for name in FIELDS}
        batches.append(TrainBatch(**found))
    return Evidence(
        told["step"], told["checkpoint"], tuple(told["complaints"]), _read_numbers(told["seen"]),
        tuple(_read_numbers(part) for part in told["parts"]), tuple(told["kept"]), tuple(batches),
        tuple(told["completions"]),
    )  # fmt: skip


def keep_only(run: Path, steps: Sequence[int]) -> None:
    """Let go of what is kept of other steps, and of what a kill left half written."""
    names = {place(run, step).name for step in steps}
    for entry in sorted((run / FOLDER).iterdir()) if (run / FOLDER).is_dir() else ():
        if entry.name not in names:
            shutil.rmtree(entry, ignore_errors=True)


def _spelled(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no nan: it goes as a word, and comes back."""
    return {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else plain(value)
        for name, value in values.items()
    }


def _read_numbers(values: Mapping[str, Any]) -> Numbers:
    return {name: float(value) for name, value in values.items()}
