"""Laws of adapters: off they change nothing, on they are the merged weights, they alone move."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seirenes_jax.batch import Piece, lay_out, pack
from seirenes_jax.knobs import Decode, Lora, Optimizer
from seirenes_jax.layout import make_layout
from seirenes_jax.models import ModelConfig, init_params, join, split, without_adapters
from seirenes_jax.models.lora import merged
from seirenes_jax.optim import make_optimizer
from seirenes_jax.sharding import batch_shardings, make_mesh, param_shardings
from seirenes_jax.state import TrainBatch, TrainState
from seirenes_jax.step import add_gradient, apply_gradient, score_step, zero_gradient
from tests.laws.sharding_test import sizes_of
from tests.laws.small import (
    CONFIG,
    MOE,
    PPO,
    STREAMS,
    Letters,
    asks,
    groups,
    make_sampler,
    params,
    plan,
)  # fmt: skip

DENSE = dataclasses.replace(
    CONFIG, lora=Lora(3, 6.0, ("q", "k", "v", "o", "gate", "up", "down"))
)
MIXED = dataclasses.replace(MOE, lora=Lora(3, 1.5, ("q", "v", "o")))
BOTH = pytest.mark.parametrize("config", [DENSE, MIXED], ids=["dense", "moe"])


def batch() -> TrainBatch:
    (micro,) = lay_out(pack(groups(), 20), plan(20, 8))
    return micro


def gradient(
    weights: Any, config: ModelConfig, base: Any, micro: TrainBatch | None = None
) -> Any:
    grads, _ = add_gradient(
        weights, zero_gradient(weights), batch() if micro is None else micro, config=config,
        loss=PPO, streams=STREAMS, base=base,
    )  # fmt: skip
    return grads


def all_merged(whole: Any, config: ModelConfig) -> Any:
    """W + scale A B in place of every adapted kernel, layer by layer; no adapters."""
    assert config.lora is not None

    def visit(node: Any) -> Any:
        if "lora_a" in node:
            parts = (np.asarray(node[name]) for name in ("kernel", "lora_a", "lora_b"))
            sums = [merged(w, a, b, config.lora) for w, a, b in zip(*parts, strict=True)]
            rest = {k: v for k, v in node.items() if k not in ("lora_a", "lora_b")}
            return rest | {"kernel": jnp.stack(sums)}
        return {k: visit(v) if isinstance(v, dict) else v for k, v in node.items()}

    return visit(whole)


def off_by(found: Any, wanted: Any) -> float:
    return float(np.linalg.norm(np.subtract(found, wanted)) / np.linalg.norm(wanted))


@BOTH
def test_at_the_start_they_change_no_bit(config: ModelConfig) -> None:
    base, _ = split(params(config=config))
    fresh = split(jax.jit(lambda: init_params(config, 1))())[1]
    flat = jax.tree_util.tree_flatten_with_path(fresh)[0]
    assert len(flat) == 2 * len(config.lora.targets)  # type: ignore[union-attr]
    for path, leaf in flat:
        one = np.asarray(leaf)
        if path[-1].key == "lora_b":
            assert not one.any()
        else:  # as PEFT begins: uniform up to 1 / sqrt(inputs)
            edge = one.shape[1] ** -0.5
            assert 0.9 * edge < np.abs(one).max() <= edge and np.std(one[0] - one[1]) > 0.1 * edge
    off = score_step(base, batch(), config=without_adapters(config))
    on = score_step(fresh, batch(), config=config, base=base)
    np.testing.assert_array_equal(on, off)
    moved = score_step(split(params(config=config))[1], batch(), config=config, base=base)
    assert np.abs(np.subtract(moved, off)).max() > 0.1


@BOTH
def test_unmerged_is_merged(config: ModelConfig) -> None:
    base, adapters = split(params(config=config))
    whole = all_merged(params(config=config), config)
    apart = score_step(adapters, batch(), config=config, base=base)
    summed = score_step(whole, batch(), config=without_adapters(config))
    np.testing.assert_allclose(apart, summed, atol=1e-4, rtol=0)


@BOTH
def test_their_gradient_is_the_chain_rule_through_the_merged_weights(config: ModelConfig) -> None:
    base, adapters = split(params(config=config))
    found = gradient(adapters, config, base)
    full = gradient(all_merged(params(config=config), config), without_adapters(config), None)
    assert jax.tree.structure(found) == jax.tree.structure(adapters)
    lora, seen = config.lora, 0
    assert lora is not None
    for room, parts in found["layers"].items():
        for name, grads in parts.items():
            pair = adapters["layers"][room][name]
            dW_NDF = np.asarray(full["layers"][room][name]["kernel"]) * (lora.alpha / lora.rank)
            dA = np.einsum("ndf,nrf->ndr", dW_NDF, pair["lora_b"])
            dB = np.einsum("ndr,ndf->nrf", pair["lora_a"], dW_NDF)
            assert max(off_by(grads["lora_a"], dA), off_by(grads["lora_b"], dB)) < 1e-4, name
            seen += 1
    assert seen == len(lora.targets)


def test_steps_move_the_adapters_and_no_bit_of_the_base() -> None:
    """Clipped and decayed are the adapters alone: a base that is all one value has no say."""
    optimizer = make_optimizer(
        Optimizer(lr=1e-2, warmup_steps=0, schedule="constant", weight_decay=0.1, b1=0.9, b2=0.95,
                  eps=1e-8, clip=1.0, moments="float32"), 10,
    )  # fmt: skip
    base, adapters = split(params(config=DENSE))
    before = jax.tree.map(np.array, base)
    start = jax.tree.map(jnp.copy, adapters)
    state = TrainState(jnp.int32(0), start, optimizer.init(start))
    kept = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert sum(x.size for x in kept) == 2 * sum(x.size for x in jax.tree.leaves(adapters))
    for _ in range(3):
        grads = gradient(state.params, DENSE, base)
        norm = np.sqrt(sum(float(jnp.sum(g * g)) for g in jax.tree.leaves(grads)))
        state, said = apply_gradient(state, grads, optimizer=optimizer)
        assert float(said["grad_norm"]) == pytest.approx(norm, rel=1e-5)
    jax.tree.map(np.testing.assert_array_equal, base, before)
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), state.params, adapters)
    assert all(jax.tree.leaves(moved))


@BOTH
def test_sampler_logprob_is_the_trainers(config: ModelConfig) -> None:
    base, adapters = split(params(config=config))
    sampler = make_sampler(slots=4, chunk=5, config=config, weights=join(base, adapters))
    found: dict[Any, list[Piece]] = {}
    for r in sampler.generate(asks()):
        piece = Piece(Letters().render(r.ask.messages), r.tokens, r.logprobs, 1.0, 1.0, 0, r.routes)
        found.setdefault(r.ask.messages, []).append(piece)
    for micro in lay_out(pack(list(found.values()), 64), plan(64, 4)):
        train = np.asarray(micro.train_BT)
        logp = np.asarray(score_step(adapters, micro, config=config, base=base))
        np.testing.assert_allclose(logp[train], np.asarray(micro.logp_old_BT)[train], atol=1e-5)
        off = np.asarray(score_step(base, micro, config=without_adapters(config)))
        assert np.abs(off - logp)[train].max() > 0.1


@pytest.mark.parametrize(
    ("config", "mesh"),
    [(DENSE, "fsdp 4, tensor 2"), (DENSE, "data 2, sequence 2, tensor 2"),
     (MIXED, "expert 2, fsdp 2, tensor 2")],
    ids=["dense: fsdp, tensor", "dense: data, sequence, tensor", "moe: expert, fsdp, tensor"],
)  # fmt: skip
def test_any_mesh_gives_the_gradient_of_one_device(config: ModelConfig, mesh: str) -> None:
    devices = make_mesh(sizes_of(mesh))
    whole = params(config=config)
    base, adapters = split(jax.device_put(whole, param_shardings(whole, devices)))
    micro = jax.device_put(batch(), batch_shardings(batch(), devices))
    shared = dataclasses.replace(config, mesh=devices)
    found = gradient(adapters, shared, base, micro)
    one, own = split(whole)
    wanted = gradient(own, config, one)
    for grad, alone, weight in zip(*map(jax.tree.leaves, (found, wanted, adapters)), strict=True):
        assert off_by(grad, alone) < 2e-5
        assert grad.sharding.is_equivalent_to(weight.sharding, weight.ndim)
    width = found["layers"]["attention"]["q"]["lora_a"].addressable_shards[0].data.shape[1]
    assert width == config.width // devices.shape["fsdp"]


@pytest.mark.parametrize(
    ("train", "tensor", "copied"),
    [("tensor 2, data 4", 2, False), ("data 8", 1, False), ("fsdp 8", 1, True),
     ("tensor 2, data 4", 4, True)],
)  # fmt: skip
def test_where_decoding_lies_as_training_does_there_is_one_base(
    train: str, tensor: int, copied: bool
) -> None:
    mesh = make_mesh(sizes_of(train))
    config = dataclasses.replace(CONFIG, kv_heads=4)
    whole = params(config=config)
    base = jax.device_put(whole, param_shardings(whole, mesh))
    lay_out, _ = make_layout(base, mesh, Decode(1, tensor, 1), dtype="float32")
    same = jax.tree.map(
        lambda a, b: a.addressable_shards[0].data.unsafe_buffer_pointer()
        == b.addressable_shards[0].data.unsafe_buffer_pointer(),
        lay_out(base), base,
    )  # fmt: skip
    assert all(jax.tree.leaves(same)) != copied
    jax.tree.map(np.testing.assert_array_equal, lay_out(base), base)
