"""config.json, read and written: what model a folder holds.

Every field is honoured, known to change nothing, or refused by name.
"""

import json
from collections.abc import Mapping
from typing import Any

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.hub import read_json
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.store import Folder, at
from seirenes_jax.text import Tokenizer

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM",
}  # fmt: skip

# Fields that change nothing here: bookkeeping, generation defaults, what only torch code reads.
_INERT = frozenset((
    "_attn_implementation", "_attn_implementation_autoset", "_name_or_path", "architectures",
    "bos_token_id", "dtype", "eos_token_id", "max_window_layers", "output_attentions",
    "output_hidden_states", "pad_token_id", "return_dict", "torch_dtype", "transformers_version",
    "use_cache",
))  # fmt: skip
# Fields with one supported value (absent counts as that value).
_ONLY: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),  # Qwen3's would be a bias on the output projection too
    "attention_dropout": (0, None),
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "use_mrope": (False, None),
    "use_sliding_window": (False, None),
}
_HONOURED = frozenset((
    "head_dim", "hidden_size", "initializer_range", "intermediate_size", "layer_types",
    "max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_theta", "sliding_window",
    "tie_word_embeddings", "vocab_size",
))  # fmt: skip
# Those of a mixture of experts alone; anywhere else they are unknown.
_ONLY_MOE: dict[str, tuple[Any, ...]] = {
    "decoder_sparse_step": (1,),  # every layer has experts
    "mlp_only_layers": ([], None),
    "output_router_logits": (False, None),
}
_HONOURED_MOE = frozenset((
    "moe_intermediate_size", "norm_topk_prob", "num_experts", "num_experts_per_tok",
    "num_local_experts", "router_aux_loss_coef",
))  # fmt: skip


def read_config(folder: Folder | str, *, dtype: str, param_dtype: str, remat: str) -> ModelConfig:
    """The model that config.json describes; what cannot be honoured is refused by name."""
    file = at(folder) / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"model.path: no config.json in {str(folder)!r}; wanted a Hugging Face folder "
            "(config.json, *.safetensors, tokenizer files), here or on gs://, or a hub id"
        )
    raw = read_json(file)
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        raise ConfigError(
            f"{file}: model_type {family!r} is not supported; wanted {' or '.join(ARCHITECTURES)}"
        )
    moe = family == "qwen3_moe"
    _refuse_unsupported(raw, file, moe=moe)

    def need(key: str, kind: type = int) -> Any:
        return _field(raw, key, kind, file)

    heads, width = need("num_attention_heads"), need("hidden_size")
    # Qwen2 may leave it out: width over heads.
    own = family != "qwen2" or raw.get("head_dim") is not None
    return ModelConfig(
        family=family, vocab=need("vocab_size"), layers=need("num_hidden_layers"), width=width,
        heads=heads, kv_heads=need("num_key_value_heads"),
        head_dim=need("head_dim") if own else width // heads,
        ff=need("intermediate_size"), rope_theta=_rope_theta(raw, file),
        norm_eps=need("rms_norm_eps", float), tied=need("tie_word_embeddings", bool),
        qkv_bias=family == "qwen2", qk_norm=family != "qwen2",
        init_std=need("initializer_range", float), max_positions=need("max_position_embeddings"),
        dtype=dtype, param_dtype=param_dtype, remat=remat,
        experts=_experts(raw, file) if moe else 0,
        experts_per_token=need("num_experts_per_tok") if moe else 0,
        expert_ff=need("moe_intermediate_size") if moe else 0,
        norm_topk=need("norm_topk_prob", bool) if moe else False,
        balance=need("router_aux_loss_coef", float) if moe else 0.0,
    )  # fmt: skip


def _field(raw: Mapping[str, Any], key: str, kind: type, file: Folder) -> Any:
    """A number or flag that the model needs."""
    value = raw.get(key)
    if value is None:
        raise ConfigError(f"{file}: field {key!r} is missing; the model needs it")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind or (type(value) is int and value < 1):
        wanted = {int: "a positive integer", float: "a number", bool: "true or false"}[kind]
        raise ConfigError(f"{file}: {key} = {value!r}; wanted {wanted}")
    return value


def _refuse_unsupported(raw: Mapping[str, Any], file: Folder, *, moe: bool) -> None:
    only = _ONLY | _ONLY_MOE if moe else _ONLY
    known = _INERT | _HONOURED | only.keys() | (_HONOURED_MOE if moe else set())
    for key, value in raw.items():
        if key in only and value not in only[key]:
            raise ConfigError(
                f"{file}: {key} = {value!r} is not supported; wanted {only[key][0]!r}"
            )
        if key not in known:
            raise ConfigError(
                f"{file}: field {key!r} (= {value!r}) is not known here and could change what the "
                "model computes; remove it if it does not"
            )
    # `sliding_window` alone means nothing: it counts where it is switched on, which is refused.
    odd = sorted(set(raw.get("layer_types") or ()) - {"full_attention"})
    if odd:
        raise ConfigError(f"{file}: layer_types {odd} are not supported; wanted full_attention")


def _experts(raw: Mapping[str, Any], file: Folder) -> int:
    """The hub says num_experts, transformers 5 num_local_experts; they must not disagree."""
    said = [key for key in ("num_experts", "num_local_experts") if raw.get(key) is not None]
    found = {_field(raw, key, int, file) for key in said}
    if len(found) != 1:
        raise ConfigError(f"{file}: num_experts: got {sorted(found) or 'none'}; wanted one number")
    experts: int = found.pop()
    return experts


def _rope_theta(raw: Mapping[str, Any], file: Folder) -> float:
    """Older files say rope_theta, newer ones rope_parameters; they must not disagree."""
    inner = dict(raw.get("rope_parameters") or {})
    kind = inner.pop("rope_type", "default")
    said = (inner.pop("rope_theta", None), raw.get("rope_theta"))
    found = {float(theta) for theta in said if theta is not None}
    if kind != "default" or inner:
        raise ConfigError(
            f"{file}: rope_parameters of type {kind!r} with {sorted(inner) or 'nothing more'} are "
            "not supported; wanted rope_type 'default' with rope_theta alone"
        )
    if len(found) != 1:
        raise ConfigError(f"{file}: rope_theta: got {sorted(found) or 'none'}; wanted exactly one")
    return found.pop()


def config_json(c: ModelConfig, tokenizer: Tokenizer, dtype: str) -> str:
    """The text of a config.json that transformers reads as this model."""
    stop = tokenizer.stop_ids
    raw: dict[str, Any] = {
        "architectures": [ARCHITECTURES[c.family]],
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": stop[0] if len(stop) == 1 else list(stop),
        "head_dim": c.head_dim,
        "hidden_act": "silu",
        "hidden_size": c.width,
        "initializer_range": c.init_std,
        "intermediate_size": c.ff,
        "max_position_embeddings": c.max_positions,
        "model_type": c.family,
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.kv_heads,
        "pad_token_id": tokenizer.pad_id,
        "rms_norm_eps": c.norm_eps,
        # Both, for readers from before and after transformers 5.
        "rope_parameters": {"rope_theta": c.rope_theta, "rope_type": "default"},
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied,
        "torch_dtype": dtype,
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": c.vocab,
    }
    if c.family != "qwen2":
        raw["attention_bias"] = False
    if c.experts:
        raw |= {
            "decoder_sparse_step": 1, "mlp_only_layers": [], "moe_intermediate_size": c.expert_ff,
            "norm_topk_prob": c.norm_topk, "num_experts": c.experts,
            "num_experts_per_tok": c.experts_per_token, "output_router_logits": False,
            "router_aux_loss_coef": c.balance,
        }  # fmt: skip
    return json.dumps(raw, indent=2, sort_keys=True) + "\n"
