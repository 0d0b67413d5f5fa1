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

__all__ = [
    "ModelConfig", "Out", "Slots", "forward", "head_kernel_DV", "init_params", "prefill", "read",
    "step",
]  # fmt: skip
