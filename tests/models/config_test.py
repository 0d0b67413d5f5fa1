"""Which kernels run where: chosen by platform, overridden by a knob, refused by name."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Lora, Model
from seirenes_jax.models import init_params, split
from seirenes_jax.models.attention import BACKENDS
from seirenes_jax.models.config import ATTENTION, MOE, ONLY_ON, PLATFORMS, fitted
from seirenes_jax.models.grouped import PRODUCTS
from seirenes_jax.settings import load
from tests.laws.small import CONFIG
from tests.laws.small import MOE as EXPERTS

KNOBS = load("configs/tiny.py")[0].model
ROUGH = dataclasses.replace(CONFIG, dtype="bfloat16")


def devices(platform: str, count: int = 1) -> Any:
    """All of a mesh that is looked at."""
    found = np.array([SimpleNamespace(platform=platform)] * count, dtype=object)
    return SimpleNamespace(devices=found, size=count, shape={"tensor": 1})


def knobs(**changed: Any) -> Model:
    return dataclasses.replace(KNOBS, **changed)


@pytest.mark.parametrize(
    ("platform", "attention", "moe"),
    [("cpu", "xla", "plain"), ("tpu", "splash", "mosaic"), ("gpu", "cudnn", "triton"),
     ("cuda", "cudnn", "triton")],
)  # fmt: skip
def test_a_platform_gets_its_kernels(platform: str, attention: str, moe: str) -> None:
    config = fitted(ROUGH, knobs(), devices(platform))
    assert (config.attention, config.moe) == (attention, moe)
    assert dataclasses.replace(config, attention="xla", moe="plain") == ROUGH


def test_cudnn_is_for_bfloat16() -> None:
    assert fitted(CONFIG, knobs(), devices("gpu")).attention == "xla"
    with pytest.raises(ConfigError, match=r"model.attention: cudnn.*model.dtype = float32"):
        fitted(CONFIG, knobs(attention="cudnn"), devices("gpu"))


def test_a_knob_overrides_the_platform() -> None:
    config = fitted(ROUGH, knobs(attention="xla", moe="plain"), devices("tpu"))
    assert (config.attention, config.moe) == ("xla", "plain")
    told = knobs(balance=0.5, replay_routes=False)
    config = fitted(ROUGH, told, devices("cpu"))
    assert (config.balance_scale, config.replay_routes) == (0.5, False)


@pytest.mark.parametrize(
    ("changed", "platform", "words"),
    [
        ({"attention": "splash"}, "cpu", "model.attention: splash runs on tpu, and this is cpu"),
        ({"attention": "cudnn"}, "tpu", "model.attention: cudnn runs on gpu, and this is tpu"),
        ({"moe": "triton"}, "tpu", "model.moe: triton runs on gpu, and this is tpu"),
        ({}, "abacus", "'abacus'; the model runs on cpu, tpu, gpu"),
    ],
)
def test_what_cannot_run_there_is_refused(
    changed: dict[str, str], platform: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        fitted(ROUGH, knobs(**changed), devices(platform))
    assert words in str(refused.value)


def test_a_mesh_of_one_device_is_none() -> None:
    assert fitted(ROUGH, knobs(), devices("cpu")).mesh is None
    mesh = devices("cpu", 2)
    assert fitted(ROUGH, knobs(), mesh).mesh is mesh


def test_the_tables_name_what_there_is() -> None:
    assert set(ATTENTION) == set(MOE) == set(PLATFORMS.values())
    assert set(ATTENTION.values()) == set(BACKENDS)
    assert set(MOE.values()) == set(PRODUCTS)
    assert set(ONLY_ON) <= BACKENDS.keys() | PRODUCTS.keys()


def test_what_adapters_stand_on_is_kept_in_the_compute_dtype() -> None:
    lora = dataclasses.replace(KNOBS.lora, rank=4, targets=("q", "v"))
    config = fitted(ROUGH, knobs(lora=lora, dtype="bfloat16"), devices("cpu"))
    assert config.lora == lora and config.param_dtype == "bfloat16"
    base, adapters = split(jax.eval_shape(lambda: init_params(config, 0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(base)} == {jnp.dtype("bfloat16")}
    assert {leaf.dtype for leaf in jax.tree.leaves(adapters)} == {jnp.dtype("float32")}
    off = fitted(ROUGH, knobs(dtype="bfloat16"), devices("cpu"))
    assert off.lora is None and off.param_dtype == "float32"


def test_experts_have_no_adapters() -> None:
    with pytest.raises(ConfigError, match="got gate, down, which are parts of the 8 experts"):
        dataclasses.replace(EXPERTS, lora=Lora(4, 8.0, ("q", "gate", "down")))


def test_experts_must_be_nameable_in_a_byte() -> None:
    with pytest.raises(ConfigError, match="4 of 300 experts"):
        dataclasses.replace(CONFIG, experts=300, experts_per_token=4, expert_ff=8)
    with pytest.raises(ConfigError, match="9 of 8 experts"):
        dataclasses.replace(CONFIG, experts=8, experts_per_token=9, expert_ff=8)
