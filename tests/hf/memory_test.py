"""A folder of some gigabytes comes in with little memory besides the parameters themselves."""

import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import hf
from seirenes_jax.hf.config import config_json
from seirenes_jax.hf.files import INDEX
from seirenes_jax.text import Tokenizer
from tests.hf import made

ROOT = Path(__file__).parents[2]
GIB = 2**30
SHAPES: dict[str, dict[str, Any]] = {
    "dense": {"layers": 6, "width": 4096, "ff": 12288, "vocab": 100_000, "heads": 32, "kv_heads": 8,
              "head_dim": 128},
    "experts": {"layers": 6, "width": 2048, "expert_ff": 768, "vocab": 100_000, "heads": 16,
                "kv_heads": 4, "head_dim": 128, "experts": 48},
}  # fmt: skip


def write_zeros(folder: Path, shape: str, tokenizer: Tokenizer) -> int:
    """Sparse files of zeros; returns the bytes of the largest tensor."""
    import dataclasses

    base = made.config_of(made.MOE[0] if shape == "experts" else made.DENSE[1])
    config = dataclasses.replace(base, **SHAPES[shape])
    where, largest, number = {}, 0, 0
    header: dict[str, Any] = {}
    at = 0

    def close() -> None:
        nonlocal header, at, number
        number += 1
        text = json.dumps(header).encode()
        with (folder / f"model-{number:05d}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + at)
        where.update(dict.fromkeys(header, f"model-{number:05d}.safetensors"))
        header, at = {}, 0

    for name, weight, _ in hf.tensors(hf.weights(config)):
        size = 2 * math.prod(weight.theirs)
        largest = max(largest, size)
        header[name] = {
            "dtype": "BF16", "shape": list(weight.theirs), "data_offsets": [at, at + size]
        }  # fmt: skip
        at += size
        if at > GIB:
            close()
    close()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(config_json(config, tokenizer, "bfloat16"))
    return largest


@pytest.mark.long
@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_import_of_gigabytes(
    shape: str, param_dtype: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    largest = write_zeros(tmp_path, shape, tokenizer)
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    told = subprocess.run(
        [sys.executable, "-m", "tests.hf.measured", str(tmp_path), param_dtype],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=True,
    )  # fmt: skip
    found = json.loads(told.stdout.splitlines()[-1])
    assert found["params"] > 3 * GIB
    besides = found["most"] - found["params"]
    print(f"{shape} {param_dtype}: {found['params'] / GIB:.2f} GiB, besides {besides / GIB:.2f}")
    assert besides < 2 * largest + GIB
