"""Sum, mean and standard deviation under a mask, and Total: a number that knows how it merges."""

from dataclasses import field
from typing import Literal

import flax.struct
import jax
import jax.numpy as jnp

How = Literal["mean", "max", "min"]
Axis = int | tuple[int, ...] | None


@flax.struct.dataclass
class Total:
    """A metric with its own reduction: merging parts gives what the whole would have given.

    A Total of zeros is neutral under every `how`, so a scan may start from zeros.
    """

    sum: jax.Array  # float32 []; under max and min the extreme itself
    count: jax.Array  # float32 []; how much weight went in
    how: How = field(default="mean", metadata={"pytree_node": False})

    def add(self, other: "Total") -> "Total":
        """Both together."""
        if self.how != other.how:
            raise ValueError(f"cannot merge Totals of two kinds: got {self.how!r}, {other.how!r}")
        count = self.count + other.count
        if self.how == "mean":
            return Total(self.sum + other.sum, count, self.how)
        pick = jnp.maximum if self.how == "max" else jnp.minimum
        mine = jnp.where(self.count > 0, self.sum, other.sum)
        theirs = jnp.where(other.count > 0, other.sum, self.sum)
        return Total(pick(mine, theirs), count, self.how)

    def value(self) -> jax.Array:
        """The number itself; 0 where nothing was counted."""
        some = self.count > 0
        whole = self.sum / jnp.where(some, self.count, 1.0) if self.how == "mean" else self.sum
        return jnp.where(some, whole, 0.0)


def total(values: jax.Array, weight: jax.Array, how: How = "mean") -> Total:
    """The Total of the values under a mask or, for a mean, under weights (0 = not there)."""
    weight = weight.astype(jnp.float32)
    live = weight > 0
    values = values.astype(jnp.float32)
    if how == "mean":
        # `where` and not only a product: 0 * nan is nan.
        return Total(jnp.sum(jnp.where(live, values, 0.0) * weight), jnp.sum(weight), how)
    count = jnp.sum(live, dtype=jnp.float32)
    if how == "max":
        extreme = jnp.max(values, where=live, initial=-jnp.inf)
    else:
        extreme = jnp.min(values, where=live, initial=jnp.inf)
    return Total(jnp.where(count > 0, extreme, 0.0), count, how)


def masked_sum(
    values: jax.Array, mask: jax.Array, *, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
    """Sum in float32 of what the boolean mask lets through."""
    kept = jnp.where(mask, values.astype(jnp.float32), 0.0)
    return jnp.sum(kept, axis=axis, keepdims=keepdims)


def masked_mean(
    values: jax.Array, mask: jax.Array, *, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
    """Mean in float32; 0 under an empty mask."""
    count = jnp.sum(mask, axis=axis, keepdims=keepdims, dtype=jnp.float32)
    return masked_sum(values, mask, axis=axis, keepdims=keepdims) / jnp.maximum(count, 1.0)


def masked_std(
    values: jax.Array, mask: jax.Array, *, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
    """Population standard deviation in float32; 0, with gradient 0, where nothing varies."""
    kept = jnp.where(mask, values.astype(jnp.float32), 0.0)
    centred = kept - masked_mean(kept, mask, axis=axis, keepdims=True)
    variance = masked_mean(jnp.square(centred), mask, axis=axis, keepdims=keepdims)
    varies = variance > 0
    # The inner `where` keeps the infinite slope of sqrt at 0 out of the gradient.
    return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0)
