"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): W stays, alpha / rank * A B is learnt.

They are leaves `lora_a` [D, rank] and `lora_b` [rank, F] beside the kernel [D, F] that they adapt.
What is trained is a tree of these leaves alone; joined with the base they are what a decoder runs,
and neither joining nor running ever makes the sum W + A B.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from seirenes_jax.knobs import Lora
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.state import Params

LEAVES = ("lora_a", "lora_b")


def without_adapters(config: ModelConfig) -> ModelConfig:
    """The model as its base is: what reference and start are."""
    return replace(config, lora=None)


def scale(lora: Lora) -> float:
    return lora.alpha / lora.rank


def split(params: Params) -> tuple[Params, Params]:
    """The base and the adapters of a tree that has both; no array is touched."""
    base, adapters = {}, {}
    for name, inner in params.items():
        if isinstance(inner, Mapping):
            base[name], one = split(inner)
            if one:
                adapters[name] = one
        else:
            (adapters if name in LEAVES else base)[name] = inner
    return base, adapters


def trained(params: Params, config: ModelConfig) -> Params:
    """Of all parameters, those that the optimizer moves."""
    return params if config.lora is None else split(params)[1]


def join(base: Params | None, params: Params) -> Params:
    """What the decoder runs. No base: all of it is trained."""
    if base is None:
        return params
    joined = dict(base)
    for name, inner in params.items():
        below = isinstance(inner, Mapping) and name in joined
        joined[name] = join(joined[name], inner) if below else inner
    return joined


def merged(kernel_DF: np.ndarray, a_Dr: np.ndarray, b_rF: np.ndarray, lora: Lora) -> np.ndarray:
    """The sum, in float32: for whoever knows no adapters."""
    delta_DF = np.float32(scale(lora)) * (a_Dr @ b_rF)
    return np.asarray(kernel_DF.astype(np.float32) + delta_DF)
