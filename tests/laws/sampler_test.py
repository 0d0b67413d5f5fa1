"""The sampler against the trainer: same tokens, same logprobs, whatever the slots, company and chunks."""

import jax
import numpy as np
import pytest

from seirenes_jax import knobs
from seirenes_jax.batch import Piece, Plan, lay_out, pack
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.sampler import Sampler
from seirenes_jax.step import score_step
from seirenes_jax.types import Ask, Messages, Name, Rollout

STOP = 1
CONFIG = ModelConfig(
    family="qwen3", vocab=31, layers=2, width=32, heads=4, kv_heads=2, head_dim=16, ff=48,
    rope_theta=1e4, norm_eps=1e-6, tied=False, qkv_bias=False, qk_norm=True, init_std=0.3,
    max_positions=128, dtype="float32", param_dtype="float32", remat="none",
)  # fmt: skip


class Digits:
    """A tokenizer of one token a character pair: enough to sample with."""

    stop_ids = (STOP,)

    def render(self, messages: Messages) -> tuple[int, ...]:
        return tuple(2 + ord(c) % 29 for c in messages[-1][1])

    def decode_many(self, answers: list[list[int]]) -> list[str]:
        return [" ".join(map(str, ids)) for ids in answers]


def sampler(*, slots: int, chunk: int, temperature: float = 1.0, top_p: float = 1.0) -> Sampler:
    made = Sampler(
        CONFIG, Digits(),  # type: ignore[arg-type]
        knobs.Sampler(slots=slots, chunk=chunk, temperature=temperature, top_k=0, top_p=top_p),
        seed=7, prompt_tokens=40, answer_tokens=30,
    )  # fmt: skip
    made.load("live", init_params(CONFIG, 3), step=5)
    made.begin(2, temperature)
    return made


def asks() -> list[tuple[Name, Ask]]:
    words = ["one plus one", "seven", "a longer question than the others by far", "x", "yy zz"]
    return [
        (Name(f"p{i}", 0, "0", 0, 0, 0),
         Ask("reasoner", (("user", text),), 3 + i % 2, None, None, 30 - 3 * i))
        for i, text in enumerate(words)
    ]  # fmt: skip


def by_name(rollouts: list[Rollout]) -> dict[Name, Rollout]:
    return {rollout.name: rollout for rollout in rollouts}


@pytest.mark.parametrize("slots,chunk", [(2, 4), (5, 8), (32, 3)])
def test_tokens_depend_on_names_alone(slots: int, chunk: int) -> None:
    reference = by_name(sampler(slots=32, chunk=16).generate(asks()))
    other = by_name(sampler(slots=slots, chunk=chunk).generate(list(reversed(asks()))))
    assert reference.keys() == other.keys()
    for name, rollout in reference.items():
        np.testing.assert_array_equal(rollout.tokens, other[name].tokens)
        np.testing.assert_allclose(rollout.logprobs, other[name].logprobs, atol=1e-5)
        assert rollout.stop == other[name].stop


def test_equal_schedule_gives_equal_bits() -> None:
    first, second = (by_name(sampler(slots=4, chunk=8).generate(asks())) for _ in range(2))
    for name, rollout in first.items():
        np.testing.assert_array_equal(rollout.logprobs, second[name].logprobs)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_sampler_logprob_is_the_trainers(temperature: float) -> None:
    rollouts = sampler(slots=4, chunk=5, temperature=temperature).generate(asks())
    render = Digits().render
    groups: dict[Messages, list[Piece]] = {}
    for r in rollouts:
        piece = Piece(render(r.ask.messages), r.tokens, r.logprobs, 1.0, 1.0, 0)
        groups.setdefault(r.ask.messages, []).append(piece)
    plan = Plan(
        streams=("clean",), limits=(30,), advantage=knobs.Advantage("group", 1e-6, 0.9),
        loss=knobs.Loss("ppo", 0.2, 0.2, "token", 0.0, "k3", 0.0, False, 2.0),
        knobs=knobs.Streams({"clean": 1.0}, {"clean": 0}, 2, False, True, 0),
        batch=knobs.Batch(row_tokens=80, rows=2), temperature=temperature,
    )  # fmt: skip
    seen = 0
    for micro in lay_out(pack(list(groups.values()), 80), plan):
        logp = np.asarray(score_step(init_params(CONFIG, 3), jax.tree.map(np.asarray, micro), config=CONFIG))
        train = np.asarray(micro.train_BT)
        np.testing.assert_allclose(logp[train], np.asarray(micro.logp_old_BT)[train], atol=1e-5)
        seen += int(train.sum())
    assert seen == sum(len(r.tokens) for r in rollouts)


def test_greedy_takes_the_likeliest_and_top_p_keeps_the_nucleus() -> None:
    greedy = sampler(slots=4, chunk=8, temperature=0.0).generate(asks())
    nucleus = sampler(slots=4, chunk=8, top_p=1e-6).generate(asks())
    for a, b in zip(greedy, nucleus, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(b.logprobs, 0.0, atol=1e-6)  # the only token left has probability 1


def test_lengths_and_stops_are_explicit() -> None:
    for rollout in sampler(slots=3, chunk=7).generate(asks()):
        ended = rollout.tokens[-1] == STOP
        assert (STOP not in rollout.tokens[:-1]) and rollout.stop == ("eos" if ended else "length")
        assert ended or len(rollout.tokens) == rollout.ask.max_tokens
        assert rollout.policy_step == 5
