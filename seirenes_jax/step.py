"""The number wing's door to learning: score a batch, accumulate gradients, apply one update.

Logits never exist for a whole batch: logprob and entropy come from a few columns at a time and are
recomputed in the backward pass. Where adapters are trained, `params` are these alone and `base` is
what they stand on: read, never moved, never donated.
"""

import math
from collections.abc import Iterable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import optax

from seirenes_jax.knobs import Loss, Numbers
from seirenes_jax.losses import balance_loss, policy_loss, route_agreement
from seirenes_jax.masked import Total
from seirenes_jax.models import ModelConfig, Out, head_kernel_DV, join, read
from seirenes_jax.sharding import place, place_params
from seirenes_jax.state import Params, TrainBatch, TrainState

HEAD_COLUMNS = 64  # positions a row whose logits exist at one time

Totals = dict[str, Total]


@jax.custom_vjp
def _logits(hidden_BcD: jax.Array, head_DV: jax.Array, master_DV: jax.Array) -> jax.Array:
    """hidden . head, float32. The head's gradient goes to the parameter it was rounded from, in its
    dtype: a sum over all chunks loses a percent of itself in bfloat16."""
    return jnp.dot(hidden_BcD, head_DV, preferred_element_type=jnp.float32)


def _logits_forward(
    hidden_BcD: jax.Array, head_DV: jax.Array, master_DV: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _logits(hidden_BcD, head_DV, master_DV), (hidden_BcD, head_DV)


def _logits_backward(
    kept: tuple[jax.Array, jax.Array], slope_BcV: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
    hidden_BcD, head_DV = kept
    slope_BcD = jnp.einsum("bcv,dv->bcd", slope_BcV, head_DV, preferred_element_type=jnp.float32)
    slope_DV = jnp.einsum("bcd,bcv->dv", hidden_BcD, slope_BcV, preferred_element_type=jnp.float32)
    return slope_BcD.astype(hidden_BcD.dtype), None, slope_DV


_logits.defvjp(_logits_forward, _logits_backward)


def logprobs_and_entropy(
    hidden_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, temperature: jax.Array,
    *, master_DV: jax.Array | None = None, parts: int = 1,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Of the targets under softmax(hidden . head / temperature): float32, chunk by chunk.

    `master_DV`: the float32 parameter of which head_DV is the rounded copy, where it is one; then
    that is what has a gradient. `parts`: over how many devices T is shared out; each takes chunks
    of its own part.
    """
    B, T, D = hidden_BTD.shape
    own = T // parts
    columns = -(-own // -(-own // HEAD_COLUMNS))  # in equal chunks of at most HEAD_COLUMNS
    pad = -own % columns

    @jax.checkpoint
    def some(hidden_BcD: jax.Array, targets_Bc: jax.Array) -> tuple[jax.Array, jax.Array]:
        if master_DV is None:
            logits = jnp.dot(hidden_BcD, head_DV, preferred_element_type=jnp.float32)
        else:
            logits = _logits(hidden_BcD, head_DV, master_DV)
        logits = logits / temperature
        logp = jax.nn.log_softmax(logits, axis=-1)
        entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
        return jnp.take_along_axis(logp, targets_Bc[..., None], axis=-1)[..., 0], entropy

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(B, parts, own, *x.shape[2:])
        x = jnp.pad(x, ((0, 0), (0, 0), (0, pad), *((0, 0),) * (x.ndim - 3)))
        x = jnp.moveaxis(x.reshape(B, parts, -1, columns, *x.shape[3:]), 2, 0)
        return x.reshape(x.shape[0], B, parts * columns, *x.shape[4:])

    logp, entropy = jax.lax.map(lambda pair: some(*pair), (split(hidden_BTD), split(targets_BT)))

    def join(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x.reshape(-1, B, parts, columns), 0, 2)
        return x.reshape(B, parts, -1)[:, :, :own].reshape(B, T)

    return join(logp), join(entropy)


def _score(
    params: Params, config: ModelConfig, batch: TrainBatch
) -> tuple[jax.Array, jax.Array, Out]:
    """logp_BT and entropy_BT of the targets; and what else the layers said."""
    out = read(
        params, config, batch.tokens_BT, batch.positions_BT, batch.segments_BT, batch.prefix_BT,
        batch.routes,
    )  # fmt: skip
    with jax.named_scope("head"):
        head_DV = place(head_kernel_DV(params, config), config.mesh, None, "vocab")
        master_DV = params["embed"].T if config.tied else params["head"]
        rounded = head_DV.dtype == jnp.bfloat16 and master_DV.dtype == jnp.float32
        parts = 1 if config.mesh is None else config.mesh.shape["sequence"]
        logp_BT, entropy_BT = logprobs_and_entropy(
            out.hidden_BTD, head_DV, batch.targets_BT, batch.temperature,
            master_DV=master_DV if rounded else None, parts=parts,
        )  # fmt: skip
    return logp_BT, entropy_BT, out


@partial(jax.jit, static_argnames=("config",))
def score_step(
    params: Params, batch: TrainBatch, *, config: ModelConfig, base: Params | None = None
) -> jax.Array:
    """logp_BT of the targets at the batch's temperature; 0 where nothing is trained."""
    logp_BT, _, _ = _score(join(base, params), config, batch)
    return jnp.where(batch.train_BT, logp_BT, 0.0)


@partial(jax.jit, static_argnames=("config", "loss", "streams"), donate_argnames=("grads",))
def add_gradient(
    params: Params, grads: Params, batch: TrainBatch, *, config: ModelConfig, loss: Loss,
    streams: tuple[str, ...], base: Params | None = None,
) -> tuple[Params, Totals]:  # fmt: skip
    """Gradient of one micro-batch added to `grads`. Denominators are already in the weights,
    so the sum over micro-batches is the gradient of the whole batch."""

    def objective(params: Params) -> tuple[jax.Array, Totals]:
        logp_BT, entropy_BT, out = _score(join(base, params), config, batch)
        with jax.named_scope("loss"):
            value, totals = policy_loss(
                logp_BT, entropy_BT, batch, settings=loss, streams=streams,
                logp_behaviour_BT=batch.logp_behaviour_BT,
            )  # fmt: skip
            if out.balance_BT is not None:
                scale = config.balance * config.balance_scale
                balance, totals["balance"] = balance_loss(out.balance_BT, batch, scale)
                value += balance
            if out.agreed_BT is not None:
                totals["route_agreement"] = route_agreement(out.agreed_BT, batch)
        return value, totals

    grad, totals = jax.grad(objective, has_aux=True)(params)
    return place_params(jax.tree.map(jnp.add, grads, grad), config.mesh), totals


def bounds(names: Iterable[str], numbers: Numbers) -> dict[str, float]:
    """Of those totals that must stay within one, the bound of the absolute value."""
    known = {"ratio_max": numbers.ratio, "logp_max": numbers.logprob}
    limits = {name: numbers.loss if name.startswith("loss/") else known.get(name)
              for name in names}  # fmt: skip
    return {name: limit for name, limit in limits.items() if limit is not None}


@partial(jax.jit, static_argnames=("numbers",))
def still_sound(
    sound: jax.Array, totals: Mapping[str, Total], *, numbers: Numbers
) -> jax.Array:
    """After one more micro-batch: is every loss, ratio and logprob finite and within its bound?"""
    for name, limit in bounds(totals, numbers).items():
        value = totals[name].value()
        sound &= jnp.isfinite(value) & (jnp.abs(value) <= limit)
    return sound


@partial(jax.jit, static_argnames=("optimizer", "most"), donate_argnames=("state",))
def apply_gradient(
    state: TrainState, grads: Params, sound: jax.Array | None = None, *,
    optimizer: optax.GradientTransformation, most: float = math.inf,
) -> tuple[TrainState, dict[str, jax.Array]]:  # fmt: skip
    """One optimizer step. A gradient that is not finite or of a norm above `most`, or one that is
    not `sound` for another reason, is not applied: parameters and moments stay."""
    norm = optax.tree.norm(grads)
    good = jnp.isfinite(norm) & (norm <= most)
    if sound is not None:
        good &= sound
    safe = jax.tree.map(lambda g: jnp.where(good, g, jnp.zeros_like(g)), grads)
    with jax.named_scope("optimizer"):
        updates, opt_state = optimizer.update(safe, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)

    def kept(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(good, new, old)

    after = TrainState(
        step=state.step + 1,
        params=jax.tree.map(kept, params, state.params),
        opt_state=jax.tree.map(kept, opt_state, state.opt_state),
    )
    return after, {"grad_norm": norm, "applied": good}


def zero_gradient(params: Params) -> Params:
    """Where accumulation starts."""
    return jax.tree.map(jnp.zeros_like, params)


@partial(jax.jit, static_argnames=("config", "optimizer"), donate_argnames=("state",))
def imitate_step(
    state: TrainState, batch: TrainBatch, *, config: ModelConfig,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, jax.Array]:  # fmt: skip
    """One supervised step on the weighted negative log-likelihood of the targets, and that loss."""

    def objective(params: Params) -> jax.Array:
        logp_BT, _, _ = _score(params, config, batch)
        return -jnp.sum(jnp.where(batch.train_BT, logp_BT, 0.0) * batch.weight_BT)

    loss, grads = jax.value_and_grad(objective)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), loss
