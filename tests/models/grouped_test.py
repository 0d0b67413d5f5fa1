"""The grouped product: every way to compute it is the reference, and none of them is dense."""

import math
import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seirenes_jax.errors import ConfigError
from seirenes_jax.models.grouped import PRODUCTS, Product, plain

# Groups: uneven, empty ones at both ends and between, rows behind the last, more than a block.
CASES = [(40, 24, 72, (5, 0, 17, 11)), (150, 70, 20, (0, 139, 1, 0))]


def runnable(name: str) -> Product:
    """Kernels of other platforms are interpreted."""
    product: Any = PRODUCTS[name]
    return product if name == "plain" else partial(product, interpret=True)


def results(product: Product, case: Any, dtype: Any) -> list[np.ndarray]:
    """The product and its two gradients, of rows that belong to a group."""
    M, D, F, sizes = case
    rng = np.random.default_rng(0)
    rows_MD, kernels_EDF, slope_MF = (
        jnp.asarray(rng.normal(size=shape), dtype) for shape in ((M, D), (4, D, F), (M, F))
    )
    sizes_E = jnp.array(sizes, jnp.int32)
    here_M1 = (jnp.arange(M) < sum(sizes))[:, None]

    def weighed(rows_MD: jax.Array, kernels_EDF: jax.Array) -> tuple[jax.Array, jax.Array]:
        out_MF = product(jnp.where(here_M1, rows_MD, 0), kernels_EDF, sizes_E)
        out_MF = jnp.where(here_M1, out_MF, 0)
        return jnp.sum((out_MF * slope_MF).astype(jnp.float32)), out_MF

    (_, out), slopes = jax.jit(jax.value_and_grad(weighed, argnums=(0, 1), has_aux=True))(
        rows_MD, kernels_EDF
    )
    return [np.asarray(x, np.float32) for x in (out, *slopes)]


@pytest.mark.parametrize("case", CASES, ids=["small", "over a block"])
def test_the_reference_is_the_product_group_by_group(case: Any) -> None:
    M, D, F, sizes = case
    rng = np.random.default_rng(0)
    rows_MD, kernels_EDF = rng.normal(size=(M, D)), rng.normal(size=(4, D, F))
    start = 0
    found = results(plain, case, jnp.float32)[0]
    for kernel_DF, size in zip(kernels_EDF, sizes, strict=True):
        group = slice(start, start + size)
        np.testing.assert_allclose(found[group], rows_MD[group] @ kernel_DF, atol=1e-4)
        start += size
    assert start > 30 and np.all(found[start:] == 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES, ids=["small", "over a block"])
@pytest.mark.parametrize("name", [name for name in PRODUCTS if name != "plain"])
def test_every_product_is_the_reference_forward_and_backward(
    name: str, case: Any, dtype: Any
) -> None:
    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    found, wanted = results(runnable(name), case, dtype), results(plain, case, dtype)
    for mine, reference in zip(found, wanted, strict=True):
        off = np.max(np.abs(mine - reference)) / np.max(np.abs(reference))
        assert off < tolerance


# What reaches a GPU. The bound: no array of a product, forward or backward, outgrows the rows, the
# kernels or the output by more than a few times.

M, D, F, E = 512, 64, 32, 16


def program_for(platform: str, product: Product) -> str:
    """The program with its gradients, lowered for a platform that need not be here."""

    def slope(rows_MD: jax.Array, kernels_EDF: jax.Array, sizes_E: jax.Array) -> Any:
        return jax.grad(
            lambda x, w: jnp.sum(jnp.sin(product(x, w, sizes_E).astype(jnp.float32))), (0, 1)
        )(rows_MD, kernels_EDF)

    arguments = [
        jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in
        (((M, D), jnp.bfloat16), ((E, D, F), jnp.bfloat16), ((E,), jnp.int32))
    ]  # fmt: skip
    return jax.jit(slope).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def largest(program: str) -> int:
    """Elements of the largest array in a program's text."""
    shapes = re.findall(r"tensor<((?:\d+x)+)[a-z]", program)
    return max(math.prod(map(int, shape.split("x")[:-1])) for shape in shapes)


def test_on_gpu_the_grouped_product_is_a_kernel_and_nothing_in_it_is_dense() -> None:
    program = program_for("cuda", PRODUCTS["triton"])
    assert len(re.findall(r"custom_call @__gpu\$xla\.gpu\.triton", program)) == 3
    assert largest(program) == max(M * D, E * D * F) < M * E * min(D, F)
    assert largest(program_for("cuda", plain)) >= M * E * F  # the check can fail


def test_on_tpu_the_grouped_product_is_a_kernel_and_nothing_in_it_is_dense() -> None:
    program = program_for("tpu", PRODUCTS["mosaic"])
    assert program.count("tpu_custom_call") == 3
    assert largest(program) == max(M * D, E * D * F)


def test_nothing_is_a_ragged_dot() -> None:
    """It lowers as one operation and only becomes dense where it is compiled."""

    def ragged(*args: jax.Array) -> jax.Array:
        return jax.lax.ragged_dot(*args)

    assert "ragged_dot" in program_for("tpu", ragged)
    for name, platform in (("mosaic", "tpu"), ("triton", "cuda"), ("plain", "cpu")):
        assert "ragged_dot" not in program_for(platform, PRODUCTS[name])


def test_on_gpu_what_it_cannot_address_is_refused() -> None:
    rows = jax.ShapeDtypeStruct((2**20, 2048), jnp.bfloat16)
    kernels = jax.ShapeDtypeStruct((8, 2048, 768), jnp.bfloat16)
    sizes = jax.ShapeDtypeStruct((8,), jnp.int32)
    with pytest.raises(ConfigError, match=r"2,147,483,648 numbers.*lower batch.rows"):
        jax.eval_shape(PRODUCTS["triton"], rows, kernels, sizes)
