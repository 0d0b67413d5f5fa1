"""Losses: formulas against plain loops, slopes against differences; sign, split, masks."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax.advantages import ADVANTAGES
from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import CHOICES, Advantage, Loss
from seirenes_jax.losses import (
    KLS,
    LOSSES,
    Counts,
    balance_loss,
    count,
    importance_weight,
    policy_loss,
    route_agreement,
    token_weights,
)
from seirenes_jax.masked import Total
from seirenes_jax.state import NOT_RECORDED, TrainBatch

PLAIN = Loss(
    kind="ppo", clip_low=0.2, clip_high=0.28, aggregate="token", kl=0.0, kl_kind="k3",
    entropy=0.0, rescore=False, tis_cap=2.0,
)  # fmt: skip
STREAMS = ("clean", "adversary")


def batch_of(arrays: dict[str, np.ndarray], *, ref: bool = False) -> TrainBatch:
    segments = jnp.asarray(arrays["segments"], jnp.int32)
    nothing = jnp.zeros_like(segments)
    return TrainBatch(
        tokens_BT=nothing,
        targets_BT=nothing,
        positions_BT=nothing,
        segments_BT=segments,
        prefix_BT=nothing,
        train_BT=jnp.asarray(arrays["train"], bool),
        logp_old_BT=jnp.asarray(arrays["old"], jnp.float32),
        logp_behaviour_BT=None,
        logp_ref_BT=jnp.asarray(arrays["ref"], jnp.float32) if ref else None,
        adv_BT=jnp.asarray(arrays["adv"], jnp.float32),
        role_BT=jnp.asarray(arrays["role"], jnp.int32),
        weight_BT=jnp.asarray(arrays["weight"], jnp.float32),
        temperature=jnp.float32(1.0),
        routes=None,
    )


def packed(seed: int = 0) -> dict[str, np.ndarray]:
    """Three rows: prompt, completions, padding; garbage where nothing is trained."""
    rng = np.random.default_rng(seed)
    segments = np.array([[1] * 3 + [2] * 4 + [3] * 2 + [4] + [0] * 2,
                         [1] * 2 + [2] * 1 + [3] * 5 + [0] * 4,
                         [1] * 1 + [2] * 3 + [3] * 8])  # fmt: skip
    train = segments > 1
    sequence = np.cumsum(rng.normal(size=(3, 5)), axis=1)  # an advantage for each segment
    shape = segments.shape
    arrays = {
        "segments": segments,
        "train": train,
        "old": rng.uniform(-3, -0.1, shape),
        "behaviour": rng.uniform(-3, -0.1, shape),
        "ref": rng.uniform(-3, -0.1, shape),
        "entropy": rng.uniform(0, 2, shape),
        "adv": np.take_along_axis(sequence, segments, axis=1),
        "weight": rng.uniform(0.1, 1, shape),
        "role": segments % 2,
    }
    arrays["logp"] = np.minimum(arrays["old"] + rng.normal(0, 0.4, shape), -1e-3)
    for name in ("old", "behaviour", "ref", "adv", "logp", "entropy", "weight"):
        arrays[name] = np.where(train, arrays[name], 77.0 if name != "weight" else 0.0)
    return arrays


def plain_loss(a: dict[str, Any], settings: Loss, *, ref: bool, behaviour: bool) -> float:
    """One token after another, in float64. `held` is the logp that stop_gradient holds still."""
    whole = 0.0
    held = a["held"] if "held" in a else a["logp"]
    for b, t in np.argwhere(a["train"]):
        logp, old, adv = a["logp"][b, t], a["old"][b, t], a["adv"][b, t]
        ratio = math.exp(logp - old)
        if settings.kind == "gspo":
            mine = [u for u in range(a["train"].shape[1])
                    if a["segments"][b, u] == a["segments"][b, t]]  # fmt: skip
            ratio = math.exp(sum(a["logp"][b, u] - a["old"][b, u] for u in mine) / len(mine))
        if settings.kind == "cispo":
            loss = -min(math.exp(held[b, t] - old), 1 + settings.clip_high) * adv * logp
        else:
            inside = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
            loss = -min(ratio * adv, inside * adv)
        if behaviour:
            loss *= min(math.exp(old - a["behaviour"][b, t]), settings.tis_cap)
        if ref:
            d = a["ref"][b, t] - logp
            kl = {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - 1 - d}[settings.kl_kind]
            loss += settings.kl * kl
        loss -= settings.entropy * a["entropy"][b, t]
        whole += a["weight"][b, t] * loss
    return whole


def loss_of(
    a: dict[str, np.ndarray], settings: Loss, *, ref: bool = False, behaviour: bool = False
) -> tuple[jax.Array, dict[str, Total], jax.Array]:
    """Loss, metrics and the gradient with respect to logp."""

    def loss(logp_BT: jax.Array) -> tuple[jax.Array, dict[str, Total]]:
        stored = jnp.asarray(a["behaviour"], jnp.float32) if behaviour else None
        entropy_BT = jnp.asarray(a["entropy"], jnp.float32)
        return policy_loss(
            logp_BT, entropy_BT, batch_of(a, ref=ref), settings, STREAMS, logp_behaviour_BT=stored
        )

    logp_BT = jnp.asarray(a["logp"], jnp.float32)
    (value, metrics), slope_BT = jax.value_and_grad(loss, has_aux=True)(logp_BT)
    return value, metrics, slope_BT


def variant(**changes: Any) -> Loss:
    return dataclasses.replace(PLAIN, **changes)


def test_every_choice_of_the_config_is_there() -> None:
    assert set(LOSSES) == set(CHOICES["loss.kind"])
    assert set(KLS) == set(CHOICES["loss.kl_kind"])


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("kl_kind", KLS)
@pytest.mark.parametrize("behaviour", [False, True])
def test_value_and_slope(kind: str, kl_kind: str, behaviour: bool) -> None:
    """Against the plain loss and its central differences, every term switched on."""
    settings = variant(kind=kind, kl=0.3, kl_kind=kl_kind, entropy=0.1)
    a: dict[str, Any] = packed()
    plain = functools.partial(plain_loss, settings=settings, ref=True, behaviour=behaviour)
    value, _, slope_BT = loss_of(a, settings, ref=True, behaviour=behaviour)
    assert value == pytest.approx(plain(a), rel=1e-5)
    differences_BT = np.zeros(a["logp"].shape)
    for at in map(tuple, np.argwhere(a["train"])):
        moved = []
        for h in (1e-5, -1e-5):
            logp = a["logp"].copy()
            logp[at] += h
            moved.append(plain({**a, "logp": logp, "held": a["logp"]}))
        differences_BT[at] = (moved[0] - moved[1]) / 2e-5
    np.testing.assert_allclose(slope_BT, differences_BT, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", LOSSES)
def test_above_the_mean_gains_probability(kind: str) -> None:
    """The sign, all the way from rewards to one step on a softmax policy."""
    rewards_R = np.array([0.0, 0.25, 0.5, 1.0])
    zeros_R = np.zeros(4, np.int64)
    adv_R, _ = ADVANTAGES["group"](
        rewards_R, zeros_R, zeros_R, np.ones(4),
        settings=Advantage(kind="group", eps=1e-6, ema_decay=0.9), state={},
    )  # fmt: skip
    weight_R = token_weights(
        np.full(4, 2), zeros_R, np.ones(4), aggregate="token", stream_weights=np.ones(1),
        limits=np.array([2]),
    )  # fmt: skip
    drawn_BT = jnp.array([[0, 0, 1, 1, 2, 2, 3, 3]])
    logits_TV = jax.random.normal(jax.random.key(0), (8, 5))

    def logp_of(logits_TV: jax.Array) -> jax.Array:
        logp_TV = jax.nn.log_softmax(logits_TV, axis=-1)
        return jnp.take_along_axis(logp_TV[None], drawn_BT[..., None], axis=-1)[..., 0]

    start_BT = logp_of(logits_TV)
    ones = np.ones((1, 8))
    arrays = {
        "segments": np.array([[1, 1, 2, 2, 3, 3, 4, 4]]), "train": ones, "old": start_BT,
        "adv": np.repeat(adv_R, 2)[None], "weight": np.repeat(weight_R, 2)[None], "role": 0 * ones,
    }  # fmt: skip

    def loss(logits_TV: jax.Array) -> jax.Array:
        logp_BT = logp_of(logits_TV)
        settings = variant(kind=kind)
        return policy_loss(logp_BT, jnp.zeros((1, 8)), batch_of(arrays), settings, STREAMS)[0]

    gained_T = (logp_of(logits_TV - 0.1 * jax.grad(loss)(logits_TV)) - start_BT)[0]
    assert np.sign(gained_T).tolist() == np.sign(np.repeat(adv_R, 2)).tolist()


@pytest.mark.parametrize(
    ("adv", "ratio", "binds"),
    [(1, 1.5, True), (1, 1.27, False), (1, 0.5, False),
     (-1, 0.5, True), (-1, 0.81, False), (-1, 1.5, False)],
)  # fmt: skip
def test_the_clip_binds_on_the_right_side(adv: float, ratio: float, binds: bool) -> None:
    one = np.ones((1, 1))
    a = {"segments": one, "train": one, "old": 0 * one, "adv": adv * one, "weight": one,
         "role": 0 * one, "logp": math.log(ratio) * one, "entropy": one}  # fmt: skip
    _, metrics, slope_BT = loss_of(a, PLAIN)
    assert metrics["clip_frac"].value() == float(binds)
    assert bool(slope_BT[0, 0] == 0) == binds
    _, metrics, slope_BT = loss_of(a, variant(kind="cispo"))
    assert metrics["clip_frac"].value() == float(ratio > 1.28)
    assert slope_BT[0, 0] == pytest.approx(-min(ratio, 1.28) * adv)


def test_gspo_of_single_tokens_is_ppo() -> None:
    a = packed()
    width = a["train"].shape[1]
    a["segments"] = np.broadcast_to(np.arange(1, width + 1), a["train"].shape)  # up to T itself
    ppo, gspo = loss_of(a, PLAIN), loss_of(a, variant(kind="gspo"))
    assert gspo[0] == pytest.approx(float(ppo[0]), rel=1e-6)
    np.testing.assert_allclose(gspo[2], ppo[2], rtol=1e-6)


@pytest.mark.parametrize("kind", LOSSES)
def test_micro_batches_add_up(kind: str) -> None:
    settings = variant(kind=kind, kl=0.3, entropy=0.1)
    a = packed()
    whole, metrics, slope_BT = loss_of(a, settings, ref=True)
    parts = [loss_of({k: v[b : b + 1] for k, v in a.items()}, settings, ref=True) for b in range(3)]
    assert whole == pytest.approx(float(sum(p[0] for p in parts)), rel=1e-6)
    np.testing.assert_allclose(slope_BT, np.concatenate([p[2] for p in parts]), rtol=1e-6)
    for name, total in metrics.items():
        merged = functools.reduce(Total.add, [p[1][name] for p in parts])
        assert merged.value() == pytest.approx(float(total.value()), rel=1e-5), name
        assert merged.count == pytest.approx(float(total.count), rel=1e-5), name


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 1e30])
def test_an_empty_mask_gives_zero_and_finite_slopes(kind: str, garbage: float) -> None:
    a = packed()
    a = {**a, "train": np.zeros_like(a["train"])}
    for name in ("old", "behaviour", "ref", "adv", "entropy"):
        a[name] = np.full(a["logp"].shape, garbage)
    settings = variant(kind=kind, kl=0.3, entropy=0.1)
    value, metrics, slope_BT = loss_of(a, settings, ref=True, behaviour=True)
    assert value == 0.0
    assert not np.any(slope_BT)
    assert {name: float(m.value()) for name, m in metrics.items()} == dict.fromkeys(metrics, 0.0)


def test_on_policy_ratio_is_one_and_kl_zero() -> None:
    a = packed()
    a = {**a, "old": a["logp"], "ref": a["logp"]}
    for kind in LOSSES:
        _, metrics, _ = loss_of(a, variant(kind=kind), ref=True)
        got = {n: float(metrics[n].value()) for n in ("ratio_max", "clip_frac", "kl_behaviour")}
        assert got == {"ratio_max": 1.0, "clip_frac": 0.0, "kl_behaviour": 0.0}
        assert metrics["kl_ref"].value() == 0.0


def test_metrics_by_stream() -> None:
    a = packed()
    a["weight"] = np.where(a["role"] == 1, 0.0, a["weight"])  # adversary: played, not trained
    _, metrics, slope_BT = loss_of(a, PLAIN)
    clean, adversary = (a["train"] & (a["role"] == i) for i in range(2))
    ratio = np.exp(np.where(a["train"], a["logp"] - a["old"], 0))
    assert metrics["ratio_max"].value() == pytest.approx(ratio[clean].max(), rel=1e-5)
    assert metrics["ratio_max/adversary"].count == 0
    assert metrics["entropy/adversary"].value() == pytest.approx(a["entropy"][adversary].mean())
    d = (a["logp"] - a["old"])[clean]
    kl = float(np.mean(np.exp(d) - 1 - d))
    assert metrics["kl_behaviour/clean"].value() == pytest.approx(kl, rel=1e-5)
    assert not np.any(slope_BT[adversary])
    plain = plain_loss(a, PLAIN, ref=False, behaviour=False)
    loss = plain / a["weight"][clean].sum()
    assert metrics["loss/clean"].value() == pytest.approx(loss, rel=1e-5)
    assert metrics["loss/adversary"].value() == 0.0


def test_kl_without_a_reference_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.kl: got 0\.1"):
        loss_of(packed(), variant(kl=0.1))


def test_kl_estimators_agree_on_average() -> None:
    p = np.array([0.5, 0.3, 0.2])
    q = np.array([0.4, 0.35, 0.25])
    true = float(np.sum(p * np.log(p / q)))
    log_ratio = jnp.asarray(np.log(q / p), jnp.float32)
    mean = {kind: float(np.sum(p * np.asarray(KLS[kind](log_ratio)))) for kind in KLS}
    assert mean["k1"] == pytest.approx(true, rel=1e-4)
    assert mean["k3"] == pytest.approx(true, rel=1e-4)
    assert mean["k2"] == pytest.approx(true, rel=0.1)  # biased, to third order
    assert np.all(np.asarray(k := KLS["k3"](log_ratio)) >= 0) and k.dtype == jnp.float32


def test_importance_weight_is_capped_and_carries_no_gradient() -> None:
    trainer, behaviour = jnp.log(jnp.array([0.9, 0.5])), jnp.log(jnp.array([0.1, 0.6]))
    np.testing.assert_allclose(importance_weight(trainer, behaviour, 2.0), [2.0, 0.5 / 0.6])
    slope = jax.grad(lambda x: importance_weight(x, behaviour, 2.0).sum())(trainer)
    assert not np.any(slope)


ragged = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 2), st.sampled_from([0.0, 1.0])), max_size=8
)


@given(sequences=ragged, aggregate=st.sampled_from(CHOICES["loss.aggregate"]))
def test_token_weights(sequences: list[tuple[int, int, float]], aggregate: str) -> None:
    lengths, stream, weight = (np.array([s[i] for s in sequences], t)
                               for i, t in enumerate((np.int64, np.int64, np.float64)))  # fmt: skip
    scale, limits = np.array([1.0, 0.5, 0.0]), np.array([9, 20, 30])
    got = token_weights(
        lengths, stream, weight, aggregate=aggregate, stream_weights=scale, limits=limits
    )
    for (n, z, w), each in zip(sequences, got, strict=True):
        live = [o[0] for o in sequences if o[1] == z and o[2] > 0]
        want = 0.0
        if w > 0:
            below = {"token": sum(live), "sequence": len(live) * n,
                     "constant": len(live) * limits[z]}[aggregate]  # fmt: skip
            want = scale[z] / below
        assert each == pytest.approx(want, rel=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize("aggregate", CHOICES["loss.aggregate"])
def test_hosts_share_one_denominator(aggregate: str) -> None:
    lengths, stream, weight = np.array([3, 5, 2, 7, 4]), np.array([0, 1, 0, 1, 0]), np.ones(5)
    weigh = functools.partial(
        token_weights, aggregate=aggregate, stream_weights=np.ones(2), limits=np.array([8, 9])
    )
    here, there = slice(0, 2), slice(2, 5)
    parts = [count(lengths[s], stream[s], weight[s], 2) for s in (here, there)]
    counts = Counts(*(a + b for a, b in zip(*parts, strict=True)))
    split = [weigh(lengths[s], stream[s], weight[s], counts=counts) for s in (here, there)]
    np.testing.assert_array_equal(np.concatenate(split), weigh(lengths, stream, weight))


def test_an_unknown_aggregate_is_named() -> None:
    with pytest.raises(ConfigError, match="'tokens'"):
        token_weights(
            np.ones(1, int), np.zeros(1, int), np.ones(1), aggregate="tokens",
            stream_weights=np.ones(1), limits=np.ones(1),
        )  # fmt: skip


# Of experts.


def test_the_balance_loss_weighs_a_token_as_the_policy_loss_does() -> None:
    arrays = packed()
    arrays["weight"] = np.where(arrays["segments"] == 3, 0.0, arrays["weight"])
    balance = np.random.default_rng(2).uniform(1, 4, arrays["segments"].shape)
    loss, metric = balance_loss(jnp.asarray(balance, jnp.float32), batch_of(arrays), 0.5)
    trained = arrays["train"] & (arrays["weight"] > 0)
    assert float(loss) == pytest.approx(0.5 * np.sum((balance * arrays["weight"])[trained]))
    assert float(metric.value()) == pytest.approx(np.mean(balance[trained]))
    assert float(balance_loss(jnp.asarray(balance, jnp.float32), batch_of(arrays), 0.0)[0]) == 0.0


def test_agreement_is_that_of_recorded_tokens_that_were_drawn() -> None:
    arrays = packed()
    agreed = np.random.default_rng(3).uniform(0, 1, arrays["segments"].shape)
    recorded = arrays["segments"] != 2
    routes = np.where(recorded[..., None, None], np.zeros((2, 3)), NOT_RECORDED).astype(np.uint8)
    batch = batch_of(arrays).replace(routes=jnp.asarray(routes))  # type: ignore[attr-defined]
    metric = route_agreement(jnp.asarray(agreed, jnp.float32), batch)
    counted = recorded & arrays["train"]
    assert float(metric.count) == np.sum(counted)
    assert float(metric.value()) == pytest.approx(np.mean(agreed[counted]))
