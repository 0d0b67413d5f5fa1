"""logits -> token and the logprob of the distribution it was really drawn from."""

import jax
import jax.numpy as jnp

GREEDY = 0.0  # the temperature that means: take the likeliest


def filtered(logits_BV: jax.Array, *, top_k: int, top_p: float) -> jax.Array:
    """Logits with all outside the top k / the nucleus at minus infinity (0 and 1.0 are off)."""
    if 0 < top_k < logits_BV.shape[-1]:
        kth = jax.lax.top_k(logits_BV, top_k)[0][..., -1:]
        logits_BV = jnp.where(logits_BV < kth, -jnp.inf, logits_BV)
    if top_p < 1.0:
        ranked = jnp.flip(jnp.sort(logits_BV, axis=-1), axis=-1)
        mass = jnp.cumsum(jax.nn.softmax(ranked, axis=-1), axis=-1)
        # The smallest set that reaches top_p: keep a rank if the mass *before* it falls short.
        keep = jnp.concatenate([jnp.zeros_like(mass[..., :1]), mass[..., :-1]], axis=-1) < top_p
        floor = jnp.min(jnp.where(keep, ranked, jnp.inf), axis=-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < floor, -jnp.inf, logits_BV)
    return logits_BV


def uniforms(key_B2: jax.Array, drawn_B: jax.Array) -> jax.Array:
    """One uniform in (0, 1] a row, a function of the row's key and its own token count only."""

    def one(key_2: jax.Array, drawn: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(key_2, impl="threefry2x32"), drawn)
        return 1.0 - jax.random.uniform(key, (), jnp.float32)

    return jax.vmap(one)(key_B2, drawn_B)


def draw(
    logits_BV: jax.Array, uniform_B: jax.Array, temperature: jax.Array, *, top_k: int, top_p: float
) -> tuple[jax.Array, jax.Array]:
    """Invert the cumulative distribution: one uniform gives the token; its logprob falls out.

    Greedy (temperature 0) takes the argmax and reports the logprob at temperature 1.
    """
    greedy = temperature == GREEDY
    scaled = logits_BV.astype(jnp.float32) / jnp.where(greedy, 1.0, temperature)
    kept = filtered(scaled, top_k=top_k, top_p=top_p)
    logp_BV = jax.nn.log_softmax(kept, axis=-1)
    cumulative = jnp.cumsum(jnp.exp(logp_BV), axis=-1)
    # Scaled by the last sum, so that rounding cannot leave the uniform above it. The first column
    # that reaches the uniform has positive probability, because the uniform is positive.
    target = uniform_B[:, None] * cumulative[:, -1:]
    token_B = jnp.sum(cumulative < target, axis=-1, dtype=jnp.int32)
    token_B = jnp.where(greedy, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), token_B)
    logp_B = jnp.take_along_axis(logp_BV, token_B[:, None], axis=-1)[:, 0]
    return token_B, logp_B
