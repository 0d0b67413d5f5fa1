"""What tells one tree of arrays from another: two sums over every bit, made where the bits live."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seirenes_jax.rng import stable_hash

Leaves = dict[str, list[Any]]  # path -> [shape, dtype, fingerprint]


def paths(tree: Any) -> dict[str, Any]:
    """Every leaf by its path, as `params/layers/kernel`."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def describe(state: Any) -> Leaves:
    """Shape, dtype and fingerprint of every array."""
    leaves = paths(state)
    prints = np.asarray(fingerprints(list(leaves.values()))).tolist()
    return {
        path: [list(leaf.shape), leaf.dtype.name, mark]
        for (path, leaf), mark in zip(leaves.items(), prints, strict=True)
    }


def digest(arrays: Any) -> str:
    """Of every bit of a tree of arrays, wherever they live."""
    return f"{stable_hash(json.dumps(describe(arrays), sort_keys=True)):016x}"


@jax.jit
def fingerprints(arrays: list[jax.Array]) -> jax.Array:
    """Two 32-bit sums of each array's bits, weighted by place: uint32 [arrays, 2].

    Computed where the arrays live, in modular integers: the same whatever the sharding or the
    number of processes (`stored.fingerprint` makes them from files). The weights are odd, so no
    single flipped bit can leave a sum as it was.
    """
    return jnp.stack([_fingerprint(x) for x in arrays]) if arrays else jnp.zeros((0, 2), jnp.uint32)


def _fingerprint(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
    bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    weights = [_mix(place + jnp.uint32(salt)) | jnp.uint32(1) for salt in (0, 0x9E3779B9)]
    return jnp.stack([jnp.sum(bits * weight, dtype=jnp.uint32) for weight in weights])


def _mix(x: jax.Array) -> jax.Array:
    """Spread neighbours apart (the finaliser of MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
