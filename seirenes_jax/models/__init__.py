"""The decoder and its config: the only names other rooms need."""

from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.decoder import (
    Out,
    Slots,
    forward,
    head_kernel_DV,
    init_params,
    prefill,
    read,
    step,
)
from seirenes_jax.models.lora import join, split, trained, without_adapters

__all__ = [
    "ModelConfig", "Out", "Slots", "forward", "head_kernel_DV", "init_params", "join", "prefill",
    "read", "split", "step", "trained", "without_adapters",
]  # fmt: skip
