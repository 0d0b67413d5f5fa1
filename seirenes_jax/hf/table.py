"""The table of weights: where each tensor of a Hugging Face folder stands in our parameters.

One table, read both ways: import, export and proof all go through it.
"""

import math
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

    >>> # layers/attention/q/kernel [N, D, H, C] is made of N tensors [H * C, D]:
    >>> # stack (N,), ours (D, H, C), theirs (H * C, D), inputs 1
    """

    path: tuple[str, ...]
    name: str  # of a tensor, with {} for every axis of the stack
    stack: tuple[int, ...]  # leading axes of our array: layers, experts
    ours: tuple[int, ...]  # the rest of them: one tensor, as it stands here
    theirs: tuple[int, ...]
    inputs: int = 0  # theirs is [outputs, inputs]: so many of our axes are inputs; 0 = not turned

    @property
    def shape(self) -> tuple[int, ...]:
        """Of our whole array."""
        return self.stack + self.ours

    def tensor(self, index: Sequence[int]) -> str:
        return self.name.format(*index)

    def to_theirs(self, x: np.ndarray) -> np.ndarray:
        """A tensor as it is written: contiguous, so that its bytes are its numbers in order."""
        y = x.reshape(self.theirs[::-1]).T if self.inputs else x.reshape(self.theirs)
        return np.ascontiguousarray(y)

    def to_ours(self, x: np.ndarray) -> np.ndarray:
        return (x.T if self.inputs else x).reshape(self.ours)

    def cut_of_theirs(self, cut: Cut) -> Cut:
        """The same part of a tensor, along its own axes."""
        if self.inputs:
            ins, outs = self.inputs, self.ours[self.inputs :]
            return self._joined(cut[ins:], outs), self._joined(cut[:ins], self.ours[:ins])
        return cut if self.ours == self.theirs else (self._joined(cut, self.ours),)

    def _joined(self, cut: Cut, sizes: tuple[int, ...]) -> slice:
        """Several axes as one; a part of it is one stretch where only the first axis is cut."""
        if any((s.start, s.stop) != (0, size) for s, size in zip(cut[1:], sizes[1:], strict=True)):
            raise ConfigError(
                f"{'/'.join(self.path)}: an axis inside {sizes} is shared out over devices, and "
                f"{self.name} cannot be read in such parts; share out the first of them"
            )
        inner = math.prod(sizes[1:])
        return slice(cut[0].start * inner, cut[0].stop * inner)


def weights(c: ModelConfig) -> list[Weight]:
    """The table."""
    D, H, K, C = c.width, c.heads, c.kv_heads, c.head_dim
    table = [Weight(("embed",), "model.embed_tokens.weight", (), *((c.vocab, D),) * 2)]

    def layer(path: str, name: str, ours: tuple[int, ...], inputs: int = 0) -> None:
        outs, ins = math.prod(ours[inputs:]), math.prod(ours[:inputs])
        theirs = (outs, ins) if inputs else (outs,)
        stack = (c.layers, c.experts) if "{}" in name else (c.layers,)
        where = ("layers", *path.split("/"))
        table.append(Weight(where, f"model.layers.{{}}.{name}", stack, ours, theirs, inputs))

    layer("attention_norm/scale", "input_layernorm.weight", (D,))
    for part, heads in (("q", H), ("k", K), ("v", K)):
        theirs = f"self_attn.{part}_proj"
        layer(f"attention/{part}/kernel", f"{theirs}.weight", (D, heads, C), 1)
        if c.qkv_bias:
            layer(f"attention/{part}/bias", f"{theirs}.bias", (heads, C))
    if c.qk_norm:
        layer("attention/q_norm/scale", "self_attn.q_norm.weight", (C,))
        layer("attention/k_norm/scale", "self_attn.k_norm.weight", (C,))
    layer("attention/o/kernel", "self_attn.o_proj.weight", (H, C, D), 2)
    layer("mlp_norm/scale", "post_attention_layernorm.weight", (D,))
    F = c.expert_ff if c.experts else c.ff
    if c.experts:
        layer("moe/router/kernel", "mlp.gate.weight", (D, c.experts), 1)
    for part, ours in (("gate", (D, F)), ("up", (D, F)), ("down", (F, D))):
        if c.experts:
            layer(f"moe/{part}", f"mlp.experts.{{}}.{part}_proj.weight", ours, 1)
        else:
            layer(f"mlp/{part}/kernel", f"mlp.{part}_proj.weight", ours, 1)
    table.append(Weight(("norm", "scale"), "model.norm.weight", (), (D,), (D,)))
    if not c.tied:
        table.append(Weight(("head",), "lm_head.weight", (), (D, c.vocab), (c.vocab, D), 1))
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
