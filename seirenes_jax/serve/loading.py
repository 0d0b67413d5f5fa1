"""A run folder or a Hugging Face folder -> its weights in slots, ready to be asked."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp

from seirenes_jax import hf, knobs
from seirenes_jax.console import say
from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig
from seirenes_jax.models.config import fitted
from seirenes_jax.proof import read_run
from seirenes_jax.sampler import Sampler
from seirenes_jax.sharding import make_mesh
from seirenes_jax.start import abstract_params
from seirenes_jax.state import Params
from seirenes_jax.store import at
from seirenes_jax.text import Tokenizer, load_tokenizer
from seirenes_jax.types import LIVE

CONTEXT = 4096  # of a folder of weights, where nothing else is said
PREFILL_ROWS = 4  # prompts filled in at once; always the same number, so that company changes none
SHORTEST, LONGER = 64, 4  # prompts are filled up to 64 tokens, 256, 1024, ...
ONE_DEVICE = knobs.Mesh(data=1, fsdp=1, tensor=1, expert=1, sequence=1)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the flags say; None: as the run does, else as is usual."""

    place: str
    slots: int | None
    max_context: int | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in its slots."""

    name: str  # of its folder
    version: str  # of its weights
    sampler: Sampler
    context: int  # tokens of a prompt and its answer together


def load(wanted: Wanted, usual: Settings) -> Loaded:
    """A run's newest checkpoint, or the weights of a Hugging Face folder or hub id."""
    run = at(wanted.place)
    if (run / "checkpoints").is_dir():
        settings, config, tokenizer, step, params = read_run(run, None)
        tokens = settings.tokens
        context = tokens.prompt + max(tokens.reasoner, tokens.adversary)
        version = f"step {step}"
    else:
        settings, (config, tokenizer, params) = usual, _weights(wanted.place, usual)
        context, version = CONTEXT, "weights"
    config = fitted(config, settings.model, make_mesh(ONE_DEVICE))
    config = replace(config, replay_routes=False)  # nobody trains on these answers
    kind = jnp.dtype(config.dtype)  # what decodes needs no master weights
    params = jax.tree.map(lambda x: x if x.dtype == kind else x.astype(kind), params)
    sampler, context = _seated(config, tokenizer, settings, wanted, context)
    sampler.load(LIVE, params, 0)
    return Loaded(Path(wanted.place).absolute().name, version, sampler, context)


def _weights(place: str, usual: Settings) -> tuple[ModelConfig, Tokenizer, Params]:
    folder = hf.find(place)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"--model: got {place!r}; wanted a run folder (it has checkpoints/), a Hugging Face "
            "folder (config.json, *.safetensors, tokenizer files), or a hub id"
        )
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    config = hf.read_config(folder, dtype=dtype, param_dtype=dtype, remat=usual.model.remat)
    with hf.local_copy(folder) as small_files:
        tokenizer = load_tokenizer(small_files, usual.prompts.enable_thinking)
    params = hf.load(folder, config, abstract_params(config, make_mesh(ONE_DEVICE)))
    return config, tokenizer, params


def _seated(
    config: ModelConfig, tokenizer: Tokenizer, settings: Settings, wanted: Wanted, context: int
) -> tuple[Sampler, int]:
    """Slots with room for `context` tokens each, as far as the model reaches."""
    knob = settings.sampler
    reach = config.max_positions - knob.chunk
    asked = context if wanted.max_context is None else wanted.max_context
    context = min(asked, reach)
    if context < 2:
        raise ConfigError(f"--max_context: got {asked}; wanted at least 2, at most {reach}")
    slots = knob.slots if wanted.slots is None else wanted.slots
    lengths = [SHORTEST]
    while lengths[-1] * LONGER < context:
        lengths.append(lengths[-1] * LONGER)
    sampler = Sampler(
        config, tokenizer, replace(knob, slots=slots, temperature=1.0, top_k=0, top_p=1.0), seed=0,
        prompt_tokens=context - 1, answer_tokens=1, prefill_rows=PREFILL_ROWS,
        prefill_tokens=[length for length in lengths if length < context - 1],
    )  # fmt: skip
    numbers = 2 * config.layers * slots * config.kv_heads * sampler.columns * config.head_dim
    say(
        f"the cache of {slots} slots of {context} tokens takes "
        f"{numbers * jnp.dtype(config.dtype).itemsize / 2**30:.3g} GiB", sys.stderr
    )  # fmt: skip
    return sampler, context
