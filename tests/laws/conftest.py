"""The laws run tiny programs once or twice each: nearly all of their time would be compiling."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def compile_in_haste() -> Iterator[None]:
    """Half the compile time, the same mathematics: code generation alone is less thorough."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
