"""One product, every group of rows with its own matrix: what a mixture of experts is made of.

`product(rows_MD, kernels_EDF, sizes_E)`: the first sizes_E[0] rows times kernel 0, the next
sizes_E[1] times kernel 1, and so on. What comes out for rows behind the last group is not
specified; neither is their gradient. Axes besides the usual: M rows of all groups.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from seirenes_jax.models.grouped_gpu import triton
from seirenes_jax.models.grouped_tpu import mosaic

Product = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def plain(rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array) -> jax.Array:
    """The reference: every row times every kernel, of which one is kept. For a few experts."""
    E, M = kernels_EDF.shape[0], rows_MD.shape[0]
    group_M = jnp.searchsorted(jnp.cumsum(sizes_E), jnp.arange(M), side="right")
    every_EMF = jnp.einsum(
        "md,edf->emf", rows_MD, kernels_EDF, preferred_element_type=jnp.float32
    )
    mine_EM = group_M[None, :] == jnp.arange(E)[:, None]
    return jnp.sum(jnp.where(mine_EM[..., None], every_EMF, 0.0), axis=0).astype(rows_MD.dtype)


# Not here: jax.lax.ragged_dot. It is dense on GPU, and on TPU dense in its backward pass.
PRODUCTS: dict[str, Product] = {"plain": plain, "mosaic": mosaic, "triton": triton}
