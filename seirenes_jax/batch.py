"""Credits -> advantages -> packed rows of fixed shape. Host side, NumPy, deterministic.

A group's prompt is stored once per row; every stream's weight over its *global* denominator is
folded into `weight_BT` here, before the first backward pass, so micro-batches and packing cannot
change the loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seirenes_jax.advantages import ADVANTAGES
from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Advantage, Batch, Loss, Streams
from seirenes_jax.losses import token_weights
from seirenes_jax.state import NOT_RECORDED, TrainBatch
from seirenes_jax.types import Credit, Group, Messages

Render = Callable[[Messages], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Piece:
    """A completion with all that the loss needs of it."""

    prompt: tuple[int, ...]
    tokens: np.ndarray
    logprobs: np.ndarray
    advantage: float
    weight: float  # per token
    stream: int
    routes: np.ndarray | None = None  # uint8 [stored prompt + tokens, layers, experts per token]
    credit: Credit | None = None  # whose it is, for the record of a step that went bad


@dataclass(frozen=True, slots=True)
class Plan:
    """What turns credits into numbers; the same for every step of a run."""

    streams: tuple[str, ...]
    limits: tuple[int, ...]  # longest answer of each stream, in tokens
    advantage: Advantage
    loss: Loss
    knobs: Streams
    batch: Batch
    temperature: float


def pieces(
    groups: Sequence[Group], render: Render, plan: Plan, baseline: dict[str, float]
) -> tuple[list[list[Piece]], dict[str, float]]:
    """Every group's trained completions with advantage and token weight; and the new baselines.

    Statistics over a role are taken over its stream: clean and hinted tries have different means.
    """
    credits = [credit for group in groups for credit in group]
    stream_R = np.array([plan.streams.index(c.stream) for c in credits], np.int64)
    length_R = np.array([len(c.rollout.tokens) for c in credits], np.int64)
    group_R = np.array([i for i, group in enumerate(groups) for _ in group], np.int64)
    rewards_R = np.array([c.reward for c in credits], np.float64)
    weight_R = np.array([c.weight for c in credits], np.float64)
    adv_R, baseline = ADVANTAGES[plan.advantage.kind](
        rewards_R, group_R, stream_R, weight_R, settings=plan.advantage, state=baseline
    )
    token_R = token_weights(
        length_R, stream_R, weight_R, aggregate=plan.loss.aggregate,
        stream_weights=np.array([plan.knobs.weights[s] for s in plan.streams]),
        limits=np.array(plan.limits),
    )  # fmt: skip
    out: list[list[Piece]] = [[] for _ in groups]
    for i, credit in enumerate(credits):
        if token_R[i] > 0:
            out[group_R[i]].append(
                _piece(credit, render, adv_R[i], token_R[i], int(stream_R[i]))
            )
    return [group for group in out if group], baseline


def _piece(credit: Credit, render: Render, adv: float, weight: float, stream: int) -> Piece:
    rollout = credit.rollout
    prompt = render(credit.train_under or rollout.ask.messages)
    # Under another prompt the recorded experts are those of other hidden states.
    routes = rollout.routes if credit.train_under is None else None
    return Piece(
        prompt, rollout.tokens, rollout.logprobs, float(adv), float(weight), stream, routes,
        credit,
    )  # fmt: skip


Row = list[tuple[tuple[int, ...], list[Piece]]]  # a packed row: prompts, each with its completions


def pack(groups: Sequence[Sequence[Piece]], row_tokens: int) -> list[Row]:
    """First fit, longest group first; what outgrows a row repeats its prompt."""
    rows: list[Row] = []
    room: list[int] = []
    order = sorted(range(len(groups)), key=lambda i: (-_size(groups[i]), i))
    for i in order:
        left = list(groups[i])
        while left:
            need = min(_size(left), row_tokens)
            spot = next((r for r, space in enumerate(room) if space >= need), len(rows))
            if spot == len(rows):
                rows.append([])
                room.append(row_tokens)
            prompt, taken = left[0].prompt, []
            room[spot] -= len(prompt) - 1
            while left and len(left[0].tokens) <= room[spot]:
                room[spot] -= len(left[0].tokens)
                taken.append(left.pop(0))
            if not taken:
                raise ConfigError(
                    f"a prompt of {len(prompt)} tokens and an answer of {len(left[0].tokens)} "
                    f"do not fit a row of batch.row_tokens = {row_tokens}; raise it to "
                    "tokens.prompt + the longest answer"
                )
            rows[spot].append((prompt, taken))
    return rows


def _size(group: Sequence[Piece]) -> int:
    return len(group[0].prompt) - 1 + sum(len(piece.tokens) for piece in group)


def lay_out(rows: Sequence[Row], plan: Plan) -> list[TrainBatch]:
    """Rows -> micro-batches of batch.rows x batch.row_tokens."""
    recorded = _recorded(rows)
    return [
        fill(
            rows[start : start + plan.batch.rows], plan.batch, temperature=plan.temperature,
            recorded=recorded,
        )
        for start in range(0, len(rows), plan.batch.rows)
    ]  # fmt: skip


def _recorded(rows: Sequence[Row]) -> tuple[int, ...] | None:
    """(layers, experts per token) where any route is recorded; all micro-batches are alike."""
    pieces = (piece for row in rows for _, completions in row for piece in completions)
    return next((piece.routes.shape[1:] for piece in pieces if piece.routes is not None), None)


def fill(
    rows: Sequence[Row], size: Batch, *, temperature: float,
    recorded: tuple[int, ...] | None = None,
) -> TrainBatch:  # fmt: skip
    """One micro-batch; missing rows are padding of weight 0. `recorded`: see `_recorded`."""
    B, T = size.rows, size.row_tokens
    ints = {k: np.zeros((B, T), np.int32) for k in ("tok", "tgt", "pos", "seg", "pre", "role")}
    reals = {k: np.zeros((B, T), np.float32) for k in ("old", "adv", "w")}
    train = np.zeros((B, T), bool)
    every = {**ints, **reals, "train": train}
    if recorded is not None:
        every["routes"] = np.full((B, T, *recorded), NOT_RECORDED, np.uint8)
    for b, row in enumerate(rows):
        _fill_row(row, {k: v[b] for k, v in every.items()})
    on_host: Any = TrainBatch  # NumPy until the loop puts it on the devices
    batch: TrainBatch = on_host(
        tokens_BT=ints["tok"], targets_BT=ints["tgt"], positions_BT=ints["pos"],
        segments_BT=ints["seg"], prefix_BT=ints["pre"], train_BT=train, logp_old_BT=reals["old"],
        logp_behaviour_BT=None, logp_ref_BT=None, adv_BT=reals["adv"], role_BT=ints["role"],
        weight_BT=reals["w"], temperature=np.float32(temperature), routes=every.get("routes"),
    )  # fmt: skip
    return batch


def _fill_row(row: Row, at: dict[str, np.ndarray]) -> None:
    column = segment = 0
    for prompt, completions in row:
        stored = len(prompt) - 1
        segment += stored > 0  # nothing stored, no number: there are never more than columns
        prefix = segment if stored else 0
        here = slice(column, column + stored)
        at["tok"][here] = prompt[:-1]
        at["pos"][here] = np.arange(stored)
        at["seg"][here] = segment
        if "routes" in at:
            known = (piece.routes for piece in completions if piece.routes is not None)
            at["routes"][here] = next((r[:stored] for r in known), NOT_RECORDED)
        column += stored
        for piece in completions:
            segment += 1
            n = len(piece.tokens)
            here = slice(column, column + n)
            at["tok"][here] = [prompt[-1], *piece.tokens[:-1]]
            at["tgt"][here] = piece.tokens
            at["pos"][here] = np.arange(stored, stored + n)
            at["seg"][here], at["pre"][here], at["role"][here] = segment, prefix, piece.stream
            at["train"][here] = True
            at["old"][here] = piece.logprobs
            at["adv"][here], at["w"][here] = piece.advantage, piece.weight
            if piece.routes is not None:
                at["routes"][here] = piece.routes[stored:]
            column += n
