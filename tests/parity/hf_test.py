"""Hugging Face folders: the same logits and the same greedy text as transformers, both ways."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from seirenes_jax import hf
from seirenes_jax.models import ModelConfig, forward, head_kernel_DV
from seirenes_jax.text import Tokenizer
from tests.hf import made

DRAWN = 12  # tokens of greedy text


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def theirs(shape: tuple[Any, ...]) -> Any:
    """A tiny transformers model in float32, every parameter away from its initial value."""
    c = made.config_of(shape)
    kind = {"qwen3": transformers.Qwen3Config, "qwen2": transformers.Qwen2Config,
            "qwen3_moe": transformers.Qwen3MoeConfig}[c.family]  # fmt: skip
    moe = {
        "num_experts": c.experts, "num_experts_per_tok": c.experts_per_token,
        "moe_intermediate_size": c.expert_ff, "norm_topk_prob": c.norm_topk,
    }  # fmt: skip
    config = kind(
        vocab_size=c.vocab, num_hidden_layers=c.layers, hidden_size=c.width,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, head_dim=c.head_dim,
        intermediate_size=c.ff, rms_norm_eps=c.norm_eps, tie_word_embeddings=c.tied,
        max_position_embeddings=c.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        **(moe if c.experts else {}),
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Wide enough for logits of size 1 to 10, where 1e-4 means something.
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.15)
    return model


def their_logits(model: Any, tokens_BT: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(model(torch.tensor(tokens_BT)).logits)


def our_logits(params: Any, config: ModelConfig, tokens_BT: np.ndarray) -> np.ndarray:
    tree = jax.tree.map(jnp.asarray, params)
    return np.asarray(logits(tree, jnp.asarray(tokens_BT), config))


@functools.partial(jax.jit, static_argnames="config")
def logits(params: Any, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    B, T = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None], (B, T))
    ones_BT = jnp.ones((B, T), jnp.int32)
    hidden_BTD = forward(params, config, tokens_BT, positions_BT, ones_BT, jnp.zeros_like(ones_BT))
    return hidden_BTD @ head_kernel_DV(params, config)


def our_greedy(params: Any, config: ModelConfig, prompts_BT: np.ndarray) -> list[list[int]]:
    """Token by token at one shape: what stands behind the last token cannot matter to it."""
    B, T = prompts_BT.shape
    rows = np.zeros((B, T + DRAWN), np.int32)
    rows[:, :T] = prompts_BT
    for at in range(T, T + DRAWN):
        rows[:, at] = our_logits(params, config, rows)[:, at - 1].argmax(-1)
    drawn: list[list[int]] = rows[:, T:].tolist()
    return drawn


def their_greedy(model: Any, prompts_BT: np.ndarray) -> list[list[int]]:
    ids = torch.tensor(prompts_BT.astype(np.int64))
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=DRAWN, min_new_tokens=DRAWN,
        do_sample=False, pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    drawn: list[list[int]] = out[:, prompts_BT.shape[1] :].tolist()
    return drawn


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, made.VOCAB, (3, 10 + DRAWN)).astype(np.int32)


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_their_folder_gives_their_logits_and_text(shape: tuple[Any, ...], tmp_path: Path) -> None:
    model = theirs(shape)
    model.save_pretrained(tmp_path)
    config, params = made.load(tmp_path)
    assert config == dataclasses.replace(made.config_of(shape), init_std=config.init_std)
    expected = their_logits(model, tokens())
    assert 1 < np.abs(expected).max() < 100
    np.testing.assert_allclose(our_logits(params, config, tokens()), expected, atol=1e-4, rtol=0)
    prompts_BT = tokens()[:, :10]
    said = our_greedy(params, config, prompts_BT)
    assert said == their_greedy(model, prompts_BT) and len({*sum(said, [])}) >= 3


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_our_folder_gives_our_logits_there(
    shape: tuple[Any, ...], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = made.config_of(shape)
    params = jax.tree.map(lambda x: (x - 0.3) * 1.0, made.random_params(config))
    hf.export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="float32")
    model, report = AutoModelForCausalLM.from_pretrained(
        str(tmp_path / "hf"), output_loading_info=True, dtype=torch.float32
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    expected = their_logits(model.eval(), tokens())
    np.testing.assert_allclose(our_logits(params, config, tokens()), expected, atol=1e-4, rtol=0)
