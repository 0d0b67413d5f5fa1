"""The small parts of a decoder: norm, rotary positions, projection, gated feed-forward."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from seirenes_jax.knobs import Lora
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.lora import scale


class RMSNorm(nn.Module):
    """x / rms(x) * scale over the last axis, in float32."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param(
            "scale", nn.initializers.ones_init(), (x.shape[-1],), jnp.dtype(self.config.param_dtype)
        )
        wide = x.astype(jnp.float32)
        rms = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.config.norm_eps)
        # Rounded before the scale, as the reference models do.
        normed = (wide * rms).astype(x.dtype)
        return normed * jnp.expand_dims(scale.astype(x.dtype), tuple(range(x.ndim - 1)))


def rotate(x_BTHC: jax.Array, positions_BT: jax.Array, theta: float) -> jax.Array:
    """Rotary positions, halves convention (Su et al. 2021, as in Llama and Qwen)."""
    half = x_BTHC.shape[-1] // 2
    freq_c = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BT1c = positions_BT[..., None, None].astype(jnp.float32) * freq_c[None, None, None, :]
    cos, sin = jnp.cos(angle_BT1c), jnp.sin(angle_BT1c)
    left, right = jnp.split(x_BTHC.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return turned.astype(x_BTHC.dtype)


class Projection(nn.Module):
    """A linear map of the last axis. Heads are one axis with their width: a kernel of three axes is
    turned around in memory for its product, and decoding would do so for every token."""

    config: ModelConfig
    outputs: int
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        shape = (x.shape[-1], self.outputs)
        kernel = self.param(
            "kernel", nn.initializers.normal(c.init_std), shape, jnp.dtype(c.param_dtype)
        )
        # One plain matrix product: XLA on CPU runs the backward pass of others 4 times slower.
        rows = x.reshape(-1, shape[0])
        y = jnp.dot(rows, kernel.astype(x.dtype))
        if c.lora is not None and self.name in c.lora.targets:
            y = y + self._adapted(rows, c.lora)
        if self.bias:
            b = self.param(
                "bias", nn.initializers.zeros_init(), shape[1:], jnp.dtype(c.param_dtype)
            )
            y = y + b.astype(y.dtype)[None]
        return y.reshape(*x.shape[:-1], self.outputs)

    def _adapted(self, x_MD: jax.Array, lora: Lora) -> jax.Array:
        """scale * (x A) B, never x (A B). Begins as PEFT's: A uniform within 1 / sqrt(D), B 0."""
        a_Dr = self.param(
            "lora_a", nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform"),
            (x_MD.shape[1], lora.rank), jnp.float32,
        )  # fmt: skip
        b_rF = self.param(
            "lora_b", nn.initializers.zeros_init(), (lora.rank, self.outputs), jnp.float32
        )
        x_Mr = jnp.dot(x_MD, a_Dr.astype(x_MD.dtype)) * scale(lora)
        y_MF: jax.Array = jnp.dot(x_Mr, b_rF.astype(x_MD.dtype))
        return y_MF


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        gate_BTF = Projection(c, c.ff, name="gate")(x_BTD)
        up_BTF = Projection(c, c.ff, name="up")(x_BTD)
        return Projection(c, c.width, name="down")(nn.silu(gate_BTF) * up_BTF)
