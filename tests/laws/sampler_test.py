"""The sampler against the trainer: same tokens, same logprobs, whatever the slots, company and chunks."""

import functools

import numpy as np
import pytest

from seirenes_jax.batch import Piece, lay_out, pack
from seirenes_jax.step import score_step
from seirenes_jax.types import Ask, Messages, Name, Rollout
from tests.laws.small import CONFIG, STOP, Letters, make_sampler, params, plan

LIMIT = 14


def asks() -> list[tuple[Name, Ask]]:
    words = ["one plus one", "seven", "longer than the rest", "x", "yy zz"]
    return [
        (Name(f"p{i}", 0, "0", 0, 0, 0),
         Ask("reasoner", (("user", text),), 3 + i % 2, None, None, LIMIT - 2 * i))
        for i, text in enumerate(words)
    ]  # fmt: skip


@functools.cache
def reference(temperature: float = 1.0) -> tuple[Rollout, ...]:
    return tuple(make_sampler(slots=4, chunk=5, temperature=temperature).generate(asks()))


@pytest.mark.parametrize("slots,chunk", [(32, 3), (3, 16)])
def test_tokens_depend_on_names_alone(slots: int, chunk: int) -> None:
    found = make_sampler(slots=slots, chunk=chunk).generate(list(reversed(asks())))
    other = {rollout.name: rollout for rollout in found}
    assert {rollout.name for rollout in reference()} == other.keys()
    for rollout in reference():
        twin = other[rollout.name]
        np.testing.assert_array_equal(rollout.tokens, twin.tokens)
        np.testing.assert_allclose(rollout.logprobs, twin.logprobs, atol=1e-5)
        assert rollout.stop == twin.stop


def test_equal_schedule_gives_equal_bits() -> None:
    again = make_sampler(slots=4, chunk=5).generate(asks())
    for first, second in zip(reference(), again, strict=True):
        np.testing.assert_array_equal(first.tokens, second.tokens)
        np.testing.assert_array_equal(first.logprobs, second.logprobs)


def test_other_names_and_steps_draw_other_tokens() -> None:
    sampler = make_sampler(slots=4, chunk=5)
    sampler.begin(3, 1.0)
    later = sampler.generate(asks())
    assert any(not np.array_equal(a.tokens, b.tokens) for a, b in zip(reference(), later, strict=True))
    siblings = [r.tokens.tobytes() for r in reference() if r.name.problem == "p0"]
    assert len(set(siblings)) == len(siblings)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_logprob_is_the_trainers(temperature: float) -> None:
    groups: dict[Messages, list[Piece]] = {}
    for r in reference(temperature):
        piece = Piece(Letters().render(r.ask.messages), r.tokens, r.logprobs, 1.0, 1.0, 0)
        groups.setdefault(r.ask.messages, []).append(piece)
    seen = 0
    for micro in lay_out(pack(list(groups.values()), 64), plan(64, 4, temperature=temperature)):
        logp = np.asarray(score_step(params(), micro, config=CONFIG))
        train = np.asarray(micro.train_BT)
        np.testing.assert_allclose(logp[train], np.asarray(micro.logp_old_BT)[train], atol=1e-5)
        seen += int(train.sum())
    assert seen == sum(len(r.tokens) for r in reference(temperature))


def test_greedy_takes_the_likeliest_and_top_p_keeps_the_nucleus() -> None:
    greedy = reference(0.0)
    nucleus = make_sampler(slots=4, chunk=5, top_p=1e-6).generate(asks())
    for a, b in zip(greedy, nucleus, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(b.logprobs, 0.0, atol=1e-6)  # the only token left has probability 1
        assert np.all(a.logprobs < 0)  # greedy reports the whole distribution's


def test_lengths_and_stops_are_explicit() -> None:
    stops = set()
    for rollout in reference():
        ended = rollout.tokens[-1] == STOP
        assert (STOP not in rollout.tokens[:-1]) and rollout.stop == ("eos" if ended else "length")
        assert len(rollout.tokens) <= rollout.ask.max_tokens
        assert ended or len(rollout.tokens) == rollout.ask.max_tokens
        assert rollout.policy_step == 5
        stops.add(rollout.stop)
    assert stops == {"eos", "length"}
