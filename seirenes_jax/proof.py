"""A run's weights as a Hugging Face folder, and the proof that the folder holds just those."""

import hashlib
import json
import math
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from seirenes_jax import hf
from seirenes_jax.checkpoint import load_params
from seirenes_jax.errors import CheckpointError
from seirenes_jax.folder import read_config
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.report import saving
from seirenes_jax.settings import build
from seirenes_jax.start import model_of_run
from seirenes_jax.store import Folder, at


def export_run(run: Folder, out: Folder, *, step: int | None) -> int:
    """Write the weights of a step (None: the newest) in the run's precision; which step it was."""
    settings = _settings(run)
    config, tokenizer = model_of_run(run, settings)
    taken, params = _weights(run, config, step)
    with saving(out):
        hf.export(params, config, out, tokenizer=tokenizer, dtype=settings.model.param_dtype)
    return taken


def prove(run: Folder, out: Folder, *, step: int) -> int:
    """Read `out` back, compare every bit with the checkpoint, write proof.json.

    Returns how many numbers were compared. One tensor at a time is in memory besides the
    checkpoint's.
    """
    settings = _settings(run)
    model = settings.model
    config = model_of_run(run, settings)[0]
    precision = {"dtype": model.dtype, "param_dtype": model.param_dtype, "remat": model.remat}
    if hf.read_config(out, **precision) != config:
        raise CheckpointError(f"{out}: config.json is not that of {run}; export again")
    params = _weights(run, config, step)[1]
    table = hf.weights(config)
    with hf.WeightFiles(out) as files:
        names = {name: (weight, index) for name, weight, index in hf.tensors(table)}
        strangers = sorted(files.tensors.keys() - names.keys())
        differing = [
            name for name, (weight, index) in names.items()
            if not _holds(files, name, weight.to_theirs(
                hf.to_host(hf.leaf_of(params, weight.path), index)
            ))
        ]  # fmt: skip
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


def _settings(run: Folder) -> Settings:
    return build(ConfigDict(read_config(run)))


def _weights(run: Folder, config: ModelConfig, step: int | None) -> tuple[int, Any]:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_params(config, 0))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes
    )
    return load_params(run / "checkpoints", abstract, step)


def _sha256(file: Folder) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while block := handle.read(2**24):
            digest.update(block)
    return digest.hexdigest()
