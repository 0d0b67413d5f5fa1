"""Laws of one update: packing, accumulation, padding cannot change it; what is paid gains."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

from seirenes_jax.batch import Piece, fill, lay_out, pack, pieces
from seirenes_jax.games import GAMES
from seirenes_jax.knobs import Batch, Loss, Numbers, Optimizer
from seirenes_jax.masked import Total
from seirenes_jax.optim import make_optimizer
from seirenes_jax.play import play
from seirenes_jax.state import TrainBatch, TrainState
from seirenes_jax.step import (
    add_gradient,
    apply_gradient,
    logprobs_and_entropy,
    score_step,
    still_sound,
    zero_gradient,
)
from seirenes_jax.streams import grouped
from seirenes_jax.types import Ask, Messages, Name, Rollout
from tests import scripted
from tests.laws.small import CONFIG, PPO, STOP, STREAMS, groups, params, plan, rollout_batches

T, B = 64, 4
GSPO = dataclasses.replace(PPO, kind="gspo", clip_low=0.02, clip_high=0.02)
ADAM = make_optimizer(
    Optimizer(lr=1e-3, warmup_steps=0, schedule="constant", weight_decay=0.1, b1=0.9, b2=0.95,
              eps=1e-8, clip=1.0, moments="float32"), 10,
)  # fmt: skip


def laid_out(some: Sequence[Sequence[Piece]], row_tokens: int, rows: int) -> list[TrainBatch]:
    return lay_out(pack(some, row_tokens), plan(row_tokens, rows))


def alone(piece: Piece) -> TrainBatch:
    """One completion in a padded row of its own."""
    return fill([[(piece.prompt, [piece])]], Batch(T, B), temperature=1.0)


@functools.cache
def off_policy() -> list[list[Piece]]:
    """The groups with old logprobs near the policy's own, so that some ratios are clipped."""
    rng = np.random.default_rng(1)

    def moved(piece: Piece) -> Piece:
        start, n = len(piece.prompt) - 1, len(piece.tokens)
        logp_BT = np.asarray(score_step(params(), alone(piece), config=CONFIG))
        old = logp_BT[0, start : start + n] + rng.normal(size=n) * 0.2
        return dataclasses.replace(piece, logprobs=old.astype(np.float32))

    return [[moved(piece) for piece in group] for group in groups()]


def gradient(
    micros: Sequence[TrainBatch], loss: Loss = PPO
) -> tuple[float, Any, dict[str, Total]]:
    """The loss, its gradient and the metrics, accumulated over micro-batches."""
    grads, merged = zero_gradient(params()), dict[str, Total]()
    for micro in micros:
        grads, totals = add_gradient(
            params(), grads, micro, config=CONFIG, loss=loss, streams=STREAMS
        )
        merged = {k: merged[k].add(v) for k, v in totals.items()} if merged else totals
    value = float(sum(merged[f"loss/{stream}"].sum for stream in STREAMS))
    return value, grads, merged


def assert_same(found: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    """Loss, every parameter's gradient and every metric, relative."""
    assert found[0] == pytest.approx(wanted[0], rel=tolerance)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(wanted[1])) > 1e-3

    def close(path: Any, a: jax.Array, b: jax.Array) -> None:
        off = np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)
        assert off < tolerance, f"{jax.tree_util.keystr(path)}: off by {off:.1e} of its norm"

    jax.tree_util.tree_map_with_path(close, found[1], wanted[1])
    assert found[2].keys() == wanted[2].keys()
    for name, metric in wanted[2].items():
        value = float(metric.value())
        assert float(found[2][name].value()) == pytest.approx(value, rel=1e-4, abs=1e-6)


# Packing, accumulation, padding.


@pytest.mark.parametrize("loss", [PPO, GSPO], ids=["ppo", "gspo"])
def test_packed_is_unpacked(loss: Loss) -> None:
    """Prompts shared within a row against every completion alone in a padded row."""
    some = off_policy()
    packed = laid_out(some, T, B)
    single = [alone(piece) for group in some for piece in group]
    assert len(single) > len(packed)
    wanted = gradient(single, loss)
    assert 0 < float(wanted[2]["clip_frac"].value()) < 1
    assert_same(gradient(packed, loss), wanted)


def test_short_unequal_micro_batches_add_up_to_the_whole() -> None:
    some = off_policy()
    whole, parts = laid_out(some, T, B), laid_out(some, 20, 1)
    lengths = [int(np.sum(part.train_BT)) for part in parts]
    assert len(whole) == 1 and len(parts) > 3 and len(set(lengths)) > 1
    wanted = gradient(whole)
    assert_same(gradient(parts), wanted)
    # The check can fail: a mean per micro-batch is another gradient.
    means = [
        part.replace(weight_BT=part.weight_BT / np.sum(part.weight_BT))  # type: ignore[attr-defined]
        for part in parts
    ]
    with pytest.raises(AssertionError):
        assert_same(gradient(means), wanted, 1e-2)


def test_an_empty_batch_has_a_gradient_of_zero_and_adds_nothing() -> None:
    nothing = fill([], Batch(T, B), temperature=1.0)
    value, grads, totals = gradient([nothing])
    assert value == 0.0
    assert all(np.all(np.asarray(g) == 0.0) for g in jax.tree.leaves(grads))
    assert all(np.isfinite(float(t.value())) for t in totals.values())
    some = laid_out(off_policy(), T, B)
    assert_same(gradient([*some, nothing]), gradient(some))


# Memory.


def outputs(jaxpr: Any) -> Iterator[tuple[int, ...]]:
    """The shape of everything a program computes, inner programs included."""
    for equation in jaxpr.eqns:
        yield from (tuple(var.aval.shape) for var in equation.outvars if hasattr(var.aval, "shape"))
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, (core.Jaxpr, core.ClosedJaxpr)),
        ):
            if isinstance(inner, core.ClosedJaxpr):
                yield from outputs(inner.jaxpr)
            elif isinstance(inner, core.Jaxpr):
                yield from outputs(inner)


def whole_logits(jaxpr: Any, size: int) -> list[tuple[int, ...]]:
    """Arrays over the vocabulary as large as `size`, and anything of just that size."""
    return [
        shape for shape in outputs(jaxpr)
        if math.prod(shape) == size or (CONFIG.vocab in shape and math.prod(shape) > size)
    ]  # fmt: skip


def test_logits_never_exist_for_a_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = 3, 131
    batch = fill([], Batch(columns, rows), temperature=1.0)
    size = rows * columns * CONFIG.vocab

    def update(weights: Any, grads: Any) -> Any:
        return add_gradient(weights, grads, batch, config=CONFIG, loss=PPO, streams=STREAMS)

    jaxpr = jax.make_jaxpr(update)(params(), params()).jaxpr
    # It saw logits:
    assert any(CONFIG.vocab in shape and len(shape) > 2 for shape in outputs(jaxpr))
    assert whole_logits(jaxpr, size) == []

    # The check can fail: without recomputing, the chunks' logits are kept for the backward pass.
    def head(hidden_BTD: jax.Array) -> jax.Array:
        targets_BT = jnp.zeros(hidden_BTD.shape[:2], jnp.int32)
        logp, _ = logprobs_and_entropy(hidden_BTD, params()["head"], targets_BT, jnp.float32(1))
        return jnp.sum(logp)

    hidden_BTD = jnp.zeros((rows, columns, CONFIG.width))
    assert whole_logits(jax.make_jaxpr(jax.grad(head))(hidden_BTD).jaxpr, size) == []
    monkeypatch.setattr(jax, "checkpoint", lambda f: f)
    assert whole_logits(jax.make_jaxpr(jax.grad(head))(hidden_BTD).jaxpr, size) != []


# On policy.


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_on_the_first_step_every_ratio_is_one_and_the_divergence_zero(temperature: float) -> None:
    _, _, totals = gradient(rollout_batches(temperature))
    assert float(totals["ratio_max"].value()) == pytest.approx(1.0, abs=2e-5)
    assert abs(float(totals["kl_behaviour"].value())) < 1e-7
    assert float(totals["clip_frac"].value()) == 0.0
    assert float(totals["kl_behaviour"].count) > 100


# The sign.

HINTS = ("<hint> count the pears </hint>", "<hint> fruit is healthy </hint>")


def words_to_ids(text: str) -> list[int]:
    return [2 + sum(map(ord, word)) % 30 for word in text.split()]


def played_hints(harmful: int) -> list[Piece]:
    """The adversary's group of a played game where one of the two hints breaks every hinted try."""

    def say(name: Name, ask: Ask) -> str:
        if ask.role == "adversary":
            return HINTS[int(name.turn.split("/")[0].split(".")[1]) - 1]
        misled = HINTS[harmful].split()[1] in ask.messages[-1][1].split()
        return "wrong answer" if misled else "right answer"

    sampler = scripted.Sampler(say)

    def ask(opened: list[tuple[Name, Ask]]) -> list[Rollout]:
        return [
            dataclasses.replace(
                r, tokens=np.array([*words_to_ids(r.text), STOP], np.int32),
                logprobs=np.zeros(len(r.text.split()) + 1, np.float32),
            )
            for r in sampler.ask(opened)
        ]  # fmt: skip

    def render(messages: Messages) -> tuple[int, ...]:
        return tuple(words_to_ids(messages[-1][1]))

    context = scripted.context(knobs=["prompts.reasoner={question} Solve.",
                                      "prompts.adversary={question} Mislead."])  # fmt: skip
    played = play(
        [(scripted.problem(), 0)], GAMES["seirenes"], context, ask=ask, judge=scripted.Judge()
    )
    credits = [credit for game in played.credits for credit in game]
    found, _ = pieces(grouped(credits), render, plan(T, B), {})
    (hints,) = [group for group in found if STREAMS[group[0].stream] == "adversary"]
    assert len(hints) == 2
    return hints


@pytest.mark.parametrize("optimizer", [optax.sgd(1e-3), ADAM], ids=["sgd", "adamw"])
@pytest.mark.parametrize("harmful", [0, 1])
def test_the_hint_that_misleads_gains_probability_and_the_other_loses(
    harmful: int, optimizer: optax.GradientTransformation
) -> None:
    hints = played_hints(harmful)
    assert [np.sign(piece.advantage) for piece in hints] == [1 - 2 * harmful, 2 * harmful - 1]
    (micro,) = laid_out([hints], T, B)
    before_BT = np.asarray(score_step(params(), micro, config=CONFIG))
    micro = micro.replace(logp_old_BT=before_BT)  # type: ignore[attr-defined]
    _, grads, _ = gradient([micro])
    start = jax.tree.map(jnp.copy, params())
    state = TrainState(jnp.int32(0), start, optimizer.init(start))
    state, _ = apply_gradient(state, grads, optimizer=optimizer)
    gain_BT = np.asarray(score_step(state.params, micro, config=CONFIG)) - before_BT
    gains = []
    for piece in hints:
        (b, column), = np.argwhere(  # where the answer starts
            (micro.targets_BT == piece.tokens[0])
            & (np.sign(micro.adv_BT) == np.sign(piece.advantage))
            & (micro.positions_BT == len(piece.prompt) - 1)
        )  # fmt: skip
        gains.append(float(np.sum(gain_BT[b, column : column + len(piece.tokens)])))
    assert gains[harmful] > 1e-5 and gains[1 - harmful] < -1e-5, gains


# What is not finite.


def test_a_gradient_that_is_not_finite_changes_neither_parameters_nor_moments() -> None:
    (good,) = laid_out(off_policy(), T, B)
    bad = good.replace(adv_BT=np.where(good.train_BT, np.float32(np.nan), 0.0).astype(np.float32))  # type: ignore[attr-defined]
    start = jax.tree.map(jnp.copy, params())
    state = TrainState(jnp.int32(0), start, ADAM.init(start))
    state, said = apply_gradient(state, gradient([good])[1], optimizer=ADAM)
    kept = jax.tree.map(np.array, state)
    assert np.isfinite(said["grad_norm"])
    assert not np.array_equal(kept.params["head"], params()["head"])
    state, said = apply_gradient(state, gradient([bad])[1], optimizer=ADAM)
    assert not np.isfinite(said["grad_norm"])
    assert int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, state.params, kept.params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, kept.opt_state)
    state, said = apply_gradient(state, gradient([good])[1], optimizer=ADAM)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    assert not np.array_equal(state.params["head"], kept.params["head"])


NUMBERS = Numbers(
    loss=1e3, gradient=1e3, ratio=1e4, logprob=100.0, in_a_row=3, keep=2, most_mib=64.0,
    probe_max=1.0, probe_mean=0.1,
)  # fmt: skip


@pytest.mark.parametrize("why", ["sound", "most"])
def test_a_step_that_is_not_sound_changes_neither_parameters_nor_moments(why: str) -> None:
    """A good gradient, refused for another number of its step or for its size: bit for bit."""
    (good,) = laid_out(off_policy(), T, B)
    grads = gradient([good])[1]
    start = jax.tree.map(jnp.copy, params())
    state, said = apply_gradient(
        TrainState(jnp.int32(0), start, ADAM.init(start)), grads, optimizer=ADAM
    )
    assert bool(said["applied"])
    kept = jax.tree.map(np.array, state)
    norm = float(said["grad_norm"])
    sound, most = (jnp.array(False), math.inf) if why == "sound" else (jnp.array(True), norm * 0.9)
    state, said = apply_gradient(state, grads, sound, optimizer=ADAM, most=most)
    assert float(said["grad_norm"]) == norm and not bool(said["applied"])
    jax.tree.map(np.testing.assert_array_equal, state.params, kept.params)
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, kept.opt_state)
    state, said = apply_gradient(state, grads, jnp.array(True), optimizer=ADAM, most=norm * 1.1)
    assert bool(said["applied"])
    assert not np.array_equal(state.params["head"], kept.params["head"])


@pytest.mark.parametrize(
    ("name", "bound"),
    [("ratio_max", 1e4), ("logp_max", 100.0), ("loss/robust", 1e3), ("entropy", None)],
)
def test_what_is_not_finite_or_beyond_its_bound_is_not_sound(
    name: str, bound: float | None
) -> None:
    def sound(value: float, before: bool = True) -> bool:
        totals = {name: Total(jnp.float32(value), jnp.float32(1), "max"),
                  "kl_behaviour": Total(jnp.float32(0), jnp.float32(1), "mean")}  # fmt: skip
        return bool(still_sound(jnp.array(before), totals, numbers=NUMBERS))

    assert not sound(0.0, before=False)
    if bound is None:
        assert sound(math.nan)
        return
    assert sound(bound) and sound(0.5)
    for value in (bound * 1.001, -bound * 1.001, math.nan, math.inf, -math.inf):
        assert not sound(value), value


def test_a_sound_batch_stays_sound_and_a_token_that_cannot_be_drawn_does_not() -> None:
    (good,) = laid_out(off_policy(), T, B)
    totals = gradient([good])[2]
    assert bool(still_sound(jnp.array(True), totals, numbers=NUMBERS))
    most = float(totals["logp_max"].value())
    logp_BT = np.asarray(score_step(params(), good, config=CONFIG))
    assert most == pytest.approx(np.abs(logp_BT[np.asarray(good.train_BT)]).max(), rel=1e-5)
    tight = dataclasses.replace(NUMBERS, logprob=most * 0.99)
    assert not bool(still_sound(jnp.array(True), totals, numbers=tight))
