"""The table of weights: where each tensor of a Hugging Face folder stands in our parameters.

One table, read both ways: import, export and proof all go through it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seirenes_jax.errors import ConfigError
from seirenes_jax.models.config import ModelConfig

Cut = tuple[slice, ...]  # a part of an array; every slice has its start and stop


@dataclass(frozen=True, slots=True)
class Weight:
    """One row: our stacked array, and the tensors of theirs that it is made of.

    >>> # layers/attention/q/kernel [N, D, H * C] is made of N tensors [H * C, D]:
    >>> # stack (N,), theirs (H * C, D), turned
    """

    path: tuple[str, ...]
    name: str  # of a tensor, with {} for every axis of the stack
    stack: tuple[int, ...]  # leading axes of our array: layers, experts
    theirs: tuple[int, ...]  # of one tensor
    turned: bool = False  # theirs is [outputs, inputs], ours [inputs, outputs]

    @property
    def ours(self) -> tuple[int, ...]:
        """Of one tensor, as it stands here."""
        return self.theirs[::-1] if self.turned else self.theirs

    @property
    def shape(self) -> tuple[int, ...]:
        """Of our whole array."""
        return self.stack + self.ours

    def tensor(self, index: Sequence[int]) -> str:
        return self.name.format(*index)

    def to_theirs(self, x: np.ndarray) -> np.ndarray:
        """A tensor as it is written: contiguous, so that its bytes are its numbers in order."""
        return np.ascontiguousarray(x.T if self.turned else x)

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        return x.T if self.turned else x

    def cut_of_theirs(self, cut: Cut) -> Cut:
        """The same part of a tensor, along its own axes."""
        return cut[::-1] if self.turned else cut


def weights(c: ModelConfig) -> list[Weight]:
    """The table."""
    D, H, K, C = c.width, c.heads, c.kv_heads, c.head_dim
    table = [Weight(("embed",), "model.embed_tokens.weight", (), (c.vocab, D))]

    def layer(path: str, name: str, *theirs: int) -> None:
        """Of a matrix: outputs, inputs."""
        stack = (c.layers, c.experts) if "{}" in name else (c.layers,)
        where, turned = ("layers", *path.split("/")), len(theirs) == 2
        table.append(Weight(where, f"model.layers.{{}}.{name}", stack, theirs, turned))

    layer("attention_norm/scale", "input_layernorm.weight", D)
    for part, heads in (("q", H), ("k", K), ("v", K)):
        name = f"self_attn.{part}_proj"
        layer(f"attention/{part}/kernel", f"{name}.weight", heads * C, D)
        if c.qkv_bias:
            layer(f"attention/{part}/bias", f"{name}.bias", heads * C)
    if c.qk_norm:
        layer("attention/q_norm/scale", "self_attn.q_norm.weight", C)
        layer("attention/k_norm/scale", "self_attn.k_norm.weight", C)
    layer("attention/o/kernel", "self_attn.o_proj.weight", D, H * C)
    layer("mlp_norm/scale", "post_attention_layernorm.weight", D)
    F = c.expert_ff if c.experts else c.ff
    if c.experts:
        layer("moe/router/kernel", "mlp.gate.weight", c.experts, D)
    for part, theirs in (("gate", (F, D)), ("up", (F, D)), ("down", (D, F))):
        if c.experts:
            layer(f"moe/{part}", f"mlp.experts.{{}}.{part}_proj.weight", *theirs)
        else:
            layer(f"mlp/{part}/kernel", f"mlp.{part}_proj.weight", *theirs)
    table.append(Weight(("norm", "scale"), "model.norm.weight", (), (D,)))
    if not c.tied:
        table.append(Weight(("head",), "lm_head.weight", (), (c.vocab, D), turned=True))
    return table


def adapter_weights(c: ModelConfig) -> list[Weight]:
    """The same table of adapters: their names are those of PEFT, without which no base knows them.
    """
    assert c.lora is not None
    table, rank = [], c.lora.rank
    for weight in weights(c):
        *above, target, leaf = ("", *weight.path)
        if leaf == "kernel" and target in c.lora.targets:
            path, (outs, ins) = (*above[1:], target), weight.theirs
            name = f"base_model.model.{weight.name.removesuffix('.weight')}"
            for ours, theirs, shape in (("a", "A", (rank, ins)), ("b", "B", (outs, rank))):
                table.append(Weight(
                    (*path, f"lora_{ours}"), f"{name}.lora_{theirs}.weight", weight.stack, shape,
                    turned=True,
                ))  # fmt: skip
    return table


Tensor = tuple[str, Weight, tuple[int, ...]]  # its name, its row, where it is in the stack


def tensors(table: Sequence[Weight]) -> Iterator[Tensor]:
    """Every tensor of a folder, in the order of the model: a layer's stand together."""
    stacked = [weight for weight in table if weight.stack]
    first = table.index(stacked[0])
    for weight in table[:first]:
        yield weight.name, weight, ()
    for layer in range(stacked[0].stack[0]):
        for weight in stacked:
            for rest in np.ndindex(weight.stack[1:]):
                yield weight.tensor((layer, *rest)), weight, (layer, *rest)
    for weight in table[first:]:
        if not weight.stack:
            yield weight.name, weight, ()


def leaf_of(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The array at a path; ConfigError where there is none."""
    leaf: Any = tree
    for n, key in enumerate(path, 1):
        if not isinstance(leaf, Mapping) or key not in leaf:
            raise ConfigError(f"export: parameter {'/'.join(path[:n])} is missing")
        leaf = leaf[key]
    return leaf


def check_shapes(tree: Mapping[str, Any], table: Sequence[Weight]) -> None:
    """Nothing left out, nothing left over, every shape as the config says."""
    for weight in table:
        shape = tuple(leaf_of(tree, weight.path).shape)
        if shape != weight.shape:
            raise ConfigError(
                f"export: {'/'.join(weight.path)} has shape {list(shape)}; the model's config "
                f"wants {list(weight.shape)}"
            )
    extra = sorted(_leaf_paths(tree) - {"/".join(weight.path) for weight in table})
    if extra:
        raise ConfigError(f"export: no place in a Hugging Face folder for parameters {extra}")


def _leaf_paths(tree: Any, prefix: str = "") -> set[str]:
    if not isinstance(tree, Mapping):
        return {prefix.rstrip("/")}
    return {path for key, sub in tree.items() for path in _leaf_paths(sub, f"{prefix}{key}/")}
