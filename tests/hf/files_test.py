"""Weight files: what the official library writes is read alike; what does not add up is refused."""

import json
import shutil
import struct
import tempfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.files import HEADER_BYTES, INDEX, SINGLE, WeightFiles
from tests.bucket import bucket

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.arange(10).astype(ml_dtypes.bfloat16).reshape(5, 2),
    "c": np.arange(3).astype(np.float16),
}


def write(folder: Path, header: Any, body: bytes, length: int | None = None) -> Path:
    """A file as one pleases: header and body, and what the first 8 bytes claim."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    (folder / SINGLE).write_bytes(size + text + body)
    return folder


def entry(shape: list[Any], offsets: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_the_official_library_writes_is_read_alike(tmp_path: Path) -> None:
    safetensors.numpy.save_file(TENSORS, str(tmp_path / SINGLE), metadata={"format": "pt"})
    with WeightFiles(tmp_path) as files:
        assert files.tensors.keys() == TENSORS.keys()
        for name, x in TENSORS.items():
            found = files.rows(name, 0, len(x))
            assert found.dtype == x.dtype and found.shape == x.shape
            assert found.tobytes() == x.tobytes()
            np.testing.assert_array_equal(files.rows(name, 1, 3), x[1:3])


def test_only_the_rows_asked_for_are_read(tmp_path: Path) -> None:
    big = {"x": np.arange(400_000, dtype=np.float32).reshape(4000, 100), "y": np.zeros(7)}
    big["y"] = big["y"].astype(np.float32)
    with bucket() as store:
        store.objects["b/m/" + SINGLE] = safetensors.numpy.save(big)
        with WeightFiles("gs://b/m") as files:
            headers = sum(size for _, size in store.reads)
            found = files.rows("x", 1000, 1010)
        np.testing.assert_array_equal(found, big["x"][1000:1010])
        # The file handle reads ahead by a block of its own.
        assert headers <= 2 * 2**16 and sum(size for _, size in store.reads) - headers <= 2**17


GOOD = {"a": entry([2], [0, 8]), "b": entry([1, 2], [8, 16])}
HOSTILE = {
    "empty": (b"", b"", None, "header would have"),
    "endless": (GOOD, b"\0" * 16, 2**63, "header would have"),
    "longer than the file": (GOOD, b"", 10_000, "header would have"),
    "larger than any header": (b"{}", b"", HEADER_BYTES + 1, "header would have"),
    "no JSON": (b"pickled!", b"", None, "no JSON"),
    "not UTF-8": (b'{"\xff": 1}', b"", None, "no JSON"),
    "bottomless": (b"[" * 200_000, b"", None, "no JSON"),
    "a list": ([1], b"", None, "no table"),
    "twice": (b'{"a": 1, "a": 2}', b"", None, "twice"),
    "cut off": (GOOD, b"\0" * 15, None, "cut off"),
    "more than it says": (GOOD, b"\0" * 17, None, "cut off"),
    "a gap": ({"a": entry([2], [4, 12])}, b"\0" * 12, None, "begins at byte 4; wanted 0"),
    "overlap": ({"a": entry([2], [0, 8]), "b": entry([2], [4, 12])}, b"\0" * 12, None, "wanted 8"),
    "backwards": ({"a": entry([2], [8, 0])}, b"\0" * 8, None, "has -8 bytes"),
    "shape": ({"a": entry([3], [0, 8])}, b"\0" * 8, None, "has 8 bytes; wanted 12"),
    "negative": ({"a": entry([-2], [0, 8])}, b"\0" * 8, None, "wanted integers"),
    "fraction": ({"a": entry([2.0], [0, 8])}, b"\0" * 8, None, "wanted integers"),
    "truth": ({"a": entry([True, 2], [0, 8])}, b"\0" * 8, None, "wanted integers"),
    "beyond all files": ({"a": entry([2], [2**70, 2**70 + 8])}, b"", None, "wanted integers"),
    "quantised": ({"a": entry([8], [0, 8], "F8_E4M3")}, b"\0" * 8, None, "stored as F8_E4M3"),
    "nothing said": ({"a": {"dtype": "F32"}}, b"", None, "wanted dtype, shape"),
    "no entry": ({"a": 7}, b"", None, "wanted dtype, shape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_does_not_add_up_is_refused(name: str, tmp_path: Path) -> None:
    header, body, length, words = HOSTILE[name]
    with pytest.raises(ConfigError, match=words):
        WeightFiles(write(tmp_path, header, body, length))


@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_no_damage_to_a_header_gets_through_unseen(place: int, bits: bytes) -> None:
    """Either it is refused, by an error of ours, or the official library reads the same from it."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / SINGLE
        safetensors.numpy.save_file(TENSORS, str(file), metadata={"format": "pt"})
        data = bytearray(file.read_bytes())
        at = place % (len(data) - len(bits))
        data[at : at + len(bits)] = bits
        file.write_bytes(data)
        try:
            with WeightFiles(name) as files:
                ours = {k: files.rows(k, 0, t.shape[0]).tobytes() for k, t in files.tensors.items()}
        except ConfigError:
            return
        try:
            with safe_open(str(file), framework="np") as opened:
                theirs = {k: opened.get_tensor(k).tobytes() for k in opened.keys()}
        except (SafetensorError, ValueError):
            return  # stricter in things that we do not read
        assert ours == theirs


def test_an_index_is_read_and_checked(moe_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(moe_folder, out)
    raw = json.loads((out / INDEX).read_text())
    with WeightFiles(out) as files:
        assert files.tensors.keys() == raw["weight_map"].keys()
        assert len({tensor.file for tensor in files.tensors.values()}) > 2
    first, second, *_ = sorted({*raw["weight_map"].values()})
    moved = {k: second if v == first else v for k, v in raw["weight_map"].items()}
    for where, words in (
        (dict.fromkeys(raw["weight_map"], "../" + first), "wanted files beside it"),
        (dict.fromkeys(raw["weight_map"], "/etc/passwd"), "wanted files beside it"),
        ({"a": 3}, "wanted weight_map"),
        (None, "wanted weight_map"),
        (moved, "not in the files named for them"),
        (raw["weight_map"] | {"model.norm.weight": "nowhere.safetensors"}, "are missing"),
    ):
        (out / INDEX).write_text(json.dumps({"weight_map": where}))
        with pytest.raises(ConfigError, match=words):
            WeightFiles(out)


def test_pickles_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ConfigError, match="no weights.*pickled .bin weights are not read"):
        WeightFiles(tmp_path)
