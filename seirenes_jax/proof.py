"""A run's weights as a Hugging Face folder, and the proof that the folder holds just those."""

import hashlib
from pathlib import Path
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
from seirenes_jax.report import saving, write_json
from seirenes_jax.settings import build
from seirenes_jax.start import model_of_run


def export_run(run: Path, out: Path, *, step: int | None) -> int:
    """Write the weights of a step (None: the newest) in the run's precision; which step it was."""
    settings = _settings(run)
    config, tokenizer = model_of_run(run, settings)
    taken, params = _weights(run, config, step)
    with saving(out):
        hf.export(params, config, out, tokenizer=tokenizer, dtype=settings.model.param_dtype)
    return taken


def prove(run: Path, out: Path, *, step: int) -> int:
    """Read `out` back, compare every bit with the checkpoint, write proof.json.

    Returns how many numbers were compared.
    """
    settings = _settings(run)
    config, model = model_of_run(run, settings)[0], settings.model
    params = _weights(run, config, step)[1]
    stored = hf.load(
        out, dtype=model.dtype, param_dtype=model.param_dtype, remat=model.remat
    )[1]  # fmt: skip
    written = dict(jax.tree_util.tree_flatten_with_path(stored)[0])
    differing = []
    total = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        ours, theirs = np.asarray(leaf), written.pop(path)
        total += ours.size
        if ours.dtype != theirs.dtype or ours.tobytes() != theirs.tobytes():
            differing.append(jax.tree_util.keystr(path, simple=True, separator="/"))
    if differing or written:
        raise CheckpointError(
            f"{out} does not hold the weights of step {step} of {run}: {len(differing)} arrays "
            f"differ {differing[:4]}, {len(written)} are left over; export again"
        )
    proof = {
        "run": str(run), "step": step, "equal": True, "weights": total,
        "dtype": model.param_dtype,
        "sha256": {file.name: _sha256(file) for file in sorted(out.glob("*.safetensors"))},
    }  # fmt: skip
    write_json(out / "proof.json", proof)
    return total


def _settings(run: Path) -> Settings:
    return build(ConfigDict(read_config(run)))


def _weights(run: Path, config: ModelConfig, step: int | None) -> tuple[int, Any]:
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shapes = jax.eval_shape(lambda: init_params(config, 0))
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes
    )
    return load_params(run / "checkpoints", abstract, step)


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
