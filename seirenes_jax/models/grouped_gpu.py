"""The grouped product on GPU: two small Pallas kernels, one for the product, one for its gradient.

Rows are taken in blocks that never cross a group, so that a block needs one kernel alone. How many
blocks there are depends on the groups; there are never more than M / block + E, and those left over
do nothing. Axes: M rows, G blocks, r a block's rows, d and f tiles of D and F.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from seirenes_jax.errors import ConfigError

DEEP, WIDE = 64, 128  # columns of a tile: summed over, and of the output
SMALLEST = 16  # rows, and columns, that a tensor core takes
MOST = 2**31  # addresses are 32 bits wide


def triton(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """See grouped.py. `interpret`: on any platform, slowly."""
    (M, D), (E, _, F) = rows_MD.shape, kernels_EDF.shape
    most = max(M * D, M * F, E * D * F)
    if most >= MOST:
        raise ConfigError(
            f"model.moe: an array of {most:,} numbers ({M} rows of experts, {E} experts of "
            f"{D} x {F}); the GPU kernel counts below 2^31; lower batch.rows or raise mesh.expert"
        )
    return _product(rows_MD, kernels_EDF, sizes_E, interpret)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, interpret: bool
) -> jax.Array:
    return _multiply(rows_MD, kernels_EDF, sizes_E, turned=False, interpret=interpret)


def _forward(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    out_MF = _multiply(rows_MD, kernels_EDF, sizes_E, turned=False, interpret=interpret)
    return out_MF, (rows_MD, kernels_EDF, sizes_E)


def _backward(
    interpret: bool, kept: tuple[jax.Array, jax.Array, jax.Array], slope_MF: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    rows_MD, kernels_EDF, sizes_E = kept
    slope_MD = _multiply(slope_MF, kernels_EDF, sizes_E, turned=True, interpret=interpret)
    return slope_MD, _gather(rows_MD, slope_MF, sizes_E, interpret=interpret), None


_product.defvjp(_forward, _backward)


def _block(rows: int, groups: int) -> int:
    """Rows of a block: about those of a group, as far as they fill a tile."""
    return min(128, max(SMALLEST, 1 << (rows // max(groups, 1)).bit_length() - 1))


def _blocks(sizes_E: jax.Array, rows: int, block: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Of each block: its group, its first row, and the row behind its last."""
    ends_E = jnp.cumsum(sizes_E)
    blocks_E = (sizes_E + block - 1) // block
    upto_E = jnp.cumsum(blocks_E)
    number_G = jnp.arange(-(-rows // block) + sizes_E.shape[0], dtype=jnp.int32)
    group_G = jnp.searchsorted(upto_E, number_G, side="right").astype(jnp.int32)
    group_G = jnp.minimum(group_G, sizes_E.shape[0] - 1)
    inside_G = number_G - (upto_E - blocks_E)[group_G]
    first_G = (ends_E - sizes_E)[group_G] + inside_G * block
    end_G = jnp.where(number_G < upto_E[-1], ends_E[group_G], first_G)
    return group_G, first_G.astype(jnp.int32), end_G.astype(jnp.int32)


def _tile(size: int, most: int) -> int:
    return min(most, max(SMALLEST, pl.next_power_of_2(size)))


def _params(rows: int) -> plgpu.CompilerParams:
    return plgpu.CompilerParams(num_warps=8 if rows >= 64 else 4, num_stages=2)


def _multiply(
    rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array, *, turned: bool, interpret: bool
) -> jax.Array:
    """Each group's rows times its kernel, or (turned: rows are [M, F]) the kernel's transpose."""
    (M, D), E = rows_MD.shape, kernels_EDF.shape[0]
    F = kernels_EDF.shape[1 if turned else 2]
    r, d, f = _block(M, E), _tile(D, DEEP), _tile(F, WIDE)
    group_G, first_G, end_G = _blocks(sizes_E, M, r)

    def program(group_ref, first_ref, end_ref, x_ref, w_ref, out_ref) -> None:  # type: ignore[no-untyped-def]
        block, part = pl.program_id(0), pl.program_id(1)
        group, end = group_ref[block], end_ref[block]
        row_r = first_ref[block] + jnp.arange(r)
        column_f = part * f + jnp.arange(f)
        here_r, there_f = row_r < end, column_f < F

        def add(step, sum_rf):  # type: ignore[no-untyped-def]
            inner_d = step * d + jnp.arange(d)
            within_d = inner_d < D
            x_rd = plgpu.load(
                x_ref.at[row_r[:, None], inner_d[None, :]],
                mask=here_r[:, None] & within_d[None, :], other=0.0,
            )  # fmt: skip
            where = (inner_d[:, None], column_f[None, :])
            where = where[::-1] if turned else where
            w_df = plgpu.load(
                w_ref.at[(group, *where)], mask=within_d[:, None] & there_f[None, :], other=0.0
            )
            return sum_rf + jnp.dot(x_rd, w_df, preferred_element_type=jnp.float32)

        @pl.when(first_ref[block] < end)
        def _() -> None:
            zero_rf = jnp.zeros((r, f), jnp.float32)
            sum_rf = jax.lax.fori_loop(0, pl.cdiv(D, d), add, zero_rf)
            plgpu.store(
                out_ref.at[row_r[:, None], column_f[None, :]], sum_rf.astype(out_ref.dtype),
                mask=here_r[:, None] & there_f[None, :],
            )  # fmt: skip

    out_MF: jax.Array = pl.pallas_call(
        program, grid=(group_G.shape[0], pl.cdiv(F, f)),
        out_shape=jax.ShapeDtypeStruct((M, F), rows_MD.dtype), interpret=interpret,
        compiler_params=_params(r), name="grouped_product",
    )(group_G, first_G, end_G, rows_MD, kernels_EDF)  # fmt: skip
    return out_MF


def _gather(
    rows_MD: jax.Array, slope_MF: jax.Array, sizes_E: jax.Array, *, interpret: bool
) -> jax.Array:
    """Each group's rows transposed times their slopes: the gradient of its kernel, [E, D, F]."""
    (M, D), F, E = rows_MD.shape, slope_MF.shape[1], sizes_E.shape[0]
    r, d, f = min(DEEP, _block(M, E)), _tile(D, WIDE), _tile(F, WIDE)
    end_E = jnp.cumsum(sizes_E).astype(jnp.int32)
    first_E = end_E - sizes_E.astype(jnp.int32)

    def program(first_ref, end_ref, x_ref, slope_ref, out_ref) -> None:  # type: ignore[no-untyped-def]
        group = pl.program_id(0)
        first, end = first_ref[group], end_ref[group]
        column_d = pl.program_id(1) * d + jnp.arange(d)
        column_f = pl.program_id(2) * f + jnp.arange(f)
        in_d, in_f = column_d < D, column_f < F

        def add(step, sum_df):  # type: ignore[no-untyped-def]
            row_r = first + step * r + jnp.arange(r)
            here_r = row_r < end
            x_dr = plgpu.load(
                x_ref.at[row_r[None, :], column_d[:, None]], mask=in_d[:, None] & here_r[None, :],
                other=0.0,
            )  # fmt: skip
            slope_rf = plgpu.load(
                slope_ref.at[row_r[:, None], column_f[None, :]],
                mask=here_r[:, None] & in_f[None, :], other=0.0,
            )  # fmt: skip
            return sum_df + jnp.dot(x_dr, slope_rf, preferred_element_type=jnp.float32)

        zero_df = jnp.zeros((d, f), jnp.float32)
        sum_df = jax.lax.fori_loop(0, pl.cdiv(end - first, r), add, zero_df)
        plgpu.store(
            out_ref.at[group, column_d[:, None], column_f[None, :]], sum_df.astype(out_ref.dtype),
            mask=in_d[:, None] & in_f[None, :],
        )  # fmt: skip

    out_EDF: jax.Array = pl.pallas_call(
        program, grid=(E, pl.cdiv(D, d), pl.cdiv(F, f)),
        out_shape=jax.ShapeDtypeStruct((E, D, F), rows_MD.dtype), interpret=interpret,
        compiler_params=_params(d), name="grouped_gradient",
    )(first_E, end_E, rows_MD, slope_MF)  # fmt: skip
    return out_EDF
