"""Adapters through a whole run: played, trained, killed, resumed, exported; never on another base.
"""

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from seirenes_jax import stored
from tests.whole import mini
from tests.whole.processes_test import alone, end, same_first_step, start
from tests.whole.resume_test import strike

EXPORT = (sys.executable, "launch/export.py")
KNOBS = {
    "model__lora__rank": 4, "steps": 4, "loss__kl": 0.05, "adversary__policy": "frozen",
    "eval__every": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed; copy it."""
    run = tmp_path_factory.mktemp("lora") / "run"
    mini.train(run, cache, **KNOBS)
    return run


def weights(folder: Path) -> dict[str, np.ndarray]:
    (file,) = folder.glob("*.safetensors")
    found: dict[str, np.ndarray] = safetensors.numpy.load_file(str(file))
    return found


def test_only_adapted_weights_move_and_only_adapters_are_saved(run: Path) -> None:
    start, end = weights(run / "base"), weights(run / "hf")
    assert start.keys() == end.keys()
    moved = {name for name in start if not np.array_equal(start[name], end[name])}
    assert moved == {name for name in start if name.endswith("_proj.weight")}
    saved = stored.record(run / "checkpoints", 4)[0]["leaves"]
    assert sum(path.startswith("params/") for path in saved) == 2 * 7
    arrays = {path: leaf for path, leaf in saved.items() if leaf[0]}  # without counters
    assert len(arrays) == 3 * 2 * 7  # with two moments each
    assert all(path.endswith(("lora_a", "lora_b")) for path in arrays)
    assert {dtype for _, dtype, _ in arrays.values()} == {"float32"}
    rows = mini.lines(run / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    # The reference is the base: at first the same, then not. The sampler is the trainer.
    assert rows[0]["kl_ref"] == 0.0 and rows[-1]["kl_ref"] > 0.0
    assert rows[0]["kl_behaviour"] < 1e-6  # later, groups that waited are an older policy's


@pytest.mark.long
def test_killed_and_resumed_it_ends_in_the_same_bits(
    run: Path, cache: Path, tmp_path: Path
) -> None:
    arguments = mini.flags(tmp_path / "run", cache, **KNOBS)
    for place in (
        ("seirenes_jax.hf.writer:_write_shard", "before", 1),  # its base is being kept
        ("seirenes_jax.learn:apply_gradient", "before", 2),
        ("seirenes_jax.checkpoint:Checkpoints.save", "after", 2),
    ):
        assert strike("SIGKILL", place, arguments).code == -signal.SIGKILL, place
    assert mini.launch(arguments).code == 0
    assert mini.read(tmp_path / "run") == mini.read(run)


def test_it_is_exported_merged_and_as_an_adapter(run: Path, tmp_path: Path) -> None:
    where = [f"--run={run}", "--prove"]
    told = mini.launch([*where, f"--out={tmp_path / 'merged'}"], EXPORT)
    assert told.code == 0 and "equal bit for bit" in told.out, told
    one, other = weights(tmp_path / "merged"), weights(run / "hf")
    assert one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)
    told = mini.launch([*where, "--adapter", f"--out={tmp_path / 'adapter'}"], EXPORT)
    assert told.code == 0 and "equal bit for bit" in told.out, told
    alone, base = weights(tmp_path / "adapter"), weights(run / "base")
    assert len(alone) == 2 * 7 * 2
    card = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert Path(card["base_model_name_or_path"]) == run / "base"
    scale = card["lora_alpha"] / card["r"]
    for name in (name for name in base if name.endswith("_proj.weight")):
        above = f"base_model.model.{name.removesuffix('.weight')}"
        a, b = (alone[f"{above}.lora_{part}.weight"] for part in "AB")
        np.testing.assert_allclose(one[name], base[name] + scale * (b @ a), atol=1e-6)


@pytest.mark.long
def test_peft_loads_the_adapter_of_a_run(run: Path, tmp_path: Path) -> None:
    peft, torch = pytest.importorskip("peft"), pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    out = tmp_path / "adapter"
    assert mini.launch([f"--run={run}", "--adapter", f"--out={out}"], EXPORT).code == 0
    tokens = torch.arange(40).reshape(2, 20)
    base = AutoModelForCausalLM.from_pretrained(run / "base", dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(run / "hf", dtype=torch.float32)
    with torch.no_grad():
        wanted, bare = merged(tokens).logits.numpy(), base(tokens).logits.numpy()
        found = peft.PeftModel.from_pretrained(base, out).eval()(tokens).logits.numpy()
    assert np.abs(wanted - bare).max() > 1e-3
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.long
def test_another_base_is_refused_and_a_run_of_adapters_is_no_start(
    run: Path, cache: Path, tmp_path: Path
) -> None:
    folder, mine = tmp_path / "model", tmp_path / "run"
    shutil.copytree(run / "base", folder)
    knobs = KNOBS | {"model__path": folder, "game": "rlvr", "loss__kl": 0.0}
    mini.train(mine, cache, **(knobs | {"steps": 1}))
    assert not (mine / "base").exists()  # it is where it was
    tensors = weights(folder)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + np.float32(1e-6)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    ended = mini.launch(mini.flags(mine, cache, **knobs))
    assert ended.code == 2 and "adapters of this run stand on weights of digest" in ended.err, ended
    told = mini.launch([f"--run={mine}", f"--out={tmp_path / 'out'}"], EXPORT)
    assert told.code == 2 and "stand on weights of digest" in told.err, told
    fresh = mini.flags(tmp_path / "fresh", cache, init_from=run, steps=1)
    ended = mini.launch(fresh)
    assert ended.code == 2 and "is a run of adapters" in ended.err, ended


@pytest.mark.long
@pytest.mark.parametrize("mesh", [{"mesh__data": 2}, {"mesh__fsdp": 2, "decode__tensor": 1}])
def test_two_processes_train_the_adapters_one_trains(
    mesh: dict[str, int], cache: Path, tmp_path: Path
) -> None:
    knobs = {**KNOBS, "steps": 2, **mesh}
    ended = alone(mini.flags(tmp_path / "one", cache, **knobs), devices=2)
    assert ended.code == 0, ended
    both = end(start(2, mini.flags(tmp_path / "two", cache, **knobs)))
    assert [one.code for one in both] == [0, 0], both
    one, two = (mini.lines(tmp_path / name / "metrics.jsonl")[0] for name in ("one", "two"))
    same_first_step(one, two)
    assert one["grad_norm"] > 0
    # What was exported holds what both processes have learnt, and all of the base.
    assert weights(tmp_path / "two" / "hf").keys() == weights(tmp_path / "one" / "hf").keys()
