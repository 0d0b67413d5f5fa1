"""The grouped product on TPU: two small Pallas kernels, one for the product, one for its gradient.

Rows are taken in tiles. A tile is visited once for every group that has rows in it, and only the
group's own rows are written. (XLA's ragged product has a kernel there too, but for its forward pass
alone: the gradient of the kernels becomes dense, every row times every group.)

Axes: M rows, r a tile's rows, d and f tiles of D and F, V visits.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

MOST_ROWS, LEAST_ROWS = 512, 16  # of a tile
WIDEST = (1024, 768, 512, 256, 128)  # columns of a tile


def mosaic(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """See grouped.py. `interpret`: on any platform, slowly."""
    M, E = rows_MD.shape[0], kernels_EDF.shape[0]
    # About the rows of a group: a tile is computed as a whole in each of its visits.
    tile = min(MOST_ROWS, max(LEAST_ROWS, 1 << (M // E).bit_length() - 1))
    padded_MD = jnp.pad(rows_MD, ((0, -M % tile), (0, 0)))
    return _product(padded_MD, kernels_EDF, sizes_E, tile, interpret)[:M]


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _product(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, tile: int, interpret: bool
) -> jax.Array:
    visits = _visits(sizes_E, rows_MD.shape[0], tile)
    return _multiply(rows_MD, kernels_EDF, visits, turned=False, tile=tile, interpret=interpret)


def _forward(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, tile: int, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    out_MF = _product(rows_MD, kernels_EDF, sizes_E, tile, interpret)
    return out_MF, (rows_MD, kernels_EDF, sizes_E)


def _backward(
    tile: int, interpret: bool, kept: tuple[jax.Array, jax.Array, jax.Array], slope_MF: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    rows_MD, kernels_EDF, sizes_E = kept
    visits = _visits(sizes_E, rows_MD.shape[0], tile)
    slope_MD = _multiply(
        slope_MF, kernels_EDF, visits, turned=True, tile=tile, interpret=interpret
    )
    slope_EDF = _gather(rows_MD, slope_MF, visits, tile=tile, interpret=interpret)
    return slope_MD, slope_EDF, None


_product.defvjp(_forward, _backward)


class _Visits(NamedTuple):
    """Group after group, tile after tile; an empty group has one visit, for its gradient of 0."""

    group_V: jax.Array
    tile_V: jax.Array
    first_E: jax.Array  # first row of each group
    end_E: jax.Array  # the row behind its last
    made: jax.Array  # int32 []: how many there are


def _visits(sizes_E: jax.Array, rows: int, tile: int) -> _Visits:
    end_E = jnp.cumsum(sizes_E).astype(jnp.int32)
    first_E = end_E - sizes_E
    # A group that begins behind the last row is empty; it looks at the last tile.
    from_E = jnp.minimum(first_E, rows - 1) // tile
    tiles_E = jnp.maximum((end_E - 1) // tile - from_E + 1, 1)
    upto_E = jnp.cumsum(tiles_E)
    number_V = jnp.arange(rows // tile + sizes_E.shape[0], dtype=jnp.int32)
    group_V = jnp.searchsorted(upto_E, number_V, side="right").astype(jnp.int32)
    group_V = jnp.minimum(group_V, sizes_E.shape[0] - 1)
    tile_V = from_E[group_V] + number_V - (upto_E - tiles_E)[group_V]
    return _Visits(group_V, tile_V.astype(jnp.int32), first_E, end_E, upto_E[-1])


def _columns(size: int) -> int:
    return next((width for width in WIDEST if size % width == 0), size)


def _mine(visit: Any, table: Any, tile: int) -> jax.Array:
    """Which rows of the visit's tile are its group's, [r, 1]."""
    group_V, tile_V, first_E, end_E = table
    group = group_V[visit]
    row_r1 = tile_V[visit] * tile + jax.lax.broadcasted_iota(jnp.int32, (tile, 1), 0)
    mine_r1: jax.Array = (row_r1 >= first_E[group]) & (row_r1 < end_E[group])
    return mine_r1


def _multiply(
    rows_MD: jax.Array, kernels_EDF: jax.Array, visits: _Visits, *, turned: bool, tile: int,
    interpret: bool,
) -> jax.Array:  # fmt: skip
    """Each group's rows times its kernel, or (turned: rows are [M, F]) the kernel's transpose."""
    M, D = rows_MD.shape
    F = kernels_EDF.shape[1 if turned else 2]
    d, f = _columns(D), _columns(F)
    steps = D // d

    def program(*refs: Any) -> None:
        table, (x, w, out, sum_rf) = refs[:4], refs[4:]
        visit, step = pl.program_id(1), pl.program_id(2)

        @pl.when(step == 0)
        def _() -> None:
            sum_rf[...] = jnp.zeros_like(sum_rf)

        over = (((1,), (1 if turned else 0,)), ((), ()))
        sum_rf[...] += jax.lax.dot_general(
            x[...], w[0], over, preferred_element_type=jnp.float32
        )

        @pl.when(step == steps - 1)
        def _() -> None:
            # The tile stays while its groups take turns.
            mine_r1 = _mine(visit, table, tile)
            out[...] = jnp.where(mine_r1, sum_rf[...], out[...].astype(jnp.float32)).astype(
                out.dtype
            )

    def kernel(part: Any, visit: Any, step: Any, *table: Any) -> Any:
        return (table[0][visit], part, step) if turned else (table[0][visit], step, part)

    out_MF: jax.Array = pl.pallas_call(
        program,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4, grid=(F // f, visits.made, steps),
            in_specs=[
                pl.BlockSpec((tile, d), lambda part, visit, step, *table: (table[1][visit], step)),
                pl.BlockSpec((1, f, d) if turned else (1, d, f), kernel),
            ],
            out_specs=pl.BlockSpec(
                (tile, f), lambda part, visit, step, *table: (table[1][visit], part)
            ),
            scratch_shapes=[pltpu.VMEM((tile, f), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct((M, F), rows_MD.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary")
        ),
        interpret=interpret, name="grouped_product",
    )(*visits[:4], rows_MD, kernels_EDF)  # fmt: skip
    return out_MF


def _gather(
    rows_MD: jax.Array, slope_MF: jax.Array, visits: _Visits, *, tile: int, interpret: bool
) -> jax.Array:
    """Each group's rows transposed times their slopes: the gradient of its kernel, [E, D, F]."""
    D, F, E = rows_MD.shape[1], slope_MF.shape[1], visits.first_E.shape[0]
    d, f = _columns(D), _columns(F)

    def program(*refs: Any) -> None:
        table, (x, slope, out, sum_df) = refs[:4], refs[4:]
        visit, last = pl.program_id(2), pl.num_programs(2) - 1
        group_V = table[0]
        before, after = jnp.maximum(visit - 1, 0), jnp.minimum(visit + 1, last)

        @pl.when((visit == 0) | (group_V[before] != group_V[visit]))
        def _() -> None:
            sum_df[...] = jnp.zeros_like(sum_df)

        mine_r1 = _mine(visit, table, tile)
        x_rd = jnp.where(mine_r1, x[...], jnp.zeros_like(x))
        slope_rf = jnp.where(mine_r1, slope[...], jnp.zeros_like(slope))
        over = (((0,), (0,)), ((), ()))
        sum_df[...] += jax.lax.dot_general(
            x_rd, slope_rf, over, preferred_element_type=jnp.float32
        )

        @pl.when((visit == last) | (group_V[after] != group_V[visit]))
        def _() -> None:
            out[0] = sum_df[...].astype(out.dtype)

    out_EDF: jax.Array = pl.pallas_call(
        program,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4, grid=(D // d, F // f, visits.made),
            in_specs=[
                pl.BlockSpec((tile, d), lambda m, n, visit, *table: (table[1][visit], m)),
                pl.BlockSpec((tile, f), lambda m, n, visit, *table: (table[1][visit], n)),
            ],
            out_specs=pl.BlockSpec((1, d, f), lambda m, n, visit, *table: (table[0][visit], m, n)),
            scratch_shapes=[pltpu.VMEM((d, f), jnp.float32)],
        ),
        out_shape=jax.ShapeDtypeStruct((E, D, F), rows_MD.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        interpret=interpret, name="grouped_gradient",
    )(*visits[:4], rows_MD, slope_MF)  # fmt: skip
    return out_EDF
