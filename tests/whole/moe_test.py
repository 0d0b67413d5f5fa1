"""A mixture of experts through a whole run: recorded, kept while it waits, replayed, exported."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy

from seirenes_jax import hf
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.settings import load
from seirenes_jax.tasks import texts
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import load_tokenizer
from tests.whole import mini

CONFIG = ModelConfig(
    family="qwen3_moe", vocab=512, layers=2, width=32, heads=2, kv_heads=1, head_dim=32, ff=64,
    rope_theta=1e4, norm_eps=1e-6, tied=True, qkv_bias=False, qk_norm=True, init_std=0.1,
    max_positions=512, dtype="float32", param_dtype="float32", remat="none", experts=4,
    experts_per_token=2, expert_ff=24, norm_topk=True, balance=0.01,
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Untrained weights and a tokenizer of the tiny world."""
    path = tmp_path_factory.mktemp("experts")
    settings, _ = load("configs/tiny.py")
    train_tokenizer(texts.corpus(200, 0, settings.prompts), 512, path / "tokenizer")
    params = jax.jit(init_params, static_argnums=(0, 1))(CONFIG, 0)
    tokenizer = load_tokenizer(path / "tokenizer")
    hf.export(params, CONFIG, path / "hf", tokenizer=tokenizer, dtype="float32")
    return path / "hf"


def test_a_mixture_of_experts_is_trained_resumed_and_exported(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    knobs = {
        "game": "rlvr", "model__path": folder, "checkpoint__every": 1, "eval__every": 0,
        "streams__groups__clean": 2, "tokens__reasoner": 24, "tokens__overlong_buffer": 24,
    }  # fmt: skip
    mini.train(run, cache, steps=1, **knobs)
    mini.train(run, cache, steps=2, **knobs)  # goes on, with the groups that waited
    first, second = mini.lines(run / "metrics.jsonl")
    assert first["fifo"]["clean"]["depth"] > 0
    for row in (first, second):
        assert 2 <= row["balance"] < 4  # experts per token where balanced, experts at worst
    # What is trained in the first step is replayed as it was drawn; later it may be older.
    assert first["route_agreement"] == 1.0 and 0.9 < second["route_agreement"] <= 1.0
    assert first["kl_behaviour"] < 1e-6
    written = json.loads((run / "hf" / "config.json").read_text())
    assert written["model_type"] == "qwen3_moe" and written["router_aux_loss_coef"] == 0.01
    start, end = (_weights(path) for path in (folder, run / "hf"))
    moved = [name for name, value in start.items() if not np.array_equal(value, end[name])]
    assert start.keys() == end.keys()
    assert sum("experts" in name for name in moved) > 12 and any("gate.weight" in n for n in moved)


def _weights(path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = safetensors.numpy.load_file(str(path / "model.safetensors"))
    return found
