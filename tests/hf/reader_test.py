"""Import: the same bits wherever the arrays live, little memory besides them, strangers refused."""

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from seirenes_jax import hf, knobs
from seirenes_jax.errors import ConfigError
from seirenes_jax.hf import reader
from seirenes_jax.hf.files import SINGLE
from seirenes_jax.sharding import make_mesh
from seirenes_jax.text import Tokenizer
from tests.bucket import bucket
from tests.hf import made


def mesh(**sizes: int) -> Any:
    return make_mesh(knobs.Mesh(**{"data": 1, "fsdp": 1, "tensor": 1, "expert": 1, "sequence": 1,
                                   **sizes}))  # fmt: skip


MESHES = [{"fsdp": 8}, {"data": 2, "fsdp": 2, "tensor": 2}, {"expert": 2, "fsdp": 2, "tensor": 2}]


@pytest.mark.parametrize("sizes", MESHES, ids=str)
@pytest.mark.parametrize("pieces", [reader.PIECE, 6_000, 1])
def test_a_mesh_holds_the_same_bits_each_device_its_part(
    moe_folder: Path, sizes: dict[str, int], pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "BLOCK", 1_000)  # several blocks a tensor
    config, whole = made.load(moe_folder)
    monkeypatch.setattr(reader, "PIECE", pieces)
    wanted = made.abstract(config, mesh(**sizes))
    found = hf.load(moe_folder, config, wanted)
    assert made.same_bits(jax.tree.map(np.asarray, found), whole)
    places = jax.tree.map(lambda x, leaf: x.sharding == leaf.sharding, found, wanted)
    assert all(jax.tree.leaves(places))
    gate = found["layers"]["moe"]["gate"]
    parts = [sizes.get(axis, 1) for axis in ("expert", "fsdp", "tensor")]
    expected = [n // part for n, part in zip(gate.shape[1:], parts, strict=True)]
    assert list(gate.addressable_shards[0].data.shape) == [made.LAYERS, *expected]


def test_what_several_devices_need_is_read_once(moe_folder: Path) -> None:
    config, _ = made.load(moe_folder)
    with bucket() as store:
        for file in moe_folder.iterdir():
            store.objects[f"b/m/{file.name}"] = file.read_bytes()
        hf.load("gs://b/m", config, made.abstract(config, mesh(data=4, tensor=2)))
        read = sum(size for name, size in store.reads if name.endswith(".safetensors"))
        stored = sum(len(x) for name, x in store.objects.items() if name.endswith(".safetensors"))
    # A handle of this store reads ahead, so small tensors may come more than once; eight devices
    # that each read for themselves would make it far more.
    assert read < 2.5 * stored


@pytest.mark.parametrize("stored, held", [("bfloat16", "float32"), ("float32", "bfloat16")])
def test_numbers_are_converted_on_their_way(
    stored: str, held: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = made.config_of(made.MOE[1])
    params = made.random_params(config)
    hf.export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype=stored)
    found = made.load(tmp_path / "hf", param_dtype=held)[1]
    rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), params)
    if held == "float32":
        rounded = jax.tree.map(lambda x: x.astype(np.float32), rounded)
    assert made.same_bits(found, rounded)


def test_float16_files_are_read_too(folder: Path, tmp_path: Path) -> None:
    half = rewrite(folder, tmp_path, {}, np.float16)
    found = made.load(half)[1]
    expected = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32), made.load(folder)[1])
    assert made.same_bits(found, expected)


def test_loaded_arrays_may_be_donated(folder: Path) -> None:
    """Whoever owns the memory: a step that takes them over must neither warn nor disturb."""
    config, whole = made.load(folder)
    params = hf.load(folder, config, made.abstract(config))
    twice = jax.jit(lambda tree: jax.tree.map(lambda x: x + x, tree), donate_argnums=0)(params)
    assert made.same_bits(jax.tree.map(np.asarray, twice), jax.tree.map(lambda x: x + x, whole))
    assert made.same_bits(made.load(folder)[1], whole)


def test_the_host_holds_one_tensor_at_a_time(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 layers, in float32 from bfloat16: a piece and some blocks, never a stacked array."""
    import dataclasses

    config = dataclasses.replace(made.config_of(made.DENSE[2]), layers=12, width=256, ff=2048)
    params = made.random_params(config, ml_dtypes.bfloat16)
    hf.export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="bfloat16")
    del params
    monkeypatch.setattr(reader, "PIECE", 2**20)
    monkeypatch.setattr(reader, "BLOCK", 2**17)
    abstract = made.abstract(config)
    largest = 2 * 256 * 2048  # bytes of a feed-forward matrix as it is stored
    stacked = 12 * 2 * largest  # bytes of all of them as they are held
    hf.load(tmp_path / "hf", config, abstract)  # compiles
    peaks = []
    for _ in range(3):  # what other threads of the suite allocate meanwhile is not the loader's
        tracemalloc.start()
        found = hf.load(tmp_path / "hf", config, abstract)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert found["layers"]["mlp"]["up"]["kernel"].nbytes == stacked
    small = sum(x.nbytes for x in jax.tree.leaves(found) if x.nbytes <= 2**20)  # those may stay
    room = small + 2 * largest + 3 * reader.READERS * reader.BLOCK + 2**20
    assert 2 * largest <= min(peaks) < room < stacked


def rewrite(
    folder: Path, tmp_path: Path, changes: dict[str, np.ndarray | None], dtype: Any = np.float32
) -> Path:
    out = tmp_path / "changed"
    shutil.copytree(folder, out)
    tensors = safetensors.numpy.load_file(str(out / SINGLE))
    kept = {k: v.astype(dtype) for k, v in (tensors | changes).items() if v is not None}
    safetensors.numpy.save_file(kept, str(out / SINGLE))
    return out


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model.norm.weight": None}, "1 missing .'model.norm.weight'"),
        ({"model.extra": np.zeros(3)}, "1 unexpected .'model.extra'"),
        ({"model.norm.weight": np.zeros(3)}, "model.norm.weight has shape .3."),
        ({"lm_head.weight": np.zeros((200, 32))}, "lm_head.weight differs"),
        ({"lm_head.weight": np.zeros((200, 31))}, "lm_head.weight differs"),
    ],
)
def test_weights_that_do_not_fit_the_config_are_refused_by_name(
    folder: Path, tmp_path: Path, changes: dict[str, np.ndarray | None], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        made.load(rewrite(folder, tmp_path, changes))


def test_an_expert_too_few_is_named(moe_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(moe_folder, out)
    raw = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(raw | {"num_experts": 9}))
    with pytest.raises(ConfigError, match=r"missing .*layers.0.mlp.experts.8.down_proj"):
        made.load(out)


def test_a_tied_model_may_store_its_head_as_well(folder: Path, tmp_path: Path) -> None:
    _, params = made.load(folder)
    head = {"lm_head.weight": params["embed"]}
    assert made.same_bits(made.load(rewrite(folder, tmp_path, head))[1], params)


def test_missing_files_are_named(folder: Path, moe_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no config.json"):
        made.load(tmp_path)
    out = tmp_path / "one"
    shutil.copytree(folder, out)
    (out / SINGLE).unlink()
    with pytest.raises(ConfigError, match="no weights"):
        made.load(out)
    shutil.copytree(moe_folder, tmp_path / "many")
    next((tmp_path / "many").glob("model-00002*")).unlink()
    with pytest.raises(ConfigError, match="model-00002"):
        made.load(tmp_path / "many")
