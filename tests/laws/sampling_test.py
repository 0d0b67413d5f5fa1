"""Laws of a draw: its frequencies, its support, its logprob, and what it may depend on."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import chdtrc

from seirenes_jax import sampling
from seirenes_jax.rng import draw_key
from seirenes_jax.sampling import GREEDY, Wishes, draw, filtered
from seirenes_jax.types import Name
from tests.laws.small import wishes

uniforms = jax.jit(sampling.uniforms)
V, B = 16, 8192
LOGITS_V = np.random.default_rng(5).normal(size=V).astype(np.float32) * 1.5
SMALLEST = 2.0**-24  # of all uniforms: 1 - (1 - 2**-24)


@partial(jax.jit, static_argnames=("filters",))
def drawn(
    logits_V: jax.Array, uniform_B: jax.Array, how: Wishes, *, filters: bool
) -> tuple[jax.Array, jax.Array]:
    logits_BV = jnp.broadcast_to(logits_V[None], (uniform_B.shape[0], logits_V.shape[0]))
    return draw(logits_BV, uniform_B, how, filters=filters)


def many(
    logits_V: jax.Array, uniform_B: jax.Array, temperature: float, *, top_k: int = 0,
    top_p: float = 1.0,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """One draw a uniform from the same distribution."""
    how = wishes(len(uniform_B), float(temperature), top_k=top_k, top_p=top_p)
    found: tuple[jax.Array, jax.Array] = drawn(
        logits_V, uniform_B, how, filters=top_k > 0 or top_p < 1.0
    )
    return found


def softmax(logits_V: np.ndarray, temperature: float) -> np.ndarray:
    scaled = logits_V.astype(np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return np.asarray(weights / weights.sum())


def kept(logits_V: np.ndarray, temperature: float, *, top_k: int, top_p: float) -> list[int]:
    """The tokens left, one at a time: the k likeliest, of these the fewest that reach top_p."""
    ranked = np.argsort(-logits_V)[: top_k or None]
    weights = softmax(logits_V[ranked], temperature)
    taken, mass = [], 0.0
    for token, weight in zip(ranked.tolist(), weights, strict=True):
        if mass < top_p:
            taken.append(token)
        mass += weight
    return sorted(taken)


def keys(n: int, seed: int = 0) -> np.ndarray:
    return np.array([draw_key(seed, 1, Name("p", 0, "0", 0, 0, i)) for i in range(n)], np.uint32)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 0, 1.0), (0.7, 5, 1.0), (1.0, 0, 0.8)]
)
def test_frequencies_are_those_of_the_softmax(
    temperature: float, top_k: int, top_p: float
) -> None:
    uniform_B = uniforms(keys(B), jnp.zeros(B, jnp.int32))
    tokens_B, logp_B = many(
        LOGITS_V, uniform_B, jnp.float32(temperature), top_k=top_k, top_p=top_p
    )
    support = kept(LOGITS_V, temperature, top_k=top_k, top_p=top_p)
    share_V = softmax(LOGITS_V, temperature)
    wanted = share_V[support] / share_V[support].sum()
    seen_V = np.bincount(np.asarray(tokens_B), minlength=V)
    assert seen_V.sum() == seen_V[support].sum() == B  # nothing outside
    inside_V = share_V / share_V[support].sum()
    np.testing.assert_allclose(np.exp(logp_B), inside_V[tokens_B], rtol=1e-4)

    def chance(expected: np.ndarray) -> float:
        off = np.sum((seen_V[support] - B * expected) ** 2 / (B * expected))
        return float(chdtrc(len(support) - 1, off))

    assert chance(wanted) > 0.01
    other = wanted**1.15  # the test can fail: a slightly colder distribution is told apart
    assert chance(other / other.sum()) < 1e-3


def test_draws_of_one_sample_are_independent_of_one_another() -> None:
    n = 256
    drawn_BU = np.stack([uniforms(keys(n), jnp.full(n, i, jnp.int32)) for i in range(8)], axis=1)
    assert len(np.unique(drawn_BU)) == drawn_BU.size
    between = np.corrcoef(drawn_BU, rowvar=False) - np.eye(8)
    assert np.max(np.abs(between)) < 0.25  # 4 standard errors of 1 / sqrt(256)


def both(
    logits_V: np.ndarray, uniform_B: np.ndarray, temperature: float, *, top_k: int, top_p: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    left_BV = left(logits_V[None] / np.float32(temperature), top_k=top_k, top_p=top_p)
    return left_BV[0], *many(logits_V, uniform_B, temperature, top_k=top_k, top_p=top_p)


def left(logits_BV: np.ndarray, *, top_k: int, top_p: float) -> jax.Array:
    how = wishes(len(logits_BV), 1.0, top_k=top_k, top_p=top_p)
    found: jax.Array = jitted(logits_BV, how.top_k_B, how.top_p_B)
    return found


jitted = jax.jit(filtered)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.5), (3, 1.0), (1, 0.9), (7, 0.9), (V, 1e-6)])
@settings(max_examples=15)
@given(
    logits=st.lists(st.integers(-400, 400), min_size=V, max_size=V, unique=True),
    temperature=st.sampled_from([0.7, 1.0, 1.3]),
)
def test_the_support_is_exact_and_its_probabilities_sum_to_one(
    top_k: int, top_p: float, logits: list[int], temperature: float
) -> None:
    logits_V = np.array(logits, np.float32) / 100
    support = kept(logits_V, temperature, top_k=top_k, top_p=top_p)
    share_V = softmax(logits_V, temperature)[support]
    logp_V = np.log(share_V / share_V.sum())
    # The middle of each token's stretch of the unit interval: `draw` walks through all of them.
    middle_V = np.ones(V, np.float32)
    middle_V[: len(support)] = np.cumsum(np.exp(logp_V)) - np.exp(logp_V) / 2
    left_V, tokens_V, drawn_V = both(
        logits_V, middle_V, jnp.float32(temperature), top_k=top_k, top_p=top_p
    )
    assert np.flatnonzero(np.isfinite(left_V)).tolist() == support
    assert np.asarray(tokens_V)[: len(support)].tolist() == support
    np.testing.assert_allclose(drawn_V[: len(support)], logp_V, atol=1e-4)
    assert np.sum(np.exp(drawn_V[: len(support)])) == pytest.approx(1.0, abs=1e-5)


def test_equal_logits_are_not_told_apart_by_top_k_alone() -> None:
    kept_BV = left(np.array([[1.0, 0.0, 1.0, 0.0, 2.0]], np.float32), top_k=2, top_p=1.0)
    assert np.flatnonzero(np.isfinite(kept_BV[0])).tolist() == [0, 2, 4]


@pytest.mark.parametrize("uniform", [SMALLEST, 0.5, 1.0])
def test_at_the_edges_of_the_interval_no_impossible_token_is_drawn(uniform: float) -> None:
    # The first and the last tokens are filtered away, or so unlikely that they round to nothing.
    cut_V = np.array([-5, -6, 2, 1, 2, -7, -4], np.float32)
    far_V = np.array([-200, -200, 2, 1, 2, -200, -200], np.float32)
    u_B = jnp.full(4, uniform, jnp.float32)
    for logits_V, top_k in ((cut_V, 3), (far_V, 0)):
        tokens_B, logp_B = many(logits_V, u_B, jnp.float32(1.0), top_k=top_k)
        assert set(np.asarray(tokens_B).tolist()) <= {2, 3, 4}
        assert np.all(np.isfinite(logp_B)) and np.all(np.asarray(logp_B) > -2)


def test_uniforms_lie_in_the_interval_that_excludes_zero() -> None:
    uniform_B = np.asarray(uniforms(keys(B), jnp.zeros(B, jnp.int32)))
    assert uniform_B.dtype == np.float32 and len(np.unique(uniform_B)) > B - 16
    assert np.all(uniform_B >= SMALLEST) and np.all(uniform_B <= 1.0)
    assert abs(uniform_B.mean() - 0.5) < 0.01 and abs(uniform_B.var() - 1 / 12) < 0.005


def test_a_draw_depends_on_its_name_and_its_own_count_alone() -> None:
    key_B2, drawn_B = keys(6), jnp.arange(6, dtype=jnp.int32)
    together = np.asarray(uniforms(key_B2, drawn_B))
    order = [4, 0, 5, 2, 1, 3]
    moved = uniforms(key_B2[order], drawn_B[jnp.array(order)])
    np.testing.assert_array_equal(moved, together[order])
    np.testing.assert_array_equal(uniforms(key_B2[2:3], drawn_B[2:3]), together[2:3])
    name = Name("p", 0, "0.1/1", 2, 0, 3)
    near = [
        draw_key(0, 1, name), draw_key(1, 1, name), draw_key(0, 2, name),
        draw_key(0, 1, Name("q", 0, "0.1/1", 2, 0, 3)),
        draw_key(0, 1, Name("p", 1, "0.1/1", 2, 0, 3)),
        draw_key(0, 1, Name("p", 0, "0.1/2", 2, 0, 3)),
        draw_key(0, 1, Name("p", 0, "0.1/1", 1, 0, 3)),
        draw_key(0, 1, Name("p", 0, "0.1/1", 2, 1, 3)),
        draw_key(0, 1, Name("p", 0, "0.1/1", 2, 0, 4)),
    ]  # fmt: skip
    assert len(set(near)) == len(near)
    assert draw_key(0, 1, Name("p", 0, "0.1/1", 2, 0, 3)) == near[0]


def test_greedy_takes_the_likeliest_and_reports_its_logprob_at_temperature_one() -> None:
    uniform_B = jnp.linspace(0.01, 1.0, 16, dtype=jnp.float32)
    tokens_B, logp_B = many(LOGITS_V, uniform_B, jnp.float32(GREEDY))
    assert set(np.asarray(tokens_B).tolist()) == {int(np.argmax(LOGITS_V))}
    np.testing.assert_allclose(logp_B, np.log(softmax(LOGITS_V, 1.0).max()), rtol=1e-5)


def test_rows_of_one_batch_are_drawn_as_each_of_them_wishes() -> None:
    temperatures = np.array([1.0, 0.0, 0.7, 2.0, 1.0, 0.7], np.float32)
    top_ks, top_ps = np.array([0, 0, 3, 0, 5, 2]), np.array([1, 1, 1, 0.6, 0.8, 0.9], np.float32)
    made: Any = Wishes
    how = made(temperature_B=temperatures, top_k_B=top_ks.astype(np.int32), top_p_B=top_ps)
    uniform_B = jnp.linspace(0.2, 0.9, len(top_ks), dtype=jnp.float32)
    tokens_B, logp_B = drawn(LOGITS_V, uniform_B, how, filters=True)
    for row in range(len(top_ks)):
        alone = many(
            LOGITS_V, uniform_B[row : row + 1], float(temperatures[row]),
            top_k=int(top_ks[row]), top_p=float(top_ps[row]),
        )  # fmt: skip
        assert int(tokens_B[row]) == int(alone[0][0])
        np.testing.assert_allclose(logp_B[row], alone[1][0], atol=1e-6)


def test_what_is_off_for_a_row_changes_none_of_its_bits() -> None:
    uniform_B = uniforms(keys(64), jnp.zeros(64, jnp.int32))
    how = wishes(64, 0.7)
    plain, through = (drawn(LOGITS_V, uniform_B, how, filters=flag) for flag in (False, True))
    np.testing.assert_array_equal(plain[0], through[0])
    np.testing.assert_allclose(plain[1], through[1], atol=1e-6)
