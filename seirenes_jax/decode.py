"""Decoding on slots: three pure programs on a DecodeState: empty, admit, run a chunk.

All slots step together. What a slot held before a chunk (the past) is only read during it; what
the chunk adds is written at one common column and folded into the past when the chunk ends. A slot
that ends early idles until then.
"""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from seirenes_jax.models import ModelConfig, Slots, head_kernel_DV, prefill, step
from seirenes_jax.sampling import Wishes, draw, uniforms
from seirenes_jax.sharding import place, slot_shardings
from seirenes_jax.state import DecodeState, Params

Carry = tuple[jax.Array, ...]


@flax.struct.dataclass
class Seats:
    """Which slots are filled, from which prompt, with what."""

    take_B: jax.Array  # bool
    source_B: jax.Array  # int32, row of the prefilled prompts
    token_B: jax.Array  # int32, each prompt's last token: the first input of decoding
    limit_B: jax.Array  # int32
    key_B2: jax.Array  # uint32


@flax.struct.dataclass
class Drawn:
    """What a chunk brought: of slot b the first count_B[b] columns."""

    tokens_BU: jax.Array
    logprobs_BU: jax.Array
    count_B: jax.Array
    routes_BUNk: jax.Array | None  # uint8, the experts of each *input*; None: no experts


@partial(jax.jit, static_argnames=("config", "slots", "columns"))
def empty(config: ModelConfig, *, slots: int, columns: int) -> DecodeState:
    """No slot live. `columns` must hold prompt + answer + one chunk."""
    shape = (config.layers, slots, config.kv_heads, columns, config.head_dim)
    state = DecodeState(
        k_NBKSC=jnp.zeros(shape, jnp.dtype(config.dtype)),
        v_NBKSC=jnp.zeros(shape, jnp.dtype(config.dtype)),
        length_B=jnp.zeros(slots, jnp.int32),
        token_B=jnp.zeros(slots, jnp.int32),
        drawn_B=jnp.zeros(slots, jnp.int32),
        limit_B=jnp.zeros(slots, jnp.int32),
        key_B2=jnp.zeros((slots, 2), jnp.uint32),
        live_B=jnp.zeros(slots, bool),
    )
    return _placed(state, config)


@partial(jax.jit, static_argnames=("config",), donate_argnames=("state",))
def admit(
    params: Params, state: DecodeState, prompts: tuple[jax.Array, jax.Array], seats: Seats,
    *, config: ModelConfig,
) -> tuple[DecodeState, jax.Array | None]:  # fmt: skip
    """Prefill each distinct prompt once and seat its samples; the prompts' routes_PTNk.

    `prompts` = tokens_PT (without each prompt's last token) and length_P; a slot b with
    seats.take_B[b] gets the cache of prompt seats.source_B[b].
    """
    tokens_PT, length_P = prompts
    tokens_PT = place(tokens_PT, config.mesh, "rows", None)
    (k_NPTKC, v_NPTKC), routes_PTNk = prefill(params, config, tokens_PT, length_P)
    T = tokens_PT.shape[1]

    def seat(cache_NBKSC: jax.Array, new_NPTKC: jax.Array) -> jax.Array:
        new_NBKTC = jnp.swapaxes(new_NPTKC, 2, 3)[:, seats.source_B].astype(cache_NBKSC.dtype)
        take = seats.take_B[None, :, None, None, None]
        new_NBKTC = jnp.where(take, new_NBKTC, cache_NBKSC[:, :, :, :T])
        return cache_NBKSC.at[:, :, :, :T].set(new_NBKTC)

    def choose(new_B: jax.Array, old_B: jax.Array) -> jax.Array:
        return jnp.where(seats.take_B, new_B, old_B)

    after = DecodeState(
        k_NBKSC=seat(state.k_NBKSC, k_NPTKC),
        v_NBKSC=seat(state.v_NBKSC, v_NPTKC),
        length_B=choose(length_P[seats.source_B], state.length_B),
        token_B=choose(seats.token_B, state.token_B),
        drawn_B=choose(jnp.zeros_like(state.drawn_B), state.drawn_B),
        limit_B=choose(seats.limit_B, state.limit_B),
        key_B2=jnp.where(seats.take_B[:, None], seats.key_B2, state.key_B2),
        live_B=state.live_B | seats.take_B,
    )
    return _placed(after, config), _told(routes_PTNk if config.replay_routes else None, config)


def _placed(state: DecodeState, config: ModelConfig) -> DecodeState:
    """A program hands the slots back where it found them."""
    if config.mesh is None:
        return state
    shardings = slot_shardings(state, config.mesh)
    placed: DecodeState = jax.tree.map(jax.lax.with_sharding_constraint, state, shardings)
    return placed


@partial(
    jax.jit,
    static_argnames=("config", "chunk", "columns", "stop_ids", "filters"),
    donate_argnames=("state",),
)
def run_chunk(
    params: Params, state: DecodeState, wishes: Wishes, *, config: ModelConfig, chunk: int,
    columns: int, stop_ids: tuple[int, ...], filters: bool,
) -> tuple[DecodeState, Drawn]:  # fmt: skip
    """`chunk` tokens for every live slot.

    Attends the first `columns` of the past only: the caller picks a bucket that covers every live
    slot; and says whether any of them `filters` its draws.
    """
    N, B, K, _, C = state.k_NBKSC.shape
    past = (state.k_NBKSC, state.v_NBKSC)
    past_mask_BS = jnp.arange(columns)[None, :] < state.length_B[:, None]
    head_DV = head_kernel_DV(params, config)
    stops = jnp.array(stop_ids, jnp.int32)

    def one_token(carry: Carry, column: jax.Array) -> tuple[Carry, Any]:
        k_NBUKC, v_NBUKC, token_B, drawn_B, live_B = carry
        view = Slots(
            positions_BT=(state.length_B + column)[:, None], past=past, column=column,
            past_mask_BS=past_mask_BS, fresh_mask_U=jnp.arange(chunk) <= column,
        )  # fmt: skip
        hidden_BD, fresh, routes_BNk = step(params, config, token_B, view, (k_NBUKC, v_NBUKC))
        with jax.named_scope("head"):
            logits_BV = jnp.dot(hidden_BD, head_DV, preferred_element_type=jnp.float32)
            # Made in parts, then gathered; else the compiler gathers the head, for every token.
            logits_BV = place(logits_BV, config.mesh, "rows", "vocab")
        with jax.named_scope("draw"):
            logits_BV = place(logits_BV, config.mesh, "rows", None)  # a draw looks at a whole row
            uniform_B = uniforms(state.key_B2, drawn_B)
            new_B, logp_B = draw(logits_BV, uniform_B, wishes, filters=filters)
        counted_B = live_B
        drawn_B = drawn_B + live_B.astype(jnp.int32)
        ended_B = jnp.any(new_B[:, None] == stops[None, :], axis=1) | (drawn_B >= state.limit_B)
        live_B = live_B & ~ended_B
        said = (new_B, logp_B, counted_B, routes_BNk if config.replay_routes else None)
        return (*fresh, new_B, drawn_B, live_B), said

    zeros = jnp.zeros((N, B, chunk, K, C), state.k_NBKSC.dtype)
    zeros = place(zeros, config.mesh, "layers", "rows", None, "kv_heads", "head_dim")
    carry: Carry = (zeros, zeros, state.token_B, state.drawn_B, state.live_B)
    carry, (tokens_UB, logps_UB, counted_UB, routes_UBNk) = jax.lax.scan(
        one_token, carry, jnp.arange(chunk, dtype=jnp.int32)
    )
    k_NBUKC, v_NBUKC, token_B, drawn_B, live_B = carry
    after = state.replace(  # type: ignore[attr-defined]
        k_NBKSC=_fold(state.k_NBKSC, k_NBUKC, state.length_B),
        v_NBKSC=_fold(state.v_NBKSC, v_NBUKC, state.length_B),
        length_B=state.length_B + chunk * live_B.astype(jnp.int32),
        token_B=token_B, drawn_B=drawn_B, live_B=live_B,
    )  # fmt: skip
    drawn = Drawn(
        tokens_BU=tokens_UB.T, logprobs_BU=logps_UB.T,
        count_B=jnp.sum(counted_UB, axis=0, dtype=jnp.int32),
        routes_BUNk=None if routes_UBNk is None else jnp.moveaxis(routes_UBNk, 0, 1),
    )  # fmt: skip
    return _placed(after, config), _told(drawn, config)


def _told(found: Any, config: ModelConfig) -> Any:
    """What the host reads: whole on every device, for an island's processes read it each."""
    return jax.tree.map(lambda x: place(x, config.mesh, *(None,) * x.ndim), found)


def _fold(cache_NBKSC: jax.Array, fresh_NBUKC: jax.Array, length_B: jax.Array) -> jax.Array:
    """Write each slot's chunk behind its past; layer by layer, else the compiler turns the whole
    cache around for it and back."""

    def one(cache_KSC: jax.Array, fresh_UKC: jax.Array, length: jax.Array) -> jax.Array:
        zero = jnp.int32(0)
        fresh_KUC = jnp.swapaxes(fresh_UKC, 0, 1)
        return jax.lax.dynamic_update_slice(cache_KSC, fresh_KUC, (zero, length, zero))

    def layer(n: jax.Array, cache_NBKSC: jax.Array) -> jax.Array:
        cache_BKSC = jax.vmap(one)(cache_NBKSC[n], fresh_NBUKC[n], length_B)
        whole: jax.Array = jax.lax.dynamic_update_index_in_dim(cache_NBKSC, cache_BKSC, n, 0)
        return whole

    folded: jax.Array = jax.lax.fori_loop(0, cache_NBKSC.shape[0], layer, cache_NBKSC)
    return folded
