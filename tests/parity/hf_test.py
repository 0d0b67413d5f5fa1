"""Hugging Face folders: the same logits as transformers, the same bits there and back."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf import export, load, read_config, weights
from seirenes_jax.models import ModelConfig, forward, head_kernel_DV
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import Tokenizer, load_tokenizer

FLOAT32 = {"dtype": "float32", "param_dtype": "float32", "remat": "none"}
# family, tied, heads, kv_heads, head_dim, width, rope_theta
SHAPES = [
    ("qwen3", True, 4, 2, 16, 32, 10_000.0),  # head_dim is not width / heads; grouped queries
    ("qwen3", False, 4, 1, 8, 48, 1_000_000.0),
    ("qwen3", False, 2, 2, 32, 64, 50.0),
    ("qwen2", True, 4, 2, 8, 32, 1_000_000.0),
    ("qwen2", False, 6, 3, 8, 48, 10_000.0),
    ("qwen2", False, 2, 1, 32, 48, 300.0),
]


def theirs(shape: tuple[Any, ...]) -> Any:
    """A tiny transformers model in float32, every parameter away from its initial value."""
    family, tied, heads, kv_heads, head_dim, width, theta = shape
    kind = {"qwen3": transformers.Qwen3Config, "qwen2": transformers.Qwen2Config}[family]
    config = kind(
        vocab_size=200, num_hidden_layers=3, hidden_size=width, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head_dim, intermediate_size=40, rms_norm_eps=1e-5,
        tie_word_embeddings=tied, max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
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
    B, T = tokens_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None], (B, T))
    ones_BT = jnp.ones((B, T), jnp.int32)
    tree = jax.tree.map(jnp.asarray, params)
    hidden_BTD = forward(
        tree, config, jnp.asarray(tokens_BT), positions_BT, ones_BT, jnp.zeros_like(ones_BT)
    )
    return np.asarray(hidden_BTD @ head_kernel_DV(tree, config))


def tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (2, 24)).astype(np.int32)


def random_params(config: ModelConfig) -> Any:
    """Parameters by the table, each value another."""
    draw = np.random.default_rng(3)
    params: dict[str, Any] = {}
    for weight in weights(config):
        shape = (config.layers, *weight.ours) if weight.layered else weight.ours
        tree = params
        for key in weight.path[:-1]:
            tree = tree.setdefault(key, {})
        tree[weight.path[-1]] = draw.normal(0.3, 0.2, shape).astype(np.float32)
    return params


def config_of(shape: tuple[Any, ...]) -> ModelConfig:
    family, tied, heads, kv_heads, head_dim, width, theta = shape
    return ModelConfig(
        family=family, vocab=200, layers=3, width=width, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ff=40, rope_theta=theta, norm_eps=1e-5, tied=tied,
        qkv_bias=family == "qwen2", qk_norm=family == "qwen3", init_std=0.02, max_positions=64,
        **FLOAT32,
    )  # fmt: skip


def same_bits(a: Any, b: Any) -> bool:
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.tobytes() == y.tobytes(), a, b)
    return all(jax.tree.leaves(same))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Tom has 12 apples. 12 + 5 = 17. \\boxed{17}"] * 3, 150, folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3")
    theirs(SHAPES[0]).save_pretrained(path)
    return path


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_their_folder_gives_their_logits(shape: tuple[Any, ...], tmp_path: Path) -> None:
    model = theirs(shape)
    model.save_pretrained(tmp_path)
    config, params = load(tmp_path, **FLOAT32)
    assert config == dataclasses.replace(config_of(shape), init_std=config.init_std)
    expected = their_logits(model, tokens())
    assert 1 < np.abs(expected).max() < 100
    np.testing.assert_allclose(our_logits(params, config, tokens()), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_our_folder_gives_our_logits_there(
    shape: tuple[Any, ...], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = config_of(shape)
    params = jax.tree.map(lambda x: (x - 0.3) * 1.0, random_params(config))
    export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="float32")
    model, report = AutoModelForCausalLM.from_pretrained(
        str(tmp_path / "hf"), output_loading_info=True, dtype=torch.float32
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not report[kind], kind
    expected = their_logits(model.eval(), tokens())
    np.testing.assert_allclose(our_logits(params, config, tokens()), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_and_back_is_bit_equal_over_many_shards(
    shape: tuple[Any, ...], dtype: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = config_of(shape)
    params = random_params(config)
    if dtype == "bfloat16":  # what bfloat16 can hold, in float32
        params = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    first, second = tmp_path / "first", tmp_path / "second"
    export(params, config, first, tokenizer=tokenizer, dtype=dtype, shard_bytes=20_000)
    assert len(list(first.glob("*.safetensors"))) > 2
    again, loaded = load(first, **FLOAT32)
    assert again == config and same_bits(loaded, params)
    export(loaded, again, second, tokenizer=tokenizer, dtype=dtype)
    assert [f.name for f in second.glob("*.safetensors")] == ["model.safetensors"]
    _, twice = load(second, **FLOAT32)
    assert same_bits(twice, params)


def test_parameters_may_be_kept_in_bfloat16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = dataclasses.replace(config_of(SHAPES[0]), param_dtype="bfloat16")
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), random_params(config))
    export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="bfloat16")
    kept = load(tmp_path / "hf", dtype="bfloat16", param_dtype="bfloat16", remat="full")
    assert kept[0] == dataclasses.replace(config, dtype="bfloat16", remat="full")
    assert same_bits(kept[1], jax.tree.map(np.asarray, params))


def test_the_export_speaks_the_same_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = config_of(SHAPES[0])
    out = tmp_path / "hf"
    export(random_params(config), config, out, tokenizer=tokenizer, dtype="bfloat16")
    export(random_params(config), config, out, tokenizer=tokenizer, dtype="float32")  # once more
    assert not list(tmp_path.glob(".*partial*"))
    ours, auto = load_tokenizer(out), AutoTokenizer.from_pretrained(str(out))
    text = "Tom has 12 apples. \\boxed{17}"
    assert ours.encode(text) == auto.encode(text) == tokenizer.encode(text)
    assert ours.stop_ids == tokenizer.stop_ids == (auto.eos_token_id,)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.stop_ids[0]


def change(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> Path:
    out = tmp_path / "changed"
    shutil.copytree(folder, out)
    raw = json.loads((out / "config.json").read_text())
    raw = {k: v for k, v in (raw | changes).items() if v != "REMOVED"}
    (out / "config.json").write_text(json.dumps(raw))
    return out


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model_type": "llama"}, "model_type 'llama'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "yarn"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary"),
        ({"rope_theta": 5.0}, "rope_theta: got"),
        ({"rope_parameters": None}, "rope_theta: got none"),
        ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"attention_bias": True}, "attention_bias"),
        ({"attention_dropout": 0.1}, "attention_dropout"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"rms_norm_eps": "REMOVED"}, "rms_norm_eps"),
        ({"head_dim": "REMOVED"}, "head_dim"),
        ({"num_key_value_heads": 3}, "do not divide"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    folder: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(change(folder, tmp_path, changes), **FLOAT32)


def test_older_files_are_read_the_same(folder: Path, tmp_path: Path) -> None:
    older = {
        "rope_parameters": "REMOVED", "rope_theta": 77.0, "rope_scaling": None,
        "torch_dtype": "float32", "layer_types": "REMOVED", "sliding_window": 4096,
    }  # fmt: skip
    config = read_config(change(folder, tmp_path, older), **FLOAT32)
    assert config == dataclasses.replace(read_config(folder, **FLOAT32), rope_theta=77.0)


def test_qwen2_without_head_dim_divides_the_width(tmp_path: Path) -> None:
    theirs(SHAPES[3]).save_pretrained(tmp_path / "qwen2")
    changed = change(tmp_path / "qwen2", tmp_path, {"head_dim": "REMOVED"})
    assert read_config(changed, **FLOAT32).head_dim == 32 // 4


def rewrite(folder: Path, tmp_path: Path, changes: dict[str, np.ndarray | None]) -> Path:
    out = change(folder, tmp_path, {})
    tensors = safetensors.numpy.load_file(str(out / "model.safetensors"))
    tensors = {k: v for k, v in (tensors | changes).items() if v is not None}
    safetensors.numpy.save_file(tensors, str(out / "model.safetensors"))
    return out


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model.norm.weight": None}, "1 missing .'model.norm.weight'"),
        ({"model.extra": np.zeros(3, np.float32)}, "1 unexpected .'model.extra'"),
        ({"model.norm.weight": np.zeros(3, np.float32)}, "model.norm.weight has shape .3."),
        ({"lm_head.weight": np.zeros((200, 32), np.float32)}, "lm_head.weight differs"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused_by_name(
    folder: Path, tmp_path: Path, changes: dict[str, np.ndarray | None], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        load(rewrite(folder, tmp_path, changes), **FLOAT32)


def test_a_tied_model_may_store_its_head_as_well(folder: Path, tmp_path: Path) -> None:
    _, params = load(folder, **FLOAT32)
    head = {"lm_head.weight": params["embed"]}
    assert same_bits(load(rewrite(folder, tmp_path, head), **FLOAT32)[1], params)


def test_missing_files_are_named(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="no config.json"):
        load(tmp_path, **FLOAT32)
    out = change(folder, tmp_path, {})
    (out / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no weights"):
        load(out, **FLOAT32)
    config = config_of(SHAPES[0])
    sharded = tmp_path / "sharded"
    export(
        random_params(config), config, sharded, tokenizer=tokenizer, dtype="float32",
        shard_bytes=20_000,
    )  # fmt: skip
    next(sharded.glob("model-00002*")).unlink()
    with pytest.raises(ConfigError, match="model-00002"):
        load(sharded, **FLOAT32)


def test_an_export_takes_every_parameter_or_none(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = config_of(SHAPES[0])
    out = tmp_path / "hf"
    extra = random_params(config) | {"head": np.zeros((32, 200), np.float32)}
    with pytest.raises(ConfigError, match="no place .* .'head'"):
        export(extra, config, out, tokenizer=tokenizer, dtype="float32")
    short = {k: v for k, v in random_params(config).items() if k != "norm"}
    with pytest.raises(ConfigError, match="parameter norm is missing"):
        export(short, config, out, tokenizer=tokenizer, dtype="float32")
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        export(random_params(config), config, out, tokenizer=tokenizer, dtype="float32")
    assert (out / "thesis.tex").read_text() == "years of work"
