"""Hugging Face folders in and out: one table of weights, read both ways. No torch.

Every field of config.json is honoured, known to change nothing, or refused by name.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy
from safetensors import safe_open

from seirenes_jax.errors import ConfigError
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.state import Params
from seirenes_jax.text import Tokenizer

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
SHARD_BYTES = 4 * 2**30

# Fields that change nothing here: bookkeeping, generation defaults, what only torch code reads.
_INERT = frozenset((
    "_attn_implementation", "_name_or_path", "architectures", "bos_token_id", "dtype",
    "eos_token_id", "max_window_layers", "output_attentions", "output_hidden_states",
    "pad_token_id", "return_dict", "torch_dtype", "transformers_version", "use_cache",
))  # fmt: skip
# Fields with one supported value (absent counts as that value).
_ONLY: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),  # Qwen3's would be a bias on the output projection too
    "attention_dropout": (0, None),
    "hidden_act": ("silu",),
    "mlp_bias": (False,),
    "rope_scaling": (None,),
    "use_sliding_window": (False, None),
}
_HONOURED = frozenset((
    "head_dim", "hidden_size", "initializer_range", "intermediate_size", "layer_types",
    "max_position_embeddings", "model_type", "num_attention_heads", "num_hidden_layers",
    "num_key_value_heads", "rms_norm_eps", "rope_parameters", "rope_theta", "sliding_window",
    "tie_word_embeddings", "vocab_size",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Weight:
    """One row of the table: where a tensor stands here and there, and its two shapes."""

    path: tuple[str, ...]
    name: str  # with {} for the layer
    ours: tuple[int, ...]  # of one layer
    theirs: tuple[int, ...]
    turned: bool  # theirs is [outputs, inputs]
    layered: bool

    def names(self, layers: int) -> list[str]:
        return [self.name.format(i) for i in range(layers)] if self.layered else [self.name]

    def to_theirs(self, x: np.ndarray) -> np.ndarray:
        # Contiguous always: safetensors writes a strided view as wrong bytes without a word.
        y = x.reshape(self.theirs[::-1]).T if self.turned else x.reshape(self.theirs)
        return np.ascontiguousarray(y)

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        return (x.T if self.turned else x).reshape(self.ours)


def weights(c: ModelConfig) -> list[Weight]:
    """The table."""
    D, H, K, C, F = c.width, c.heads, c.kv_heads, c.head_dim, c.ff
    table = [Weight(("embed",), "model.embed_tokens.weight", *((c.vocab, D),) * 2, False, False)]

    def layer(path: str, name: str, ours: tuple[int, ...], outputs: int | None = None) -> None:
        inputs = 0 if outputs is None else math.prod(ours) // outputs
        theirs = (math.prod(ours),) if outputs is None else (outputs, inputs)
        where = ("layers", *path.split("/"))
        turned = outputs is not None
        table.append(Weight(where, f"model.layers.{{}}.{name}", ours, theirs, turned, True))

    layer("attention_norm/scale", "input_layernorm.weight", (D,))
    for part, heads in (("q", H), ("k", K), ("v", K)):
        theirs = f"self_attn.{part}_proj"
        layer(f"attention/{part}/kernel", f"{theirs}.weight", (D, heads, C), heads * C)
        if c.qkv_bias:
            layer(f"attention/{part}/bias", f"{theirs}.bias", (heads, C))
    if c.qk_norm:
        layer("attention/q_norm/scale", "self_attn.q_norm.weight", (C,))
        layer("attention/k_norm/scale", "self_attn.k_norm.weight", (C,))
    layer("attention/o/kernel", "self_attn.o_proj.weight", (H, C, D), D)
    layer("mlp_norm/scale", "post_attention_layernorm.weight", (D,))
    layer("mlp/gate/kernel", "mlp.gate_proj.weight", (D, F), F)
    layer("mlp/up/kernel", "mlp.up_proj.weight", (D, F), F)
    layer("mlp/down/kernel", "mlp.down_proj.weight", (F, D), D)
    table.append(Weight(("norm", "scale"), "model.norm.weight", (D,), (D,), False, False))
    if not c.tied:
        table.append(Weight(("head",), "lm_head.weight", (D, c.vocab), (c.vocab, D), True, False))
    return table


def read_config(folder: str | Path, *, dtype: str, param_dtype: str, remat: str) -> ModelConfig:
    """The model that config.json describes; what cannot be honoured is refused by name."""
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ConfigError(
            f"model.path: no config.json in {str(folder)!r}; wanted a local Hugging Face folder "
            "(config.json, *.safetensors, tokenizer files)"
        )
    raw = _read_json(file)
    family = raw.get("model_type")
    if family not in ARCHITECTURES:
        raise ConfigError(
            f"{file}: model_type {family!r} is not supported; wanted {' or '.join(ARCHITECTURES)}"
        )
    _refuse_unsupported(raw, file)

    def need(key: str) -> Any:
        if raw.get(key) is None:
            raise ConfigError(f"{file}: field {key!r} is missing; the model needs it")
        return raw[key]

    heads, width = need("num_attention_heads"), need("hidden_size")
    # Qwen2 may leave it out: width over heads.
    head_dim = raw.get("head_dim") if family == "qwen2" else need("head_dim")
    return ModelConfig(
        family=family, vocab=need("vocab_size"), layers=need("num_hidden_layers"), width=width,
        heads=heads, kv_heads=need("num_key_value_heads"),
        head_dim=width // heads if head_dim is None else head_dim,
        ff=need("intermediate_size"), rope_theta=_rope_theta(raw, file),
        norm_eps=float(need("rms_norm_eps")), tied=need("tie_word_embeddings"),
        qkv_bias=family == "qwen2", qk_norm=family == "qwen3",
        init_std=float(need("initializer_range")), max_positions=need("max_position_embeddings"),
        dtype=dtype, param_dtype=param_dtype, remat=remat,
    )  # fmt: skip


def _refuse_unsupported(raw: Mapping[str, Any], file: Path) -> None:
    for key, value in raw.items():
        if key in _ONLY and value not in _ONLY[key]:
            raise ConfigError(
                f"{file}: {key} = {value!r} is not supported; wanted {_ONLY[key][0]!r}"
            )
        if key not in _ONLY and key not in _INERT and key not in _HONOURED:
            raise ConfigError(
                f"{file}: field {key!r} (= {value!r}) is not known here and could change what the "
                "model computes; remove it if it does not"
            )
    # `sliding_window` alone means nothing: it counts where it is switched on, which is refused.
    odd = sorted(set(raw.get("layer_types") or ()) - {"full_attention"})
    if odd:
        raise ConfigError(f"{file}: layer_types {odd} are not supported; wanted full_attention")


def _rope_theta(raw: Mapping[str, Any], file: Path) -> float:
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


def load(
    folder: str | Path, *, dtype: str, param_dtype: str, remat: str
) -> tuple[ModelConfig, Params]:
    """Config and parameters of a folder, layers stacked, as NumPy arrays of `param_dtype`.

    Besides the parameters themselves no more than one tensor is in memory at a time.
    """
    config = read_config(folder, dtype=dtype, param_dtype=param_dtype, remat=remat)
    files = _files_of(Path(folder))
    table = weights(config)
    wanted = {name for weight in table for name in weight.names(config.layers)}
    # Some tied models store their head nevertheless: it is the embedding.
    spare = {"lm_head.weight"} if config.tied else set()
    missing, unexpected = sorted(wanted - files.keys()), sorted(files.keys() - wanted - spare)
    if missing or unexpected:
        raise ConfigError(
            f"{folder}: the weights are not those of its config.json: {len(missing)} missing "
            f"{missing[:4]}, {len(unexpected)} unexpected {unexpected[:4]}"
        )
    opened: dict[Path, Any] = {
        file: safe_open(str(file), framework="np") for file in sorted(set(files.values()))
    }
    params: dict[str, Any] = {}
    for weight in table:
        stacked = np.empty(_stacked(weight, config), _dtype(param_dtype))
        rows = stacked if weight.layered else stacked[None]
        for i, name in enumerate(weight.names(config.layers)):
            tensor = opened[files[name]].get_tensor(name)
            if tensor.shape != weight.theirs:
                raise ConfigError(
                    f"{files[name]}: {name} has shape {list(tensor.shape)}; config.json wants "
                    f"{list(weight.theirs)}"
                )
            rows[i] = weight.to_ours(tensor).astype(stacked.dtype)
        _put(params, weight.path, stacked)
    if spare & files.keys():
        head = opened[files["lm_head.weight"]].get_tensor("lm_head.weight")
        if not np.array_equal(head.astype(_dtype(param_dtype)), params["embed"]):
            raise ConfigError(
                f"{folder}: tie_word_embeddings is true, yet lm_head.weight differs from the "
                "embedding; set tie_word_embeddings to false in config.json"
            )
    return config, params


def export(
    params: Params, config: ModelConfig, folder: str | Path, *, tokenizer: Tokenizer, dtype: str,
    shard_bytes: int = SHARD_BYTES,
) -> None:  # fmt: skip
    """What AutoModelForCausalLM and AutoTokenizer load. The folder appears when it is whole."""
    final = Path(folder).absolute()
    if final.exists() and any(final.iterdir()) and not (final / "config.json").is_file():
        raise ConfigError(f"export: {final} holds something else; wanted a new folder or an export")
    if tokenizer.vocab_size > config.vocab:
        raise ConfigError(
            f"export: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab} rows"
        )
    _check_params(params, config, weights(config))
    partial = final.with_name(f".{final.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_config(config, partial, tokenizer=tokenizer, dtype=dtype)
    _write_weights(params, config, partial, dtype=dtype, shard_bytes=shard_bytes)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)


def write_config(
    config: ModelConfig, folder: Path, *, tokenizer: Tokenizer, dtype: str
) -> None:
    """All of an export but the weights: config.json and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    raw = _config_json(config, tokenizer, dtype)
    (folder / "config.json").write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")


def _config_json(c: ModelConfig, tokenizer: Tokenizer, dtype: str) -> dict[str, Any]:
    stop = tokenizer.stop_ids
    raw = {
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
    return raw | ({"attention_bias": False} if c.family == "qwen3" else {})


def _write_weights(
    params: Params, config: ModelConfig, folder: Path, *, dtype: str, shard_bytes: int
) -> None:
    table = weights(config)
    size = _dtype(dtype).itemsize
    shards: list[dict[str, tuple[Weight, int]]] = [{}]
    filled = total = 0
    for name, weight, i in _tensors(table, config.layers):
        bytes_ = math.prod(weight.theirs) * size
        if filled and filled + bytes_ > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = (weight, i)
        filled, total = filled + bytes_, total + bytes_
    where: dict[str, str] = {}
    for n, shard in enumerate(shards, 1):
        one = len(shards) == 1
        file = "model.safetensors" if one else f"model-{n:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name, (weight, i) in shard.items():
            leaf = _get(params, weight.path)
            row = np.asarray(leaf[i] if weight.layered else leaf)
            tensors[name] = weight.to_theirs(row.astype(_dtype(dtype)))
        safetensors.numpy.save_file(tensors, str(folder / file), metadata={"format": "pt"})
        os.chmod(folder / file, 0o644)  # it is written for its owner alone
        where |= dict.fromkeys(shard, file)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": where}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (folder / "model.safetensors.index.json").write_text(text)


def _tensors(table: list[Weight], layers: int) -> Iterator[tuple[str, Weight, int]]:
    """Every tensor with its layer, a layer's together."""
    first = next(n for n, weight in enumerate(table) if weight.layered)
    inside = [weight for weight in table if weight.layered]
    outside = [weight for weight in table if not weight.layered]
    for weight in outside[:first]:
        yield weight.name, weight, 0
    for i in range(layers):
        for weight in inside:
            yield weight.name.format(i), weight, i
    for weight in outside[first:]:
        yield weight.name, weight, 0


def _check_params(params: Params, config: ModelConfig, table: list[Weight]) -> None:
    """Nothing left out, nothing left over, every shape as the config says."""
    for weight in table:
        shape = tuple(_get(params, weight.path).shape)
        if shape != _stacked(weight, config):
            raise ConfigError(
                f"export: {'/'.join(weight.path)} has shape {list(shape)}; the model's config "
                f"wants {list(_stacked(weight, config))}"
            )
    extra = sorted(_leaf_paths(params) - {"/".join(weight.path) for weight in table})
    if extra:
        raise ConfigError(f"export: no place in a Hugging Face folder for parameters {extra}")


def _leaf_paths(tree: Any, prefix: str = "") -> set[str]:
    if not isinstance(tree, Mapping):
        return {prefix.rstrip("/")}
    return {path for key, sub in tree.items() for path in _leaf_paths(sub, f"{prefix}{key}/")}


def _stacked(weight: Weight, config: ModelConfig) -> tuple[int, ...]:
    return (config.layers, *weight.ours) if weight.layered else weight.ours


def _get(tree: Any, path: tuple[str, ...]) -> Any:
    for n, key in enumerate(path, 1):
        if key not in tree:
            raise ConfigError(f"export: parameter {'/'.join(path[:n])} is missing")
        tree = tree[key]
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], leaf: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = leaf


def _dtype(name: str) -> np.dtype[Any]:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file}: wanted a JSON object; {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: got {type(raw).__name__}; wanted a JSON object")
    return raw


def _files_of(folder: Path) -> dict[str, Path]:
    """Which file holds each tensor."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        found = {name: folder / file for name, file in _read_json(index)["weight_map"].items()}
        absent = sorted({file.name for file in found.values() if not file.is_file()})
        if absent:
            raise ConfigError(f"{folder}: files named in {index.name} are missing: {absent[:4]}")
        return found
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ConfigError(
            f"{folder}: no weights; wanted model.safetensors or model.safetensors.index.json "
            "(pickled .bin weights are not read)"
        )
    with safe_open(str(single), framework="np") as opened:
        return dict.fromkeys(opened.keys(), single)
