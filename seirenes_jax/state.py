"""What the number wing carries: three frozen pytrees. Every field says its axes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Params = Any  # a pytree of arrays

NOT_RECORDED = 255  # in routes: this token's experts are the router's own choice


@flax.struct.dataclass
class TrainState:
    """One owner: the local `state` of train.py; donated to the step and rebound."""

    step: jax.Array  # int32 []
    params: Params
    opt_state: Any


def abstract_state(
    abstract_params: Params, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Shape, dtype and place of every array of a state; nothing is allocated. The optimizer's
    moments lie as their parameters do, its counters everywhere."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    shapes = jax.eval_shape(optimizer.init, abstract_params)
    places: Any = optax.tree_map_params(
        optimizer, lambda _, like: like.sharding, shapes, abstract_params,
        transform_non_params=lambda _: everywhere,
    )  # fmt: skip
    opt_state = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, places
    )
    step: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(step, abstract_params, opt_state)


@flax.struct.dataclass
class TrainBatch:
    """Packed rows of fixed shape.

    A row holds stored prompts and completions as segments. A prompt is stored without its last
    token; each completion repeats that token as its first input, so its inputs are exactly what
    decoding fed and its targets exactly what decoding drew:

        prompt  w x y z, completions  a b EOS  and  c EOS
        tokens    w x y | z a b   | z c
        targets   . . . | a b EOS | c EOS
        segments  1 1 1 | 2 2 2   | 3 3        (0 = padding)
        prefix    0 0 0 | 1 1 1   | 1 1        (which segment is attended besides its own)
        positions 0 1 2 | 3 4 5   | 3 4
    """

    tokens_BT: jax.Array  # int32, what is fed
    targets_BT: jax.Array  # int32, what was drawn there
    positions_BT: jax.Array  # int32
    segments_BT: jax.Array  # int32, 0 = padding
    prefix_BT: jax.Array  # int32, 0 = none
    train_BT: jax.Array  # bool, True where a target was drawn by the policy
    logp_old_BT: jax.Array  # float32, what the ratio is taken against: the sampler's, or rescored
    logp_behaviour_BT: jax.Array | None  # float32, the sampler's where logp_old_BT was rescored
    logp_ref_BT: jax.Array | None  # float32
    adv_BT: jax.Array  # float32
    role_BT: jax.Array  # int32, index into the run's list of streams
    weight_BT: jax.Array  # float32, each stream's weight over its global denominator
    temperature: jax.Array  # float32 []
    # Of experts alone: those that decoding chose, uint8 [B, T, layers, experts per token]; 255 =
    # not recorded. It costs layers x experts per token bytes a column.
    routes: jax.Array | None


@flax.struct.dataclass
class DecodeState:
    """The slots of one policy's decoder. B slots, S cache columns."""

    k_NBKSC: jax.Array
    v_NBKSC: jax.Array
    length_B: jax.Array  # int32, cache columns in use
    token_B: jax.Array  # int32, next input
    drawn_B: jax.Array  # int32, tokens drawn so far
    limit_B: jax.Array  # int32, tokens that may be drawn
    key_B2: jax.Array  # uint32, the sample's own randomness
    live_B: jax.Array  # bool
