"""Laws of the mesh: devices change only where arrays live; what cannot be shared out is named.

Losses and gradients are compared, not Adam's first update: that is a sign, and flips on a rounding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seirenes_jax import knobs
from seirenes_jax.batch import lay_out, pack
from seirenes_jax.errors import ConfigError
from seirenes_jax.masked import Total
from seirenes_jax.sharding import make_mesh, param_shardings, replicated, rows_sharding
from seirenes_jax.state import TrainBatch
from seirenes_jax.step import add_gradient, zero_gradient
from tests.laws.small import CONFIG, PPO, STREAMS, groups, params, plan

ROW_TOKENS, ROWS = 20, 8


@functools.cache
def batch() -> TrainBatch:
    (micro,) = lay_out(pack(groups(), ROW_TOKENS), plan(ROW_TOKENS, ROWS))
    return micro


def gradient(weights: Any, micro: TrainBatch) -> tuple[float, Any, dict[str, Total]]:
    grads, totals = add_gradient(
        weights, jax.tree.map(jnp.zeros_like, weights), micro,
        config=CONFIG, loss=PPO, streams=STREAMS,
    )
    return float(sum(totals[f"loss/{s}"].sum for s in STREAMS)), grads, totals


@functools.cache
def on_one_device() -> tuple[float, Any, dict[str, Total]]:
    return gradient(params(), batch())


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 4, 2), (8, 1, 1)], ids=str)
def test_any_mesh_gives_the_loss_and_gradient_of_one_device(sizes: tuple[int, int, int]) -> None:
    mesh = make_mesh(knobs.Mesh(*sizes))
    wanted = param_shardings(params(), mesh)
    weights = jax.device_put(params(), wanted)
    rows, everywhere = rows_sharding(mesh), replicated(mesh)
    micro = jax.device_put(
        batch(), jax.tree.map(lambda x: rows if np.ndim(x) else everywhere, batch())
    )
    value, grads, totals = gradient(weights, micro)
    value_1, grads_1, totals_1 = on_one_device()
    assert value == pytest.approx(value_1, rel=1e-5)

    def close(path: Any, a: jax.Array, b: jax.Array) -> None:
        off = np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)
        assert off < 1e-5, f"{jax.tree_util.keystr(path)}: off by {off:.1e} of its norm"

    jax.tree_util.tree_map_with_path(close, grads, grads_1)
    for name, metric in totals_1.items():
        value = float(metric.value())
        assert float(totals[name].value()) == pytest.approx(value, rel=1e-4, abs=1e-6)
    # Really shared out: each device holds its part, rows and parameters alike.
    data, fsdp, tensor = sizes
    head = weights["head"].addressable_shards[0].data.shape
    assert head == (CONFIG.width // fsdp, CONFIG.vocab // tensor)
    assert micro.tokens_BT.addressable_shards[0].data.shape == (ROWS // (data * fsdp), ROW_TOKENS)


def test_a_gradient_of_zero_lives_where_its_parameters_live() -> None:
    mesh = make_mesh(knobs.Mesh(1, 4, 2))
    weights = jax.device_put(params(), param_shardings(params(), mesh))
    same = jax.tree.map(lambda g, w: g.sharding.is_equivalent_to(w.sharding, w.ndim),
                        zero_gradient(weights), weights)  # fmt: skip
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    ("sizes", "name", "axis"),
    [((1, 1, 4), "layers/attention/k/kernel", "tensor"), ((1, 5, 1), "embed", "fsdp")],
)
def test_what_does_not_divide_is_refused_by_name(
    sizes: tuple[int, int, int], name: str, axis: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        param_shardings(params(), make_mesh(knobs.Mesh(*sizes)))
    said = str(refused.value)
    assert name in said and f"mesh.{axis}" in said and str(max(sizes)) in said


def test_an_unknown_parameter_and_a_mesh_too_large_are_refused() -> None:
    mesh = make_mesh(knobs.Mesh(1, 1, 1))
    with pytest.raises(ConfigError, match="layers/mlp/novel"):
        param_shardings({"layers": {"mlp": {"novel": jnp.zeros(3)}}}, mesh)
    with pytest.raises(ConfigError, match=r"2 x 4 x 2 = 16 devices.*has 8"):
        make_mesh(knobs.Mesh(2, 4, 2))
