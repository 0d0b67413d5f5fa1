"""Adapters elsewhere: PEFT loads ours onto the base and says what we say; merged they say the same.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from seirenes_jax import hf
from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Lora
from seirenes_jax.models import ModelConfig, split
from seirenes_jax.text import Tokenizer
from tests.hf import made
from tests.parity.hf_test import our_logits, their_logits, tokens

peft = pytest.importorskip("peft")
ALL, ATTENTION = ("q", "k", "v", "o", "gate", "up", "down"), ("q", "k", "v", "o")
CASES = [
    (made.DENSE[0], Lora(4, 6.0, ALL)),
    (made.DENSE[4], Lora(3, 16.0, ("v", "down"))),
    (made.MOE[0], Lora(2, 2.0, ATTENTION)),
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return made.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def adapted(shape: tuple[Any, ...], lora: Lora) -> tuple[ModelConfig, Any]:
    """A model with adapters that say something."""
    config = dataclasses.replace(made.config_of(shape), lora=lora)
    params = made.random_params(dataclasses.replace(config, lora=None))
    draw = np.random.default_rng(5)
    for weight in hf.adapter_weights(config):
        inner = params
        for key in weight.path[:-1]:
            inner = inner[key]
        inner[weight.path[-1]] = draw.normal(0.3, 0.2, weight.shape).astype(np.float32)
    return config, jax.tree.map(lambda x: x - 0.3, params)  # as in hf_test: logits of size 1 to 10


@pytest.mark.parametrize(("shape", "lora"), CASES, ids=str)
def test_peft_says_what_we_say(
    shape: tuple[Any, ...], lora: Lora, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    config, params = adapted(shape, lora)
    base, adapters = split(params)
    bare = dataclasses.replace(config, lora=None)
    hf.export(base, bare, tmp_path / "base", tokenizer=tokenizer, dtype="float32")
    hf.export(params, config, tmp_path / "merged", tokenizer=tokenizer, dtype="float32")
    hf.export_adapter(adapters, config, tmp_path / "adapter", base=str(tmp_path / "base"))
    ours = our_logits(params, config, tokens())
    assert np.abs(ours - our_logits(base, bare, tokens())).max() > 0.1

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    loaded = peft.PeftModel.from_pretrained(model, tmp_path / "adapter")
    names = {name for name, _ in loaded.named_parameters() if "lora_" in name}
    assert len(names) == 2 * made.LAYERS * len(lora.targets)
    np.testing.assert_allclose(ours, their_logits(loaded.eval(), tokens()), atol=1e-4, rtol=0)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    np.testing.assert_allclose(ours, their_logits(model, tokens()), atol=1e-4, rtol=0)
    _, again = made.load(tmp_path / "merged")
    np.testing.assert_allclose(ours, our_logits(again, bare, tokens()), atol=1e-4, rtol=0)


def test_an_adapter_names_its_base_and_takes_no_other_folder(tmp_path: Path) -> None:
    config, params = adapted(*CASES[0])
    adapters, out = split(params)[1], tmp_path / "adapter"
    hf.export_adapter(adapters, config, out, base="somebody/model")
    card = json.loads((out / "adapter_config.json").read_text())
    assert card["base_model_name_or_path"] == "somebody/model"
    assert (card["r"], card["lora_alpha"]) == (4, 6.0)
    hf.export_adapter(adapters, config, out, base="another/model")  # over an adapter
    assert "another/model" in (out / "adapter_config.json").read_text()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds something else"):
        hf.export_adapter(adapters, config, tmp_path / "full", base="somebody/model")
    with pytest.raises(ConfigError, match="the run has no adapters"):
        hf.export_adapter(
            {}, dataclasses.replace(config, lora=None), tmp_path / "none", base="somebody/model"
        )
