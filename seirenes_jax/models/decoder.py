"""The decoder: embedding, scanned layers, final norm. One set of parameters, two ways to run it:
whole packed rows (training, scoring, prefill) and one token a slot (decoding).
"""

from dataclasses import replace
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from seirenes_jax.models.attention import BACKENDS, attend_packed, attend_slots
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.layers import FeedForward, Projection, RMSNorm, rotate
from seirenes_jax.models.moe import Experts, agreement, imbalance
from seirenes_jax.sharding import place

Pair = tuple[jax.Array, jax.Array]  # keys and values

# What a pass is for decides what its layers hand out.
LEARN, FILL, STEP = "learn", "fill", "step"  # train and score | prefill | decode one token


@flax.struct.dataclass
class Look:
    """What every layer of a pass over whole rows looks at."""

    positions_BT: jax.Array
    segments_BT: jax.Array
    seen: Any  # of the attention backend: who attends whom


@flax.struct.dataclass
class Slots:
    """What one decoding token of every slot may look back on."""

    positions_BT: jax.Array
    past: Pair  # [N, B, K, S, C]: before this chunk
    column: jax.Array  # int32 []: where this token goes in the fresh part
    past_mask_BS: jax.Array
    fresh_mask_U: jax.Array


class Layer(NamedTuple):
    """What is a layer's own: its number and, replayed, the experts of every token."""

    number: jax.Array
    recorded_BTk: jax.Array | None


class Said(NamedTuple):
    """What a layer hands out, by purpose; None: not asked, or no experts."""

    kv: Pair | None = None  # FILL
    routes_BTk: jax.Array | None = None  # FILL, STEP: uint8
    balance_BT: jax.Array | None = None  # LEARN
    agreed_BT: jax.Array | None = None  # LEARN with recorded routes


class Out(NamedTuple):
    """A pass of the decoder. `kv`: [N, B, T, K, C] of rows, or the fresh part after this token."""

    hidden_BTD: jax.Array  # normed
    kv: Pair | None
    routes_BTNk: jax.Array | None  # uint8
    balance_BT: jax.Array | None  # mean over layers, as is
    agreed_BT: jax.Array | None


class Attention(nn.Module):
    """Self-attention of one layer. Returns its output and the layer's keys and values."""

    config: ModelConfig
    columns: str | None

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, view: Look | Slots, layer: jax.Array, fresh: Pair | None
    ) -> tuple[jax.Array, Pair]:
        c, (B, T, _) = self.config, x_BTD.shape

        def part(name: str, heads: int) -> jax.Array:
            one = Projection(c, heads * c.head_dim, bias=c.qkv_bias, name=name)
            flat: jax.Array = one(x_BTD)
            return flat.reshape(B, T, heads, c.head_dim)

        q, k, v = part("q", c.heads), part("k", c.kv_heads), part("v", c.kv_heads)
        if c.qk_norm:
            q, k = RMSNorm(c, name="q_norm")(q), RMSNorm(c, name="k_norm")(k)
        positions_BT = view.positions_BT
        q, k = rotate(q, positions_BT, c.rope_theta), rotate(k, positions_BT, c.rope_theta)
        if isinstance(view, Look):
            out_BTHC = attend_packed(q, k, v, view.seen, config=c, columns=self.columns)
            kept = (k, v)
        else:
            assert fresh is not None
            out_BTHC, kept = _attend_step(q, (k, v), view, layer, fresh)
        return Projection(c, c.width, name="o")(out_BTHC.reshape(B, T, -1)), kept


def _attend_step(
    q_B1HC: jax.Array, new: Pair, view: Slots, layer: jax.Array, fresh: Pair
) -> tuple[jax.Array, Pair]:
    """Write this token's keys and values into the fresh part; attend both parts."""
    at = (layer, jnp.int32(0), view.column, jnp.int32(0), jnp.int32(0))

    def write(stack_NBUKC: jax.Array, new_B1KC: jax.Array) -> jax.Array:
        new = new_B1KC[None].astype(stack_NBUKC.dtype)
        return jax.lax.dynamic_update_slice(stack_NBUKC, new, at)

    def of(stack: jax.Array) -> jax.Array:
        one: jax.Array = jax.lax.dynamic_index_in_dim(stack, layer, axis=0, keepdims=False)
        return one

    def seen(stack_NBKSC: jax.Array) -> jax.Array:
        """This layer's first columns: of a part of all layers the compiler would make a copy."""
        (_, B, K, _, C), S = stack_NBKSC.shape, view.past_mask_BS.shape[1]
        start = (layer, *(jnp.int32(0),) * 4)
        one: jax.Array = jax.lax.dynamic_slice(stack_NBKSC, start, (1, B, K, S, C))[0]
        return one

    fresh = write(fresh[0], new[0]), write(fresh[1], new[1])
    out_BHC = attend_slots(
        q_B1HC[:, 0], (seen(view.past[0]), seen(view.past[1])), (of(fresh[0]), of(fresh[1])),
        (view.past_mask_BS, view.fresh_mask_U),
    )  # fmt: skip
    return out_BHC[:, None], fresh


class Block(nn.Module):
    """One layer as a scan body. `carry`: the residual stream and, in decoding, the fresh cache."""

    config: ModelConfig
    purpose: str

    @nn.compact
    def __call__(
        self, carry: tuple[jax.Array, Pair | None], layer: Layer, view: Look | Slots
    ) -> tuple[tuple[jax.Array, Pair | None], Said]:
        c, (x_BTD, fresh) = self.config, carry
        columns = "columns" if self.purpose == LEARN else None
        x_BTD = place(checkpoint_name(x_BTD, LAYER_INPUT), c.mesh, "rows", columns, None)
        with jax.named_scope("attention"):
            normed = RMSNorm(c, name="attention_norm")(x_BTD)
            attention = Attention(c, columns, name="attention")
            out, kv = attention(normed, view, layer.number, fresh)
            x_BTD = x_BTD + out
        said = Said(kv=kv if self.purpose == FILL else None)
        with jax.named_scope("experts" if c.experts else "feed_forward"):
            normed = RMSNorm(c, name="mlp_norm")(x_BTD)
            if c.experts:
                experts = Experts(c, name="moe")
                out, routed = experts(normed, layer.recorded_BTk, columns)
                x_BTD = x_BTD + out
                if self.purpose != LEARN:
                    said = said._replace(routes_BTk=routed.used_BTk.astype(jnp.uint8))
                else:
                    assert isinstance(view, Look)
                    replayed = layer.recorded_BTk is not None
                    said = said._replace(
                        balance_BT=imbalance(routed, view.segments_BT),
                        agreed_BT=agreement(routed) if replayed else None,
                    )
            else:
                x_BTD = x_BTD + FeedForward(c, name="mlp")(normed)
        return (x_BTD, kv if self.purpose == STEP else None), said


LAYER_INPUT = "layer_input"
_POLICIES = jax.checkpoint_policies
REMAT: dict[str, Any] = {
    "dots": _POLICIES.dots_with_no_batch_dims_saveable,
    "full": _POLICIES.nothing_saveable,
    "offload": _POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=[], names_which_can_be_offloaded=[LAYER_INPUT],
        offload_src="device", offload_dst="pinned_host",
    ),
}  # fmt: skip


class Decoder(nn.Module):
    """tokens -> final hidden states, and what else the purpose asks of every layer."""

    config: ModelConfig
    purpose: str = LEARN

    @nn.compact
    def __call__(
        self, tokens_BT: jax.Array, view: Look | Slots, routes_BTNk: jax.Array | None = None,
        fresh: Pair | None = None,
    ) -> Out:  # fmt: skip
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
        with jax.named_scope("embed"):
            x_BTD = table[tokens_BT].astype(jnp.dtype(c.dtype))
        body = Block
        if c.remat != "none":
            body = nn.remat(Block, policy=REMAT[c.remat], prevent_cse=False)
        layers = nn.scan(
            body, variable_axes={"params": 0}, split_rngs={"params": True}, length=c.layers,
            in_axes=(0, nn.broadcast),
        )(c, self.purpose, name="layers")  # fmt: skip
        routes_NBTk = None if routes_BTNk is None else jnp.moveaxis(routes_BTNk, 2, 0)
        each = Layer(jnp.arange(c.layers, dtype=jnp.int32), routes_NBTk)
        (x_BTD, fresh), said = layers((x_BTD, fresh), each, view)
        routes = None if said.routes_BTk is None else jnp.moveaxis(said.routes_BTk, 0, 2)
        return Out(
            hidden_BTD=RMSNorm(c, name="norm")(x_BTD),
            kv=fresh if self.purpose == STEP else said.kv,
            routes_BTNk=routes,
            balance_BT=_over_layers(said.balance_BT), agreed_BT=_over_layers(said.agreed_BT),
        )  # fmt: skip


def _over_layers(values_NBT: jax.Array | None) -> jax.Array | None:
    return None if values_NBT is None else jnp.mean(values_NBT, axis=0)


def init_params(config: ModelConfig, seed: int) -> Any:
    """Fresh parameters; a pure function of config and seed."""
    one = jnp.zeros((1, 1), jnp.int32)
    # One token attends alike in every backend, and needs no mesh.
    config = replace(config, attention="xla", moe="plain", mesh=None)
    return Decoder(config).init(jax.random.key(seed), one, look(config, one, one, one))["params"]


def head_kernel_DV(params: Any, config: ModelConfig) -> jax.Array:
    """The output projection, in the compute dtype."""
    kernel: jax.Array = params["embed"].T if config.tied else params["head"]
    return kernel.astype(jnp.dtype(config.dtype))


def look(
    config: ModelConfig, positions_BT: jax.Array, segments_BT: jax.Array, prefix_BT: jax.Array
) -> Look:
    """What the layers look at in packed rows."""
    see = BACKENDS[config.attention].see
    return Look(
        positions_BT=positions_BT, segments_BT=segments_BT, seen=see(segments_BT, prefix_BT)
    )


def read(
    params: Any, config: ModelConfig, tokens_BT: jax.Array, positions_BT: jax.Array,
    segments_BT: jax.Array, prefix_BT: jax.Array, routes_BTNk: jax.Array | None,
) -> Out:  # fmt: skip
    """Packed rows, to learn from: hidden states and, of experts, balance and agreement.

    `routes_BTNk` are experts recorded in decoding (moe.NOT_RECORDED: the router chooses); None:
    the router chooses everywhere.
    """
    view = look(config, positions_BT, segments_BT, prefix_BT)
    out: Any = Decoder(config).apply({"params": params}, tokens_BT, view, routes_BTNk)
    found: Out = out
    return found


def forward(
    params: Any, config: ModelConfig, tokens_BT: jax.Array, positions_BT: jax.Array,
    segments_BT: jax.Array, prefix_BT: jax.Array,
) -> jax.Array:  # fmt: skip
    """Packed rows -> hidden_BTD."""
    return read(
        params, config, tokens_BT, positions_BT, segments_BT, prefix_BT, None
    ).hidden_BTD


def prefill(
    params: Any, config: ModelConfig, tokens_BT: jax.Array, length_B: jax.Array
) -> tuple[Pair, jax.Array | None]:
    """Keys and values [N, B, T, K, C] of left-aligned prompts, and their routes_BTNk."""
    T = tokens_BT.shape[1]
    positions_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None], tokens_BT.shape)
    segments_BT = (positions_BT < length_B[:, None]).astype(jnp.int32)
    view = look(config, positions_BT, segments_BT, jnp.zeros_like(segments_BT))
    out: Any = Decoder(config, FILL).apply({"params": params}, tokens_BT, view)
    kv: Pair = out.kv
    return kv, out.routes_BTNk


def step(
    params: Any, config: ModelConfig, token_B: jax.Array, view: Slots, fresh: Pair
) -> tuple[jax.Array, Pair, jax.Array | None]:
    """One token a slot: hidden_BD, the fresh cache with it, its routes_BNk."""
    out: Any = Decoder(config, STEP).apply(
        {"params": params}, token_B[:, None], view, None, fresh
    )
    kv: Pair = out.kv
    routes = None if out.routes_BTNk is None else out.routes_BTNk[:, 0]
    return out.hidden_BTD[:, 0], kv, routes
