"""What a profile of a step shows: the parts by their names."""

import re
from functools import partial
from typing import Any

import jax
import pytest

from seirenes_jax.batch import fill
from seirenes_jax.decode import empty, run_chunk
from seirenes_jax.knobs import Batch
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.step import add_gradient
from tests.laws.small import CONFIG, MOE, PPO, STREAMS, wishes


def scopes(lowered: Any) -> set[str]:
    """Every part of every path under which an operation is filed."""
    paths = re.findall(r'loc\("([^"]*)"', lowered.as_text(debug_info=True))
    return {part for path in paths for part in re.split(r"[/()]", path)}


@pytest.mark.parametrize(
    ("config", "part"), [(CONFIG, "feed_forward"), (MOE, "experts")], ids=["dense", "moe"]
)
def test_a_profile_reads_like_the_model(config: ModelConfig, part: str) -> None:
    weights = jax.eval_shape(lambda: init_params(config, 0))
    batch = fill([], Batch(16, 2), temperature=1.0)
    learn = partial(add_gradient.lower, config=config, loss=PPO, streams=STREAMS)
    assert {"embed", "attention", part, "head", "loss"} <= scopes(learn(weights, weights, batch))
    state = jax.eval_shape(lambda: empty(config, slots=2, columns=16))
    play = partial(run_chunk.lower, config=config, chunk=2, columns=16, stop_ids=(1,))
    found = scopes(play(weights, state, wishes(2, 1.0), filters=False))
    assert {"embed", "attention", part, "head", "draw"} <= found
    assert not ({"feed_forward", "experts"} - {part}) & found
