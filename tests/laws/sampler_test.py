"""The sampler against the trainer: same tokens and logprobs, whatever slots, company, chunks."""

import numpy as np
import pytest

from seirenes_jax.step import score_step
from tests.laws.small import CONFIG, STOP, asks, make_sampler, params, rollout_batches, rollouts


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
