"""logits -> token and the logprob of the distribution it was really drawn from."""

import flax.struct
import jax
import jax.numpy as jnp

GREEDY = 0.0  # the temperature that means: take the likeliest


@flax.struct.dataclass
class Wishes:
    """How each row wants to be drawn."""

    temperature_B: jax.Array  # float32; GREEDY = the likeliest
    top_k_B: jax.Array  # int32; 0 = off
    top_p_B: jax.Array  # float32; 1.0 = off


def filtered(logits_BV: jax.Array, top_k_B: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """Logits with all outside the top k / the nucleus at minus infinity."""
    ranked = jnp.flip(jnp.sort(logits_BV, axis=-1), axis=-1)
    at_B = jnp.clip(top_k_B - 1, 0, logits_BV.shape[-1] - 1)
    kth = jnp.take_along_axis(ranked, at_B[:, None], axis=-1)
    kth = jnp.where(top_k_B[:, None] > 0, kth, -jnp.inf)
    mass = jnp.cumsum(jax.nn.softmax(jnp.where(ranked < kth, -jnp.inf, ranked), axis=-1), axis=-1)
    # The smallest set that reaches top_p: keep a rank if the mass *before* it falls short.
    before = jnp.concatenate([jnp.zeros_like(mass[..., :1]), mass[..., :-1]], axis=-1)
    floor = jnp.min(jnp.where(before < top_p_B[:, None], ranked, jnp.inf), axis=-1, keepdims=True)
    floor = jnp.where(top_p_B[:, None] < 1.0, floor, -jnp.inf)
    return jnp.where((logits_BV < kth) | (logits_BV < floor), -jnp.inf, logits_BV)


def uniforms(key_B2: jax.Array, drawn_B: jax.Array) -> jax.Array:
    """One uniform in (0, 1] a row, a function of the row's key and its own token count only."""

    def one(key_2: jax.Array, drawn: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key_2, impl="threefry2x32"), drawn)
        return 1.0 - jax.random.uniform(key, (), jnp.float32)

    return jax.vmap(one)(key_B2, drawn_B)


def draw(
    logits_BV: jax.Array, uniform_B: jax.Array, wishes: Wishes, *, filters: bool
) -> tuple[jax.Array, jax.Array]:
    """Invert the cumulative distribution: one uniform gives the token; its logprob falls out.

    Greedy (temperature 0) takes the argmax and reports the logprob at temperature 1. Without
    `filters` nobody's top k and top p are looked at, and nothing is sorted.
    """
    greedy_B = wishes.temperature_B == GREEDY
    scaled = logits_BV.astype(jnp.float32)
    scaled = scaled / jnp.where(greedy_B, 1.0, wishes.temperature_B)[:, None]
    kept = filtered(scaled, wishes.top_k_B, wishes.top_p_B) if filters else scaled
    most_B1 = jnp.max(kept, axis=-1, keepdims=True)
    mass_BV = jnp.exp(kept - most_B1)
    token_B, total_B = _invert(mass_BV, uniform_B)
    # The first of the likeliest: what argmax says, which XLA on CPU computes number by number.
    place_V = jnp.arange(kept.shape[-1], dtype=jnp.int32)
    first_B = jnp.min(jnp.where(kept == most_B1, place_V[None], kept.shape[-1] - 1), axis=-1)
    token_B = jnp.where(greedy_B, first_B, token_B)
    logit_B = jnp.take_along_axis(kept, token_B[:, None], axis=-1)[:, 0]
    return token_B, logit_B - most_B1[:, 0] - jnp.log(total_B)


def _invert(mass_BV: jax.Array, uniform_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the running sum of each row first reaches its uniform, and the row's sum.

    In two strides, stretches of the row and then the columns of one: a running sum over a whole
    vocabulary costs more than all else of a draw. A token of no mass is never drawn: every target
    is positive and is reached where something was added.
    """
    B, V = mass_BV.shape
    width = max(1, round(V**0.5))
    mass_BjV = jnp.pad(mass_BV, ((0, 0), (0, -V % width))).reshape(B, -1, width)
    upto_Bj = jnp.cumsum(jnp.sum(mass_BjV, axis=-1), axis=-1)
    target_B1 = uniform_B[:, None] * upto_Bj[:, -1:]
    stretch_B1 = jnp.sum(upto_Bj < target_B1, axis=-1, keepdims=True, dtype=jnp.int32)
    before_B1 = jnp.take_along_axis(upto_Bj, jnp.maximum(stretch_B1 - 1, 0), axis=-1)
    before_B1 = jnp.where(stretch_B1 > 0, before_B1, 0.0)
    mass_Bw = jnp.take_along_axis(mass_BjV, stretch_B1[:, :, None], axis=1)[:, 0]
    upto_Bw = jnp.cumsum(mass_Bw, axis=-1)
    # No higher than what the stretch holds: its own sum and that of the strides round differently.
    left_B1 = jnp.minimum(target_B1 - before_B1, upto_Bw[:, -1:])
    column_B = jnp.sum(upto_Bw < left_B1, axis=-1, dtype=jnp.int32)
    return stretch_B1[:, 0] * width + column_B, upto_Bj[:, -1]
