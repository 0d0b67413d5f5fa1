"""launch/train.py with something in it bent out of shape, in one step or from the Nth call on:

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


def bend(owner: Any, name: str, nth: int, bent: Callable[[Any], Any]) -> None:
    """From its nth call on the function is another one."""
    original = getattr(owner, name)
    calls = 0

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return (bent(original) if calls >= nth else original)(*args, **kwargs)

    setattr(owner, name, called)


BENDS = {"hang": hang}

if __name__ == "__main__":
    from seirenes_jax import train
    from seirenes_jax.cli import guard

    BENDS[sys.argv[1]](int(sys.argv[2]))
    sys.argv[1:] = sys.argv[3:]
    sys.exit(guard(train.main, sys.argv[1:]))
