"""Hugging Face folders in and out, without torch: one table of weights, read both ways."""

from seirenes_jax.hf.config import read_config
from seirenes_jax.hf.files import WeightFiles
from seirenes_jax.hf.hub import find, local_copy
from seirenes_jax.hf.reader import load
from seirenes_jax.hf.table import leaf_of, tensors, weights
from seirenes_jax.hf.writer import export, to_host, write_config

__all__ = [
    "WeightFiles", "export", "find", "leaf_of", "load", "local_copy", "read_config", "tensors",
    "to_host", "weights", "write_config",
]  # fmt: skip
