"""config.json: what it says is honoured, known to change nothing, or refused by name."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import transformers

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.config import config_json, read_config
from seirenes_jax.text import Tokenizer
from tests.hf import made
from tests.hf.made import FLOAT32

REMOVED = "REMOVED"
REFUSED = [
    ({"model_type": "llama"}, "model_type 'llama'"),
    ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
    ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}}, "yarn"),
    ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary"),
    ({"rope_theta": 5.0}, "rope_theta: got"),
    ({"rope_parameters": None, "rope_theta": None}, "rope_theta: got none"),
    ({"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
    ({"use_mrope": True}, "use_mrope"),
    ({"attention_bias": True}, "attention_bias"),
    ({"attention_dropout": 0.1}, "attention_dropout"),
    ({"hidden_act": "gelu"}, "hidden_act"),
    ({"quantization_config": {"bits": 4}}, "quantization_config"),
    ({"rms_norm_eps": REMOVED}, "rms_norm_eps"),
    ({"head_dim": REMOVED}, "head_dim"),
    ({"num_key_value_heads": 3}, "do not divide"),
    ({"hidden_size": "32"}, "hidden_size = '32'; wanted a positive integer"),
    ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
    ({"tie_word_embeddings": 1}, "wanted true or false"),
]
MOE_REFUSED = [
    ({"decoder_sparse_step": 2}, "decoder_sparse_step = 2"),
    ({"mlp_only_layers": [0]}, r"mlp_only_layers = \[0\]"),
    ({"output_router_logits": True}, "output_router_logits"),
    ({"shared_expert_intermediate_size": 64}, "shared_expert_intermediate_size"),
    ({"n_group": 4}, "n_group"),
    ({"norm_topk_prob": REMOVED}, "norm_topk_prob"),
    ({"num_experts_per_tok": 9}, "9 of 8 experts"),
    ({"num_experts": REMOVED}, "num_experts: got none"),
    ({"num_local_experts": 4}, r"num_experts: got \[4, 8\]"),
    ({"router_aux_loss_coef": "0.1"}, "router_aux_loss_coef"),
]


def change(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> Path:
    raw = json.loads((folder / "config.json").read_text())
    raw = {k: v for k, v in (raw | changes).items() if v != REMOVED}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    return tmp_path


@pytest.mark.parametrize("changes, named", REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(
    folder: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(change(folder, tmp_path, changes), **FLOAT32)


@pytest.mark.parametrize("changes, named", MOE_REFUSED)
def test_so_it_is_with_experts(
    moe_folder: Path, tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        read_config(change(moe_folder, tmp_path, changes), **FLOAT32)


@pytest.mark.parametrize("field", ["num_experts", "moe_intermediate_size", "decoder_sparse_step"])
def test_a_field_of_experts_in_a_dense_model_is_refused(
    field: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=field):
        read_config(change(folder, tmp_path, {field: 1}), **FLOAT32)


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_what_is_written_is_read_the_same_here_and_by_transformers(
    shape: tuple[Any, ...], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = made.config_of(shape)
    (tmp_path / "config.json").write_text(config_json(config, tokenizer, "float32"))
    assert read_config(tmp_path, **FLOAT32) == config
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert theirs.model_type == config.family and theirs.head_dim == config.head_dim
    assert theirs.rope_parameters["rope_theta"] == config.rope_theta
    if config.experts:
        assert theirs.num_experts == theirs.num_local_experts == config.experts
        assert theirs.num_experts_per_tok == config.experts_per_token
        assert theirs.moe_intermediate_size == config.expert_ff
        assert theirs.norm_topk_prob is config.norm_topk
        assert theirs.router_aux_loss_coef == config.balance
    theirs.save_pretrained(tmp_path / "again")
    assert read_config(tmp_path / "again", **FLOAT32) == config


def test_older_files_are_read_the_same(folder: Path, tmp_path: Path) -> None:
    older = {
        "rope_parameters": REMOVED, "rope_theta": 77.0, "rope_scaling": None,
        "torch_dtype": "float32", "layer_types": REMOVED, "sliding_window": 4096,
        "use_mrope": False, "max_window_layers": 28,
    }  # fmt: skip
    config = read_config(change(folder, tmp_path, older), **FLOAT32)
    assert config == dataclasses.replace(read_config(folder, **FLOAT32), rope_theta=77.0)


def test_qwen2_without_head_dim_divides_the_width(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = made.config_of(made.DENSE[3])
    text = config_json(config, tokenizer, "float32")
    (tmp_path / "config.json").write_text(text)
    changed = change(tmp_path, tmp_path, {"head_dim": REMOVED})
    assert read_config(changed, **FLOAT32).head_dim == config.width // config.heads


def test_files_that_are_no_config(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config.json in"):
        read_config(tmp_path, **FLOAT32)
    for text in ("", "[1]", "{" * 100_000, "\x00"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ConfigError, match="JSON object"):
            read_config(tmp_path, **FLOAT32)
    shutil.copy(folder / "config.json", tmp_path)
    read_config(tmp_path, **FLOAT32)
