"""What the tests of Hugging Face folders are tried on: small shapes of every family."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from seirenes_jax import hf
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.sharding import param_shardings
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import Tokenizer, load_tokenizer

FLOAT32 = {"dtype": "float32", "param_dtype": "float32", "remat": "none"}
# family, tied, heads, kv_heads, head_dim, width, rope_theta
DENSE = [
    ("qwen3", True, 4, 2, 16, 32, 10_000.0),  # head_dim is not width / heads; grouped queries
    ("qwen3", False, 4, 1, 8, 48, 1_000_000.0),
    ("qwen3", False, 2, 2, 32, 64, 50.0),
    ("qwen2", True, 4, 2, 8, 32, 1_000_000.0),
    ("qwen2", False, 6, 3, 8, 48, 10_000.0),
    ("qwen2", False, 2, 1, 32, 48, 300.0),
]
# and: experts, of them a token's, width of each, gates that sum to 1
MOE = [
    ("qwen3_moe", False, 4, 2, 16, 32, 10_000.0, 8, 2, 24, True),
    ("qwen3_moe", True, 4, 1, 8, 48, 1_000_000.0, 4, 1, 16, False),
    ("qwen3_moe", False, 2, 2, 32, 64, 50.0, 6, 4, 40, True),
]
SHAPES = [*DENSE, *MOE]
VOCAB, LAYERS, FF, POSITIONS = 200, 3, 40, 64


def config_of(shape: tuple[Any, ...]) -> ModelConfig:
    family, tied, heads, kv_heads, head_dim, width, theta, *moe = shape
    experts, experts_per_token, expert_ff, norm_topk = moe or (0, 0, 0, False)
    return ModelConfig(
        family=family, vocab=VOCAB, layers=LAYERS, width=width, heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, ff=FF, rope_theta=theta, norm_eps=1e-5, tied=tied,
        qkv_bias=family == "qwen2", qk_norm=family != "qwen2", init_std=0.02,
        max_positions=POSITIONS, experts=experts, experts_per_token=experts_per_token,
        expert_ff=expert_ff, norm_topk=norm_topk, balance=0.001 if moe else 0.0, **FLOAT32,
    )  # fmt: skip


def shapes_of(config: ModelConfig) -> Any:
    """The tree of parameters by the table of weights, each leaf its shape."""
    tree: dict[str, Any] = {}
    for weight in hf.weights(config):
        inner = tree
        for key in weight.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[weight.path[-1]] = jax.ShapeDtypeStruct(weight.shape, config.param_dtype)
    return tree


def random_params(config: ModelConfig, dtype: Any = np.float32) -> Any:
    """Each value another, so that nothing can be mistaken for anything else."""
    draw = np.random.default_rng(3)
    return jax.tree.map(
        lambda leaf: draw.normal(0.3, 0.2, leaf.shape).astype(dtype), shapes_of(config)
    )


def abstract(config: ModelConfig, mesh: Mesh | None = None) -> Any:
    """What to load: on one device, or shared out over a mesh."""
    shapes = shapes_of(config)
    here = SingleDeviceSharding(jax.devices()[0])
    places = jax.tree.map(lambda _: here, shapes)
    return jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        shapes, places if mesh is None else param_shardings(shapes, mesh),
    )  # fmt: skip


def load(
    folder: Path | str, *, dtype: str = "float32", param_dtype: str = "float32",
    remat: str = "none",
) -> tuple[ModelConfig, Any]:  # fmt: skip
    """Config and parameters of a folder, on one device."""
    config = hf.read_config(folder, dtype=dtype, param_dtype=param_dtype, remat=remat)
    return config, jax.tree.map(np.asarray, hf.load(folder, config, abstract(config)))


def same_bits(a: Any, b: Any) -> bool:
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and x.tobytes() == y.tobytes(), a, b)
    return all(jax.tree.leaves(same))


def make_tokenizer(folder: Path) -> Tokenizer:
    train_tokenizer(["Tom has 12 apples. 12 + 5 = 17. \\boxed{17}"] * 3, 150, folder)
    return load_tokenizer(folder)
