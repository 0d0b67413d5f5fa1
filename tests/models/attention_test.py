"""Attention of packed rows: every backend is the reference, and the kernels hold no scores."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as jax_cudnn

from seirenes_jax.models.attention import BACKENDS, attend, packed_mask
from seirenes_jax.models.flash import flash, ids

B, T, H, K, C = 2, 30, 4, 2, 12


@functools.cache
def rows() -> tuple[jax.Array, jax.Array]:
    """Segments and prefixes: shared prompts, a prompt of one token, padding on both sides."""
    segments, prefixes = np.zeros((B, T), np.int32), np.zeros((B, T), np.int32)
    for row, start, parts in (
        (0, 0, [(7, 0), (4, 1), (6, 1), (2, 0), (5, 4), (2, 4)]),
        (1, 3, [(1, 0), (9, 1), (4, 0), (8, 3)]),
    ):
        for number, (length, prefix) in enumerate(parts, 1):
            here = slice(start, start + length)
            segments[row, here], prefixes[row, here] = number, prefix
            start += length
    return jnp.asarray(segments), jnp.asarray(prefixes)


def arrays(dtype: Any = jnp.float32) -> list[jax.Array]:
    """q, k, v and a slope of the output."""
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(B, T, heads, C)), dtype) for heads in (H, K, K, H)]


def results(attend_rows: Any, dtype: Any = jnp.float32) -> list[np.ndarray]:
    """Output and gradients of q, k, v, of the tokens that are there."""
    *given, slope = arrays(dtype)
    there = (rows()[0] > 0)[:, :, None, None]

    def weighed(q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = jnp.where(there, attend_rows(q, k, v), 0)
        return jnp.sum((out * slope).astype(jnp.float32)), out

    (_, out), slopes = jax.jit(jax.value_and_grad(weighed, argnums=(0, 1, 2), has_aux=True))(*given)
    return [np.asarray(x, np.float32) for x in (out, *slopes)]


def reference(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return attend(q, k, v, packed_mask(*rows()))


def kernel(block: int) -> Any:
    return lambda q, k, v: flash(q, k, v, ids(*rows()), block=block, interpret=True)


@pytest.mark.parametrize("block", [8, 32], ids=["blocks are skipped", "one block, padded"])
def test_the_tpu_kernel_is_the_reference_forward_and_backward(block: int) -> None:
    for mine, wanted in zip(results(kernel(block)), results(reference), strict=True):
        np.testing.assert_allclose(mine, wanted, atol=3e-6)
        assert np.max(np.abs(wanted)) > 1


def test_the_tpu_kernel_in_bfloat16_is_as_close_as_bfloat16_is() -> None:
    found, wanted = results(kernel(8), jnp.bfloat16), results(reference)
    for mine, exact in zip(found, wanted, strict=True):
        assert 1e-4 < np.max(np.abs(mine - exact)) < 0.03 * np.max(np.abs(exact))


def test_a_part_of_the_queries_sees_what_the_whole_row_would() -> None:
    q, k, v, _ = arrays()
    whole = ids(*rows())
    part = slice(16, 24)
    mine = whole._replace(**{
        name: getattr(whole, name)[:, part] for name in ("segment_BT", "prefix_BT", "column_BT")
    })  # fmt: skip
    found = flash(q[:, part], k, v, mine, block=8, interpret=True)
    there = (np.asarray(rows()[0]) > 0)[:, part, None, None]
    wanted = np.where(there, np.asarray(reference(q, k, v))[:, part], 0)
    np.testing.assert_allclose(found, wanted, atol=3e-6)


def program(platform: str, attend_rows: Any, seen: Any, dtype: Any = jnp.bfloat16) -> str:
    """Forward and backward at a length that matters, for a platform that need not be here."""
    shapes = [jax.ShapeDtypeStruct((1, 1024, heads, 64), dtype) for heads in (H, K, K)]
    segments = jax.ShapeDtypeStruct((1, 1024), jnp.int32)

    def slope(q: Any, k: Any, v: Any, segments_BT: Any, prefix_BT: Any) -> Any:
        view = seen(segments_BT, prefix_BT)
        return jax.grad(
            lambda *qkv: jnp.sum(attend_rows(*qkv, view).astype(jnp.float32)), (0, 1, 2)
        )(q, k, v)

    traced = jax.jit(slope).trace(*shapes, segments, segments)
    return traced.lower(lowering_platforms=(platform,)).as_text()


def largest(text: str) -> int:
    shapes = re.findall(r"tensor<((?:\d+x)+)[a-z]", text)
    return max(math.prod(map(int, shape.split("x")[:-1])) for shape in shapes)


def test_on_tpu_it_is_three_kernels_and_no_scores() -> None:
    text = program("tpu", BACKENDS["splash"].attend, BACKENDS["splash"].see)
    assert text.count("tpu_custom_call") == 3
    assert largest(text) == 1024 * H * 64 < 1024**2
    assert largest(program("tpu", attend, packed_mask)) == H * 1024**2  # the check can fail


def test_on_gpu_it_is_cudnn_with_the_mask_as_its_bias_and_no_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Lowering needs to know which cuDNN it is for, not to have it.
    monkeypatch.setattr(jax_cudnn, "check_cudnn_version", lambda: 91200)
    backend = BACKENDS["cudnn"]
    text = program("cuda", backend.attend, backend.see)
    calls = set(re.findall(r"custom_call @(__cudnn\$[\w]+)", text))
    assert calls == {"__cudnn$fmhaScaleBiasSoftmax", "__cudnn$fmhaScaleBiasSoftmaxBackward"}
    assert largest(text) == 1024**2 < H * 1024**2
    # The same call in XLA's hands is the reference.
    whole = functools.partial(jax.nn.dot_product_attention)

    def by_xla(*args: Any, **named: Any) -> jax.Array:
        return whole(*args, **{**named, "implementation": "xla"})

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    mine = results(lambda q, k, v: backend.attend(q, k, v, packed_mask(*rows())))
    for found, wanted in zip(mine, results(reference), strict=True):
        np.testing.assert_allclose(found, wanted, atol=3e-6)
