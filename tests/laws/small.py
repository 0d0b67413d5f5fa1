"""What the laws are tried on: one small decoder, one tokenizer, a few groups of made-up answers.

Shared, because programs are compiled once per process for equal configs and equal shapes.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seirenes_jax import knobs
from seirenes_jax.batch import Piece, Plan, lay_out, pack
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.sampler import PREFILL_ROWS, Sampler
from seirenes_jax.sampling import Wishes
from seirenes_jax.state import TrainBatch
from seirenes_jax.types import Ask, Messages, Name, Rollout

STOP = 1
STREAMS = ("clean", "adversary", "robust")
# Every axis has its own size, so that a shape tells what it is.
CONFIG = ModelConfig(
    family="qwen3", vocab=32, layers=2, width=24, heads=4, kv_heads=2, head_dim=12, ff=40,
    rope_theta=1e4, norm_eps=1e-6, tied=False, qkv_bias=False, qk_norm=True, init_std=0.3,
    max_positions=128, dtype="float32", param_dtype="float32", remat="none",
)  # fmt: skip
MOE = dataclasses.replace(
    CONFIG, family="qwen3_moe", experts=8, experts_per_token=3, expert_ff=20, norm_topk=True,
    balance=0.1,
)  # fmt: skip
PPO = knobs.Loss("ppo", 0.2, 0.28, "token", 0.0, "k3", 0.01, False, 2.0)


@functools.cache
def params(seed: int = 3, config: ModelConfig = CONFIG) -> Any:
    """Made with NumPy, which needs no compiling. Read only: whoever donates takes a copy."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        noise = rng.normal(size=leaf.shape)
        return jnp.asarray(1 + noise / 5 if path[-1].key == "scale" else noise * 0.3, leaf.dtype)

    shapes = jax.eval_shape(lambda: init_params(config, 0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


class Letters:
    """A tokenizer of one token a letter, as far as the sampler needs one."""

    stop_ids = (STOP,)

    def render(self, messages: Messages) -> tuple[int, ...]:
        return tuple(2 + ord(c) % 29 for c in messages[-1][1])

    def decode_many(self, answers: list[list[int]]) -> list[str]:
        return [" ".join(map(str, ids)) for ids in answers]


def wishes(
    rows: int, temperature: float, *, top_k: int = 0, top_p: float = 1.0
) -> Wishes:
    """All rows drawn alike."""
    made: Any = Wishes
    found: Wishes = made(
        temperature_B=np.full(rows, temperature, np.float32),
        top_k_B=np.full(rows, top_k, np.int32), top_p_B=np.full(rows, top_p, np.float32),
    )  # fmt: skip
    return found


def make_sampler(
    *, slots: int, chunk: int, temperature: float = 1.0, top_p: float = 1.0,
    config: ModelConfig = CONFIG, weights: Any = None, prefill_rows: int = PREFILL_ROWS,
    prefill_tokens: Sequence[int] = (),
) -> Sampler:  # fmt: skip
    tokenizer: Any = Letters()
    made = Sampler(
        config, tokenizer,
        knobs.Sampler(slots=slots, chunk=chunk, temperature=temperature, top_k=0, top_p=top_p),
        seed=7, prompt_tokens=20, answer_tokens=14, prefill_rows=prefill_rows,
        prefill_tokens=prefill_tokens,
    )  # fmt: skip
    made.load("live", params(config=config) if weights is None else weights, step=5)
    made.begin(2, temperature)
    return made


def asks() -> list[tuple[Name, Ask]]:
    words = ["one plus one", "seven", "longer than the rest", "x", "yy zz"]
    return [
        (Name(f"p{i}", 0, "0", 0, 0, 0),
         Ask("reasoner", (("user", text),), 3 + i % 2, None, None, 14 - 2 * i))
        for i, text in enumerate(words)
    ]  # fmt: skip


@functools.cache
def rollouts(temperature: float = 1.0, config: ModelConfig = CONFIG) -> tuple[Rollout, ...]:
    """What these weights say to `asks`."""
    sampler = make_sampler(slots=4, chunk=5, temperature=temperature, config=config)
    return tuple(sampler.generate(asks()))


def rollout_batches(
    temperature: float = 1.0, config: ModelConfig = CONFIG
) -> list[TrainBatch]:
    """Those rollouts packed: weight and advantage 1."""
    found: dict[Messages, list[Piece]] = {}
    for r in rollouts(temperature, config):
        prompt = Letters().render(r.ask.messages)
        piece = Piece(prompt, r.tokens, r.logprobs, 1.0, 1.0, 0, r.routes)
        found.setdefault(r.ask.messages, []).append(piece)
    return lay_out(pack(list(found.values()), 64), plan(64, 4, temperature=temperature))


def plan(
    row_tokens: int, rows: int, *, loss: knobs.Loss = PPO, temperature: float = 1.0
) -> Plan:
    return Plan(
        streams=STREAMS, limits=(30,) * 3, advantage=knobs.Advantage("group", 1e-6, 0.9), loss=loss,
        knobs=knobs.Streams(
            dict.fromkeys(STREAMS, 1.0), dict.fromkeys(STREAMS, 0), 2, False, True, 0
        ),
        batch=knobs.Batch(row_tokens=row_tokens, rows=rows), temperature=temperature,
    )  # fmt: skip


def groups(seed: int = 0) -> list[list[Piece]]:
    """Four prompts of 5, 1, 7, 3 tokens; answers of unequal lengths, advantages of both signs."""
    rng = np.random.default_rng(seed)
    made = []
    for i, (prompt, lengths) in enumerate([(5, (4, 9, 1)), (1, (3, 6)), (7, (2, 8, 5)), (3, (7,))]):
        words = tuple(rng.integers(2, CONFIG.vocab, prompt).tolist())
        made.append([
            Piece(
                words, rng.integers(1, CONFIG.vocab, n).astype(np.int32),
                np.full(n, -3.0, np.float32), float(rng.normal()), float(rng.uniform(0.01, 0.1)),
                i % 3,
            )
            for n in lengths
        ])  # fmt: skip
    return made
