"""Attention of packed rows on TPU: a Pallas kernel that never holds a row's scores.

A query sees its own segment up to itself, and its prefix. Scores are kept transposed, queries
along the lanes: what belongs to a query (ids, maximum, sum) is a row, and sums over keys need no
lane crossed. Blocks in which no query sees a key are neither fetched nor computed.

Axes besides the usual: G query heads of a key head, i and j blocks of queries and of keys, t and s
the positions inside them.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

NEVER = -1e30
MOST = 2**31 - 1
NOBODY, NOTHING = -1, -2  # ids of what a query never is, and of what a key never is
BLOCKS = (512, 256, 128)  # the largest that divides the row; 128 lanes is the least


class Ids(NamedTuple):
    """Who is who. The queries may be a part of the row, the keys are the whole."""

    segment_BT: jax.Array  # of queries
    prefix_BT: jax.Array
    column_BT: jax.Array  # where in the row a query stands
    segment_BS: jax.Array  # of keys


def ids(segments_BT: jax.Array, prefix_BT: jax.Array) -> Ids:
    """Of whole rows."""
    column_T = jnp.arange(segments_BT.shape[1], dtype=jnp.int32)
    column_BT = jnp.broadcast_to(column_T[None], segments_BT.shape)
    return Ids(segments_BT, prefix_BT, column_BT, segments_BT)


class _Sizes(NamedTuple):
    """What is known when a kernel is built."""

    block: int
    interpret: bool


class _Sight(NamedTuple):
    """Ids as the kernels take them, and which blocks see each other."""

    queries_B3T: jax.Array  # segment, prefix, column
    keys_BS1: jax.Array
    keys_of: jax.Array  # int32 [B i j] flat: see `_table`
    queries_of: jax.Array  # [B j i] flat


def flash(
    q_BTHC: jax.Array, k_BSKC: jax.Array, v_BSKC: jax.Array, who: Ids, *, block: int | None = None,
    interpret: bool = False,
) -> jax.Array:  # fmt: skip
    """As attention.attend under attention.packed_mask; 0 at padding."""
    T, S = q_BTHC.shape[1], k_BSKC.shape[1]
    if block is None:
        block = next((size for size in BLOCKS if T % size == 0 and S % size == 0), BLOCKS[-1])

    def rows(x: jax.Array, fill: int = 0) -> jax.Array:
        wide = ((0, 0), (0, -x.shape[1] % block), *((0, 0),) * (x.ndim - 2))
        return jnp.pad(x, wide, constant_values=fill)

    seen = _sight(Ids(*map(rows, who)), block)
    heads = (jnp.swapaxes(rows(x), 1, 2) for x in (q_BTHC, k_BSKC, v_BSKC))
    out_BHTC = _attend(*heads, seen, _Sizes(block, interpret))
    return jnp.swapaxes(out_BHTC, 1, 2)[:, :T]


def _sight(who: Ids, block: int) -> _Sight:
    segment_BT = jnp.where(who.segment_BT > 0, who.segment_BT, NOBODY)
    prefix_BT = jnp.where(who.prefix_BT > 0, who.prefix_BT, NOBODY)
    segment_BS = jnp.where(who.segment_BS > 0, who.segment_BS, NOTHING)
    column_S = jnp.arange(segment_BS.shape[1], dtype=jnp.int32)

    def ends(ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The lowest and highest id above 0 of each block; the other way round where none is."""
        blocks = ids.reshape(ids.shape[0], -1, block)
        low = jnp.min(jnp.where(blocks > 0, blocks, MOST), axis=-1)
        return low, jnp.max(blocks, axis=-1)

    key_low, key_high = (x[:, None, :] for x in ends(segment_BS))

    def meet(ids_BT: jax.Array) -> jax.Array:
        low, high = (x[:, :, None] for x in ends(ids_BT))
        return (low <= key_high) & (key_low <= high)

    last_Bi1 = jnp.max(who.column_BT.reshape(segment_BT.shape[0], -1, block), axis=-1)[..., None]
    past_Bij = last_Bi1 >= column_S[::block][None, None]
    need_Bij = (meet(segment_BT) & past_Bij) | meet(prefix_BT)
    return _Sight(
        jnp.stack([segment_BT, prefix_BT, who.column_BT], axis=1), segment_BS[..., None],
        _table(need_Bij), _table(jnp.swapaxes(need_Bij, 1, 2)),
    )  # fmt: skip


def _table(need: jax.Array) -> jax.Array:
    """Along the last axis: the block itself where it is needed, else -1 minus the one before that
    was: it is still there, so that nothing is fetched."""
    own = jnp.arange(need.shape[-1], dtype=jnp.int32)[None, None]
    before = jax.lax.cummax(jnp.where(need, own, 0), axis=2)
    return jnp.where(need, own, -1 - before).reshape(-1)


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(
    q_BHTC: jax.Array, k_BKSC: jax.Array, v_BKSC: jax.Array, seen: _Sight, sizes: _Sizes
) -> jax.Array:
    return _forward(q_BHTC, k_BKSC, v_BKSC, seen, sizes)[0]


def _attend_forward(
    q_BHTC: jax.Array, k_BKSC: jax.Array, v_BKSC: jax.Array, seen: _Sight, sizes: _Sizes
) -> tuple[jax.Array, Any]:
    out_BHTC, norm_BH1T = _forward(q_BHTC, k_BKSC, v_BKSC, seen, sizes)
    return out_BHTC, (q_BHTC, k_BKSC, v_BKSC, seen, out_BHTC, norm_BH1T)


def _attend_backward(sizes: _Sizes, kept: Any, slope_BHTC: jax.Array) -> tuple[Any, ...]:
    q_BHTC, k_BKSC, v_BKSC, seen, out_BHTC, norm_BH1T = kept
    wide = slope_BHTC.astype(jnp.float32) * out_BHTC.astype(jnp.float32)
    through_BH1T = jnp.sum(wide, axis=-1)[:, :, None]
    given = (q_BHTC, k_BKSC, v_BKSC, slope_BHTC, norm_BH1T, through_BH1T, seen)
    dk_BKSC, dv_BKSC = _slope_of_keys(given, sizes)
    return _slope_of_queries(given, sizes), dk_BKSC, dv_BKSC, None


_attend.defvjp(_attend_forward, _attend_backward)


def _dot(a: jax.Array, b: jax.Array, over: tuple[int, int]) -> jax.Array:
    """The sum over axis over[0] of a and over[1] of b, float32."""
    dims = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(a, b, dims, preferred_element_type=jnp.float32)


def _mask(queries_3t: jax.Array, keys_s1: jax.Array, first: jax.Array) -> jax.Array:
    """Who sees whom in one block, [s, t]; `first` = the column of its first key."""
    segment_1t, prefix_1t, column_1t = queries_3t[0:1], queries_3t[1:2], queries_3t[2:3]
    column_st = first + jax.lax.broadcasted_iota(
        jnp.int32, (keys_s1.shape[0], queries_3t.shape[1]), 0
    )
    own = (keys_s1 == segment_1t) & (column_st <= column_1t)
    return own | (keys_s1 == prefix_1t)


def _forward(
    q_BHTC: jax.Array, k_BKSC: jax.Array, v_BKSC: jax.Array, seen: _Sight, sizes: _Sizes
) -> tuple[jax.Array, jax.Array]:
    """The output and, of each query, the logarithm of its sum of weights."""
    (B, H, T, C), size = q_BHTC.shape, sizes.block
    steps = k_BKSC.shape[2] // size

    def program(table, queries, keys, q, k, v, out, norm, top_1t, sum_1t, out_Ct):  # type: ignore[no-untyped-def]
        b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)

        @pl.when(j == 0)
        def _() -> None:
            top_1t[...] = jnp.full_like(top_1t, NEVER)
            sum_1t[...] = jnp.zeros_like(sum_1t)
            out_Ct[...] = jnp.zeros_like(out_Ct)

        @pl.when(table[(b * (T // size) + i) * steps + j] >= 0)
        def _() -> None:
            mask_st = _mask(queries[0], keys[0], j * size)
            score_st = jnp.where(mask_st, _dot(k[0, 0], q[0, 0], (1, 1)) * C**-0.5, NEVER)
            before = top_1t[...]
            top = jnp.maximum(before, jnp.max(score_st, axis=0, keepdims=True))
            weight_st = jnp.where(mask_st, jnp.exp(score_st - top), 0.0)
            fade = jnp.exp(before - top)
            sum_1t[...] = sum_1t[...] * fade + jnp.sum(weight_st, axis=0, keepdims=True)
            out_Ct[...] = out_Ct[...] * fade + _dot(v[0, 0], weight_st.astype(v.dtype), (0, 0))
            top_1t[...] = top

        @pl.when(j == steps - 1)
        def _() -> None:
            total = jnp.where(sum_1t[...] == 0.0, 1.0, sum_1t[...])
            out[0, 0] = (out_Ct[...] / total).T.astype(out.dtype)
            norm[0, 0] = top_1t[...] + jnp.log(total)

    views = _views(sizes, H // k_BKSC.shape[1], T // size, steps, C)
    out: tuple[jax.Array, jax.Array] = pl.pallas_call(
        program,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1, grid=(B, H, T // size, steps),
            in_specs=[views["queries"], views["keys"], views["q"], views["k"], views["k"]],
            out_specs=[views["q"], views["row"]],
            scratch_shapes=[
                pltpu.VMEM((1, size), jnp.float32), pltpu.VMEM((1, size), jnp.float32),
                pltpu.VMEM((C, size), jnp.float32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q_BHTC.shape, q_BHTC.dtype),
            jax.ShapeDtypeStruct((B, H, 1, T), jnp.float32),
        ],
        compiler_params=_params(3, 1), interpret=sizes.interpret, name="attention_forward",
    )(seen.keys_of, seen.queries_B3T, seen.keys_BS1, q_BHTC, k_BKSC, v_BKSC)  # fmt: skip
    return out


def _params(parallel: int, arbitrary: int) -> Any:
    order: Any = ("parallel",) * parallel + ("arbitrary",) * arbitrary
    return pltpu.CompilerParams(dimension_semantics=order)


def _views(sizes: _Sizes, group: int, blocks: int, steps: int, C: int) -> dict[str, pl.BlockSpec]:
    """What a program of grid (B, H, i, j) sees of each array: queries by i, keys by the table."""
    size = sizes.block

    def key(b: Any, i: Any, j: Any, table: Any) -> Any:
        at = table[(b * blocks + i) * steps + j]
        return jnp.where(at < 0, -1 - at, at)

    return {
        "queries": pl.BlockSpec((1, 3, size), lambda b, h, i, j, table: (b, 0, i)),
        "keys": pl.BlockSpec((1, size, 1), lambda b, h, i, j, table: (b, key(b, i, j, table), 0)),
        "q": pl.BlockSpec((1, 1, size, C), lambda b, h, i, j, table: (b, h, i, 0)),
        "k": pl.BlockSpec(
            (1, 1, size, C),
            # Plain division: `//` asks for the sign, and that for a TPU to be there.
            lambda b, h, i, j, table: (b, jax.lax.div(h, group), key(b, i, j, table), 0),
        ),
        "row": pl.BlockSpec((1, 1, 1, size), lambda b, h, i, j, table: (b, h, 0, i)),
    }


def _weights(mask_st: jax.Array, q: jax.Array, k: jax.Array, norm_1t: jax.Array) -> jax.Array:
    """The forward pass's weights of one block, normalised."""
    score_st = _dot(k, q, (1, 1)) * q.shape[-1] ** -0.5
    return jnp.where(mask_st, jnp.exp(jnp.where(mask_st, score_st - norm_1t, 0.0)), 0.0)


def _slope_of_queries(given: Any, sizes: _Sizes) -> jax.Array:
    q_BHTC, k_BKSC, v_BKSC, slope_BHTC, norm_BH1T, through_BH1T, seen = given
    (B, H, T, C), size = q_BHTC.shape, sizes.block
    steps = k_BKSC.shape[2] // size

    def program(table, queries, keys, q, k, v, slope, norm, through, out, out_Ct):  # type: ignore[no-untyped-def]
        b, i, j = pl.program_id(0), pl.program_id(2), pl.program_id(3)

        @pl.when(j == 0)
        def _() -> None:
            out_Ct[...] = jnp.zeros_like(out_Ct)

        @pl.when(table[(b * (T // size) + i) * steps + j] >= 0)
        def _() -> None:
            mask_st = _mask(queries[0], keys[0], j * size)
            weight_st = _weights(mask_st, q[0, 0], k[0, 0], norm[0, 0])
            slope_st = weight_st * (_dot(v[0, 0], slope[0, 0], (1, 1)) - through[0, 0])
            out_Ct[...] += _dot(k[0, 0], slope_st.astype(k.dtype), (0, 0))

        @pl.when(j == steps - 1)
        def _() -> None:
            out[0, 0] = (out_Ct[...] * C**-0.5).T.astype(out.dtype)

    views = _views(sizes, H // k_BKSC.shape[1], T // size, steps, C)
    inputs = ("queries", "keys", "q", "k", "k", "q", "row", "row")
    out: jax.Array = pl.pallas_call(
        program,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1, grid=(B, H, T // size, steps),
            in_specs=[views[name] for name in inputs], out_specs=views["q"],
            scratch_shapes=[pltpu.VMEM((C, size), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct(q_BHTC.shape, q_BHTC.dtype),
        compiler_params=_params(3, 1), interpret=sizes.interpret, name="attention_slope_of_queries",
    )(seen.keys_of, seen.queries_B3T, seen.keys_BS1, q_BHTC, k_BKSC, v_BKSC, slope_BHTC, norm_BH1T,
      through_BH1T)  # fmt: skip
    return out


def _slope_of_keys(given: Any, sizes: _Sizes) -> tuple[jax.Array, jax.Array]:
    """Of keys and of values: the sum over the queries of every head of the group."""
    q_BHTC, k_BKSC, v_BKSC, slope_BHTC, norm_BH1T, through_BH1T, seen = given
    (B, H, T, C), (_, K, S, _), size = q_BHTC.shape, k_BKSC.shape, sizes.block
    blocks, steps, group = S // size, T // size, H // K

    def at(b: Any, j: Any, i: Any, table: Any) -> Any:
        found = table[(b * blocks + j) * steps + i]
        return jnp.where(found < 0, -1 - found, found)

    def program(table, queries, keys, q, k, v, slope, norm, through, dk, dv, dk_sC, dv_sC):  # type: ignore[no-untyped-def]
        b, j, g, i = pl.program_id(0), pl.program_id(2), pl.program_id(3), pl.program_id(4)

        @pl.when((g == 0) & (i == 0))
        def _() -> None:
            dk_sC[...] = jnp.zeros_like(dk_sC)
            dv_sC[...] = jnp.zeros_like(dv_sC)

        @pl.when(table[(b * blocks + j) * steps + i] >= 0)
        def _() -> None:
            mask_st = _mask(queries[0], keys[0], j * size)
            weight_st = _weights(mask_st, q[0, 0], k[0, 0], norm[0, 0])
            dv_sC[...] += _dot(weight_st.astype(slope.dtype), slope[0, 0], (1, 0))
            slope_st = weight_st * (_dot(v[0, 0], slope[0, 0], (1, 1)) - through[0, 0])
            dk_sC[...] += _dot(slope_st.astype(q.dtype), q[0, 0], (1, 0))

        @pl.when((g == group - 1) & (i == steps - 1))
        def _() -> None:
            dk[0, 0] = (dk_sC[...] * C**-0.5).astype(dk.dtype)
            dv[0, 0] = dv_sC[...].astype(dv.dtype)

    def of_query(b: Any, h: Any, j: Any, g: Any, i: Any, table: Any) -> Any:
        return b, h * group + g, at(b, j, i, table), 0

    def row_of_query(b: Any, h: Any, j: Any, g: Any, i: Any, table: Any) -> Any:
        return b, h * group + g, 0, at(b, j, i, table)

    ids = pl.BlockSpec((1, 3, size), lambda b, h, j, g, i, table: (b, 0, at(b, j, i, table)))
    key_ids = pl.BlockSpec((1, size, 1), lambda b, h, j, g, i, table: (b, j, 0))
    key = pl.BlockSpec((1, 1, size, C), lambda b, h, j, g, i, table: (b, h, j, 0))
    query = pl.BlockSpec((1, 1, size, C), of_query)
    row = pl.BlockSpec((1, 1, 1, size), row_of_query)
    out: tuple[jax.Array, jax.Array] = pl.pallas_call(
        program,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1, grid=(B, K, blocks, group, steps),
            in_specs=[ids, key_ids, query, key, key, query, row, row], out_specs=[key, key],
            scratch_shapes=[pltpu.VMEM((size, C), jnp.float32)] * 2,
        ),
        out_shape=[
            jax.ShapeDtypeStruct(k_BKSC.shape, k_BKSC.dtype),
            jax.ShapeDtypeStruct(v_BKSC.shape, v_BKSC.dtype),
        ],
        compiler_params=_params(3, 2), interpret=sizes.interpret, name="attention_slope_of_keys",
    )(seen.queries_of, seen.queries_B3T, seen.keys_BS1, q_BHTC, k_BKSC, v_BKSC, slope_BHTC,
      norm_BH1T, through_BH1T)  # fmt: skip
    return out
