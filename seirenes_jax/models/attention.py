"""Attention, once: packed rows for training and prefill, slots with a two-part cache for decoding.

Scores and softmax are float32. Queries come in groups of H / K heads that share a key/value head.
Packed rows have several backends that compute the same; `config.attention` names one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.flash import Ids, flash, ids
from seirenes_jax.sharding import place, spec

NEVER = -1e30  # a finite minus infinity: a row that attends nowhere stays free of NaN


def packed_mask(segments_BT: jax.Array, prefix_BT: jax.Array) -> jax.Array:
    """Who attends whom in a packed row, [B, T, T]: one's segment up to oneself, and one's prefix.

    >>> # segments 1 1 2 2 3, prefix 0 0 1 1 1: the completion in segment 3 sees the prompt,
    >>> # not segment 2
    """
    T = segments_BT.shape[1]
    query, key = segments_BT[:, :, None], segments_BT[:, None, :]
    causal_TT = jnp.arange(T)[:, None] >= jnp.arange(T)[None, :]
    own = (query == key) & causal_TT[None]
    prompt = prefix_BT[:, :, None] == key
    # Padding (segment 0) attends itself, so that its softmax has something to sum.
    return own | (prompt & (prefix_BT[:, :, None] > 0))


def attend(
    q_BTHC: jax.Array, k_BSKC: jax.Array, v_BSKC: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """The reference: plain XLA over a dense mask."""
    B, T, H, C = q_BTHC.shape
    K, S = k_BSKC.shape[2], k_BSKC.shape[1]
    # One matrix product per key/value head over its group's queries, normalised after the second
    # product: on CPU twice as fast as einsum over a softmax.
    q = q_BTHC.reshape(B, T, K, H // K, C).transpose(0, 2, 3, 1, 4).reshape(B, K, -1, C)
    k, v = k_BSKC.transpose(0, 2, 3, 1), v_BSKC.transpose(0, 2, 1, 3)
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32).reshape(B, K, H // K, T, S)
    scores = jnp.where(mask_BTS[:, None, None], scores * C**-0.5, NEVER)
    most = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - most)
    total = jnp.sum(weights, axis=-1).reshape(B, K, -1, 1)
    weights = weights.reshape(B, K, -1, S).astype(v_BSKC.dtype)
    out = jnp.matmul(weights, v, preferred_element_type=jnp.float32) / total
    out = out.reshape(B, K, H // K, T, C).transpose(0, 3, 1, 2, 4).reshape(B, T, H, C)
    return out.astype(v_BSKC.dtype)


def cudnn(
    q_BTHC: jax.Array, k_BSKC: jax.Array, v_BSKC: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
    """cuDNN's fused attention, bfloat16. The mask becomes its bias, B x T x S; no scores exist."""
    return jax.nn.dot_product_attention(
        q_BTHC, k_BSKC, v_BSKC, mask=mask_BTS[:, None], implementation="cudnn"
    )


class Backend(NamedTuple):
    """`see(segments_BT, prefix_BT)` makes, once for all layers, what `attend(q, k, v, seen)` needs
    to know who attends whom. `specs(columns)` says for a kernel, which runs on each device by
    itself, how `seen` is shared out; None: XLA shares out the whole."""

    see: Callable[[jax.Array, jax.Array], Any]
    attend: Callable[[jax.Array, jax.Array, jax.Array, Any], jax.Array]
    specs: Callable[[str | None], Any] | None


def _ids_specs(columns: str | None) -> Ids:
    queries: Any = spec("rows", columns)
    keys: Any = spec("rows", None)
    return Ids(queries, queries, queries, keys)


BACKENDS: dict[str, Backend] = {
    "xla": Backend(packed_mask, attend, None),
    "splash": Backend(ids, flash, _ids_specs),
    "cudnn": Backend(packed_mask, cudnn, lambda columns: spec("rows", columns, None)),
}


def attend_packed(
    q_BTHC: jax.Array, k_BTKC: jax.Array, v_BTKC: jax.Array, seen: Any, *, config: ModelConfig,
    columns: str | None,
) -> jax.Array:  # fmt: skip
    """Attention of whole rows. `columns`: the logical axis of T; keys and values are gathered."""
    backend, mesh = BACKENDS[config.attention], config.mesh
    if mesh is None:
        return backend.attend(q_BTHC, k_BTKC, v_BTKC, seen)
    queries, keys = ("rows", columns, "heads", None), ("rows", None, "kv_heads", None)
    if backend.specs is None:
        q_BTHC = place(q_BTHC, mesh, *queries)
        k_BTKC, v_BTKC = place(k_BTKC, mesh, *keys), place(v_BTKC, mesh, *keys)
        return place(backend.attend(q_BTHC, k_BTKC, v_BTKC, seen), mesh, *queries)
    kernel: Callable[..., jax.Array] = jax.shard_map(
        backend.attend, mesh=mesh,
        in_specs=(spec(*queries), spec(*keys), spec(*keys), backend.specs(columns)),
        out_specs=spec(*queries),
        check_vma=False,  # kernels do not say over which axes they vary
    )  # fmt: skip
    return kernel(q_BTHC, k_BTKC, v_BTKC, seen)


def attend_slots(
    q_BHC: jax.Array,
    past: tuple[jax.Array, jax.Array],
    fresh: tuple[jax.Array, jax.Array],
    masks: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """One token a slot against what the slot held before this chunk and what the chunk added.

    Two parts, because all slots write the fresh part at the same column (one in-place update),
    while the past part ends at a different column in every slot.
    """
    (k_BKSC, v_BKSC), (k_BUKC, v_BUKC) = past, fresh
    B, H, C = q_BHC.shape
    K, S = k_BKSC.shape[1], k_BKSC.shape[2]
    q = q_BHC.reshape(B, K, H // K, C)
    # Keys first: the other way round XLA on CPU takes four times as long.
    old = jnp.einsum("bksc,bkgc->bksg", k_BKSC, q, preferred_element_type=jnp.float32)
    new = jnp.einsum("bukc,bkgc->bkug", k_BUKC, q, preferred_element_type=jnp.float32)
    old, new = jnp.swapaxes(old, 2, 3), jnp.swapaxes(new, 2, 3)
    old = jnp.where(masks[0][:, None, None], old * C**-0.5, NEVER)
    new = jnp.where(masks[1][None, None, None], new * C**-0.5, NEVER)
    weights = jax.nn.softmax(jnp.concatenate([old, new], axis=-1), axis=-1).astype(v_BKSC.dtype)
    out = jnp.einsum("bkgs,bksc->bkgc", weights[..., :S], v_BKSC)
    out = out + jnp.einsum("bkgu,bukc->bkgc", weights[..., S:], v_BUKC)
    return out.reshape(B, H, C)
