"""The start-up probe: before a process learns anything, sampler and trainer must tell the same
logprobs for what was really drawn.

They are two programs over one set of weights. Where they part (a kernel, a layout, a temperature, a
wrong resume), every ratio is wrong, and a run learns noise without a sign of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from seirenes_jax import sharding, streams
from seirenes_jax.batch import Piece, Row, fill, pack
from seirenes_jax.errors import NumbersError
from seirenes_jax.gear import Gear, put
from seirenes_jax.hosts import whole
from seirenes_jax.knobs import Numbers
from seirenes_jax.play import Played
from seirenes_jax.rng import stable_hash
from seirenes_jax.state import Params, TrainBatch
from seirenes_jax.step import score_step
from seirenes_jax.types import LIVE, Credit, Name

CAUSES = (
    "Look at: sampler.temperature (a top_k or top_p besides); model.attention and model.moe, of "
    "which decoding and training may use different kernels; decode.* and mesh.*, by which weights "
    "are laid out anew for decoding; model.replay_routes; model.dtype, whose rounding may need a "
    "wider bound (--fork, then)"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """|logprob of the sampler - of the trainer| over the tokens of some answers, in nats."""

    max: float
    mean: float
    tokens: int
    answers: int
    worst: Name
    at: int  # which token of that answer
    said: tuple[float, float]  # the two logprobs there


def shake_hands(gear: Gear, params: Params, played: Sequence[Played], step: int) -> None:
    """Compare them on what the weights of `step` have just drawn; NumbersError above the bounds."""
    row_batch = rows(gear, played, step)
    if not row_batch:
        return
    size = gear.plan.batch
    recorded = next((p.routes.shape[1:] for p in _pieces(row_batch) if p.routes is not None), None)
    micro = fill(row_batch, size, temperature=gear.plan.temperature, recorded=recorded)
    batch = jax.tree.map(put, micro, sharding.batch_shardings(micro, gear.mesh))
    logp_BT = whole(score_step(params, batch, config=gear.start.config, base=gear.base))
    found = difference(row_batch, micro, logp_BT)
    gear.log.event(f"start-up probe: {told(found)}")
    refuse(found, gear.settings.numbers)


def rows(gear: Gear, played: Sequence[Played], step: int) -> list[Row]:
    """One micro-batch of answers of the live policy, drawn by name."""
    groups = streams.grouped([c for one in played for game in one.credits for c in game])
    groups.sort(key=lambda group: stable_hash("probe", group[0].stream, group[0].peers))
    size, render = gear.plan.batch, gear.start.tokenizer.render
    chosen: list[list[Piece]] = []
    room = size.rows * size.row_tokens
    for group in groups:
        mine = [credit for credit in group if _own(credit, step)]
        if mine and room > 0:
            prompt = render(mine[0].rollout.ask.messages)
            chosen.append([_piece(credit, prompt) for credit in mine])
            room -= len(prompt) + sum(len(credit.rollout.tokens) for credit in mine)
    return pack(chosen, size.row_tokens)[: size.rows]


def _own(credit: Credit, step: int) -> bool:
    """Written by the weights at hand."""
    return credit.rollout.policy_step == step and credit.rollout.ask.policy == LIVE


def _piece(credit: Credit, prompt: tuple[int, ...]) -> Piece:
    it = credit.rollout
    return Piece(prompt, it.tokens, it.logprobs, 0.0, 1.0, 0, it.routes, credit)


def _pieces(rows: Sequence[Row]) -> list[Piece]:
    return [piece for row in rows for _, pieces in row for piece in pieces]


def difference(rows: Sequence[Row], batch: TrainBatch, logp_BT: np.ndarray) -> Difference:
    """Of what `fill` laid out; a logprob that is not finite differs by infinity."""
    found: list[tuple[float, int, Piece, tuple[float, float]]] = []
    total, tokens = 0.0, 0
    for b, row in enumerate(rows):
        segment = 0
        for prompt, pieces in row:
            segment += len(prompt) > 1
            for piece in pieces:
                segment += 1
                here = (batch.segments_BT[b] == segment) & batch.train_BT[b]
                theirs = logp_BT[b][np.asarray(here)]
                off = np.abs(piece.logprobs.astype(np.float64) - theirs)
                off = np.where(np.isnan(off), np.inf, off)
                at = int(np.argmax(off))
                said = (float(piece.logprobs[at]), float(theirs[at]))
                found.append((float(off[at]), at, piece, said))
                total, tokens = total + float(off.sum()), tokens + len(off)
    most, at, piece, said = max(found, key=lambda one: one[0])
    assert piece.credit is not None
    return Difference(
        most, total / tokens, tokens, len(found), piece.credit.rollout.name, at, said
    )


def told(found: Difference) -> str:
    """In words."""
    name = found.worst
    return (
        f"sampler against trainer, |difference of logprobs| over {found.tokens} tokens of "
        f"{found.answers} answers: max {found.max:.3g}, mean {found.mean:.3g} nats; worst: problem "
        f"{name.problem!r} visit {name.visit} turn {name.turn} ask {name.ask} sample "
        f"{name.sample}, token {found.at}: {found.said[0]:.4g} against {found.said[1]:.4g}"
    )


def refuse(found: Difference, numbers: Numbers) -> None:
    """NumbersError above the bounds."""
    if found.max <= numbers.probe_max and found.mean <= numbers.probe_mean:
        return
    raise NumbersError(
        f"start-up probe: {told(found)}; wanted at most numbers.probe_max = {numbers.probe_max:g} "
        f"and numbers.probe_mean = {numbers.probe_mean:g}. Nothing was learnt from it. {CAUSES}"
    )
