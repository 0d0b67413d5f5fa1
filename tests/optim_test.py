"""The optimizer: AdamW against plain loops, what is decayed, how the learning rate runs."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import CHOICES, Optimizer
from seirenes_jax.optim import decay_mask, make_optimizer, make_schedule

PLAIN = Optimizer(
    lr=0.1, warmup_steps=0, schedule="constant", weight_decay=0.1, b1=0.9, b2=0.95, eps=1e-8,
    clip=1.0, moments="float32",
)  # fmt: skip


def variant(**changes: Any) -> Optimizer:
    return dataclasses.replace(PLAIN, **changes)


def rates(settings: Optimizer, steps: int, upto: int) -> list[float]:
    schedule = make_schedule(settings, steps)
    return [float(schedule(count)) for count in range(upto)]


def test_three_updates_are_those_of_plain_loops() -> None:
    settings = variant(warmup_steps=2)
    params = {"w": jnp.array([[1.0, -2.0]]), "norm_scale": jnp.array([[3.0]])}
    optimizer = make_optimizer(settings, steps=10)
    state = optimizer.init(params)
    p, m, v = [1.0, -2.0, 3.0], [0.0] * 3, [0.0] * 3
    for t, grad in enumerate([[3.0, 4.0, 0.0], [0.1, -0.2, 0.3], [-5.0, 1.0, 2.0]], start=1):
        grads = {"w": jnp.array([grad[:2]]), "norm_scale": jnp.array([grad[2:]])}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        scale = min(1.0, settings.clip / math.sqrt(sum(g * g for g in grad)))
        lr = settings.lr * min(1.0, t / 2)
        for i, raw in enumerate(grad):
            g = raw * scale
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.95 * v[i] + 0.05 * g * g
            step = (m[i] / (1 - 0.9**t)) / (math.sqrt(v[i] / (1 - 0.95**t)) + 1e-8)
            p[i] -= lr * (step + (settings.weight_decay * p[i] if i < 2 else 0.0))
    np.testing.assert_allclose([*params["w"][0], *params["norm_scale"][0]], p, rtol=1e-5)


def test_norms_and_biases_are_not_decayed_though_stacked() -> None:
    stacked = jnp.ones((3, 4))
    params = {
        "embed": {"embedding": stacked},
        "layers": {"norm": {"scale": stacked}, "q": {"kernel": stacked, "bias": stacked}},
        "q_norm_scale": stacked,
    }
    assert decay_mask(params) == {
        "embed": {"embedding": True},
        "layers": {"norm": {"scale": False}, "q": {"kernel": True, "bias": False}},
        "q_norm_scale": False,
    }
    optimizer = make_optimizer(PLAIN, steps=1)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    moved = jax.tree.map(lambda u: bool(jnp.any(u != 0)), updates)
    assert moved == decay_mask(params)


@pytest.mark.parametrize("schedule", CHOICES["optimizer.schedule"])
def test_warm_up_is_linear_and_never_zero(schedule: str) -> None:
    got = rates(variant(warmup_steps=4, schedule=schedule), steps=20, upto=5)
    np.testing.assert_allclose(got, [0.025, 0.05, 0.075, 0.1, 0.1], rtol=1e-6)


def test_constant_does_not_depend_on_steps() -> None:
    settings = variant(warmup_steps=4)
    assert rates(settings, 2, 30) == rates(settings, 20, 30) == rates(settings, 300, 30)
    assert rates(settings, 2, 30)[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(("schedule", "half"), [("linear", 0.05), ("cosine", 0.05)])
def test_decay_ends_at_zero_after_the_last_update(schedule: str, half: float) -> None:
    got = rates(variant(warmup_steps=4, schedule=schedule), steps=24, upto=26)
    assert got[14] == pytest.approx(half)
    assert got[23] > 0
    assert got[24:] == pytest.approx([0.0, 0.0], abs=1e-8)
    quarter = 0.075 if schedule == "linear" else 0.1 * 0.5 * (1 + math.cos(math.pi / 4))
    assert got[9] == pytest.approx(quarter)


def test_moments_are_float32_and_updates_fit_the_parameters() -> None:
    params = {"w": jnp.ones(3, jnp.bfloat16)}
    optimizer = make_optimizer(PLAIN, steps=1)
    state = optimizer.init(params)
    updates, state = optimizer.update({"w": jnp.full(3, 1e-3, jnp.bfloat16)}, state, params)
    floats = [x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert floats == [jnp.float32] * 2
    assert optax.apply_updates(params, updates)["w"].dtype == jnp.bfloat16


def fitted(settings: Optimizer, updates: int) -> tuple[np.ndarray, Any]:
    """Weights and optimizer state after some noisy updates towards a target of many scales."""
    rng = np.random.default_rng(0)
    target = jnp.asarray(rng.normal(size=400) * 10.0 ** rng.uniform(-3, 1, 400), jnp.float32)
    optimizer = make_optimizer(settings, steps=updates)
    params = {"w": jnp.zeros(400)}
    state = optimizer.init(params)
    for noise in rng.normal(size=(updates, 400)):
        grads = {"w": params["w"] - target + jnp.asarray(noise, jnp.float32) * abs(target)}
        changes, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, changes)
    return np.asarray(params["w"]), state


def test_moments_in_bfloat16_go_nearly_the_same_way() -> None:
    plain, wide = fitted(variant(lr=1e-2), 60)
    rounded, narrow = fitted(variant(lr=1e-2, moments="bfloat16"), 60)
    way, apart = np.abs(plain), np.abs(plain - rounded)
    assert 1e-4 < np.sum(apart) / np.sum(way) < 0.01
    assert np.quantile(apart / (way + 1e-3), 0.99) < 0.05
    assert {str(x.dtype) for x in jax.tree.leaves(wide)} == {"int32", "float32"}
    assert {str(x.dtype) for x in jax.tree.leaves(narrow)} == {"int32", "bfloat16"}


def test_moments_in_bfloat16_are_those_of_float32_rounded() -> None:
    params, grads = {"w": jnp.array([3.0, -1.0])}, {"w": jnp.array([0.3, 0.1])}
    states = []
    for kept in CHOICES["optimizer.moments"]:
        optimizer = make_optimizer(variant(moments=kept), steps=1)
        changes, state = optimizer.update(grads, optimizer.init(params), params)
        states.append((changes["w"], optax.tree_utils.tree_get(state, "nu")["w"]))
    (exact, nu), (near, rounded) = states
    np.testing.assert_array_equal(exact, near)  # rounded after the update, not before
    np.testing.assert_array_equal(rounded, nu.astype(jnp.bfloat16))


@pytest.mark.parametrize("kept", CHOICES["optimizer.moments"])
def test_a_resumed_optimizer_goes_on_to_the_bit(kept: str, tmp_path: Path) -> None:
    optimizer = make_optimizer(variant(moments=kept), steps=9)
    apply = jax.jit(optimizer.update)
    params = {"w": jnp.linspace(-1.0, 1.0, 64)}
    state = optimizer.init(params)

    def on(state: Any, steps: range) -> Any:
        for step in steps:
            _, state = apply({"w": jnp.sin(params["w"] * step)}, state, params)
        return state

    state = on(state, range(1, 4))
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(3, {"o": state}, host_arrays={}, host_json={}, metric=None)
        found = checkpoints.restore(jax.eval_shape(lambda: {"o": state}))
    assert found is not None
    straight, resumed = on(state, range(4, 9)), on(found.state["o"], range(4, 9))
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, straight, resumed)))


def test_a_huge_gradient_is_clipped_by_its_global_norm() -> None:
    # Adam hides a common factor, so look at the first moment: (1 - b1) times the clipped gradient.
    params = {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    optimizer = make_optimizer(variant(clip=1.0), steps=1)
    grads = {"a": jnp.array([3e5]), "b": jnp.array([4e5])}
    _, state = optimizer.update(grads, optimizer.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")
    np.testing.assert_allclose([moment["a"][0], moment["b"][0]], [0.06, 0.08], rtol=1e-5)


def test_impossible_settings_are_refused_with_numbers() -> None:
    with pytest.raises(ConfigError, match="clip: got 0.0"):
        make_optimizer(variant(clip=0.0), steps=10)
    with pytest.raises(ConfigError, match="got 10 with steps = 10"):
        make_optimizer(variant(warmup_steps=10, schedule="cosine"), steps=10)
    with pytest.raises(ConfigError, match="b2 = 0.999; wanted both at most 0.98"):
        make_optimizer(variant(b2=0.999, moments="bfloat16"), steps=10)
