"""The learning half of a step: credits through the FIFO, packed, one update."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seirenes_jax import sharding, streams
from seirenes_jax.batch import Row, lay_out, pack, pieces
from seirenes_jax.errors import NumbersError
from seirenes_jax.evidence import (
    Evidence,
    chosen,
    command,
    completions,
    keep_only,
    numbers_of,
    place,
    size_of,
    write,
)
from seirenes_jax.gear import Gear, put
from seirenes_jax.hosts import whole, writes
from seirenes_jax.knobs import Numbers
from seirenes_jax.masked import Total
from seirenes_jax.models import without_adapters
from seirenes_jax.play import Played
from seirenes_jax.progress import Progress
from seirenes_jax.state import Params, TrainBatch, TrainState
from seirenes_jax.step import (
    add_gradient,
    apply_gradient,
    bounds,
    score_step,
    still_sound,
    zero_gradient,
)
from seirenes_jax.types import Credit, Group

LOOKS_BEYOND = ("whiten", "ema")  # advantages that learn from groups of equal rewards too

@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """A step's batches, and the new baselines of roles."""

    rows: list[Row]
    micros: list[TrainBatch]
    baseline: dict[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """What an update said."""

    totals: dict[str, Total]
    parts: tuple[dict[str, Total], ...]  # of each micro-batch
    norm: float | None  # None: no update
    applied: bool
    fed: tuple[TrainBatch, ...]  # what was learnt from: on the host, but what weights told


Queued = tuple[list[Group], streams.Streams, dict[str, streams.Live], dict[str, streams.Fifo]]


def queue_groups(gear: Gear, progress: Progress, step: int, played: Sequence[Played]) -> Queued:
    """Through the FIFO: what this step trains on, and what waits."""
    credits: list[Credit] = [c for one in played for game in one.credits for c in game]
    waiting, live = progress.streams.push(
        step, streams.grouped(credits),
        drop_dead=gear.settings.advantage.kind not in LOOKS_BEYOND,
    )  # fmt: skip
    waiting, taken, fifo = waiting.pop(step, gear.settings.streams.groups)
    return [group for name in gear.plan.streams for group in taken[name]], waiting, live, fifo


def micro_batches(gear: Gear, progress: Progress, groups: Sequence[Group]) -> Packed:
    """The step's packed batches, on the host, and the new baselines."""
    completions, baseline = pieces(
        groups, gear.start.tokenizer.render, gear.plan, progress.baseline
    )
    rows = pack(completions, gear.plan.batch.row_tokens)
    return Packed(rows, lay_out(rows, gear.plan), baseline)


def update(
    gear: Gear, state: TrainState, micros: Sequence[TrainBatch]
) -> tuple[TrainState, Learnt]:
    """Accumulate over micro-batches, apply once, if no number went bad. No live group at all: no
    update."""
    if not micros:
        return state, Learnt({}, (), None, True, ())
    settings = gear.settings
    grads = zero_gradient(state.params)
    everywhere = NamedSharding(gear.mesh, PartitionSpec())
    sound = put(np.bool_(True), everywhere)
    found: list[dict[str, Total]] = []
    fed: list[TrainBatch] = []
    bar = gear.log.bar("update", len(micros), "micro-batch")
    for micro in micros:
        bar.advance()
        batch = scored(gear, state.params, micro)
        grads, totals = add_gradient(
            state.params, grads, batch, config=gear.start.config, loss=settings.loss,
            streams=gear.plan.streams, base=gear.base,
        )  # fmt: skip
        sound = still_sound(sound, totals, numbers=settings.numbers)
        found.append(totals)
        fed.append(micro.replace(  # type: ignore[attr-defined]
            logp_old_BT=batch.logp_old_BT if settings.loss.rescore else micro.logp_old_BT,
            logp_behaviour_BT=batch.logp_behaviour_BT, logp_ref_BT=batch.logp_ref_BT,
        ))  # fmt: skip
    bar.close()
    state, said = apply_gradient(
        state, grads, sound, optimizer=gear.optimizer, most=settings.numbers.gradient
    )
    parts = jax.device_get(found)
    merged = dict(parts[0])
    for totals in parts[1:]:
        merged = {k: merged[k].add(total) for k, total in totals.items()}
    return state, Learnt(
        merged, tuple(parts), float(said["grad_norm"]), bool(said["applied"]), tuple(fed)
    )


def scored(gear: Gear, params: Params, micro: TrainBatch) -> TrainBatch:
    """On the devices, with the logprobs that only weights can tell."""
    loss, config = gear.settings.loss, gear.start.config
    batch = jax.tree.map(put, micro, sharding.batch_shardings(micro, gear.mesh))
    if loss.rescore:
        batch = batch.replace(
            logp_old_BT=score_step(params, batch, config=config, base=gear.base),
            logp_behaviour_BT=batch.logp_old_BT,
        )
    if loss.kl != 0.0:
        alone = batch.replace(routes=None)  # other weights choose their own experts
        bare = without_adapters(config)
        batch = batch.replace(logp_ref_BT=score_step(gear.reference, alone, config=bare))
    return batch  # type: ignore[no-any-return]


def complaints(learnt: Learnt, numbers: Numbers) -> tuple[list[str], list[int]]:
    """What is not finite or above its bound, in words, and in which micro-batches."""
    said: dict[str, float] = {}
    bad = []
    for index, totals in enumerate(learnt.parts):
        values = numbers_of(totals)
        wrong = {
            f"{name} (numbers.{knob(name)} = {limit:g})": values[name]
            for name, limit in bounds(values, numbers).items() if not abs(values[name]) <= limit
        }  # fmt: skip
        bad += [index] * bool(wrong)
        said |= wrong
    if learnt.norm is not None and not learnt.norm <= numbers.gradient:
        said[f"gradient norm (numbers.gradient = {numbers.gradient:g})"] = learnt.norm
    return [f"{what}: {value:g}" for what, value in said.items()], bad


def knob(name: str) -> str:
    """The knob of `numbers` that bounds a total."""
    return {"ratio_max": "ratio", "logp_max": "logprob"}.get(name, "loss")


def mind_numbers(gear: Gear, progress: Progress, packed: Packed, learnt: Learnt) -> None:
    """Say that a step was not applied, and keep what it would have learnt from."""
    progress.bad_steps = 0 if learnt.applied else progress.bad_steps + 1
    if learnt.applied:
        return
    assert learnt.norm is not None
    numbers, step = gear.settings.numbers, progress.step
    words, bad = complaints(learnt, numbers)
    # The weights do not move while steps go bad: one checkpoint serves all of them.
    checkpoint = progress.bad[-1]["checkpoint"] if progress.bad_steps > 1 else step
    progress.bad = [*progress.bad, {"step": step, "checkpoint": checkpoint}][-numbers.keep :]
    kept = chosen(bad, [size_of(batch) for batch in packed.micros], numbers.most_mib)
    batches = tuple(_on_host(learnt.fed[index]) for index in kept)
    if not writes():
        return
    folder = write(gear.log.folder, Evidence(
        step, checkpoint, tuple(words), numbers_of(learnt.totals) | {"grad_norm": learnt.norm},
        tuple(numbers_of(part) for part in learnt.parts), kept, batches,
        tuple(completions(
            packed.rows, gear.plan.batch.rows, kept, read=gear.start.tokenizer.decode_many,
            streams=gear.plan.streams,
        )),
    ))  # fmt: skip
    keep_only(gear.log.folder, [one["step"] for one in progress.bad])
    told = f"step {step} was not applied: {'; '.join(words)}. To see why: {command(folder)}"
    gear.log.say(told)
    gear.log.event(told)


def _on_host(batch: TrainBatch) -> TrainBatch:
    return jax.tree.map(lambda x: whole(x) if isinstance(x, jax.Array) else x, batch)  # type: ignore[no-any-return]


def refuse_more(gear: Gear, progress: Progress) -> None:
    """Too many steps in a row were not applied; all of them are saved and can be looked at."""
    if progress.bad_steps < gear.settings.numbers.in_a_row:
        return
    folder = place(gear.log.folder, progress.step)
    raise NumbersError(
        f"step {progress.step}: numbers were not finite or above their bounds in "
        f"{progress.bad_steps} steps in a row, and none of them was applied (numbers.in_a_row = "
        f"{gear.settings.numbers.in_a_row}). To see why: {command(folder)}. Lower optimizer.lr, or "
        "raise a bound of numbers.* that is too tight, with --fork to go on from here"
    )
