"""Cross-play over a run's checkpoints: who meets whom, what it costs, and with which weights."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from seirenes_jax import knobs, probe
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import ConfigError
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.state import TrainState


class Scripted:
    """An evaluator whose weights are just their step. Four problems."""

    WRITES = {
        0: ["of 0", "of 0", None, "of 0"],  # one problem without a sound hint
        5: ["of 5"] * 4,
        9: [None] * 4,
    }
    CLEAN = {0: [1, 1, 1, 0], 5: [1, 1, 1, None], 9: [1, 1, 1, 1]}
    BROKEN = {("of 0", 0): 1, ("of 5", 0): 3, ("of 5", 5): 2}  # (hint, Reasoner): first so many

    def written(self, params: int, n: int) -> list[str | None]:
        return self.WRITES[params][:n]

    def marks(self, params: int, hinted: Sequence[str | None] | None, n: int) -> list[int | None]:
        if hinted is None:
            return self.CLEAN[params][:n]
        return [
            None if text is None else int(place >= self.BROKEN.get((text, params), 0))
            for place, text in enumerate(hinted)
        ]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    evaluator: Any = Scripted()
    return probe.play_all(evaluator, lambda step: step, [0, 5, 9], 4, say=print)


def test_rows_are_hints_and_columns_are_reasoners(found: dict[str, Any]) -> None:
    assert found["checkpoints"] == [0, 5, 9] and found["problems"] == 4
    assert found["hinted"] == [[2 / 3, 1.0, 1.0], [1 / 4, 2 / 4, 1.0], [None, None, None]]
    assert found["clean"] == [3 / 4, 1.0, 1.0]
    assert found["hints"] == [3, 4, 0]


def test_the_cost_is_paired_by_problem(found: dict[str, Any]) -> None:
    # Start under its own hints: problems a b - d, clean 1 1 . 0, hinted 0 1 . 1.
    assert found["cost"][0][0] == pytest.approx(0.0)
    # Start under hints of step 5: clean 1 1 1 0, hinted 0 0 0 1.
    assert found["cost"][1][0] == pytest.approx(2 / 4)
    # Step 5 under its own: clean 1 1 1 ., hinted 0 0 1 .
    assert found["cost"][1][1] == pytest.approx(2 / 3)
    assert found["cost"][2] == [None, None, None]


def test_families_are_shares_of_the_hints_that_were_written() -> None:
    assert probe.family_shares([None, None]) == {}
    shares = probe.family_shares(["The answer is 12.", "The answer is 7.", None, "Birds sing."])
    assert list(shares.values()) == pytest.approx([2 / 3, 1 / 3])
    assert next(iter(shares)) == "instruction_contamination"


def test_the_checkpoints_that_are_played() -> None:
    assert probe.choose([0, 10, 20], None) == [0, 10, 20]
    assert probe.choose([10, 20], None) == [0, 10, 20]  # the start can always be played
    assert probe.choose(range(0, 101, 10), None) == [0, 20, 40, 60, 80, 100]
    assert probe.choose([10, 20, 30], [30, 0]) == [0, 30]
    with pytest.raises(ConfigError, match=r"no checkpoint of step \[7\]; there are \[0, 10\]"):
        probe.choose([10], [7, 10])


SMALL = ModelConfig(
    family="qwen3", vocab=8, layers=1, width=4, heads=2, kv_heads=1, head_dim=2, ff=4,
    rope_theta=1e4, norm_eps=1e-6, tied=True, qkv_bias=False, qk_norm=True, init_std=0.1,
    max_positions=16, dtype="float32", param_dtype="float32", remat="none",
)  # fmt: skip
ONE = knobs.Mesh(data=1, fsdp=1, tensor=1, expert=1, sequence=1)


def weights_of(value: int) -> Any:
    """All weights of a small model alike."""
    shapes = jax.eval_shape(lambda: init_params(SMALL, 0))
    return jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, value, x.dtype)), shapes)


def same(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))


def save(folder: Path, steps: Sequence[int]) -> None:
    with Checkpoints(folder, keep=9) as checkpoints:
        for step in steps:
            params = weights_of(step + 100)
            state = TrainState(jnp.int32(step), params, optax.sgd(0.1).init(params))
            checkpoints.save(step, state, host_arrays={}, host_json={}, metric=None)
            checkpoints.wait()


def test_each_step_has_its_own_weights(tmp_path: Path) -> None:
    save(tmp_path, [0, 5])
    weights = probe.reader(tmp_path, SMALL, ONE, lambda: weights_of(7))
    assert probe.kept_steps(tmp_path) == [0, 5]
    assert same(weights(5), weights_of(105)) and not same(weights(5), weights_of(100))
    assert same(weights(0), weights_of(100))  # what the run really began with
    shutil.rmtree(tmp_path / "0")
    weights = probe.reader(tmp_path, SMALL, ONE, lambda: weights_of(7))
    assert same(weights(0), weights_of(7))  # made again


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="config.json"):
        probe.main([str(tmp_path)])
    with pytest.raises(ConfigError, match="wanted one run folder"):
        probe.main([])
    with pytest.raises(ConfigError, match="wanted whole numbers"):
        probe.main([str(tmp_path), "--problems=many"])
    with pytest.raises(ConfigError, match="no such folder"):
        probe.kept_steps(tmp_path / "checkpoints")
