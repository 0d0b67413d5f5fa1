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
    logp_BV = jax.nn.log_softmax(kept, axis=-1)
    cumulative = jnp.cumsum(jnp.exp(logp_BV), axis=-1)
    # Scaled by the last sum, so that rounding cannot leave the uniform above it. The first column
    # that reaches the uniform has positive probability, because the uniform is positive.
    target = uniform_B[:, None] * cumulative[:, -1:]
    token_B = jnp.sum(cumulative < target, axis=-1, dtype=jnp.int32)
    token_B = jnp.where(greedy_B, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), token_B)
    logp_B = jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, logp_B
