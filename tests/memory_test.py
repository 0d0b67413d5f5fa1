"""What a run holds while it does what: nothing twice, and of two large things one at a time."""

import gc
import math
from pathlib import Path
from typing import Any

import jax
import pytest

from seirenes_jax import train
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import DONE
from tests.whole import mini

KNOBS = {
    "warm_start__steps": 0, "eval__every": 0, "eval__final_problems": 2, "problems_per_step": 1,
    "sampler__slots": 128, "model__dtype": "bfloat16", "game": "rlvr",
    "numbers__probe_max": 2.0, "numbers__probe_mean": 0.05,  # of so coarse a dtype
}  # fmt: skip
ALL_KEPT = {
    "game": "seirenes", "adversary__policy": "frozen", "loss__kl": 0.1, "eval__every": 1,
    "eval__problems": 2,
}  # fmt: skip


def live() -> int:
    """Bytes on all devices; a buffer under two names counts once."""
    gc.collect()
    shards = [shard.data for x in jax.live_arrays() for shard in x.addressable_shards]
    return sum({shard.unsafe_buffer_pointer(): shard.nbytes for shard in shards}.values())


def held(tree: Any) -> int:
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


@pytest.mark.long
@pytest.mark.parametrize(("knobs", "policies", "kept"), [({}, 1, 0.0), (ALL_KEPT, 2, 1.5)])
def test_what_decodes_and_what_learns_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any], policies: int,
    kept: float,
) -> None:  # fmt: skip
    """At the update the weights that decoded and every cache are gone; a restored run never holds
    a second state. `kept`: times the weights, the reference and what a frozen adversary decodes
    with."""
    before = live()
    at: dict[str, list[float]] = {"update": [], "cache": [], "restore": [], "restored": []}
    updated, played, restored = train.update, train.play_rounds, Checkpoints.restore

    def update(gear: Any, state: Any, micros: Any) -> Any:
        rest = live() - before - held((gear.reference, gear.frozen))
        at["update"].append(rest / held(state))
        return updated(gear, state, micros)

    def play_rounds(gear: Any, *rest: Any) -> Any:
        at["cache"] += [held(lane.state) for lane in gear.sampler._lanes.values()]
        return played(gear, *rest)

    def restore(self: Checkpoints, abstract: Any) -> Any:
        there = live() - before
        at["restore"].append(there / held(abstract.params))
        found = restored(self, abstract)
        if found is not None:
            at["restored"].append((live() - before - there) / held(found.state))
        return found

    monkeypatch.setattr(train, "update", update)
    monkeypatch.setattr(train, "play_rounds", play_rounds)
    monkeypatch.setattr(Checkpoints, "restore", restore)
    for steps in (1, 2):
        flags = mini.flags(tmp_path / "run", tmp_path / "cache", steps=steps, **KNOBS | knobs)
        assert train.main(flags) == DONE
    assert len(at["cache"]) == 2 * policies and min(at["cache"]) > 2**20
    assert len(at["update"]) == 2 and max(at["update"]) < 1.05
    assert at["restore"] == pytest.approx([kept, kept], abs=0.05)
    assert at["restored"] == pytest.approx([1.0], rel=0.05)
