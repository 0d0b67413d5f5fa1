"""A tokenizer and an exported folder that all tests here may read."""

from pathlib import Path

import pytest

from seirenes_jax import hf
from seirenes_jax.text import Tokenizer
from tests.hf import made


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A dense model in float32, in one file."""
    config = made.config_of(made.DENSE[0])
    out = tmp_path_factory.mktemp("dense") / "hf"
    hf.export(made.random_params(config), config, out, tokenizer=tokenizer, dtype="float32")
    return out


@pytest.fixture(scope="session")
def moe_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A mixture of experts in bfloat16, in several files."""
    config = made.config_of(made.MOE[0])
    out = tmp_path_factory.mktemp("moe") / "hf"
    hf.export(
        made.random_params(config), config, out, tokenizer=tokenizer, dtype="bfloat16",
        shard_bytes=40_000,
    )  # fmt: skip
    return out
