"""launch/train.py, struck by a signal when it comes to a place for the Nth time:

    python tests/whole/struck.py SIGKILL seirenes_jax.train:apply_gradient before 2 --config=...

The signal goes to the whole process group, as Ctrl-C at a terminal does.
"""

import functools
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def strike(number: int, place: str, when: str, nth: int) -> None:
    """Wrap the function at `module:name` so that its nth call sends the signal."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if when == "before" and calls == nth:
            os.killpg(0, number)
        result = original(*args, **kwargs)
        if when == "after" and calls == nth:
            os.killpg(0, number)
        return result

    setattr(owner, name, struck)


if __name__ == "__main__":
    from seirenes_jax import train
    from seirenes_jax.cli import guard

    strike(signal.Signals[sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    sys.argv[1:] = sys.argv[5:]
    sys.exit(guard(train.main, sys.argv[1:]))
