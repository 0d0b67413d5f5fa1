"""What a decoder is made of. One frozen record for every backbone; hf.py reads and writes it."""

from dataclasses import dataclass

from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Model


@dataclass(frozen=True, slots=True)
class ModelConfig:
    family: str  # "qwen2" | "qwen3"
    vocab: int
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    rope_theta: float
    norm_eps: float
    tied: bool  # the output head is the embedding
    qkv_bias: bool  # Qwen2.5
    qk_norm: bool  # Qwen3
    init_std: float
    max_positions: int
    dtype: str  # compute
    param_dtype: str
    remat: str  # "none" | "dots" | "full"

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ConfigError(
                f"model: {self.heads} heads do not divide over {self.kv_heads} key/value heads; "
                "heads must be a multiple of kv_heads"
            )
        if self.head_dim % 2:
            raise ConfigError(f"model.head_dim: got {self.head_dim}; rotary positions need it even")


def from_shape(model: Model, *, vocab: int, max_positions: int) -> ModelConfig:
    """The Qwen3-shaped decoder of `model.shape`, for runs that start from nothing."""
    s = model.shape
    return ModelConfig(
        family="qwen3", vocab=vocab, layers=s.layers, width=s.width, heads=s.heads,
        kv_heads=s.kv_heads, head_dim=s.head_dim, ff=s.ff, rope_theta=s.rope_theta, norm_eps=1e-6,
        tied=s.tied, qkv_bias=False, qk_norm=True, init_std=s.width**-0.5 / 2,
        max_positions=max_positions, dtype=model.dtype, param_dtype=model.param_dtype,
        remat=model.remat,
    )  # fmt: skip
