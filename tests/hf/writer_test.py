"""Export: what goes out comes back bit for bit, whole or not at all, on a disk and in a store."""

import dataclasses
import json
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from transformers import AutoTokenizer

from seirenes_jax import hf
from seirenes_jax.errors import ConfigError
from seirenes_jax.store import at
from seirenes_jax.text import Tokenizer, load_tokenizer
from tests.bucket import Store, bucket
from tests.hf import made
from tests.hf.reader_test import mesh


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_there_and_back_is_bit_equal_over_many_shards(
    shape: tuple[Any, ...], dtype: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = made.config_of(shape)
    params = made.random_params(config)
    if dtype == "bfloat16":  # what bfloat16 can hold, in float32
        params = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16).astype(np.float32), params)
    first, second = tmp_path / "first", tmp_path / "second"
    hf.export(params, config, first, tokenizer=tokenizer, dtype=dtype, shard_bytes=20_000)
    assert len(list(first.glob("*.safetensors"))) > 2
    again, loaded = made.load(first)
    assert again == config and made.same_bits(loaded, params)
    hf.export(loaded, again, second, tokenizer=tokenizer, dtype=dtype)
    assert [f.name for f in second.glob("*.safetensors")] == ["model.safetensors"]
    assert made.same_bits(made.load(second)[1], params)


@pytest.mark.parametrize("shape", made.SHAPES, ids=str)
def test_the_official_library_reads_the_same_numbers(
    shape: tuple[Any, ...], tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = made.config_of(shape)
    params = made.random_params(config)
    hf.export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="bfloat16")
    with safe_open(str(tmp_path / "hf" / "model.safetensors"), framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
        names = {*opened.keys()}
        for name, weight, index in hf.tensors(hf.weights(config)):
            ours = hf.leaf_of(params, weight.path)[index].astype(ml_dtypes.bfloat16)
            found = opened.get_tensor(name)
            assert found.shape == weight.theirs
            assert weight.to_ours(found).tobytes() == ours.tobytes(), name
            names.remove(name)
    assert not names


def test_parameters_may_be_kept_in_bfloat16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = dataclasses.replace(made.config_of(made.DENSE[0]), param_dtype="bfloat16")
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), made.random_params(config))
    hf.export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="bfloat16")
    kept = made.load(tmp_path / "hf", dtype="bfloat16", param_dtype="bfloat16", remat="full")
    assert kept[0] == dataclasses.replace(config, dtype="bfloat16", remat="full")
    assert made.same_bits(kept[1], jax.tree.map(np.asarray, params))


def test_arrays_in_any_order_of_memory_are_written_right(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config = made.config_of(made.MOE[0])
    params = made.random_params(config)
    strided = jax.tree.map(lambda x: np.asfortranarray(np.repeat(x, 2, axis=-1))[..., ::2], params)
    assert not strided["embed"].flags.c_contiguous
    for name, tree in (("plain", params), ("strided", strided)):
        hf.export(tree, config, tmp_path / name, tokenizer=tokenizer, dtype="float32")
    first, second = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "strided")
    )
    assert first == second


def test_what_is_shared_out_over_devices_goes_out_whole(
    moe_folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config, _ = made.load(moe_folder)
    params = hf.load(moe_folder, config, made.abstract(config, mesh(fsdp=2, tensor=2, expert=2)))
    out = tmp_path / "hf"
    hf.export(params, config, out, tokenizer=tokenizer, dtype="bfloat16", shard_bytes=40_000)
    assert contents(out) == contents(moe_folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_one_tensor_at_a_time_is_in_memory(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = dataclasses.replace(made.config_of(made.DENSE[2]), layers=12, width=256, ff=2048)
    params = made.random_params(config)
    largest = 4 * 256 * 2048
    total = sum(x.nbytes for x in jax.tree.leaves(params))
    tracemalloc.start()
    hf.export(params, config, tmp_path / "hf", tokenizer=tokenizer, dtype="float32")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A tensor in our order, converted, and in theirs.
    assert largest < peak < 4 * largest + 2**20 < total / 4


def test_the_export_speaks_the_same_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = made.config_of(made.DENSE[0])
    out = tmp_path / "hf"
    for dtype in ("bfloat16", "float32"):  # once more over what is there
        hf.export(made.random_params(config), config, out, tokenizer=tokenizer, dtype=dtype)
    assert not list(tmp_path.glob(".*partial*"))
    ours, auto = load_tokenizer(out), AutoTokenizer.from_pretrained(str(out))
    text = "Tom has 12 apples. \\boxed{17}"
    assert ours.encode(text) == auto.encode(text) == tokenizer.encode(text)
    assert ours.stop_ids == tokenizer.stop_ids == (auto.eos_token_id,)
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == tokenizer.stop_ids[0]


def test_an_export_takes_every_parameter_or_none(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = made.config_of(made.DENSE[0])
    out, params = tmp_path / "hf", made.random_params(config)
    with pytest.raises(ConfigError, match="no place .* .'head'"):
        extra = params | {"head": np.zeros((32, 200), np.float32)}
        hf.export(extra, config, out, tokenizer=tokenizer, dtype="float32")
    small = dataclasses.replace(config, vocab=20)
    with pytest.raises(ConfigError, match="ids, the model 20 rows"):
        hf.export(made.random_params(small), small, out, tokenizer=tokenizer, dtype="float32")
    assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="holds something else"):
        hf.export(params, config, out, tokenizer=tokenizer, dtype="float32")
    assert (out / "thesis.tex").read_text() == "years of work"


def names_of(store: Store, folder: str) -> set[str]:
    return {name.removeprefix(folder) for name in store.objects if name.startswith(folder)}


def test_a_store_gets_the_same_files_config_last(
    moe_folder: Path, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config, params = made.load(moe_folder)
    with bucket() as store:
        out = at("gs://b/out/hf")
        store.objects["b/out/other.txt"] = b"beside it"
        hf.export(params, config, out, tokenizer=tokenizer, dtype="bfloat16", shard_bytes=40_000)
        files = {n.removeprefix("b/out/hf/"): x for n, x in store.objects.items() if "/hf/" in n}
        assert files == contents(moe_folder)
        assert store.written[-1] == "b/out/hf/config.json"
        # Over it: another number of files. What made the old one a model goes first.
        store.written.clear()
        hf.export(params, config, out, tokenizer=tokenizer, dtype="bfloat16")
        assert store.written[-1] == "b/out/hf/config.json"
        weights = {n for n in names_of(store, "b/out/hf/") if "safetensors" in n}
        assert weights == {"model.safetensors"}
        assert store.objects["b/out/other.txt"] == b"beside it"
        assert made.same_bits(made.load("gs://b/out/hf")[1], params)
        with hf.local_copy(out) as small:
            assert load_tokenizer(small).stop_ids == tokenizer.stop_ids
        store.objects["b/thesis/thesis.tex"] = b"years of work"
        with pytest.raises(ConfigError, match="holds something else"):
            hf.export(params, config, "gs://b/thesis", tokenizer=tokenizer, dtype="bfloat16")
        assert names_of(store, "b/thesis/") == {"thesis.tex"}


def test_a_store_that_fails_halfway_holds_no_model(
    moe_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, params = made.load(moe_folder)
    with bucket() as store:
        out = "gs://b/hf"
        hf.export(params, config, out, tokenizer=tokenizer, dtype="bfloat16")

        def fail(*_: Any, **__: Any) -> None:
            raise OSError("the store is gone")

        monkeypatch.setattr(type(tokenizer), "save", fail)
        with pytest.raises(OSError, match="gone"):
            hf.export(params, config, out, tokenizer=tokenizer, dtype="bfloat16")
        assert "b/hf/config.json" not in store.objects
        with pytest.raises(ConfigError, match="no config.json in 'gs://b/hf'"):
            made.load(out)
