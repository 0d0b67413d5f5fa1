"""Laws of the mesh: devices change only where arrays live; what cannot be shared out is named.

Losses and gradients are compared, not Adam's first update: that is a sign, and flips on a rounding.
"""

import dataclasses
import functools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seirenes_jax import knobs
from seirenes_jax.batch import lay_out, pack
from seirenes_jax.errors import ConfigError
from seirenes_jax.masked import Total
from seirenes_jax.models import ModelConfig
from seirenes_jax.models.attention import BACKENDS
from seirenes_jax.models.flash import flash
from seirenes_jax.models.grouped import PRODUCTS
from seirenes_jax.models.grouped_tpu import mosaic
from seirenes_jax.sharding import (
    MESH_AXES,
    RULES,
    arranged,
    batch_shardings,
    make_mesh,
    param_shardings,
)
from seirenes_jax.state import TrainBatch
from seirenes_jax.step import add_gradient, zero_gradient
from tests.laws.small import (
    CONFIG,
    MOE,
    PPO,
    STREAMS,
    asks,
    groups,
    make_sampler,
    params,
    plan,
    rollouts,
)  # fmt: skip

ROW_TOKENS, ROWS = 20, 8


@functools.cache
def batch() -> TrainBatch:
    (micro,) = lay_out(pack(groups(), ROW_TOKENS), plan(ROW_TOKENS, ROWS))
    return micro


def gradient(
    weights: Any, micro: TrainBatch, config: ModelConfig
) -> tuple[float, Any, dict[str, Total]]:
    grads, totals = add_gradient(
        weights, jax.tree.map(jnp.zeros_like, weights), micro,
        config=config, loss=PPO, streams=STREAMS,
    )
    return float(sum(totals[f"loss/{s}"].sum for s in STREAMS)), grads, totals


@functools.cache
def on_one_device(config: ModelConfig) -> tuple[float, Any, dict[str, Total]]:
    return gradient(params(config=config), batch(), config)


def sizes_of(mesh: str) -> knobs.Mesh:
    """"data 2, expert 4" -> those axes; the others are 1."""
    named = {axis: int(size) for axis, size in (part.split() for part in mesh.split(", "))}
    sizes = dict.fromkeys(MESH_AXES, 1) | named
    return knobs.Mesh(**sizes)


DENSE = ["data 8", "fsdp 4, tensor 2", "data 2, fsdp 2, tensor 2", "tensor 2, sequence 4"]
MIXED = [
    "expert 4, tensor 2", "data 2, expert 2, sequence 2", "fsdp 2, expert 2, tensor 2",
    "fsdp 2, tensor 2, sequence 2",
]


def assert_shared_gradient(config: ModelConfig, mesh: str, alone: ModelConfig) -> None:
    """Loss, metrics and gradients of `config` on a mesh are those of `alone` on one device, and
    live where they should."""
    sizes = sizes_of(mesh)
    devices = make_mesh(sizes)
    where = param_shardings(params(config=alone), devices)
    weights = jax.device_put(params(config=alone), where)
    micro = jax.device_put(batch(), batch_shardings(batch(), devices))
    shared = dataclasses.replace(config, mesh=devices)
    value, grads, totals = gradient(weights, micro, shared)
    value_1, grads_1, totals_1 = on_one_device(alone)
    assert value == pytest.approx(value_1, rel=1e-5)

    def close(path: Any, a: jax.Array, b: jax.Array) -> None:
        off = np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)
        assert off < 2e-5, f"{jax.tree_util.keystr(path)}: off by {off:.1e} of its norm"

    jax.tree_util.tree_map_with_path(close, grads, grads_1)
    assert totals.keys() == totals_1.keys()
    for name, metric in totals_1.items():
        wanted = float(metric.value())
        assert float(totals[name].value()) == pytest.approx(wanted, rel=1e-4, abs=1e-6), name
    # Really shared out: each device holds its part of rows, parameters and gradients alike.
    for tree in (weights, grads):
        head = tree["head"].addressable_shards[0].data.shape
        assert head == (config.width // sizes.fsdp, config.vocab // sizes.tensor)
        if config.experts:
            part = tree["layers"]["moe"]["down"].addressable_shards[0].data.shape
            _, E, F, D = tree["layers"]["moe"]["down"].shape
            assert part[1:] == (E // sizes.expert, F // sizes.tensor, D // sizes.fsdp)
    rows = ROWS // (sizes.data * sizes.fsdp * sizes.expert)
    part = micro.tokens_BT.addressable_shards[0].data.shape
    assert part == (rows, ROW_TOKENS // sizes.sequence)


@pytest.mark.parametrize(
    ("config", "mesh"), [(CONFIG, mesh) for mesh in DENSE] + [(MOE, mesh) for mesh in MIXED],
    ids=DENSE + [f"moe: {mesh}" for mesh in MIXED],
)  # fmt: skip
def test_any_mesh_gives_the_loss_and_gradient_of_one_device(
    config: ModelConfig, mesh: str
) -> None:
    assert_shared_gradient(config, mesh, config)


def test_a_mesh_draws_the_tokens_of_one_device() -> None:
    """Slots over data and expert, heads over tensor, experts over expert."""
    devices = make_mesh(sizes_of("data 2, expert 2, tensor 2"))
    shared = dataclasses.replace(MOE, mesh=devices)
    weights = jax.device_put(params(config=MOE), param_shardings(params(config=MOE), devices))
    sampler = make_sampler(slots=4, chunk=5, config=shared, weights=weights)
    for mine, alone in zip(sampler.generate(asks()), rollouts(1.0, MOE), strict=True):
        np.testing.assert_array_equal(mine.tokens, alone.tokens)
        np.testing.assert_array_equal(mine.routes, alone.routes)
        np.testing.assert_allclose(mine.logprobs, alone.logprobs, atol=1e-5)
    cache = sampler._lanes["live"].state.k_NBKSC
    N, B, K, S, C = cache.shape
    assert cache.addressable_shards[0].data.shape == (N, B // 4, K // 2, S, C)
    with pytest.raises(ConfigError, match=r"sampler.slots: got 6.* 4 devices"):
        make_sampler(slots=6, chunk=5, config=shared, weights=weights)


def test_the_tpu_kernels_on_a_mesh_give_the_gradient_of_one_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each device runs them on its part of rows, positions, heads and experts. Interpreted here."""
    by_kernel = BACKENDS["splash"]._replace(attend=partial(flash, block=8, interpret=True))
    monkeypatch.setitem(BACKENDS, "splash", by_kernel)
    monkeypatch.setitem(PRODUCTS, "mosaic", partial(mosaic, interpret=True))
    config = dataclasses.replace(MOE, layers=1, attention="splash", moe="mosaic")
    plain = dataclasses.replace(config, attention="xla", moe="plain")
    assert_shared_gradient(config, "expert 2, tensor 2, sequence 2", plain)


def test_every_axis_is_shared_out_in_some_mesh() -> None:
    meshes = [sizes_of(mesh) for mesh in DENSE + MIXED]
    assert len(meshes) >= 8 and {axis for axis in MESH_AXES} == {
        axis for axis in MESH_AXES for sizes in meshes if getattr(sizes, axis) > 1
    }


def test_a_gradient_of_zero_lives_where_its_parameters_live() -> None:
    mesh = make_mesh(sizes_of("fsdp 4, tensor 2"))
    weights = jax.device_put(params(), param_shardings(params(), mesh))
    same = jax.tree.map(lambda g, w: g.sharding.is_equivalent_to(w.sharding, w.ndim),
                        zero_gradient(weights), weights)  # fmt: skip
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize(
    ("mesh", "name"),
    [("tensor 4", "layers/attention/k/kernel"), ("fsdp 5", "embed"), ("expert 3", "moe/down")],
)
def test_what_does_not_divide_is_refused_by_name(mesh: str, name: str) -> None:
    devices = make_mesh(sizes_of(mesh))
    with pytest.raises(ConfigError) as refused:
        dataclasses.replace(MOE, mesh=devices)  # 2 x 12 numbers divide by 4, 2 heads do not
        param_shardings(params(config=MOE), devices)
    said, (axis, size) = str(refused.value), mesh.split()
    assert name in said and f"mesh.{axis}" in said and f"{axis} = {size}" in said


@dataclasses.dataclass(frozen=True)
class Chip:
    """A device of a TPU of several slices, as far as a mesh looks at it."""

    id: int
    slice_index: int
    process_index: int


def test_between_slices_lie_copies_of_the_model_alone() -> None:
    # They come in any order.
    chips: list[Any] = [Chip(n, n % 2, n % 2) for n in range(8)]
    places = arranged((4, 2, 1, 1, 1), chips)
    slices = np.vectorize(lambda chip: chip.slice_index, otypes=[int])(places)
    assert slices[:, :, 0, 0, 0].tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]
    assert sorted(chip.id for chip in places.flat) == list(range(8))
    with pytest.raises(ConfigError, match=r"mesh.data: got 1 over 2 slices.*multiple of 2"):
        arranged((1, 8, 1, 1, 1), chips)


def test_an_axis_used_twice_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "width", "tensor")
    with pytest.raises(ConfigError, match=r"mesh: .*tensor.* twice"):
        param_shardings(params(), make_mesh(sizes_of("tensor 2")))


def test_an_unknown_parameter_and_a_mesh_too_large_are_refused() -> None:
    mesh = make_mesh(sizes_of("data 1"))
    with pytest.raises(ConfigError, match="layers/mlp/novel"):
        param_shardings({"layers": {"mlp": {"novel": jnp.zeros(3)}}}, mesh)
    with pytest.raises(ConfigError, match=r"2 x 4 x 1 x 1 x 2 = 16 devices; there are 8"):
        make_mesh(sizes_of("data 2, fsdp 4, tensor 2"))
