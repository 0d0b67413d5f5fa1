"""The sampler against the trainer: same tokens and logprobs, whatever slots, company, chunks."""

import jax
import numpy as np
import pytest

from seirenes_jax import knobs
from seirenes_jax.rng import draw_key
from seirenes_jax.sampler import Draw, Seat
from seirenes_jax.sharding import make_mesh, param_shardings
from seirenes_jax.step import score_step
from seirenes_jax.types import Name
from tests.laws.small import (
    CONFIG,
    STOP,
    Letters,
    asks,
    make_sampler,
    params,
    rollout_batches,
    rollouts,
)


@pytest.mark.parametrize("slots,chunk", [(32, 3), (3, 16)])
def test_tokens_depend_on_names_alone(slots: int, chunk: int) -> None:
    found = make_sampler(slots=slots, chunk=chunk).generate(list(reversed(asks())))
    other = {rollout.name: rollout for rollout in found}
    assert {rollout.name for rollout in rollouts()} == other.keys()
    for rollout in rollouts():
        twin = other[rollout.name]
        np.testing.assert_array_equal(rollout.tokens, twin.tokens)
        np.testing.assert_allclose(rollout.logprobs, twin.logprobs, atol=1e-5)
        assert rollout.stop == twin.stop


def test_equal_schedule_gives_equal_bits() -> None:
    again = make_sampler(slots=4, chunk=5).generate(asks())
    for first, second in zip(rollouts(), again, strict=True):
        np.testing.assert_array_equal(first.tokens, second.tokens)
        np.testing.assert_array_equal(first.logprobs, second.logprobs)


def test_what_was_let_go_begins_again_alike() -> None:
    """Also on a mesh of one: new slots lie where used ones do, else each wants a program."""
    alone = make_mesh(knobs.Mesh(1, 1, 1, 1, 1))
    weights = jax.device_put(params(), param_shardings(params(), alone))
    sampler = make_sampler(slots=4, chunk=5, weights=weights)
    new = sampler._lanes["live"].state
    again = sampler.generate(asks())
    used = sampler._lanes["live"].state
    for name, x in vars(used).items():
        y = vars(new)[name]
        assert x.committed and y.committed and x.sharding.is_equivalent_to(y.sharding, x.ndim)
    for first, second in zip(rollouts(), again, strict=True):
        np.testing.assert_array_equal(first.tokens, second.tokens)
    sampler.release()
    assert not sampler._lanes
    sampler.load("live", weights, step=5)
    assert sampler.generate(asks()[:1])[0].tokens.tolist() == rollouts()[0].tokens.tolist()


def test_other_names_and_steps_draw_other_tokens() -> None:
    sampler = make_sampler(slots=4, chunk=5)
    sampler.begin(3, 1.0)
    later = sampler.generate(asks())
    pairs = zip(rollouts(), later, strict=True)
    assert any(not np.array_equal(a.tokens, b.tokens) for a, b in pairs)
    siblings = [r.tokens.tobytes() for r in rollouts() if r.name.problem == "p0"]
    assert len(set(siblings)) == len(siblings)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_logprob_is_the_trainers(temperature: float) -> None:
    seen = 0
    for micro in rollout_batches(temperature):
        logp = np.asarray(score_step(params(), micro, config=CONFIG))
        train = np.asarray(micro.train_BT)
        np.testing.assert_allclose(logp[train], np.asarray(micro.logp_old_BT)[train], atol=1e-5)
        seen += int(train.sum())
    assert seen == sum(len(r.tokens) for r in rollouts(temperature))


def test_greedy_takes_the_likeliest_and_top_p_keeps_the_nucleus() -> None:
    greedy = rollouts(0.0)
    nucleus = make_sampler(slots=4, chunk=5, top_p=1e-6).generate(asks())
    for a, b in zip(greedy, nucleus, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(b.logprobs, 0.0, atol=1e-6)  # the only token left
        assert np.all(a.logprobs < 0)  # greedy reports the whole distribution's


def test_lengths_and_stops_are_explicit() -> None:
    stops = set()
    for rollout in rollouts():
        ended = rollout.tokens[-1] == STOP
        assert (STOP not in rollout.tokens[:-1]) and rollout.stop == ("eos" if ended else "length")
        assert len(rollout.tokens) <= rollout.ask.max_tokens
        assert ended or len(rollout.tokens) == rollout.ask.max_tokens
        assert rollout.policy_step == 5
        stops.add(rollout.stop)
    assert stops == {"eos", "length"}


def test_what_was_dropped_frees_its_slot_and_changes_nobody_else() -> None:
    sampler = make_sampler(slots=4, chunk=5)
    wanted = {rollout.name: rollout for rollout in rollouts()}
    gone = {name for name in wanted if name.problem in ("p0", "p3")}
    found = sampler.ask(asks())  # four of p0 and p1 sit, the others wait
    assert {seat.name.problem for seat in sampler.underway()} == {"p0", "p1"}
    sampler.drop(gone)
    assert len(list(sampler.underway())) == 1
    while sampler.busy:
        found += sampler.ask(())
    assert {rollout.name for rollout in found} == wanted.keys() - gone
    for rollout in found:
        np.testing.assert_array_equal(rollout.tokens, wanted[rollout.name].tokens)


def test_samples_of_other_temperatures_and_filters_share_a_batch() -> None:
    together = make_sampler(slots=4, chunk=5)
    hows = [(1.0, 0, 1.0), (0.0, 0, 1.0), (0.7, 3, 1.0), (1.3, 0, 0.8)]
    ask = asks()[2][1]
    prompt = Letters().render(ask.messages)
    names = [Name("p", 0, "", 0, 0, sample) for sample in range(len(hows))]

    def seat(at: int) -> Seat:
        return Seat(names[at], ask, prompt, Draw(draw_key(7, 2, names[at]), *hows[at]))

    together.put(seat(at) for at in range(len(hows)))
    found = {}
    while together.busy:
        found |= {rollout.name: rollout for rollout in together.ask(())}
    for at, name in enumerate(names):
        alone = make_sampler(slots=3, chunk=16)
        alone.put([seat(at)])
        (other,) = [rollout for _ in range(3) for rollout in alone.ask(())]
        np.testing.assert_array_equal(found[name].tokens, other.tokens)
        np.testing.assert_allclose(found[name].logprobs, other.logprobs, atol=1e-5)


def test_prompts_filled_up_to_different_lengths_are_answered_alike() -> None:
    made = make_sampler(slots=4, chunk=5, prefill_rows=2, prefill_tokens=(4, 12))
    for rollout, other in zip(made.generate(asks()), rollouts(), strict=True):
        np.testing.assert_array_equal(rollout.tokens, other.tokens)
        np.testing.assert_allclose(rollout.logprobs, other.logprobs, atol=1e-5)
