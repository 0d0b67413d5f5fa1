"""Hugging Face folders in and out, without torch: one table of weights, read both ways."""

from seirenes_jax.hf.config import read_config
from seirenes_jax.hf.files import ADAPTER, SINGLE, WeightFiles, dtype_of
from seirenes_jax.hf.hub import find, local_copy
from seirenes_jax.hf.reader import load
from seirenes_jax.hf.table import Weight, adapter_weights, leaf_of, tensors, weights
from seirenes_jax.hf.writer import export, export_adapter, to_host, whole, write_config

__all__ = [
    "ADAPTER", "SINGLE", "Weight", "WeightFiles", "adapter_weights", "dtype_of", "export",
    "export_adapter", "find", "leaf_of", "load", "local_copy", "read_config", "tensors", "to_host",
    "weights", "whole", "write_config",
]  # fmt: skip
