"""Reductions under a mask and Totals: against plain loops, in any split, with finite gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax.masked import Total, masked_mean, masked_std, masked_sum, total

HOWS = ("mean", "max", "min")
rows = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.booleans()), min_size=1, max_size=12
)


def plain(pairs: list[tuple[float, bool]], how: str) -> float:
    live = [x for x, keep in pairs if keep]
    if not live:
        return 0.0
    return sum(live) / len(live) if how == "mean" else (max if how == "max" else min)(live)


def arrays(pairs: list[tuple[float, bool]]) -> tuple[jax.Array, jax.Array]:
    return jnp.array([x for x, _ in pairs], jnp.float32), jnp.array([keep for _, keep in pairs])


@pytest.mark.parametrize("how", HOWS)
@given(parts=st.lists(rows, min_size=1, max_size=4))
def test_merged_parts_are_the_whole(how: str, parts: list[list[tuple[float, bool]]]) -> None:
    whole = [pair for part in parts for pair in part]
    merged = functools.reduce(Total.add, [total(*arrays(p), how) for p in parts])  # type: ignore[arg-type]
    assert merged.value() == pytest.approx(plain(whole, how), abs=1e-4)
    assert merged.count == sum(keep for _, keep in whole)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("x", [-3.0, 3.0])
def test_zeros_are_neutral(how: str, x: float) -> None:
    some = total(jnp.array([x]), jnp.array([True]), how)  # type: ignore[arg-type]
    zero = jax.tree.map(jnp.zeros_like, some)
    assert zero.add(some).value() == some.add(zero).value() == x
    assert zero.value() == 0.0


def test_total_knows_weights_and_refuses_a_mixture() -> None:
    weighted = total(jnp.array([1.0, 4.0, jnp.nan]), jnp.array([3.0, 1.0, 0.0]))
    assert weighted.value() == pytest.approx((3 * 1 + 1 * 4) / 4)
    with pytest.raises(ValueError, match="'mean', 'max'"):
        weighted.add(total(jnp.ones(1), jnp.ones(1), "max"))


def test_how_survives_jit_and_scan() -> None:
    def add(carry: Total, x: jax.Array) -> tuple[Total, None]:
        return carry.add(total(x[None], jnp.array([True]), "min")), None

    start = Total(jnp.zeros(()), jnp.zeros(()), "min")
    found, _ = jax.lax.scan(add, start, jnp.array([5.0, 2.0, 9.0]))
    assert found.how == "min"
    assert found.value() == 2.0


@given(pairs=rows)
def test_sum_mean_std_are_those_of_plain_loops(pairs: list[tuple[float, bool]]) -> None:
    live = [x for x, keep in pairs if keep]
    mean = sum(live) / len(live) if live else 0.0
    std = math.sqrt(sum((x - mean) ** 2 for x in live) / len(live)) if live else 0.0
    x, mask = arrays(pairs)
    assert masked_sum(x, mask) == pytest.approx(sum(live), abs=1e-3)
    assert masked_mean(x, mask) == pytest.approx(mean, abs=1e-3)
    assert masked_std(x, mask) == pytest.approx(std, abs=1e-3)


def test_axis_reduces_rows_one_by_one() -> None:
    x = jnp.array([[1.0, 5.0, 99.0], [2.0, 99.0, 99.0], [99.0, 99.0, 99.0]])
    mask = jnp.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
    np.testing.assert_allclose(masked_sum(x, mask, axis=1), [6.0, 2.0, 0.0])
    np.testing.assert_allclose(masked_mean(x, mask, axis=1), [3.0, 2.0, 0.0])
    np.testing.assert_allclose(masked_std(x, mask, axis=1), [2.0, 0.0, 0.0])
    assert masked_std(x, mask, axis=1, keepdims=True).shape == (3, 1)


@pytest.mark.parametrize("reduce", [masked_sum, masked_mean, masked_std])
@pytest.mark.parametrize("mask", [[False] * 3, [True, False, False], [True, True, False]])
def test_gradients_are_finite_and_masked_numbers_do_not_leak(reduce, mask) -> None:  # type: ignore[no-untyped-def]
    keep = jnp.array(mask)
    x = jnp.array([2.0, 2.0, jnp.nan])
    value, slope = jax.value_and_grad(lambda x: reduce(x, keep))(x)
    assert bool(jnp.isfinite(value)) and bool(jnp.all(jnp.isfinite(slope)))
    assert bool(jnp.all(jnp.where(keep, 0.0, slope) == 0.0))


def test_low_precision_is_summed_in_float32() -> None:
    x = jnp.ones(4096, jnp.bfloat16)  # in bfloat16, 256 + 1 = 256
    keep = jnp.ones(4096, bool)
    assert masked_sum(x, keep) == 4096.0
    assert masked_mean(x, keep).dtype == masked_std(x, keep).dtype == jnp.float32
