"""A run's weights as a Hugging Face folder, its adapters as PEFT's, and the proof that a folder
holds just those.
"""

import hashlib
import json
import math
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from seirenes_jax import base as bases
from seirenes_jax import hf
from seirenes_jax.checkpoint import load_params
from seirenes_jax.errors import CheckpointError
from seirenes_jax.folder import read_config
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig, init_params, join, split, trained
from seirenes_jax.models.config import adapted
from seirenes_jax.report import saving
from seirenes_jax.settings import build
from seirenes_jax.start import model_of_run
from seirenes_jax.store import Folder, at
from seirenes_jax.text import Tokenizer


def export_run(run: Folder, out: Folder, *, step: int | None, adapter: bool = False) -> int:
    """Write the weights of a step (None: the newest) in the run's precision, or its adapters alone;
    which step it was."""
    settings = _settings(run)
    config, tokenizer = _model(run, settings)
    taken, params = _weights(run, settings, config, step, bare=adapter)
    with saving(out):
        if adapter:
            base = bases.place_of(run, settings)
            hf.export_adapter(params, config, out, base=base)
        else:
            hf.export(params, config, out, tokenizer=tokenizer, dtype=settings.model.param_dtype)
    return taken


def prove(run: Folder, out: Folder, *, step: int, adapter: bool = False) -> int:
    """Read `out` back, compare every bit with the checkpoint (its adapters merged once more, where
    `out` is no adapter), write proof.json.

    Returns how many numbers were compared. One tensor at a time is in memory besides the
    checkpoint's.
    """
    settings = _settings(run)
    model, (config, _) = settings.model, _model(run, settings)
    precision = {"dtype": model.dtype, "param_dtype": model.param_dtype, "remat": model.remat}
    if not adapter and hf.read_config(out, **precision) != model_of_run(run, settings)[0]:
        raise CheckpointError(f"{out}: config.json is not that of {run}; export again")
    params = _weights(run, settings, config, step, bare=adapter)[1]
    table = hf.adapter_weights(config) if adapter else hf.weights(config)
    kind = hf.dtype_of(model.param_dtype)

    def wanted(weight: hf.Weight, index: tuple[int, ...]) -> np.ndarray:
        return weight.to_theirs(hf.whole(params, weight, index, config).astype(kind))

    with hf.WeightFiles(out, single=hf.ADAPTER if adapter else hf.SINGLE) as files:
        names = {name: (weight, index) for name, weight, index in hf.tensors(table)}
        strangers = sorted(files.tensors.keys() - names.keys())
        differing = [n for n, found in names.items() if not _holds(files, n, wanted(*found))]
    if differing or strangers:
        raise CheckpointError(
            f"{out} does not hold the weights of step {step} of {run}: {len(differing)} tensors "
            f"differ {differing[:4]}, {len(strangers)} are left over; export again"
        )
    total = sum(math.prod(weight.shape) for weight in table)
    folder = at(out)
    proof = {
        "run": str(run), "step": step, "equal": True, "weights": total,
        "dtype": model.param_dtype,
        "sha256": {file.name: _sha256(file) for file in sorted(folder.glob("*.safetensors"))},
    }  # fmt: skip
    with saving(out):
        (folder / "proof.json").write_text(json.dumps(proof, indent=2) + "\n")
    return total


def _holds(files: hf.WeightFiles, name: str, wanted: np.ndarray) -> bool:
    """The same bits in the same shape under this name."""
    found = files.tensors.get(name)
    if found is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return False
    return files.rows(name, 0, len(wanted)).tobytes() == wanted.tobytes()


def read_run(
    run: Folder, step: int | None
) -> tuple[Settings, ModelConfig, Tokenizer, int, Any]:
    """What a run is made of and its weights at a step (None: the newest), on one device."""
    settings = _settings(run)
    config, tokenizer = _model(run, settings)
    taken, params = _weights(run, settings, config, step, bare=False)
    return settings, config, tokenizer, taken, params


def _settings(run: Folder) -> Settings:
    return build(ConfigDict(read_config(run)))


def _model(run: Folder, settings: Settings) -> tuple[ModelConfig, Tokenizer]:
    config, tokenizer = model_of_run(run, settings)
    return adapted(config, settings.model), tokenizer


def _weights(
    run: Folder, settings: Settings, config: ModelConfig, step: int | None, *, bare: bool
) -> tuple[int, Any]:
    """What was trained; with what it stands on, unless `bare`."""
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_params(config, 0))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes
    )
    taken, params = load_params(run / "checkpoints", trained(abstract, config), step)
    if config.lora is None or bare:
        return taken, params
    below = split(abstract)[0]
    base = bases.of_run(run, settings, config, abstract=below, step=taken)
    return taken, join(base, params)


def _sha256(file: Folder) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(2**24):
            digest.update(block)
    return digest.hexdigest()
