"""The balance loss against transformers': one sequence, one layer, where both mean the same."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from seirenes_jax.models.moe import imbalance, route


@pytest.mark.parametrize("k", [1, 2, 5])
def test_of_one_sequence_the_balance_loss_is_theirs(k: int) -> None:
    logits_TE = (np.random.default_rng(k).normal(size=(24, 8)) * 2).astype(np.float32)
    wanted = load_balancing_loss_func((torch.tensor(logits_TE),), 8, k)
    routed = route(jnp.asarray(logits_TE[None]), None, k)
    found = jnp.mean(imbalance(routed, jnp.ones((1, 24), jnp.int32)))
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)
    assert float(found) > k  # k is where all experts are used alike
