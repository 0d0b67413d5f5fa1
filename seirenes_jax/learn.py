"""The learning half of a step: credits through the FIFO, packed, one update."""

from collections.abc import Sequence

import jax
import numpy as np

from seirenes_jax import sharding, streams
from seirenes_jax.batch import lay_out, pack, pieces
from seirenes_jax.errors import NumbersError
from seirenes_jax.gear import Gear, put
from seirenes_jax.masked import Total
from seirenes_jax.models import without_adapters
from seirenes_jax.play import Played
from seirenes_jax.progress import Progress
from seirenes_jax.state import TrainBatch, TrainState
from seirenes_jax.step import add_gradient, apply_gradient, score_step, zero_gradient
from seirenes_jax.types import Credit, Group

BAD_STEPS = 3  # updates in a row that were not finite, after which the run ends
LOOKS_BEYOND = ("whiten", "ema")  # advantages that learn from groups of equal rewards too

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


def micro_batches(
    gear: Gear, progress: Progress, groups: Sequence[Group]
) -> tuple[list[TrainBatch], dict[str, float]]:
    """The step's packed batches, on the host, and the new baselines."""
    completions, baseline = pieces(
        groups, gear.start.tokenizer.render, gear.plan, progress.baseline
    )
    return lay_out(pack(completions, gear.plan.batch.row_tokens), gear.plan), baseline


def update(
    gear: Gear, state: TrainState, micros: Sequence[TrainBatch]
) -> tuple[TrainState, dict[str, Total], float | None]:
    """Accumulate over micro-batches, apply once. No live group at all: no update."""
    if not micros:
        return state, {}, None
    loss, config = gear.settings.loss, gear.start.config
    grads = zero_gradient(state.params)
    found: list[dict[str, Total]] = []
    bar = gear.log.bar("update", len(micros), "micro-batch")
    for micro in micros:
        bar.advance()
        batch = jax.tree.map(put, micro, sharding.batch_shardings(micro, gear.mesh))
        if loss.rescore:
            batch = batch.replace(
                logp_old_BT=score_step(state.params, batch, config=config, base=gear.base),
                logp_behaviour_BT=batch.logp_old_BT,
            )
        if loss.kl != 0.0:
            alone = batch.replace(routes=None)  # other weights choose their own experts
            bare = without_adapters(config)
            batch = batch.replace(logp_ref_BT=score_step(gear.reference, alone, config=bare))
        grads, totals = add_gradient(
            state.params, grads, batch, config=config, loss=loss, streams=gear.plan.streams,
            base=gear.base,
        )  # fmt: skip
        found.append(totals)
    bar.close()
    state, applied = apply_gradient(state, grads, optimizer=gear.optimizer)
    merged = {k: total for k, total in jax.device_get(found[0]).items()}
    for totals in jax.device_get(found[1:]):
        merged = {k: merged[k].add(total) for k, total in totals.items()}
    return state, merged, float(applied["grad_norm"])


def mind_numbers(gear: Gear, progress: Progress, norm: float | None) -> None:
    """Say that a non-finite gradient was not applied; too many in a row end the run."""
    bad = norm is not None and not np.isfinite(norm)
    progress.bad_steps = progress.bad_steps + 1 if bad else 0
    if bad:
        gear.log.event(f"step {progress.step}: gradient norm {norm}; the update was not applied")
    if progress.bad_steps >= BAD_STEPS:
        raise NumbersError(
            f"step {progress.step}: the gradient was not finite in {BAD_STEPS} steps in a "
            "row and none of them was applied; lower optimizer.lr, with --fork to go on from here"
        )
