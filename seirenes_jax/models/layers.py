"""The small parts of a decoder: norm, rotary positions, gated feed-forward."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from seirenes_jax.models.config import ModelConfig


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
    """A linear map whose kernel keeps its named axes: [D, H, C] in, [H, C, D] out, [D, F] plain."""

    config: ModelConfig
    shape: tuple[int, ...]
    inputs: int = 1  # how many trailing axes of x are contracted
    bias: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        kernel = self.param(
            "kernel", nn.initializers.normal(c.init_std), self.shape, jnp.dtype(c.param_dtype)
        )
        # One plain matrix product: XLA on CPU runs the backward pass of others 4 times slower.
        lead, width = x.shape[: x.ndim - self.inputs], math.prod(self.shape[: self.inputs])
        y = jnp.dot(x.reshape(-1, width), kernel.astype(x.dtype).reshape(width, -1))
        y = y.reshape(*lead, *self.shape[self.inputs :])
        if self.bias:
            b = self.param(
                "bias", nn.initializers.zeros_init(), self.shape[self.inputs :],
                jnp.dtype(c.param_dtype),
            )
            y = y + jnp.expand_dims(b.astype(y.dtype), tuple(range(y.ndim - b.ndim)))
        return y


class FeedForward(nn.Module):
    """SwiGLU: down(silu(gate x) * up x)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        gate_BTF = Projection(c, (c.width, c.ff), name="gate")(x_BTD)
        up_BTF = Projection(c, (c.width, c.ff), name="up")(x_BTD)
        return Projection(c, (c.ff, c.width), name="down")(nn.silu(gate_BTF) * up_BTF)
