"""From rewards to advantages: who did better than whom. Host-side NumPy, a few hundred numbers.

Axis R: the rollouts of a step, of all hosts where there are several, so that statistics over a role
are equal everywhere. Standard deviations are those of the population (divided by n).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from seirenes_jax.knobs import Advantage

State = dict[str, float]  # str(role) -> running mean reward; read and written by `ema` alone
Result = tuple[np.ndarray, State]


class Estimator(Protocol):
    """The one signature: equal group = peers; a role is an int or a name; weight 0 = not there."""

    def __call__(
        self,
        rewards_R: np.ndarray,
        group_R: np.ndarray,
        role_R: np.ndarray,
        weight_R: np.ndarray,
        *,
        settings: Advantage,
        state: Mapping[str, float],
    ) -> Result:
        """Float64 advantages, exactly 0 where weight is 0 or nothing varies; and the next state."""


def group(
    rewards_R: np.ndarray, group_R: np.ndarray, role_R: np.ndarray, weight_R: np.ndarray,
    *, settings: Advantage, state: Mapping[str, float],
) -> Result:  # fmt: skip
    """GRPO: (r - mean) / (std + eps) within the group."""
    adv_R = np.zeros(rewards_R.shape)
    for peers in _sets(group_R, weight_R > 0):
        centred = _centred(rewards_R[peers])
        adv_R[peers] = centred / (_spread(centred) + settings.eps)
    return adv_R, dict(state)


def mean(
    rewards_R: np.ndarray, group_R: np.ndarray, role_R: np.ndarray, weight_R: np.ndarray,
    *, settings: Advantage, state: Mapping[str, float],
) -> Result:  # fmt: skip
    """Dr. GRPO: r - mean within the group; no std, so a nearly settled group is not blown up."""
    adv_R = np.zeros(rewards_R.shape)
    for peers in _sets(group_R, weight_R > 0):
        adv_R[peers] = _centred(rewards_R[peers])
    return adv_R, dict(state)


def loo(
    rewards_R: np.ndarray, group_R: np.ndarray, role_R: np.ndarray, weight_R: np.ndarray,
    *, settings: Advantage, state: Mapping[str, float],
) -> Result:  # fmt: skip
    """RLOO: r - mean of the others in the group; 0 for one alone."""
    adv_R = np.zeros(rewards_R.shape)
    for peers in _sets(group_R, weight_R > 0):
        n = len(peers)
        # r - (sum - r) / (n - 1) = (r - mean) * n / (n - 1); one alone has centred reward 0.
        adv_R[peers] = _centred(rewards_R[peers]) * (n / max(n - 1, 1))
    return adv_R, dict(state)


def whiten(
    rewards_R: np.ndarray, group_R: np.ndarray, role_R: np.ndarray, weight_R: np.ndarray,
    *, settings: Advantage, state: Mapping[str, float],
) -> Result:  # fmt: skip
    """REINFORCE++: (r - mean) / (std + eps) over all the step's rollouts of the role."""
    adv_R = np.zeros(rewards_R.shape)
    for members in _sets(role_R, weight_R > 0):
        centred = _centred(rewards_R[members])
        adv_R[members] = centred / (_spread(centred) + settings.eps)
    return adv_R, dict(state)


def hybrid(
    rewards_R: np.ndarray, group_R: np.ndarray, role_R: np.ndarray, weight_R: np.ndarray,
    *, settings: Advantage, state: Mapping[str, float],
) -> Result:  # fmt: skip
    """INFUSER: (r - mean_g) / (std_g + typical std + eps) in group g.

    The typical std is the mean of std_g over the role's groups with std_g > 0 (per role, because
    two roles' rewards have two scales): a group that hardly varies is not blown up.
    """
    adv_R = np.zeros(rewards_R.shape)
    for members in _sets(role_R, weight_R > 0):
        counted_R = np.isin(np.arange(len(rewards_R)), members)
        groups = [(peers, _centred(rewards_R[peers])) for peers in _sets(group_R, counted_R)]
        spreads = [spread for _, centred in groups if (spread := _spread(centred)) > 0]
        typical = sum(spreads) / max(len(spreads), 1)
        for peers, centred in groups:
            adv_R[peers] = centred / (_spread(centred) + typical + settings.eps)
    return adv_R, dict(state)


def ema(
    rewards_R: np.ndarray, group_R: np.ndarray, role_R: np.ndarray, weight_R: np.ndarray,
    *, settings: Advantage, state: Mapping[str, float],
) -> Result:  # fmt: skip
    """r - the role's running mean over earlier steps; a role not met before starts at 0.

    The baseline is read before it is updated: a reward never lowers its own advantage.
    """
    adv_R = np.zeros(rewards_R.shape)
    after = dict(state)
    for members in _sets(role_R, weight_R > 0):
        role = str(role_R[members[0]])
        before = state[role] if role in state else 0.0
        adv_R[members] = rewards_R[members] - before
        now = float(rewards_R[members].mean())
        after[role] = settings.ema_decay * before + (1.0 - settings.ema_decay) * now
    return adv_R, after


ADVANTAGES: dict[str, Estimator] = {
    "group": group,
    "mean": mean,
    "loo": loo,
    "whiten": whiten,
    "hybrid": hybrid,
    "ema": ema,
}


def is_live(rewards: Sequence[float], weights: Sequence[float]) -> bool:
    """Does a group tell anything: do two members that count differ in reward?

    >>> is_live([1.0, 0.0, 0.0], [1.0, 1.0, 1.0]), is_live([1.0, 0.0], [1.0, 0.0])
    (True, False)
    """
    counted = {reward for reward, weight in zip(rewards, weights, strict=True) if weight > 0}
    return len(counted) > 1


def _sets(label_R: np.ndarray, counted_R: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of the counted rollouts, one array for each label."""
    where = np.flatnonzero(counted_R)
    for label in np.unique(label_R[where]):
        yield where[label_R[where] == label]


def _centred(rewards: np.ndarray) -> np.ndarray:
    # Exactly 0 where all are equal: the mean of three times 0.1 is not 0.1, and the rounding
    # would be divided by a std of its own size.
    if rewards.max() == rewards.min():
        return np.zeros(rewards.shape)
    centred: np.ndarray = rewards - rewards.mean()
    return centred


def _spread(centred: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(centred))))
