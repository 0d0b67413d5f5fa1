"""The decoder: embedding, scanned layers, final norm. One set of parameters, two ways to run it:
whole packed rows (training, scoring, prefill) and one token a slot (decoding).
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from seirenes_jax.models.attention import attend, attend_slots, packed_mask
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.layers import FeedForward, Projection, RMSNorm, rotate

Pair = tuple[jax.Array, jax.Array]  # keys and values


@flax.struct.dataclass
class Slots:
    """What one decoding token of every slot may look back on."""

    past: Pair  # [N, B, S, K, C]: before this chunk
    column: jax.Array  # int32 []: where this token goes in the fresh part
    past_mask_BS: jax.Array
    fresh_mask_U: jax.Array


class Attention(nn.Module):
    """Self-attention of one layer. Returns its output and the layer's keys and values."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, positions_BT: jax.Array, mask_BTT: jax.Array | None,
        slots: tuple[Slots, jax.Array, Pair] | None,
    ) -> tuple[jax.Array, Pair]:  # fmt: skip
        c = self.config
        q = Projection(c, (c.width, c.heads, c.head_dim), bias=c.qkv_bias, name="q")(x_BTD)
        k = Projection(c, (c.width, c.kv_heads, c.head_dim), bias=c.qkv_bias, name="k")(x_BTD)
        v = Projection(c, (c.width, c.kv_heads, c.head_dim), bias=c.qkv_bias, name="v")(x_BTD)
        if c.qk_norm:
            q, k = RMSNorm(c, name="q_norm")(q), RMSNorm(c, name="k_norm")(k)
        q, k = rotate(q, positions_BT, c.rope_theta), rotate(k, positions_BT, c.rope_theta)
        if slots is None:
            assert mask_BTT is not None
            out_BTHC, kept = attend(q, k, v, mask_BTT), (k, v)
        else:
            out_BTHC, kept = self._decode(q, k, v, slots)
        out = Projection(c, (c.heads, c.head_dim, c.width), inputs=2, name="o")(out_BTHC)
        return out, kept

    def _decode(
        self, q: jax.Array, k: jax.Array, v: jax.Array, slots: tuple[Slots, jax.Array, Pair]
    ) -> tuple[jax.Array, Pair]:
        view, layer, (k_NBUKC, v_NBUKC) = slots
        at = (layer, jnp.int32(0), view.column, jnp.int32(0), jnp.int32(0))
        k_NBUKC = jax.lax.dynamic_update_slice(k_NBUKC, k[None].astype(k_NBUKC.dtype), at)
        v_NBUKC = jax.lax.dynamic_update_slice(v_NBUKC, v[None].astype(v_NBUKC.dtype), at)

        def of(stack: jax.Array) -> jax.Array:
            one: jax.Array = jax.lax.dynamic_index_in_dim(stack, layer, axis=0, keepdims=False)
            return one

        out_BHC = attend_slots(
            q[:, 0], (of(view.past[0]), of(view.past[1])), (of(k_NBUKC), of(v_NBUKC)),
            (view.past_mask_BS, view.fresh_mask_U),
        )  # fmt: skip
        return out_BHC[:, None], (k_NBUKC, v_NBUKC)


class Block(nn.Module):
    """One layer as a scan body. `carry`: the residual stream and, in decoding, the fresh cache."""

    config: ModelConfig
    keep_kv: bool

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, Pair | None], layer: jax.Array, positions_BT: jax.Array,
        mask_BTT: jax.Array | None, view: Slots | None,
    ) -> tuple[tuple[jax.Array, Pair | None], Pair | None]:  # fmt: skip
        x_BTD, fresh = carry
        slots = None if view is None or fresh is None else (view, layer, fresh)
        with jax.named_scope("attention"):
            normed = RMSNorm(self.config, name="attention_norm")(x_BTD)
            attention = Attention(self.config, name="attention")
            out, kv = attention(normed, positions_BT, mask_BTT, slots)
            x_BTD = x_BTD + out
        with jax.named_scope("feed_forward"):
            normed = RMSNorm(self.config, name="mlp_norm")(x_BTD)
            x_BTD = x_BTD + FeedForward(self.config, name="mlp")(normed)
        if view is not None:
            return (x_BTD, kv), None
        return (x_BTD, None), kv if self.keep_kv else None


REMAT: dict[str, Any] = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


class Decoder(nn.Module):
    """tokens -> final hidden states (normed), and the keys and values where they are wanted."""

    config: ModelConfig
    keep_kv: bool = False

    @nn.compact
    def __call__(
        self, tokens_BT: jax.Array, positions_BT: jax.Array, mask_BTT: jax.Array | None,
        view: Slots | None = None, fresh: Pair | None = None,
    ) -> tuple[jax.Array, Pair | None]:  # fmt: skip
        c = self.config
        table = self.param(
            "embed", nn.initializers.normal(c.init_std), (c.vocab, c.width),
            jnp.dtype(c.param_dtype),
        )
        if not c.tied:
            self.param(
                "head", nn.initializers.normal(c.init_std), (c.width, c.vocab),
                jnp.dtype(c.param_dtype),
            )  # fmt: skip
        x_BTD = table[tokens_BT].astype(jnp.dtype(c.dtype))
        body = Block if c.remat == "none" else nn.remat(Block, policy=REMAT[c.remat])
        layers = nn.scan(
            body, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.layers,
            in_axes=(0, nn.broadcast, nn.broadcast, nn.broadcast),
        )(c, self.keep_kv, name="layers")  # fmt: skip
        (x_BTD, fresh), kv = layers(
            (x_BTD, fresh), jnp.arange(c.layers, dtype=jnp.int32), positions_BT, mask_BTT, view
        )
        hidden_BTD = RMSNorm(c, name="norm")(x_BTD)
        return hidden_BTD, fresh if view is not None else kv


def init_params(config: ModelConfig, seed: int) -> Any:
    """Fresh parameters; a pure function of config and seed."""
    one = jnp.zeros((1, 1), jnp.int32)
    mask = jnp.ones((1, 1, 1), bool)
    return Decoder(config).init(jax.random.key(seed), one, one, mask)["params"]


def head_kernel_DV(params: Any, config: ModelConfig) -> jax.Array:
    """The output projection, in the compute dtype."""
    kernel: jax.Array = params["embed"].T if config.tied else params["head"]
    return kernel.astype(jnp.dtype(config.dtype))


def forward(
    params: Any, config: ModelConfig, tokens_BT: jax.Array, positions_BT: jax.Array,
    segments_BT: jax.Array, prefix_BT: jax.Array,
) -> jax.Array:  # fmt: skip
    """Packed rows -> hidden_BTD."""
    mask_BTT = packed_mask(segments_BT, prefix_BT)
    out: Any = Decoder(config).apply({"params": params}, tokens_BT, positions_BT, mask_BTT)
    hidden_BTD: jax.Array = out[0]
    return hidden_BTD


def prefill_kv(
    params: Any, config: ModelConfig, tokens_BT: jax.Array, length_B: jax.Array
) -> Pair:
    """Keys and values [N, B, T, K, C] of left-aligned prompts."""
    T = tokens_BT.shape[1]
    positions_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None], tokens_BT.shape)
    segments_BT = (positions_BT < length_B[:, None]).astype(jnp.int32)
    mask_BTT = packed_mask(segments_BT, jnp.zeros_like(segments_BT))
    out: Any = Decoder(config, keep_kv=True).apply(
        {"params": params}, tokens_BT, positions_BT, mask_BTT
    )
    kv: Pair = out[1]
    return kv
