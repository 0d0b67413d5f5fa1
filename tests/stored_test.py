"""Saved steps read without JAX: the same fingerprints, and damage of every kind is seen."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from seirenes_jax import stored
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.fingerprint import fingerprints

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint32", "int8", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 1, 7), (2, 300, 77)])
def test_a_fingerprint_of_files_is_that_of_the_devices(
    dtype: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "SLAB", 64)  # many pieces
    values = jnp.asarray(np.random.default_rng(0).integers(0, 100, shape)).astype(dtype)
    assert stored.fingerprint(np.asarray(values)) == np.asarray(fingerprints([values]))[0].tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step whose arrays lie in many chunks, one a device."""
    place = tmp_path_factory.mktemp("run") / "checkpoints"
    mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(AxisType.Auto,) * 2)
    spread = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    state = {
        "params": {"kernel": jax.device_put(jnp.arange(64.0).reshape(8, 8), spread)},
        "step": jnp.int32(7),
    }
    with Checkpoints(place, keep=1) as checkpoints:
        checkpoints.save(
            7, state, host_arrays={"a": np.arange(3)}, host_json={"b": 1}, metric=0.5
        )
    return place


def test_what_is_there_is_listed_and_checked(folder: Path) -> None:
    assert stored.steps(folder) == [7] and stored.steps(folder / "nowhere") == []
    assert stored.metric(folder, 7) == 0.5
    assert stored.size(folder, 7) > 64 * 4
    stored.check(folder, 7)


def test_a_share_checks_its_own_arrays_and_all_shares_check_all(folder: Path) -> None:
    head, _ = stored.record(folder, 7)
    seen: list[str] = []
    honest, stored.fingerprint = stored.fingerprint, lambda a: seen.append(a.shape) or honest(a)  # type: ignore[assignment,func-returns-value]
    try:
        stored.check(folder, 7, share=0, of=2)
        assert len(seen) == 1
        stored.check(folder, 7, share=1, of=2)
    finally:
        stored.fingerprint = honest
    assert len(seen) == len(head["leaves"]) == 2


def test_a_directory_of_another_step_is_none(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "8").symlink_to(folder / "7")
    with pytest.raises(ValueError, match="step 8 holds step 7"):
        stored.check(tmp_path, 8)
    (tmp_path / "9").mkdir()
    with pytest.raises(OSError):
        stored.check(tmp_path, 9)


def test_it_wakes_no_jax() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import sys, seirenes_jax.stored; print('jax' in sys.modules)"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    assert told.stdout == "False\n"
