"""Policy losses, KL estimators and the weight of a token. Arrays aligned [B, T]; all float32.

`weight_BT` already holds stream weight over the stream's global denominator, so a loss is a plain
sum: micro-batches, packing and hosts cannot change it. A positive advantage asks for more
probability. Axes besides the usual: R sequences, Z streams.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from seirenes_jax import knobs
from seirenes_jax.errors import ConfigError
from seirenes_jax.masked import How, Total, total
from seirenes_jax.state import NOT_RECORDED, TrainBatch


class Inputs(NamedTuple):
    """What a loss sees. The log ratio is 0 where a token is not trained."""

    logp_BT: jax.Array  # of the policy being trained
    log_ratio_BT: jax.Array  # logp - logp_old
    adv_BT: jax.Array
    segments_BT: jax.Array  # int32, one number per sequence within its row, at most T
    trained_BT: jax.Array  # bool


class Terms(NamedTuple):
    """What a loss says of each token, before weights."""

    loss_BT: jax.Array
    ratio_BT: jax.Array
    clipped_BT: jax.Array  # bool: the clip binds here


def ppo(inputs: Inputs, settings: knobs.Loss) -> Terms:
    """-min(r A, clip(r, 1 - low, 1 + high) A) with r = exp(logp - logp_old) of each token."""
    return _clipped(jnp.exp(inputs.log_ratio_BT), inputs.adv_BT, settings)


def gspo(inputs: Inputs, settings: knobs.Loss) -> Terms:
    """As `ppo`, with one ratio a sequence: exp(mean over its tokens of logp - logp_old)."""
    return _clipped(jnp.exp(_sequence_mean(inputs)), inputs.adv_BT, settings)


def cispo(inputs: Inputs, settings: knobs.Loss) -> Terms:
    """-stop_gradient(min(r, 1 + high)) A logp: every token keeps a gradient, of bounded weight.

    There is no lower clip (r > 0 already). The gradient is that of the unclipped -r A where
    r <= 1 + high; the value is not, for it holds logp in place of 1.
    """
    ratio_BT = jnp.exp(inputs.log_ratio_BT)
    bound_BT = jax.lax.stop_gradient(jnp.minimum(ratio_BT, 1.0 + settings.clip_high))
    logp_BT = jnp.where(inputs.trained_BT, inputs.logp_BT, 0.0)
    return Terms(
        -bound_BT * inputs.adv_BT * logp_BT, ratio_BT, ratio_BT > 1.0 + settings.clip_high
    )


def _clipped(ratio_BT: jax.Array, adv_BT: jax.Array, settings: knobs.Loss) -> Terms:
    low, high = 1.0 - settings.clip_low, 1.0 + settings.clip_high
    free_BT = ratio_BT * adv_BT
    held_BT = jnp.clip(ratio_BT, low, high) * adv_BT
    return Terms(-jnp.minimum(free_BT, held_BT), ratio_BT, held_BT < free_BT)


def _sequence_mean(inputs: Inputs) -> jax.Array:
    """Each token's log ratio replaced by the mean over the trained tokens of its sequence."""
    columns = inputs.segments_BT.shape[1]

    def row(log_ratio_T: jax.Array, trained_T: jax.Array, segments_T: jax.Array) -> jax.Array:
        def sums(values_T: jax.Array) -> jax.Array:
            return jax.ops.segment_sum(values_T, segments_T, num_segments=columns + 1)

        count = sums(trained_T.astype(jnp.float32))
        return (sums(log_ratio_T) / jnp.maximum(count, 1.0))[segments_T]

    return jax.vmap(row)(inputs.log_ratio_BT, inputs.trained_BT, inputs.segments_BT)


LOSSES: dict[str, Callable[[Inputs, knobs.Loss], Terms]] = {
    "ppo": ppo,
    "gspo": gspo,
    "cispo": cispo,
}


def k1(log_ratio: jax.Array) -> jax.Array:
    """-log(q/p) for samples of p, given log(q/p): unbiased, of either sign.

    As a loss it does nothing on average: the gradient of logp has mean 0 under p.
    """
    return -log_ratio


def k2(log_ratio: jax.Array) -> jax.Array:
    """log(q/p)^2 / 2: never negative, a little biased, its gradient is that of the true KL."""
    return 0.5 * jnp.square(log_ratio)


def k3(log_ratio: jax.Array) -> jax.Array:
    """q/p - 1 - log(q/p): never negative, unbiased."""
    return jnp.expm1(log_ratio) - log_ratio


KLS: dict[str, Callable[[jax.Array], jax.Array]] = {"k1": k1, "k2": k2, "k3": k3}


def importance_weight(logp_trainer: jax.Array, logp_behaviour: jax.Array, cap: float) -> jax.Array:
    """min(exp(logp_trainer - logp_behaviour), cap), without a gradient."""
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(logp_trainer - logp_behaviour), cap))


def policy_loss(
    logp_BT: jax.Array,
    entropy_BT: jax.Array,
    batch: TrainBatch,
    settings: knobs.Loss,
    streams: Sequence[str],
    *,
    logp_behaviour_BT: jax.Array | None = None,
) -> tuple[jax.Array, dict[str, Total]]:
    """The loss to be minimised, summed, and its metrics.

    `logp_behaviour_BT` is given where `batch.logp_old_BT` was rescored by the trainer: what the
    sampler stored, for truncated importance weights on the policy term. None: logp_old is that.
    """
    trained_BT = batch.train_BT & (batch.weight_BT > 0)

    def kept(values_BT: jax.Array) -> jax.Array:
        # Zeroed before exp, not after: an overflow behind a mask still spoils the gradient.
        return jnp.where(trained_BT, values_BT, 0.0)

    inputs = Inputs(
        logp_BT=logp_BT,
        log_ratio_BT=kept(logp_BT - batch.logp_old_BT),
        adv_BT=batch.adv_BT,
        segments_BT=batch.segments_BT,
        trained_BT=trained_BT,
    )
    terms = LOSSES[settings.kind](inputs, settings)
    loss_BT = terms.loss_BT
    behaviour_BT = batch.logp_old_BT
    if logp_behaviour_BT is not None:
        behaviour_BT = logp_behaviour_BT
        old_BT = kept(batch.logp_old_BT)
        loss_BT *= importance_weight(old_BT, kept(behaviour_BT), settings.tis_cap)
    measured: dict[str, tuple[jax.Array, How]] = {
        "ratio_max": (terms.ratio_BT, "max"),
        "clip_frac": (terms.clipped_BT, "mean"),
        # k3 of sampler against trainer, on the sampler's own draws
        "kl_behaviour": (k3(kept(logp_BT - behaviour_BT)), "mean"),
        "entropy": (entropy_BT, "mean"),
        "logp_max": (jnp.abs(logp_BT), "max"),
    }
    if batch.logp_ref_BT is not None:
        kl_BT = KLS[settings.kl_kind](kept(batch.logp_ref_BT - logp_BT))
        measured["kl_ref"] = (kl_BT, "mean")
        loss_BT += settings.kl * kl_BT
    elif settings.kl != 0.0:
        raise ConfigError(
            f"loss.kl: got {settings.kl} but the batch has no reference logprobs; score it with the"
            " starting weights first, or set loss.kl to 0"
        )
    if settings.entropy != 0.0:
        loss_BT -= settings.entropy * kept(entropy_BT)
    loss = jnp.sum(kept(loss_BT) * batch.weight_BT)
    return loss, _metrics(loss_BT, measured, batch, trained_BT=trained_BT, streams=streams)


def _metrics(
    loss_BT: jax.Array,
    measured: dict[str, tuple[jax.Array, How]],
    batch: TrainBatch,
    *,
    trained_BT: jax.Array,
    streams: Sequence[str],
) -> dict[str, Total]:
    """`name` over all streams and `name/stream`; `loss/stream` is the mean under the weights.

    Entropy counts every drawn token; the rest count those with weight, so a stream that is played
    but not trained shows its entropy alone.
    """
    metrics: dict[str, Total] = {}
    for name, (values_BT, how) in measured.items():
        mask_BT = batch.train_BT if name == "entropy" else trained_BT
        metrics[name] = total(values_BT, mask_BT, how)
        for index, stream in enumerate(streams):
            metrics[f"{name}/{stream}"] = total(values_BT, mask_BT & (batch.role_BT == index), how)
    for index, stream in enumerate(streams):
        mine_BT = trained_BT & (batch.role_BT == index)
        weight_BT = jnp.where(mine_BT, batch.weight_BT, 0.0)
        metrics[f"loss/{stream}"] = total(loss_BT, weight_BT)
    return jax.lax.stop_gradient(metrics)


def balance_loss(
    balance_BT: jax.Array, batch: TrainBatch, scale: float
) -> tuple[jax.Array, Total]:
    """The experts' balance loss as a summed loss, and its plain mean.

    All tokens of a sequence weigh alike in `weight_BT`, so a sum over tokens is a sum over
    sequences, each with the weight it has in the policy loss.
    """
    trained_BT = batch.train_BT & (batch.weight_BT > 0)
    loss = scale * jnp.sum(jnp.where(trained_BT, balance_BT, 0.0) * batch.weight_BT)
    return loss, jax.lax.stop_gradient(total(balance_BT, trained_BT))


def route_agreement(agreed_BT: jax.Array, batch: TrainBatch) -> Total:
    """Share of recorded experts that the trainer's router would choose again, at drawn tokens."""
    assert batch.routes is not None
    recorded_BT = batch.routes[:, :, 0, 0] != NOT_RECORDED
    return total(agreed_BT, batch.train_BT & recorded_BT)


class Counts(NamedTuple):
    """What a step trains on, by stream. Counts of several hosts are added before they are used."""

    tokens_Z: np.ndarray
    sequences_Z: np.ndarray


def count(
    lengths_R: np.ndarray, stream_R: np.ndarray, weight_R: np.ndarray, streams: int
) -> Counts:
    """Tokens and sequences of each stream, a sequence counting by its weight (0 = not at all)."""
    return Counts(
        np.bincount(stream_R, weights=weight_R * lengths_R, minlength=streams),
        np.bincount(stream_R, weights=weight_R, minlength=streams),
    )


def token_weights(
    lengths_R: np.ndarray,
    stream_R: np.ndarray,
    weight_R: np.ndarray,
    *,
    aggregate: str,
    stream_weights: np.ndarray,
    limits: np.ndarray,
    counts: Counts | None = None,
) -> np.ndarray:
    """Weight of each token, one number a sequence: stream weight / stream denominator, float32.

    token: every token alike, 1 / tokens; sequence: every sequence alike, 1 / (sequences * length);
    constant: 1 / (sequences * limit), so that length itself is neither paid nor punished.
    `stream_weights` and `limits` (most tokens an answer may have) have one entry a stream. `counts`
    are those of the whole step; None: these sequences are the whole step.
    """
    if counts is None:
        counts = count(lengths_R, stream_R, weight_R, len(stream_weights))
    if aggregate == "token":
        denominator_R = counts.tokens_Z[stream_R]
    elif aggregate == "sequence":
        denominator_R = counts.sequences_Z[stream_R] * lengths_R
    elif aggregate == "constant":
        denominator_R = counts.sequences_Z[stream_R] * limits[stream_R]
    else:
        raise ConfigError(
            f"loss.aggregate: got {aggregate!r}; wanted one of token, sequence, constant"
        )
    share_R = weight_R * stream_weights[stream_R]
    some_R = denominator_R > 0
    weights_R = np.where(some_R, share_R / np.where(some_R, denominator_R, 1.0), 0.0)
    return weights_R.astype(np.float32)
