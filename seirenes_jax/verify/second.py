"""A second opinion by the public grader math-verify, where it is installed."""

import importlib.util
from collections.abc import Callable

from seirenes_jax.errors import ConfigError

Opinion = Callable[[str, str], bool | None]  # (gold, said) -> its verdict, None where it gives up


def second_opinion() -> Opinion:
    """math-verify's verdict on two answers. It uses alarms, so only in a main thread."""
    if importlib.util.find_spec("math_verify") is None:
        raise ConfigError(
            "a second opinion was asked for, but math-verify is not installed; "
            "install it with `pip install math-verify`, or leave --second away"
        )
    import math_verify  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from math_verify.errors import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        TimeoutException,
    )

    def opinion(gold: str, said: str) -> bool | None:
        try:
            left = math_verify.parse(f"$\\boxed{{{gold}}}$")
            right = math_verify.parse(f"$\\boxed{{{said}}}$")
            return bool(math_verify.verify(left, right)) if left and right else None
        except TimeoutException:
            return None

    return opinion
