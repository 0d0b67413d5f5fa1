"""The optimizer: clip, AdamW with its decay mask, learning rate over steps."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Optimizer

HALF_STEP = 2.0**-9  # of a number: the most by which bfloat16 rounds it
ROUNDED_AWAY = 0.1  # of a moment, the most that rounding may add up to
NOT_DECAYED = ("scale", "bias")  # by name: layers are stacked, so a norm's scale has two axes


def make_optimizer(settings: Optimizer, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW. All of it is computed in float32; what is kept of the
    moments from one update to the next is rounded to `settings.moments`."""
    if not settings.clip > 0:
        raise ConfigError(
            f"optimizer.clip: got {settings.clip}; wanted a norm above 0 (inf = no clipping)"
        )
    _check_moments(settings)
    inner = optax.chain(
        optax.clip_by_global_norm(settings.clip),
        optax.adamw(
            make_schedule(settings, steps),
            b1=settings.b1,
            b2=settings.b2,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            mask=decay_mask,
        ),
    )
    return _in_float32(inner, kept=jnp.dtype(settings.moments))


def _check_moments(settings: Optimizer) -> None:
    """A moment forgets 1 - b an update, and rounding errors with it: together they stay below
    HALF_STEP / (1 - b) of it. Where b is near 1 an update moves it by less than it is rounded."""
    b = max(settings.b1, settings.b2)
    if settings.moments != "float32" and HALF_STEP / (1 - b) > ROUNDED_AWAY:
        raise ConfigError(
            f"optimizer.moments: got {settings.moments} with b1 = {settings.b1} and b2 = "
            f"{settings.b2}; wanted both at most {1 - HALF_STEP / ROUNDED_AWAY:.2f}, else rounding "
            "eats what an update changes: lower them or keep float32"
        )


def make_schedule(settings: Optimizer, steps: int) -> optax.Schedule:
    """Learning rate after `count` updates: warm-up, then constant, or cosine or linear to 0.

    The first update has lr / warmup_steps and not 0, update number warmup_steps the full lr; 0
    comes only after update number `steps`. A constant schedule never looks at `steps`.
    """
    warmup, kind = settings.warmup_steps, settings.schedule
    if kind != "constant" and steps <= warmup:
        raise ConfigError(
            f"optimizer.warmup_steps: got {warmup} with steps = {steps}; a {kind} schedule wants"
            " fewer warm-up steps than steps"
        )

    def rate(count: Any) -> jax.Array:
        done = jnp.asarray(count).astype(jnp.float32)
        lr = settings.lr * jnp.minimum((done + 1.0) / max(warmup, 1), 1.0)
        if kind == "constant":
            return lr
        progress = jnp.clip((done - warmup) / (steps - warmup), 0.0, 1.0)
        if kind == "linear":
            return lr * (1.0 - progress)
        return lr * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))

    return rate


def decay_mask(params: Any) -> Any:
    """True where weight decay applies: not on leaves whose name ends in `scale` or `bias`."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        names = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        return not names[-1].endswith(NOT_DECAYED)

    return jax.tree_util.tree_map_with_path(decays, params)


def _in_float32(
    inner: optax.GradientTransformation, *, kept: jnp.dtype
) -> optax.GradientTransformation:
    """Run a transformation in float32 and hand back updates in the dtype of the parameters. What
    its state holds for each parameter is rounded to `kept` in between, to the nearest."""

    def widen(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)

    def moments_as(dtype: Any, state: Any) -> Any:
        return optax.tree_map_params(inner, lambda leaf: leaf.astype(dtype), state)

    def init(params: Any) -> Any:
        return moments_as(kept, inner.init(widen(params)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        wide_state = moments_as(jnp.float32, state)
        # optax raises a float to its integer count, which strict promotion would refuse.
        with jax.numpy_dtype_promotion("standard"):
            wide, state = inner.update(widen(updates), wide_state, widen(params))
        narrow = jax.tree.map(lambda u, p: u.astype(p.dtype), wide, params)
        return narrow, moments_as(kept, state)

    return optax.GradientTransformation(init, update)
