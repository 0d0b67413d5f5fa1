"""Laws of a mixture of experts: what it computes, what it is balanced by, what is replayed."""

import dataclasses
import functools
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seirenes_jax.batch import Piece, fill, lay_out, pack
from seirenes_jax.decode import Seats, admit, empty, run_chunk
from seirenes_jax.knobs import Batch
from seirenes_jax.masked import Total
from seirenes_jax.models import ModelConfig
from seirenes_jax.models.moe import Routed, apply, imbalance
from seirenes_jax.state import NOT_RECORDED, TrainBatch
from seirenes_jax.step import add_gradient, score_step, zero_gradient
from tests.laws.small import (
    CONFIG,
    MOE,
    PPO,
    STREAMS,
    Letters,
    groups,
    params,
    plan,
    rollout_batches,
    rollouts,
    wishes,
)  # fmt: skip

T, B = 64, 4
K = MOE.experts_per_token
ONE = dataclasses.replace(
    CONFIG, family="qwen3_moe", experts=1, experts_per_token=1, expert_ff=CONFIG.ff, norm_topk=True
)


def changed(batch: TrainBatch, **fields: Any) -> TrainBatch:
    other: TrainBatch = batch.replace(**fields)  # type: ignore[attr-defined]
    return other


def score(weights: Any, batch: TrainBatch, config: ModelConfig = MOE) -> np.ndarray:
    return np.asarray(score_step(weights, batch, config=config))


def gradient(
    micros: Sequence[TrainBatch], config: ModelConfig = MOE, weights: Any = None
) -> tuple[Any, dict[str, Total]]:
    weights = params(config=config) if weights is None else weights
    grads, merged = zero_gradient(weights), dict[str, Total]()
    for micro in micros:
        grads, totals = add_gradient(
            weights, grads, micro, config=config, loss=PPO, streams=STREAMS
        )
        merged = {k: merged[k].add(v) for k, v in totals.items()} if merged else totals
    return grads, merged


def assert_close(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Trees alike, every leaf relative to its norm."""

    def close(path: Any, a: jax.Array, b: jax.Array) -> None:
        off = np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)
        assert off < tolerance, f"{jax.tree_util.keystr(path)}: off by {off:.1e} of its norm"

    jax.tree_util.tree_map_with_path(close, found, wanted)


# What it computes.


def one_by_one(x_MD: np.ndarray, used_Mk: np.ndarray, gate_Mk: np.ndarray, kernels: Any) -> Any:
    """Token by token, expert by expert."""
    gate_EDF, up_EDF, down_EFD = (np.asarray(kernel, np.float64) for kernel in kernels)
    out = np.zeros_like(x_MD, np.float64)
    for m, x_D in enumerate(np.asarray(x_MD, np.float64)):
        for e, weight in zip(used_Mk[m], gate_Mk[m], strict=True):
            inner_F = x_D @ gate_EDF[e]
            hidden_F = inner_F / (1 + np.exp(-inner_F)) * (x_D @ up_EDF[e])
            out[m] += weight * (hidden_F @ down_EFD[e])
    return out


@pytest.mark.parametrize("spread", ["even", "one expert takes all", "some idle"])
def test_every_token_reaches_each_of_its_experts(spread: str) -> None:
    rng = np.random.default_rng(0)
    used_Mk = {
        "even": np.stack([rng.permutation(8)[:3] for _ in range(12)]),
        "one expert takes all": np.tile([5, 2, 7], (12, 1)),
        "some idle": np.tile([0, 7, 3], (12, 1)),
    }[spread].astype(np.int32)
    x_MD, gate_Mk = rng.normal(size=(12, 6)), rng.uniform(size=(12, 3))
    kernels = tuple(rng.normal(size=shape) for shape in ((8, 6, 5), (8, 6, 5), (8, 5, 6)))
    wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (x_MD, gate_Mk, kernels))
    x_BTD, used_BTk = wide[0].reshape(3, 4, 6), jnp.asarray(used_Mk).reshape(3, 4, 3)
    found = apply(
        x_BTD, used_BTk, wide[1].reshape(3, 4, 3), wide[2], config=MOE, columns=None
    )
    wanted = one_by_one(x_MD, used_Mk, gate_Mk, kernels)
    np.testing.assert_allclose(np.reshape(found, (12, 6)), wanted, rtol=1e-4, atol=1e-5)


@functools.cache
def dense_as_one_expert() -> tuple[Any, Any]:
    """The same parameters as a dense model's and as those of one expert."""
    dense = params()
    layers = dict(dense["layers"])
    mlp = layers.pop("mlp")
    kernels = {name: mlp[name]["kernel"][:, None] for name in ("gate", "up", "down")}
    router = {"kernel": jnp.ones((CONFIG.layers, CONFIG.width, 1), jnp.float32)}
    return dense, {**dense, "layers": {**layers, "moe": {"router": router, **kernels}}}


def test_a_mixture_of_one_expert_is_dense() -> None:
    dense, one = dense_as_one_expert()
    (batch,) = lay_out(pack(groups(), T), plan(T, B))
    np.testing.assert_allclose(score(one, batch, ONE), score(dense, batch, CONFIG), atol=1e-5)
    wanted, _ = gradient([batch], CONFIG, dense)
    found, totals = gradient([batch], dataclasses.replace(ONE, balance=1.0), one)
    moe = found["layers"].pop("moe")
    mlp = wanted["layers"].pop("mlp")
    assert_close(found, wanted)
    for name in ("gate", "up", "down"):
        assert_close(moe[name][:, 0], mlp[name]["kernel"])
    # One expert is always chosen and always balanced: nothing pulls at its router.
    np.testing.assert_allclose(moe["router"]["kernel"], 0.0, atol=1e-6)
    assert float(totals["balance"].value()) == pytest.approx(1.0)


def test_the_router_is_float32_whatever_the_compute_dtype() -> None:
    """The gates of a bfloat16 model add up to 1 far closer than bfloat16 could say."""
    rough = dataclasses.replace(MOE, dtype="bfloat16")
    (batch,) = lay_out(pack(groups(), T), plan(T, B))
    jaxpr = str(jax.make_jaxpr(lambda w: score_step(w, batch, config=rough))(params(config=MOE)))
    routed = [line for line in jaxpr.splitlines() if "top_k[" in line]
    assert routed and all("f32[4,64,3]" in line and "bf16" not in line for line in routed)
    off = np.abs(score(params(config=MOE), batch, rough) - score(params(config=MOE), batch))
    assert 1e-5 < np.mean(off[batch.train_BT]) < 0.1


# What it is balanced by.


def test_the_balance_loss_counts_by_sequence() -> None:
    """Two sequences in one row, each balanced by itself; written out in NumPy."""
    rng = np.random.default_rng(1)
    probs_TE = rng.dirichlet(np.ones(8), 10)
    used_Tk = np.argsort(-probs_TE, axis=-1)[:, :K]
    segments_T = np.array([1, 1, 1, 1, 2, 2, 2, 2, 2, 0])
    arrays = jnp.asarray(probs_TE[None], jnp.float32), jnp.asarray(used_Tk[None], jnp.int32)
    routed = Routed(arrays[0], arrays[1], arrays[1])
    loss_T = np.asarray(imbalance(routed, jnp.asarray(segments_T[None], jnp.int32)))[0]
    for segment in (1, 2):
        mine = segments_T == segment
        counts_E = np.bincount(used_Tk[mine].reshape(-1), minlength=8) / np.sum(mine)
        wanted = 8 * np.sum(counts_E * np.mean(probs_TE[mine], axis=0))
        assert np.mean(loss_T[mine]) == pytest.approx(wanted, rel=1e-5)


def test_experts_used_alike_cost_least() -> None:
    even = np.full((1, 8, 8), 1 / 8)
    used = (np.arange(8)[:, None] + np.arange(K)) % 8
    arrays = jnp.asarray(even, jnp.float32), jnp.asarray(used[None], jnp.int32)
    ones = jnp.ones((1, 8), jnp.int32)
    assert float(jnp.mean(imbalance(Routed(arrays[0], *arrays[1:] * 2), ones))) == pytest.approx(K)


def test_packed_is_unpacked_with_experts_too() -> None:
    """Prompts shared within a row against every completion alone: the loss of balance included."""
    some = groups()
    packed = lay_out(pack(some, T), plan(T, B))
    single = [
        fill([[(piece.prompt, [piece])]], Batch(T, B), temperature=1.0)
        for group in some for piece in group
    ]  # fmt: skip
    wanted, of_single = gradient(single)
    found, of_packed = gradient(packed)
    assert_close(found, wanted)
    assert of_packed.keys() == of_single.keys() and "route_agreement" not in of_packed
    for name, metric in of_single.items():
        assert float(of_packed[name].value()) == pytest.approx(float(metric.value()), rel=1e-4)
    assert K < float(of_packed["balance"].value()) < MOE.experts


def test_a_step_against_the_balance_loss_balances() -> None:
    """With no advantage only the balance pulls, at the router too."""
    some = [[dataclasses.replace(p, advantage=0.0) for p in group] for group in groups()]
    config = dataclasses.replace(MOE, balance=0.5, balance_scale=2.0)
    loss = dataclasses.replace(PPO, entropy=0.0)
    (batch,) = lay_out(pack(some, T), plan(T, B))

    def update(weights: Any) -> tuple[Any, float]:
        grads, totals = add_gradient(
            weights, zero_gradient(weights), batch, config=config, loss=loss, streams=STREAMS
        )
        return grads, float(totals["balance"].value())

    weights = params(config=config)
    grads, before = update(weights)
    after = update(jax.tree.map(lambda w, g: w - 0.1 * g, weights, grads))[1]
    pull = float(jnp.max(jnp.abs(grads["layers"]["moe"]["router"]["kernel"])))
    assert pull > 1e-4 and after < before - 1e-3


# What is replayed.


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sampler_records_what_the_trainer_would_choose(temperature: float) -> None:
    """First step, on policy: same logprobs, same experts, so replaying changes nothing."""
    micros = rollout_batches(temperature, MOE)
    for micro in micros:
        train = np.asarray(micro.train_BT)
        assert np.all(micro.routes[micro.segments_BT > 0] < MOE.experts)
        assert np.all(micro.routes[micro.segments_BT == 0] == NOT_RECORDED)
        for batch in (micro, changed(micro, routes=None)):
            logp = score(params(config=MOE), batch)
            np.testing.assert_allclose(logp[train], micro.logp_old_BT[train], atol=1e-5)
    _, totals = gradient(micros)
    assert float(totals["route_agreement"].value()) == 1.0
    assert float(totals["route_agreement"].count) == sum(
        len(r.tokens) for r in rollouts(temperature, MOE)
    )
    assert float(totals["ratio_max"].value()) == pytest.approx(1.0, abs=2e-5)


def test_a_rollout_holds_the_experts_of_every_input() -> None:
    for rollout in rollouts(1.0, MOE):
        stored = len(Letters().render(rollout.ask.messages)) - 1
        assert rollout.routes is not None and rollout.routes.dtype == np.uint8
        assert rollout.routes.shape == (stored + len(rollout.tokens), MOE.layers, K)
        assert all(len(set(row)) == K for row in rollout.routes.reshape(-1, K).tolist())


def test_nothing_is_recorded_where_it_is_not_wanted() -> None:
    slots, columns = 2, 16

    def routes(config: ModelConfig) -> list[Any]:
        weights = params(config=config)
        state = empty(config, slots=slots, columns=columns)
        zeros_B, zeros_PT = np.zeros(slots, np.int32), np.zeros((slots, 4), np.int32)
        seats: Any = Seats
        filled = seats(take_B=zeros_B > 0, source_B=zeros_B, token_B=zeros_B, limit_B=zeros_B,
                       key_B2=np.zeros((slots, 2), np.uint32))  # fmt: skip
        _, of_prompts = jax.eval_shape(
            partial(admit, config=config), weights, state, (zeros_PT, zeros_B), filled
        )
        _, drawn = jax.eval_shape(
            partial(run_chunk, config=config, chunk=3, columns=columns, stop_ids=(1,),
                    filters=False), weights, state, wishes(slots, 1.0),
        )  # fmt: skip
        return [of_prompts, drawn.routes_BUNk]

    shapes = [(slots, 4, MOE.layers, K), (slots, 3, MOE.layers, K)]
    assert [(x.shape, x.dtype) for x in routes(MOE)] == [(shape, np.uint8) for shape in shapes]
    assert routes(dataclasses.replace(MOE, replay_routes=False)) == [None, None]
    assert routes(CONFIG) == [None, None]
    assert all(r.routes is None for r in rollouts())
    assert all(micro.routes is None for micro in rollout_batches())


def test_recorded_experts_are_used_and_their_gates_learn() -> None:
    """Off policy the router would choose others: the record wins, and the router is still told."""
    micros = rollout_batches(1.0, MOE)
    moved = jax.tree.map(lambda x: x, params(config=MOE))
    router = moved["layers"]["moe"]["router"]["kernel"]
    moved["layers"]["moe"]["router"]["kernel"] = router + 0.2 * jnp.asarray(
        np.random.default_rng(5).normal(size=router.shape), jnp.float32
    )
    grads, totals = gradient(micros, weights=moved)
    agreement = float(totals["route_agreement"].value())
    assert 0.3 < agreement < 0.99
    assert float(jnp.max(jnp.abs(grads["layers"]["moe"]["router"]["kernel"]))) > 1e-3
    for micro in micros:
        replayed, fresh = score(moved, micro), score(moved, changed(micro, routes=None))
        assert np.max(np.abs(replayed - fresh)) > 1e-3
        # Not recorded anywhere is the router's own choice.
        blank = changed(micro, routes=np.full_like(micro.routes, NOT_RECORDED))
        np.testing.assert_allclose(score(moved, blank), fresh, atol=1e-6)


def test_another_record_is_another_function() -> None:
    """The record names experts, in any order."""
    (micro, *_) = rollout_batches(1.0, MOE)
    logp = score(params(config=MOE), micro)
    turned = changed(micro, routes=np.ascontiguousarray(micro.routes[..., ::-1]))
    np.testing.assert_allclose(score(params(config=MOE), turned), logp, atol=1e-5)
    known = micro.routes != NOT_RECORDED
    others = np.where(known, (micro.routes + 1) % MOE.experts, NOT_RECORDED).astype(np.uint8)
    assert np.max(np.abs(score(params(config=MOE), changed(micro, routes=others)) - logp)) > 1e-2


def test_under_another_prompt_nothing_is_replayed() -> None:
    def piece(routes: np.ndarray | None) -> Piece:
        tokens = np.array([3, 4, 1], np.int32)
        return Piece((7, 8, 9), tokens, np.zeros(3, np.float32), 1.0, 1.0, 0, routes)

    recorded = np.full((5, MOE.layers, K), 2, np.uint8)
    (batch,) = lay_out([[((7, 8, 9), [piece(None), piece(recorded)])]], plan(16, 1))
    by_column = batch.routes[0, :, 0, 0].tolist()
    assert by_column == [2, 2] + [NOT_RECORDED] * 3 + [2] * 3 + [NOT_RECORDED] * 8
    (plain,) = lay_out([[((7, 8, 9), [piece(None)])]], plan(16, 1))
    assert plain.routes is None


