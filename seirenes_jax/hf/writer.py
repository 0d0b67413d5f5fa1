"""Export: what AutoModelForCausalLM, AutoTokenizer and PEFT load, written a tensor at a time.

Parameters that are shared out over processes are gathered one tensor at a time, on all of them,
and process 0 writes; parameters that a process has for itself it writes itself.
"""

import functools
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.config import config_json
from seirenes_jax.hf.files import ADAPTER, DTYPES, INDEX, SINGLE, dtype_of
from seirenes_jax.hf.table import (
    Tensor,
    Weight,
    adapter_weights,
    check_shapes,
    leaf_of,
    tensors,
    weights,
)
from seirenes_jax.hosts import first
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.lora import LEAVES, merged, split
from seirenes_jax.state import Params
from seirenes_jax.store import Folder, at, copy_tree, is_remote
from seirenes_jax.text import Tokenizer

CARD = "adapter_config.json"
SHARD_BYTES = 4 * 2**30
WRITTEN = 16 * 2**20  # bytes handed to a file at once: a store may copy what it is given


def export(
    params: Params, config: ModelConfig, folder: Folder | str | Path, *, tokenizer: Tokenizer,
    dtype: str, shard_bytes: int = SHARD_BYTES,
) -> None:  # fmt: skip
    """Write a folder, adapters merged. A local one appears when it is whole.

    In an object store nothing appears at once: config.json, without which it is no model, goes
    first from what was there and comes last.
    """
    final = at(folder) if is_remote(folder) else at(folder).absolute()
    table = weights(config)
    _check(params, config)
    if tokenizer.vocab_size > config.vocab:
        raise ConfigError(
            f"export: the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab} rows"
        )
    shared = not all(_is_here(leaf) for leaf in jax.tree.leaves(params))
    if shared:
        first(lambda: _may_write(final))
    else:
        _may_write(final)
    shards = _shards(list(tensors(table)), dtype_of(dtype), shard_bytes)
    if shared and jax.process_index() != 0:
        for shard in shards.values():
            for _ in _gathered(params, shard, config):
                pass  # process 0 asks for the same tensors in the same order
        return
    target = final if is_remote(final) else final.with_name(f".{final.name}.partial")
    if is_remote(final):
        _take_down(final)
    else:
        shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    for name, shard in shards.items():
        arrays = _gathered(params, shard, config)
        _write_shard(target / name, arrays, shard, dtype_of(dtype))
    if len(shards) > 1:
        (target / INDEX).write_text(_index(shards, dtype_of(dtype)))
    write_config(config, target, tokenizer=tokenizer, dtype=dtype)
    if target != final:
        shutil.rmtree(final, ignore_errors=True)
        target.rename(final)


def export_adapter(
    adapters: Params, config: ModelConfig, folder: Folder | str | Path, *, base: str
) -> None:
    """Write what PEFT loads onto `base`: the adapters alone, in float32."""
    lora = config.lora
    if lora is None:
        raise ConfigError("export: the run has no adapters (model.lora.rank = 0); leave --adapter")
    table = adapter_weights(config)
    check_shapes(adapters, table)
    target = at(folder)
    _may_write(target, CARD)
    target.mkdir(parents=True, exist_ok=True)
    for old in (CARD, "proof.json"):  # the card comes last: without it there is no adapter
        (target / old).unlink(missing_ok=True)
    found = list(tensors(table))
    arrays = (to_host(leaf_of(adapters, weight.path), index) for _, weight, index in found)
    _write_shard(target / ADAPTER, arrays, found, np.dtype(np.float32))
    card = {
        "base_model_name_or_path": base, "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": lora.alpha, "lora_dropout": 0.0,
        "peft_type": "LORA", "r": lora.rank, "task_type": "CAUSAL_LM",
        "target_modules": [f"{name}_proj" for name in lora.targets],
    }  # fmt: skip
    (target / CARD).write_text(json.dumps(card, indent=2) + "\n")


def _check(params: Params, config: ModelConfig) -> None:
    """Every array that is wanted, and no other."""
    base, adapters = split(params)
    check_shapes(base, weights(config))
    if config.lora is not None:
        check_shapes(adapters, adapter_weights(config))
    elif adapters:
        raise ConfigError("export: adapters, and a config without them; wanted model.lora.rank > 0")


def _may_write(folder: Folder, told_by: str = "config.json") -> str:
    """A new folder, or an export; nothing else is written over."""
    if folder.exists() and any(folder.iterdir()) and not (folder / told_by).is_file():
        raise ConfigError(
            f"export: {folder} holds something else; wanted a new folder or an export"
        )
    return str(folder)


def write_config(
    config: ModelConfig, folder: Folder | str | Path, *, tokenizer: Tokenizer, dtype: str
) -> None:
    """All of an export but the weights: the tokenizer's files, then config.json."""
    target = at(folder)
    target.mkdir(parents=True, exist_ok=True)
    if is_remote(target):
        with tempfile.TemporaryDirectory() as here:
            tokenizer.save(here)
            copy_tree(Path(here), target)
    else:
        tokenizer.save(target)
    (target / "config.json").write_text(config_json(config, tokenizer, dtype))


def to_host(leaf: Any, index: tuple[int, ...]) -> np.ndarray:
    """One tensor of a stacked array, whole, wherever its parts live. All processes must ask."""
    if isinstance(leaf, np.ndarray):
        return np.asarray(leaf[index])
    everywhere = None if _is_here(leaf) else NamedSharding(leaf.sharding.mesh, PartitionSpec())
    one = _tensor(leaf, np.array(index, np.int32), everywhere)
    return np.asarray(one if everywhere is None else one.addressable_data(0))


def _is_here(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or bool(leaf.is_fully_addressable)


@functools.partial(jax.jit, static_argnames="everywhere")
def _tensor(leaf: jax.Array, index: jax.Array, everywhere: NamedSharding | None) -> jax.Array:
    for i in range(index.shape[0]):
        leaf = jax.lax.dynamic_index_in_dim(leaf, index[i], axis=0, keepdims=False)
    return leaf if everywhere is None else jax.lax.with_sharding_constraint(leaf, everywhere)


def _shards(found: Sequence[Tensor], dtype: np.dtype[Any], most: int) -> dict[str, list[Tensor]]:
    """Which tensors go into which file: in order, as many as fit."""
    shards: list[list[Tensor]] = [[]]
    filled = 0
    for tensor in found:
        size = math.prod(tensor[1].theirs) * dtype.itemsize
        if filled and filled + size > most:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += size
    n = len(shards)
    if n == 1:
        return {SINGLE: shards[0]}
    return {f"model-{i:05d}-of-{n:05d}.safetensors": s for i, s in enumerate(shards, 1)}


def _gathered(
    params: Params, shard: Sequence[Tensor], config: ModelConfig
) -> Iterator[np.ndarray]:
    return (whole(params, weight, index, config) for _, weight, index in shard)


def whole(
    params: Params, weight: Weight, index: tuple[int, ...], config: ModelConfig
) -> np.ndarray:
    """One tensor, as it stands here, with its adapter merged where it has one."""
    *above, leaf = weight.path
    one = to_host(leaf_of(params, weight.path), index)
    if config.lora is None or leaf != "kernel" or above[-1] not in config.lora.targets:
        return one
    a_Dr, b_rF = (to_host(leaf_of(params, (*above, name)), index) for name in LEAVES)
    return merged(one, a_Dr, b_rF, config.lora)


def _write_shard(
    file: Folder, arrays: Iterator[np.ndarray], shard: Sequence[Tensor], dtype: np.dtype[Any]
) -> None:
    """A safetensors file: the length of the header, the header, the tensors one after another."""
    kind = next(name for name, known in DTYPES.items() if known == dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, weight, _ in shard:
        stop = at + math.prod(weight.theirs) * dtype.itemsize
        header[name] = {"dtype": kind, "shape": list(weight.theirs), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for array, (_, weight, _) in zip(arrays, shard, strict=True):
            # Contiguous, then as bytes: the numbers in order, whatever the array's strides were.
            data = weight.to_theirs(array.astype(dtype)).reshape(-1).view(np.uint8)
            for start in range(0, data.size, WRITTEN):
                out.write(data[start : start + WRITTEN].data)


def _index(shards: dict[str, list[Tensor]], dtype: np.dtype[Any]) -> str:
    total = sum(math.prod(w.theirs) for shard in shards.values() for _, w, _ in shard)
    where = {name: file for file, shard in shards.items() for name, _, _ in shard}
    index = {"metadata": {"total_size": total * dtype.itemsize}, "weight_map": where}
    return json.dumps(index, indent=2, sort_keys=True) + "\n"


def _take_down(folder: Folder) -> None:
    """An export before this one: first what makes it a model, then its weights."""
    old = [folder / "config.json", folder / "proof.json", folder / INDEX]
    old += folder.glob("*.safetensors")
    for file in old:
        file.unlink(missing_ok=True)
