"""Checkpoints: the same bits back, or the ones before, or a clear refusal. Never half of one."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from seirenes_jax.checkpoint import Checkpoints, Restored, kept, load_params
from seirenes_jax.errors import CheckpointError, ConfigError, SaveError
from seirenes_jax.fingerprint import fingerprints
from seirenes_jax.state import TrainState


def train_state(seed: int, width: int = 64) -> TrainState:
    params = {
        "layers": {"kernel": jax.random.normal(jax.random.key(seed), (3, width, 64))},
        "half": jnp.array([[1.5, -0.0, jnp.nan, 3e38]], jnp.bfloat16) * (seed + 1),
        "key": jnp.array([seed, 2**32 - 1], jnp.uint32),
    }
    opt_state = optax.adamw(1e-3).init(params["layers"])
    return TrainState(step=jnp.int32(seed), params=params, opt_state=opt_state)


def abstract(state: Any) -> Any:
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def same_bits(a: Any, b: Any) -> bool:
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(
        np.asarray(x).tobytes() == np.asarray(y).tobytes() and x.dtype == y.dtype for x, y in pairs
    )


def save(
    checkpoints: Checkpoints, step: int, metric: float | None = None, width: int = 64
) -> None:
    checkpoints.save(
        step, train_state(step, width), host_arrays={"order": np.arange(step)},
        host_json={"at": step}, metric=metric,
    )  # fmt: skip
    checkpoints.wait()


def restore(folder: Path, state: Any) -> Restored:
    with Checkpoints(folder, keep=3) as checkpoints:
        restored = checkpoints.restore(abstract(state))
    assert restored is not None
    return restored


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good checkpoints of steps 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    with Checkpoints(folder, keep=3) as checkpoints:
        for step in (1, 2, 3):
            save(checkpoints, step)
    return folder


def test_every_bit_comes_back(tmp_path: Path) -> None:
    arrays = {
        "strided": np.arange(6).reshape(2, 3).T,
        "empty": np.zeros((0, 3), np.int32),
        "scalar": np.array(3.5),
        "half": np.array([1.5, np.nan], ml_dtypes.bfloat16),
        "unsigned": np.array([2**32 - 1], np.uint32),
        "flags": np.array([True, False]),
    }
    values = {"memory": {"tiny-1": [0.1, None, "é"]}, "index": 7}
    state = train_state(5)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.restore(abstract(state)) is None
        checkpoints.save(5, state, host_arrays=arrays, host_json=values, metric=0.5)
    restored = restore(tmp_path, state)
    assert restored.step == 5 and restored.messages == ()
    assert same_bits(restored.state, state)
    assert restored.host_json == values
    assert restored.host_arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        back = restored.host_arrays[name]
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        assert back.tobytes() == array.tobytes()


def test_the_arrays_may_be_donated_while_the_save_runs(tmp_path: Path) -> None:
    spoil = jax.jit(lambda x: jax.tree.map(lambda y: y - y, x), donate_argnums=0)
    state = {"w": jax.random.normal(jax.random.key(0), (1_000_000,))}
    expected = np.array(state["w"])
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, state, host_arrays={}, host_json={}, metric=None)
        for _ in range(3):
            state = spoil(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        restored = checkpoints.restore(abstract(state))
    assert restored is not None
    np.testing.assert_array_equal(np.asarray(restored.state["w"]), expected)


def test_another_layout_reads_the_same_bits(tmp_path: Path) -> None:
    mesh = jax.make_mesh((len(jax.devices()),), ("fsdp",), axis_types=(AxisType.Auto,))
    spread = NamedSharding(mesh, PartitionSpec("fsdp"))
    whole = NamedSharding(mesh, PartitionSpec())
    array = jax.random.normal(jax.random.key(1), (64, 6))
    on_all, on_each = jax.device_put(array, spread), jax.device_put(array, whole)
    marks = [np.asarray(fingerprints([x])).tolist() for x in (on_all, on_each, array)]
    assert marks[0] == marks[1] == marks[2]
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, {"w": on_all}, host_arrays={}, host_json={}, metric=None)
        restored = checkpoints.restore(abstract({"w": on_each}))
    assert restored is not None and restored.state["w"].sharding == whole
    assert same_bits(restored.state, {"w": array})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint32", "int8", "bool"])
def test_a_fingerprint_sees_one_flipped_bit_and_two_swapped_values(dtype: str) -> None:
    values = (np.arange(24).reshape(4, 6) % 2).astype(np.dtype(dtype))
    flipped = values.copy()
    flipped.view(np.uint8).reshape(-1)[13] ^= 1
    swapped = values.copy()
    swapped[0, 0], swapped[3, 5] = values[3, 5], values[0, 0]
    marks = {str(np.asarray(fingerprints([jnp.asarray(x)]))) for x in (values, flipped, swapped)}
    assert len(marks) == 3


def data_file(step_folder: Path) -> Path:
    """The largest file of the state: its arrays."""
    return max((f for f in (step_folder / "state").rglob("*") if f.is_file()), key=_size)


def _size(file: Path) -> int:
    return file.stat().st_size


def truncate(folder: Path) -> None:
    file = data_file(folder)
    file.write_bytes(file.read_bytes()[: _size(file) // 2])


def flip(folder: Path) -> None:
    file = data_file(folder)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


def remove(folder: Path) -> None:
    data_file(folder).unlink()


def flip_host(folder: Path) -> None:
    for file in (folder / "host").rglob("*"):
        if file.is_file():
            data = bytearray(file.read_bytes())
            data[len(data) * 2 // 3] ^= 4
            file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip, remove, flip_host])
def test_a_damaged_checkpoint_is_passed_over_and_named(
    saved: Path, tmp_path: Path, damage: Any
) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    damage(folder / "3")
    state = train_state(2)
    with Checkpoints(folder, keep=3) as checkpoints:
        restored = checkpoints.restore(abstract(state))
        assert restored is not None and restored.step == 2
        assert same_bits(restored.state, state)
        assert len(restored.messages) == 1 and "step 3 is damaged" in restored.messages[0]
        save(checkpoints, 3)  # the run goes on and comes by step 3 again
    again = restore(folder, state)
    assert again.step == 3 and again.messages == () and same_bits(again.state, train_state(3))


def test_nothing_good_left_is_an_error_and_not_a_fresh_start(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    for step in ("1", "2", "3"):
        truncate(folder / step)
    with Checkpoints(folder, keep=3) as checkpoints, pytest.raises(CheckpointError) as error:
        checkpoints.restore(abstract(train_state(0)))
    assert all(f"step {step} is damaged" in str(error.value) for step in (1, 2, 3))


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, metric in [(1, 0.2), (2, 0.9), (3, None), (4, float("nan")), (5, 0.5)]:
            save(checkpoints, step, metric)
        assert checkpoints.steps() == [2, 4, 5] and checkpoints.best() == 2
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.best() == 2
        save(checkpoints, 6, 0.95)
        assert checkpoints.steps() == [6] and checkpoints.best() == 6


def test_what_stays_is_the_newest_every_nth_and_the_best() -> None:
    steps = [0, 5, 10, 15, 20, 25]
    assert kept(steps, keep=2, keep_every=0, best=None) == {20, 25}
    assert kept(steps, keep=2, keep_every=10, best=5) == {0, 5, 10, 20, 25}
    assert kept([3], keep=9, keep_every=7, best=3) == {3}


def test_every_nth_stays_for_good(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1, keep_every=2) as checkpoints:
        for step in range(1, 6):
            save(checkpoints, step, metric=1.0 if step == 1 else 0.5)
        assert checkpoints.steps() == [1, 2, 4, 5]


def test_a_step_is_not_written_twice(saved: Path) -> None:
    with Checkpoints(saved, keep=3) as checkpoints:
        with pytest.raises(SaveError, match="step 3 is already saved"):
            save(checkpoints, 3)
        assert checkpoints.steps() == [1, 2, 3]


def test_another_model_is_refused_by_the_arrays_that_differ(saved: Path) -> None:
    with Checkpoints(saved, keep=3) as checkpoints:
        with pytest.raises(CheckpointError, match="another model or optimizer") as error:
            checkpoints.restore(abstract(train_state(3, width=32)))
    assert "params/layers/kernel: stored float32[3, 64, 64], wanted float32[3, 32, 64]" in str(
        error.value
    )


def test_weights_alone_are_read_out_of_any_checkpoint(saved: Path) -> None:
    params = train_state(3).params
    step, newest = load_params(saved, abstract(params), None)
    assert step == 3 and same_bits(newest, params)
    step, first = load_params(saved, abstract(params), 1)
    assert step == 1 and same_bits(first, train_state(1).params)
    with pytest.raises(ConfigError, match="no checkpoint of step 9"):
        load_params(saved, abstract(params), 9)
    with pytest.raises(ConfigError, match="no folder of checkpoints"):
        load_params(saved / "nowhere", abstract(params), None)


def test_arrays_that_would_not_come_back_are_refused(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        with pytest.raises(TypeError, match="array names"):
            checkpoints.save(
                1, train_state(1), host_arrays={"names": np.array(["a"], object)}, host_json={},
                metric=None,
            )  # fmt: skip
        assert checkpoints.steps() == []


def test_what_is_needed_stays_however_old(tmp_path: Path) -> None:
    """The weights that a kept step with bad numbers was computed with."""
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        for step, needed in ((1, ()), (2, (2,)), (3, (2,)), (4, (2, 9)), (5, ())):
            checkpoints.save(
                step, train_state(step), host_arrays={}, host_json={}, metric=None, needed=needed
            )
            checkpoints.wait()
            kept = {step} | ({2} if 2 <= step < 5 else set())
            assert checkpoints.steps() == sorted(kept)
