"""A mixture of experts in place of the feed-forward part: router, experts, what training asks.

Nothing is dropped: every token reaches each of its k experts. The router's softmax is float32.
Axes besides the usual: k experts of a token, M tokens of all rows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.grouped import PRODUCTS, Product
from seirenes_jax.sharding import spec
from seirenes_jax.state import NOT_RECORDED

Kernels = tuple[jax.Array, jax.Array, jax.Array]  # gate, up [E, D, F], down [E, F, D]


class Routed(NamedTuple):
    """Where a layer sent its tokens."""

    probs_BTE: jax.Array  # float32, the router's
    own_BTk: jax.Array  # int32, its choice
    used_BTk: jax.Array  # int32, the recorded choice where there is one


class Experts(nn.Module):
    """sum over a token's experts of gate * down(silu(gate x) * up x)."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x_BTD: jax.Array, recorded_BTk: jax.Array | None, columns: str | None
    ) -> tuple[jax.Array, Routed]:
        """`columns`: the logical axis of T, None where it is not shared out."""
        c = self.config
        logits_BTE = Router(c, name="router")(x_BTD)
        routed = route(logits_BTE, recorded_BTk, c.experts_per_token)
        gate_BTk = jnp.take_along_axis(routed.probs_BTE, routed.used_BTk, axis=-1)
        if c.norm_topk:
            gate_BTk = gate_BTk / jnp.sum(gate_BTk, axis=-1, keepdims=True)
        inside, outside = (c.experts, c.width, c.expert_ff), (c.experts, c.expert_ff, c.width)
        kernels = tuple(
            self.param(
                name, nn.initializers.normal(c.init_std), shape, jnp.dtype(c.param_dtype)
            ).astype(x_BTD.dtype)
            for name, shape in (("gate", inside), ("up", inside), ("down", outside))
        )
        y_BTD = apply(x_BTD, routed.used_BTk, gate_BTk, kernels, config=c, columns=columns)
        return y_BTD, routed


class Router(nn.Module):
    """Logits over the experts, float32."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        kernel_DE = self.param(
            "kernel", nn.initializers.normal(c.init_std), (c.width, c.experts),
            jnp.dtype(c.param_dtype),
        )  # fmt: skip
        return jnp.dot(
            x_BTD, kernel_DE.astype(x_BTD.dtype), preferred_element_type=jnp.float32
        )


def route(logits_BTE: jax.Array, recorded_BTk: jax.Array | None, k: int) -> Routed:
    """The k likeliest experts of each token, or those that are recorded."""
    probs_BTE = jax.nn.softmax(logits_BTE, axis=-1)
    own_BTk = jax.lax.top_k(probs_BTE, k)[1]
    if recorded_BTk is None:
        return Routed(probs_BTE, own_BTk, own_BTk)
    recorded = recorded_BTk.astype(own_BTk.dtype)
    return Routed(probs_BTE, own_BTk, jnp.where(recorded == NOT_RECORDED, own_BTk, recorded))


def agreement(routed: Routed) -> jax.Array:
    """Share of the experts in use that the router would choose itself, [B, T]."""
    same_BTkk = routed.own_BTk[..., :, None] == routed.used_BTk[..., None, :]
    return jnp.mean(jnp.any(same_BTkk, axis=-2).astype(jnp.float32), axis=-1)


def imbalance(routed: Routed, segments_BT: jax.Array) -> jax.Array:
    """Balance loss by token, [B, T]; its mean over a segment is the loss of that sequence:

        E * sum over experts e of (choices of e a token) * (mean probability of e)

    with both taken over the segment alone (k where all experts are used alike). The choices are
    counts and carry no gradient. Fedus et al. 2021, eq. 4, with k choices, by sequence.
    """
    (B, T, E), dtype = routed.probs_BTE.shape, jnp.float32
    chosen_BTE = jnp.sum(jax.nn.one_hot(routed.used_BTk, E, dtype=dtype), axis=-2)

    def by_segment(values_TX: jax.Array, segments_T: jax.Array) -> jax.Array:
        sums: jax.Array = jax.ops.segment_sum(values_TX, segments_T, num_segments=T + 1)
        return sums[segments_T]

    counts_BTE = jax.vmap(by_segment)(chosen_BTE, segments_BT)
    length_BT1 = jax.vmap(by_segment)(jnp.ones((B, T, 1), dtype), segments_BT)
    share_BTE = jax.lax.stop_gradient(counts_BTE / length_BT1)
    return E * jnp.sum(share_BTE * routed.probs_BTE, axis=-1)


def apply(
    x_BTD: jax.Array, used_BTk: jax.Array, gate_BTk: jax.Array, kernels: Any, *,
    config: ModelConfig, columns: str | None,
) -> jax.Array:  # fmt: skip
    """The experts' sum for every token. On a mesh every device gathers the tokens of its expert
    group, runs its own experts on them, and the partial sums are added and shared out again."""
    product = PRODUCTS[config.moe]
    if config.mesh is None:
        return run(x_BTD, used_BTk, gate_BTk, kernels, product=product).astype(x_BTD.dtype)
    rows = spec("rows", columns, None)
    inside, outside = spec("experts", None, "expert_ff"), spec("experts", "expert_ff", None)
    shared: Callable[..., jax.Array] = jax.shard_map(
        partial(_one_device, product=product), mesh=config.mesh,
        in_specs=(rows, rows, rows, (inside, inside, outside)), out_specs=rows,
        check_vma=False,  # kernels do not say over which axes they vary
    )  # fmt: skip
    return shared(x_BTD, used_BTk, gate_BTk, kernels)


def _one_device(
    x_BTD: jax.Array, used_BTk: jax.Array, gate_BTk: jax.Array, kernels: Kernels, *,
    product: Product,
) -> jax.Array:  # fmt: skip
    """One device's part under shard_map: its experts, for all rows of its expert group."""

    def of_group(x: jax.Array) -> jax.Array:
        every: jax.Array = jax.lax.all_gather(x, "expert", axis=0, tiled=True)
        return every

    first = jax.lax.axis_index("expert") * kernels[0].shape[0]
    part_BTD = run(
        of_group(x_BTD), of_group(used_BTk) - first, of_group(gate_BTk), kernels, product=product
    )
    part_BTD = jax.lax.psum(part_BTD, "tensor")
    mine_BTD: jax.Array = jax.lax.psum_scatter(
        part_BTD, "expert", scatter_dimension=0, tiled=True
    )
    return mine_BTD.astype(x_BTD.dtype)


def run(
    x_BTD: jax.Array, used_BTk: jax.Array, gate_BTk: jax.Array, kernels: Kernels, *,
    product: Product,
) -> jax.Array:  # fmt: skip
    """The sum over those of a token's experts whose kernels are here, float32.

    `used_BTk` counts from the first kernel here: what is below 0 or beyond the last is elsewhere.
    """
    gate_EDF, up_EDF, down_EFD = kernels
    (*lead, D), k, E = x_BTD.shape, used_BTk.shape[-1], gate_EDF.shape[0]
    expert_R = used_BTk.reshape(-1)
    expert_R = jnp.where((expert_R >= 0) & (expert_R < E), expert_R, E)  # elsewhere: behind all
    order_R = jnp.argsort(expert_R)
    back_R = jnp.argsort(order_R)
    sizes_E = jnp.bincount(expert_R, length=E).astype(jnp.int32)  # E itself falls off the end
    here_R1 = (jnp.arange(expert_R.size) < jnp.sum(sizes_E))[:, None]

    # Rows behind the last group come out of a product as anything at all, and so does their
    # gradient: they are cut off on both sides.
    rows_RD = jnp.where(here_R1, dealt(x_BTD.reshape(-1, D), order_R, back_R), 0)
    hidden_RF = nn.silu(product(rows_RD, gate_EDF, sizes_E)) * product(rows_RD, up_EDF, sizes_E)
    out_RD = jnp.where(here_R1, product(hidden_RF, down_EFD, sizes_E), 0)
    out_MkD = gathered(out_RD, order_R, back_R).reshape(-1, k, D).astype(jnp.float32)
    gate_Mk1 = gate_BTk.reshape(-1, k, 1)
    return jnp.sum(out_MkD * gate_Mk1, axis=1).reshape(*lead, D)


# Tokens to rows and back. Row r is choice order[r] % k of token order[r] // k, and choice c stands
# in row back[c]. Each way's gradient is the other way: written out, for else it would be a scatter.


@jax.custom_vjp
def dealt(x_MD: jax.Array, order_R: jax.Array, back_R: jax.Array) -> jax.Array:
    """A token's row for each of its choices, in order."""
    return x_MD[order_R // (order_R.size // x_MD.shape[0])]


def _dealt(
    x_MD: jax.Array, order_R: jax.Array, back_R: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, int]]:
    return dealt(x_MD, order_R, back_R), (back_R, x_MD.shape[0])


def _dealt_back(
    kept: tuple[jax.Array, int], slope_RD: jax.Array
) -> tuple[jax.Array, None, None]:
    back_R, tokens = kept
    every_MkD = slope_RD[back_R].reshape(tokens, -1, slope_RD.shape[-1])
    slope_MD = jnp.sum(every_MkD, axis=1, dtype=jnp.float32).astype(slope_RD.dtype)
    return slope_MD, None, None


dealt.defvjp(_dealt, _dealt_back)


@jax.custom_vjp
def gathered(out_RD: jax.Array, order_R: jax.Array, back_R: jax.Array) -> jax.Array:
    """A token's choices side by side again."""
    return out_RD[back_R]


def _gathered(
    out_RD: jax.Array, order_R: jax.Array, back_R: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return out_RD[back_R], order_R


def _gathered_back(order_R: jax.Array, slope_RD: jax.Array) -> tuple[jax.Array, None, None]:
    return slope_RD[order_R], None, None


gathered.defvjp(_gathered, _gathered_back)
