"""An export holds a run's weights to the last bit; the proof sees a single one flipped."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
import safetensors.numpy
from transformers import AutoTokenizer

from seirenes_jax import hf, settings
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import CheckpointError, ConfigError
from seirenes_jax.folder import write_config
from seirenes_jax.models import init_params
from seirenes_jax.models.config import from_shape
from seirenes_jax.proof import export_run, prove
from seirenes_jax.state import TrainState
from seirenes_jax.store import at
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import load_tokenizer
from tests.bucket import bucket

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints of a small bfloat16 model; nothing was trained."""
    folder = tmp_path_factory.mktemp("run")
    config = settings.read_file(str(ROOT / "configs/base.py"))
    settings.override_knob(config, "model.param_dtype", "bfloat16")
    knobs = settings.build(config).model
    write_config(folder, config)
    texts = [f"{a} and {b} make {a + b}." for a in range(20) for b in range(20)]
    train_tokenizer(texts, 100, folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    model = from_shape(knobs, vocab=tokenizer.vocab_size, max_positions=64)
    hf.write_config(model, folder / "model", tokenizer=tokenizer, dtype=knobs.param_dtype)
    with Checkpoints(folder / "checkpoints", keep=2) as checkpoints:
        for step in (3, 7):
            state = TrainState(jnp.int32(step), init_params(model, step), {"m": jnp.zeros(3)})
            checkpoints.save(step, state, host_arrays={}, host_json={}, metric=None)
    return folder


def test_the_newest_step_comes_out_bit_for_bit(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_run(run, out, step=None) == 7
    count = prove(run, out, step=7)
    proof = json.loads((out / "proof.json").read_text())
    assert proof["equal"] is True and proof["dtype"] == "bfloat16"
    assert proof["weights"] == count > 100_000
    assert list(proof["sha256"]) == ["model.safetensors"]
    assert AutoTokenizer.from_pretrained(out).chat_template


def test_another_step_is_not_proved(run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out", step=3)
    with pytest.raises(CheckpointError, match="does not hold the weights of step 7"):
        prove(run, tmp_path / "out", step=7)
    assert not (tmp_path / "out" / "proof.json").exists()


def test_one_flipped_bit_is_seen(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(run, out, step=7)
    data = bytearray((out / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (out / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"1 tensors differ .'model.norm.weight'"):
        prove(run, out, step=7)


def test_a_config_that_was_changed_is_seen(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(run, out, step=7)
    raw = json.loads((out / "config.json").read_text())
    raw["rope_theta"] = raw["rope_parameters"]["rope_theta"] = 7.0
    (out / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="config.json is not that of"):
        prove(run, out, step=7)


def test_a_tensor_too_many_or_too_few_is_seen(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_run(run, out, step=7)
    tensors = safetensors.numpy.load_file(str(out / "model.safetensors"))
    tensors["model.stranger"] = tensors.pop("model.norm.weight")
    safetensors.numpy.save_file(tensors, str(out / "model.safetensors"))
    with pytest.raises(CheckpointError, match="1 tensors differ.*1 are left over"):
        prove(run, out, step=7)


def test_a_store_takes_export_and_proof(run: Path) -> None:
    with bucket() as store:
        out = at("gs://b/exports/tiny")
        assert export_run(run, out, step=3) == 3
        count = prove(run, out, step=3)
        proof = json.loads(store.objects["b/exports/tiny/proof.json"])
        weights = store.objects["b/exports/tiny/model.safetensors"]
        digest = hashlib.sha256(weights).hexdigest()
        assert proof["weights"] == count and proof["sha256"] == {"model.safetensors": digest}
        export_run(run, out, step=7)  # what was proved is there no more, nor is its proof
        assert "b/exports/tiny/proof.json" not in store.objects


def test_a_step_that_was_not_saved_is_a_mistake(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no checkpoint of step 5"):
        export_run(run, tmp_path / "out", step=5)
    assert not (tmp_path / "out").exists()


def test_the_command(run: Path, tmp_path: Path) -> None:
    flags = [f"--run={run}", f"--out={tmp_path / 'out'}", "--step=3", "--prove"]
    told = subprocess.run(
        [sys.executable, ROOT / "launch/export.py", *flags],
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert "step 3" in told.stdout and "equal bit for bit" in told.stdout
    assert json.loads((tmp_path / "out" / "proof.json").read_text())["step"] == 3
