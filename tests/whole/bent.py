"""launch/train.py with something in it bent out of shape, at or from a step:

    python tests/whole/bent.py hang 3 --config=...
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def hang(step: int) -> None:
    """In that step the sampler does not come back."""
    from seirenes_jax.sampler import Sampler

    original, calls = Sampler.ask, 0

    def never_comes_back(self: Any, opened: Any) -> Any:
        nonlocal calls
        calls += self.step == step
        while calls > 4:
            time.sleep(0.1)
        return original(self, opened)

    Sampler.ask = never_comes_back  # type: ignore[method-assign]


def spoil(step: int) -> None:
    """One completion of that step has an advantage that is no number."""
    advantage_of(lambda now: now == step, float("nan"))


def shout(step: int) -> None:
    """From that step on one completion has an advantage beyond all measure."""
    advantage_of(lambda now: now >= step, 1e7)


def advantage_of(bad: Callable[[int], bool], advantage: float) -> None:
    from seirenes_jax import train

    original = train.micro_batches

    def spoilt(gear: Any, progress: Any, groups: Any) -> Any:
        packed = original(gear, progress, groups)
        if bad(progress.step + 1):
            it = packed.micros[0]
            here = it.segments_BT[0] == it.segments_BT[0][it.train_BT[0]][0]
            it.adv_BT[0][here] = advantage
        return packed

    train.micro_batches = spoilt


def lie(_: int) -> None:
    """The sampler tells another logprob than the one it drew with."""
    from seirenes_jax.sampler import Sampler

    original = Sampler._rollouts

    def lying(self: Any, lane: Any, done: Any) -> Any:
        told = original(self, lane, done)
        for one in told:
            one.logprobs[-1] -= 0.25
        return told

    Sampler._rollouts = lying  # type: ignore[method-assign]


BENDS = {"hang": hang, "spoil": spoil, "shout": shout, "lie": lie}

if __name__ == "__main__":
    from seirenes_jax import train
    from seirenes_jax.cli import guard

    BENDS[sys.argv[1]](int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    sys.exit(guard(train.main, sys.argv[1:]))
