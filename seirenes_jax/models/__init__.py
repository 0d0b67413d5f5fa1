"""The decoder and its config: the only names other rooms need."""

from seirenes_jax.models.config import ModelConfig
from seirenes_jax.models.decoder import Decoder, forward, head_kernel_DV, init_params, prefill_kv

__all__ = ["Decoder", "ModelConfig", "forward", "head_kernel_DV", "init_params", "prefill_kv"]
