"""Laws of the decoder: who may influence whom; every way to run it is the same function."""

import collections
import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from seirenes_jax.batch import Row, fill, pack
from seirenes_jax.decode import Drawn, Seats, admit, empty, run_chunk
from seirenes_jax.knobs import Batch
from seirenes_jax.models import ModelConfig, forward
from seirenes_jax.models.decoder import LEARN, Block, Layer, look
from seirenes_jax.models.layers import RMSNorm
from seirenes_jax.state import DecodeState, TrainBatch
from seirenes_jax.step import logprobs_and_entropy, score_step
from tests.laws.small import CONFIG, MOE, groups, params, wishes

T = 48


def rows() -> list[Row]:
    return pack(groups(), T)


def batch_of(some: list[Row]) -> TrainBatch:
    return fill(some, Batch(row_tokens=T, rows=3), temperature=1.0)


def score(batch: TrainBatch, config: ModelConfig = CONFIG, weights: Any = None) -> np.ndarray:
    return np.asarray(score_step(params() if weights is None else weights, batch, config=config))


# Who influences whom.

SEEN = {  # a packed row, column by column: what its logprob may depend on
    0: [0], 1: [0, 1], 2: [0, 1, 2],  # a stored prompt
    3: [0, 1, 2, 3], 4: [0, 1, 2, 3, 4], 5: [0, 1, 2, 3, 4, 5],  # its first completion
    6: [0, 1, 2, 6], 7: [0, 1, 2, 6, 7],  # its second completion
    8: [8], 9: [8, 9],  # a completion after a prompt of one token: nothing is stored
    10: [10], 11: [10, 11],  # padding
}  # fmt: skip


def test_gradients_flow_from_ones_own_past_and_prompt_and_from_nowhere_else() -> None:
    # Every column holds another token, so the gradient of an embedding row is that of a column.
    tokens_BT = jnp.arange(12, dtype=jnp.int32)[None]
    positions_BT = jnp.array([[0, 1, 2, 3, 4, 5, 3, 4, 0, 1, 0, 0]], jnp.int32)
    segments_BT = jnp.array([[1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 0, 0]], jnp.int32)
    prefix_BT = jnp.array([[0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]], jnp.int32)

    @jax.jit
    @jax.grad
    def influence(embed_VD: jax.Array, column: jax.Array) -> jax.Array:
        weights = {**params(), "embed": embed_VD}
        hidden_BTD = forward(weights, CONFIG, tokens_BT, positions_BT, segments_BT, prefix_BT)
        logp_BT, _ = logprobs_and_entropy(
            hidden_BTD, weights["head"], (tokens_BT * 7) % 32, jnp.float32(1.0)
        )
        return logp_BT[0, column]

    for column, seen in SEEN.items():
        slope_V = np.abs(influence(params()["embed"], jnp.int32(column))).max(axis=-1)
        assert np.flatnonzero(slope_V).tolist() == seen, f"column {column}"


# One function, however it is laid out.


def test_a_row_says_the_same_alone_shifted_and_in_other_company() -> None:
    *rest, first = rows()
    whole = score(batch_of([first, *rest]))
    alone = batch_of([first])
    np.testing.assert_allclose(score(alone)[0], whole[0], atol=1e-5)
    np.testing.assert_allclose(score(batch_of([*rest, first]))[len(rest)], whole[0], atol=1e-5)
    # Padding on the left: the same row, a few columns further on.
    used = int(np.max(np.flatnonzero(alone.segments_BT[0]))) + 1
    shift = T - used
    assert shift > 0
    moved = jax.tree.map(lambda x: np.roll(x, shift, axis=1) if np.ndim(x) else x, alone)
    np.testing.assert_allclose(np.roll(score(moved), -shift, axis=1)[0], whole[0], atol=1e-5)


def test_the_order_of_groups_in_a_row_changes_nothing() -> None:
    row = next(row for row in rows() if len(row) > 1)
    straight, turned = batch_of([row]), batch_of([row[::-1]])

    def by_answer(batch: TrainBatch) -> dict[bytes, np.ndarray]:
        logp_T, segments_T = score(batch)[0], batch.segments_BT[0]
        rows = [segments_T == s for s in np.unique(segments_T)]
        trained = [row_T for row_T in rows if np.any(batch.train_BT[0] & row_T)]
        return {batch.targets_BT[0][row_T].tobytes(): logp_T[row_T] for row_T in trained}

    found, other = by_answer(straight), by_answer(turned)
    assert found.keys() == other.keys() and len(found) > 2
    for answer, logp in found.items():
        np.testing.assert_allclose(logp, other[answer], atol=1e-5)


@pytest.mark.parametrize("config", [CONFIG, MOE], ids=["dense", "moe"])
def test_scanned_layers_are_the_layers_one_after_another(config: ModelConfig) -> None:
    batch = batch_of(rows())

    @jax.jit
    def unrolled(weights: Any) -> jax.Array:
        view = look(config, *map(jnp.asarray, (
            batch.positions_BT, batch.segments_BT, batch.prefix_BT)))  # fmt: skip
        x_BTD = weights["embed"][batch.tokens_BT]
        for number in range(config.layers):
            own = jax.tree.map(lambda stack, number=number: stack[number], weights["layers"])
            (x_BTD, _), _ = Block(config, LEARN).apply(
                {"params": own}, (x_BTD, None), Layer(jnp.int32(number), None), view
            )
        hidden: jax.Array = RMSNorm(config).apply({"params": weights["norm"]}, x_BTD)
        return hidden

    @jax.jit
    def scanned(weights: Any) -> jax.Array:
        return forward(
            weights, config, batch.tokens_BT, batch.positions_BT, batch.segments_BT, batch.prefix_BT
        )

    weights = params(config=config)
    np.testing.assert_allclose(unrolled(weights), scanned(weights), atol=1e-5)
    kernels = weights["layers"]["attention"]["o"]["kernel"]
    assert not np.allclose(kernels[0], kernels[1])  # the layers are not copies of one another


# What the backward pass recomputes.


def primitives(jaxpr: Any) -> Iterator[str]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr)),
        ):
            if isinstance(inner, core.ClosedJaxpr):
                yield from primitives(inner.jaxpr)
            elif isinstance(inner, core.Jaxpr):
                yield from primitives(inner)


@pytest.mark.parametrize(
    ("config", "kinds"),
    [(CONFIG, ("none", "dots", "full", "offload")), (MOE, ("none", "full"))], ids=["dense", "moe"],
)  # fmt: skip
def test_remat_changes_what_is_kept_and_not_what_comes_out(
    config: ModelConfig, kinds: tuple[str, ...]
) -> None:
    weights = params(config=config)
    batch = jax.tree.map(jnp.asarray, batch_of(rows()))

    def loss(weights: Any, config: ModelConfig) -> jax.Array:
        hidden = forward(
            weights, config, batch.tokens_BT, batch.positions_BT, batch.segments_BT, batch.prefix_BT
        )
        return jnp.mean(jnp.sin(hidden))

    found, products, moves = {}, {}, {}
    for remat in kinds:
        shaped = dataclasses.replace(config, remat=remat)
        slope = partial(jax.value_and_grad(loss), config=shaped)
        counts = collections.Counter(primitives(jax.make_jaxpr(slope)(weights).jaxpr))
        assert (counts["remat2"] > 0) == (remat != "none"), counts
        products[remat], moves[remat] = counts["dot_general"], counts["device_put"]
        found[remat] = jax.jit(slope)(weights)
    assert products["none"] < products["full"]
    if "offload" in kinds:
        # Matrix products done again in the backward pass: none, those of attention, all.
        assert products["none"] < products["dots"] < products["full"] == products["offload"]
        # The inputs of the layers go to the host's memory and come back, there alone.
        assert moves["offload"] == moves["full"] + 2, moves
    for remat in kinds[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
            found["none"], found[remat],
        )  # fmt: skip


def test_bfloat16_stays_close_to_float32() -> None:
    batch = batch_of(rows())
    exact = score(batch)[batch.train_BT]
    rough = score(batch, dataclasses.replace(CONFIG, dtype="bfloat16"))[batch.train_BT]
    assert rough.dtype == np.float32
    off = np.abs(rough - exact)
    assert np.max(off) > 1e-5, "computed in float32 after all"
    # 8 bits of mantissa, 2 layers, logits of a spread of several nats.
    assert np.mean(off) < 0.04 and np.max(off) < 0.2


def test_logits_and_softmax_are_float32_whatever_the_compute_dtype() -> None:
    hidden_D, head_DV = (
        jax.random.normal(jax.random.key(i), shape, jnp.bfloat16)
        for i, shape in enumerate([(CONFIG.width,), (CONFIG.width, CONFIG.vocab)])
    )
    logits_V = np.asarray(hidden_D, np.float64) @ np.asarray(head_DV, np.float64) / 0.7
    exact_V = logits_V - np.log(np.sum(np.exp(logits_V)))
    logp_BT, entropy_BT = logprobs_and_entropy(
        jnp.broadcast_to(hidden_D[None, None], (1, CONFIG.vocab, CONFIG.width)), head_DV,
        jnp.arange(CONFIG.vocab)[None], jnp.float32(0.7),
    )  # fmt: skip
    np.testing.assert_allclose(logp_BT[0], exact_V, atol=1e-4)
    np.testing.assert_allclose(entropy_BT[0], -np.sum(np.exp(exact_V) * exact_V), atol=1e-4)


# Decoding.

SLOTS, COLUMNS, PROMPT, CHUNK = 4, 32, 12, 5
PROMPTS = ((5, 9, 2), (7, 3, 8, 8, 30, 2), (11,), (4, 4, 4, 4, 6))


def seat(
    state: DecodeState, prompts: tuple[tuple[int, ...], ...], slots: list[int],
    config: ModelConfig = CONFIG,
) -> tuple[DecodeState, jax.Array | None]:  # fmt: skip
    """Prompt i goes to slot slots[i]; the new state and the prompts' routes."""
    tokens_PT, length_P = np.zeros((SLOTS, PROMPT), np.int32), np.zeros(SLOTS, np.int32)
    last_B, source_B = np.zeros(SLOTS, np.int32), np.zeros(SLOTS, np.int32)
    for row, (prompt, slot) in enumerate(zip(prompts, slots, strict=True)):
        tokens_PT[row, : len(prompt) - 1], length_P[row] = prompt[:-1], len(prompt) - 1
        last_B[slot], source_B[slot] = prompt[-1], row
    # The draws are those of the prompt's row, wherever it sits.
    key_B2 = np.stack([source_B, source_B + 100], axis=1).astype(np.uint32)
    seats: Any = Seats
    return admit(
        params(config=config), state, (tokens_PT, length_P),
        seats(take_B=np.isin(np.arange(SLOTS), slots), source_B=source_B, token_B=last_B,
              limit_B=np.full(SLOTS, 99, np.int32), key_B2=key_B2),
        config=config,
    )  # fmt: skip


def run(
    state: DecodeState, temperature: float, config: ModelConfig = CONFIG
) -> tuple[DecodeState, Drawn]:
    state, drawn = run_chunk(
        params(config=config), state, wishes(SLOTS, temperature), config=config, chunk=CHUNK,
        columns=COLUMNS, stop_ids=(), filters=False,
    )  # fmt: skip
    return state, jax.tree.map(np.asarray, drawn)


def blank() -> DecodeState:
    return empty(CONFIG, slots=SLOTS, columns=COLUMNS)


@pytest.mark.parametrize("config", [CONFIG, MOE], ids=["dense", "moe"])
def test_prefill_is_decoding_step_by_step(config: ModelConfig) -> None:
    """What a chunk wrote into the cache is what a prefill of prompt and answer writes.

    Both go on alike.
    """
    state, of_prompts = seat(blank(), PROMPTS, [0, 1, 2, 3], config)
    stepped, drawn = run(state, 0.0, config)
    longer = tuple((*p, *drawn.tokens_BU[b].tolist()) for b, p in enumerate(PROMPTS))
    filled, of_all = seat(blank(), longer, [0, 1, 2, 3], config)
    np.testing.assert_array_equal(stepped.length_B, filled.length_B)
    np.testing.assert_array_equal(stepped.token_B, filled.token_B)
    for mine, theirs in ((stepped.k_NBKSC, filled.k_NBKSC), (stepped.v_NBKSC, filled.v_NBKSC)):
        for slot, prompt in enumerate(longer):
            columns = slice(0, len(prompt) - 1)
            np.testing.assert_allclose(mine[:, slot, columns], theirs[:, slot, columns], atol=1e-5)
    after, wanted = run(stepped, 0.0, config)[1], run(filled, 0.0, config)[1]
    np.testing.assert_array_equal(after.tokens_BU, wanted.tokens_BU)
    np.testing.assert_allclose(after.logprobs_BU, wanted.logprobs_BU, atol=1e-5)
    # So are the experts that were chosen on the way.
    if not config.experts:
        assert of_all is None and drawn.routes_BUNk is None
        return
    assert of_all is not None and of_prompts is not None and drawn.routes_BUNk is not None
    assert drawn.routes_BUNk.dtype == np.uint8 and len(np.unique(drawn.routes_BUNk)) > 4
    np.testing.assert_array_equal(after.routes_BUNk, wanted.routes_BUNk)
    for row, prompt in enumerate(PROMPTS):
        stored = len(prompt) - 1
        whole = np.asarray(of_all)[row]
        np.testing.assert_array_equal(np.asarray(of_prompts)[row, :stored], whole[:stored])
        np.testing.assert_array_equal(drawn.routes_BUNk[row], whole[stored : stored + CHUNK])


def test_slot_order_and_what_a_slot_held_before_change_nothing() -> None:
    state, first = run(seat(blank(), PROMPTS, [0, 1, 2, 3])[0], 1.0)
    more = run(state, 1.0)[1]
    order = [2, 0, 3, 1]
    junk = jax.tree.map(lambda x: jnp.full_like(x, 3) if x.dtype != bool else x, blank())
    state, moved = run(seat(junk, PROMPTS, order)[0], 1.0)
    moved_more = run(state, 1.0)[1]
    np.testing.assert_array_equal(moved.tokens_BU[order], first.tokens_BU)
    np.testing.assert_array_equal(moved_more.tokens_BU[order], more.tokens_BU)
    np.testing.assert_allclose(moved.logprobs_BU[order], first.logprobs_BU, atol=1e-5)
    assert len({row.tobytes() for row in np.asarray(first.tokens_BU)}) == SLOTS


def test_admission_leaves_the_running_slots_alone() -> None:
    state, _ = run(seat(blank(), PROMPTS[:2], [0, 1])[0], 1.0)
    alone = run(jax.tree.map(jnp.copy, state), 1.0)[1]
    company = run(seat(state, PROMPTS[2:], [2, 3])[0], 1.0)[1]
    np.testing.assert_array_equal(alone.tokens_BU[:2], company.tokens_BU[:2])
    np.testing.assert_allclose(alone.logprobs_BU[:2], company.logprobs_BU[:2], atol=1e-5)
