"""The number wing's door to learning: score a batch, accumulate gradients, apply one update.

Logits never exist for a whole batch: logprob and entropy come from a few columns at a time and are
recomputed in the backward pass.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from seirenes_jax.knobs import Loss
from seirenes_jax.losses import policy_loss
from seirenes_jax.masked import Total
from seirenes_jax.models import ModelConfig, forward, head_kernel_DV
from seirenes_jax.state import Params, TrainBatch, TrainState

HEAD_COLUMNS = 64  # positions a row whose logits exist at one time

Totals = dict[str, Total]


def logprobs_and_entropy(
    hidden_BTD: jax.Array, head_DV: jax.Array, targets_BT: jax.Array, temperature: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Of the targets under softmax(hidden . head / temperature): float32, chunk by chunk."""
    B, T, D = hidden_BTD.shape
    columns = -(-T // -(-T // HEAD_COLUMNS))  # T in equal parts of at most HEAD_COLUMNS
    pad = -T % columns
    hidden = jnp.pad(hidden_BTD, ((0, 0), (0, pad), (0, 0)))
    targets = jnp.pad(targets_BT, ((0, 0), (0, pad)))

    @jax.checkpoint
    def some(hidden_BcD: jax.Array, targets_Bc: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = jnp.dot(hidden_BcD, head_DV, preferred_element_type=jnp.float32) / temperature
        logp = jax.nn.log_softmax(logits, axis=-1)
        entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
        return jnp.take_along_axis(logp, targets_Bc[..., None], axis=-1)[..., 0], entropy

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape(B, -1, columns, *x.shape[2:]), 1, 0)

    logp, entropy = jax.lax.map(lambda pair: some(*pair), (split(hidden), split(targets)))

    def join(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x, 0, 1).reshape(B, -1)[:, :T]

    return join(logp), join(entropy)


def _score(params: Params, config: ModelConfig, batch: TrainBatch) -> tuple[jax.Array, jax.Array]:
    hidden_BTD = forward(
        params, config, batch.tokens_BT, batch.positions_BT, batch.segments_BT, batch.prefix_BT
    )
    with jax.named_scope("head"):
        return logprobs_and_entropy(
            hidden_BTD, head_kernel_DV(params, config), batch.targets_BT, batch.temperature
        )


@partial(jax.jit, static_argnames=("config",))
def score_step(params: Params, batch: TrainBatch, *, config: ModelConfig) -> jax.Array:
    """logp_BT of the targets at the batch's temperature; 0 where nothing is trained."""
    logp_BT, _ = _score(params, config, batch)
    return jnp.where(batch.train_BT, logp_BT, 0.0)


@partial(jax.jit, static_argnames=("config", "loss", "streams"), donate_argnames=("grads",))
def add_gradient(
    params: Params, grads: Params, batch: TrainBatch, *, config: ModelConfig, loss: Loss,
    streams: tuple[str, ...],
) -> tuple[Params, Totals]:  # fmt: skip
    """Gradient of one micro-batch added to `grads`. Denominators are already in the weights,
    so the sum over micro-batches is the gradient of the whole batch."""

    def objective(params: Params) -> tuple[jax.Array, Totals]:
        logp_BT, entropy_BT = _score(params, config, batch)
        return policy_loss(
            logp_BT, entropy_BT, batch, settings=loss, streams=streams,
            logp_behaviour_BT=batch.logp_behaviour_BT,
        )  # fmt: skip

    grad, totals = jax.grad(objective, has_aux=True)(params)
    return jax.tree.map(jnp.add, grads, grad), totals


@partial(jax.jit, static_argnames=("optimizer",), donate_argnames=("state",))
def apply_gradient(
    state: TrainState, grads: Params, *, optimizer: optax.GradientTransformation
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step. A non-finite gradient is not applied: parameters and moments stay."""
    norm = optax.tree.norm(grads)
    finite = jnp.isfinite(norm)
    safe = jax.tree.map(lambda g: jnp.where(finite, g, jnp.zeros_like(g)), grads)
    updates, opt_state = optimizer.update(safe, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)

    def kept(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(finite, new, old)

    after = TrainState(
        step=state.step + 1,
        params=jax.tree.map(kept, params, state.params),
        opt_state=jax.tree.map(kept, opt_state, state.opt_state),
    )
    return after, {"grad_norm": norm}


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
        logp_BT, _ = _score(params, config, batch)
        return -jnp.sum(jnp.where(batch.train_BT, logp_BT, 0.0) * batch.weight_BT)

    loss, grads = jax.value_and_grad(objective)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), loss
