"""What a plan says: sizes against arrays that exist, arithmetic against known figures, compiles for
TPUs that are not there, and every preset."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from seirenes_jax import cheapest, footprint, plan, plan_table, programs, roofline, topologies
from seirenes_jax import settings as config_files
from seirenes_jax.checks import check
from seirenes_jax.errors import ConfigError
from seirenes_jax.games import GAMES
from seirenes_jax.gear import first_state
from seirenes_jax.knobs import Settings
from seirenes_jax.models import ModelConfig, init_params
from seirenes_jax.state import abstract_state
from seirenes_jax.topologies import CPU, KINDS, TPU_AOT, Topology

CONFIGS = Path(__file__).parent.parent / "configs"
# Every preset and the machine it is for.
PRESETS = {f"{p.config}.py:{p.variant}": p.topology for p in plan_table.presets()}
LIBTPU = topologies.how(topologies.parse("v5e:2x2")) == TPU_AOT
needs_libtpu = pytest.mark.skipif(not LIBTPU, reason='needs libtpu: pip install "jax[tpu]"')


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """A plan readies its process; the next test finds it as it was."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ |= before


def tiny(*knobs: str) -> Settings:
    settings, _ = config_files.load(str(CONFIGS / "tiny.py"), knobs)
    return settings


def preset(spec: str) -> Settings:
    settings, _ = config_files.load(str(CONFIGS / spec))
    return settings


def scene_of(settings: Settings, topology: str) -> programs.Scene:
    return programs.set_scene(
        settings, plan.model_config(settings), topologies.parse(topology)
    )


# -- machines --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "a_process"),
    [("v5e:8x8", 64, 4), ("v5p:2x2x4", 16, 4), ("v5e:1x1", 1, 1), ("h200", 1, 1), ("h100:8", 8, 8)],
)
def test_a_machine_is_known_by_its_name(name: str, count: int, a_process: int) -> None:
    found = topologies.parse(name)
    assert (found.count, found.a_process) == (count, a_process)


@pytest.mark.parametrize(
    ("name", "words"),
    [("v9:2x2", "wanted one of v4, v5e"), ("v5e:8", "wants 2 numbers"), ("v5e:axb", "2 numbers"),
     ("v5e:3x3", "9 devices; there are v5e:1x1"), ("h200:16", "at most 8"), ("v5e:0x4", "numbers")],
)  # fmt: skip
def test_a_machine_that_is_not_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        topologies.parse(name)


def test_an_island_is_a_smaller_machine_of_the_same_kind() -> None:
    pod = topologies.parse("v5e:16x16")
    assert topologies.island(pod, 8).name == "v5e:2x4"
    assert topologies.island(pod, 256) == pod
    with pytest.raises(ConfigError, match="island of 12"):
        topologies.island(pod, 12)


# -- what is held ----------------------------------------------------------------------------------


def test_described_arrays_are_those_that_a_run_holds() -> None:
    """Same trees, shapes, dtypes and bytes a device as the state that a run really makes."""
    settings = tiny("mesh.fsdp=4", "mesh.tensor=1", "decode.tensor=1")
    scene = scene_of(settings, "h100:8")
    real = init_params(scene.config, 0)
    real = jax.device_put(real, jax.tree.map(lambda x: x.sharding, scene.arrays["weights"]))
    described = abstract_state(scene.arrays["weights"], scene.optimizer, scene.mesh)
    state = first_state(real, scene.optimizer, described)

    def like(x: Any) -> Any:
        return x.shape, x.dtype, x.sharding.shard_shape(x.shape)

    for name, held in (("weights", state.params), ("moments", state.opt_state)):
        assert jax.tree.map(like, scene.arrays[name]) == jax.tree.map(like, held)
        on_first = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(held))
        assert programs.device_bytes(scene.arrays[name]) == on_first


def test_what_decodes_is_shared_out_over_the_island() -> None:
    one = scene_of(tiny("mesh.fsdp=8"), "h100:8").arrays
    two = scene_of(tiny("mesh.fsdp=8", "decode.expert=2"), "h100:8").arrays
    assert programs.device_bytes(one["cache"]) == programs.device_bytes(two["cache"])
    assert jax.tree.leaves(one["copy"])[0].dtype == "float32"  # tiny decodes as it trains
    frozen = scene_of(tiny("mesh.fsdp=8", "adversary.policy=frozen"), "h100:8")
    live = scene_of(tiny("mesh.fsdp=8"), "h100:8")
    # A frozen adversary's weights stay; its cache goes before the update, as the live one's does.
    for phase, held in (("decode", ("copy", "cache")), ("train", ("copy",))):
        judged = footprint.Judged(phase, "", (), CPU, 0, 0, 0)
        extra = judged.resident_gib(frozen) - judged.resident_gib(live)
        assert extra == pytest.approx(sum(frozen.sizes[name] for name in held) / 2**30)


def test_a_micro_batch_is_that_of_the_loop() -> None:
    settings = tiny("loss.kl=0.1", "loss.rescore=true", "game=rlvr")
    batch = programs.train_batch(scene_of(settings, "h100:8"))
    shape = (settings.batch.rows, settings.batch.row_tokens)
    rows = {name: x for name, x in vars(batch).items() if name.endswith("_BT")}
    assert {x.shape for x in rows.values()} == {shape} and len(rows) == 12
    assert batch.temperature.shape == () and batch.routes is None


def test_adapters_stand_on_weights_that_decode_as_they_are() -> None:
    """One device, one dtype: the base is there once; on many it is laid out beside the other."""
    knobs = ("model.lora.rank=4", "model.dtype=bfloat16")
    one, many = scene_of(tiny(*knobs), "h100:1"), scene_of(tiny(*knobs, "mesh.fsdp=8"), "h100:8")
    full = scene_of(tiny("model.dtype=bfloat16"), "h100:1")
    base, adapters = one.sizes["base"], one.sizes["weights"]
    assert base * 2 == full.sizes["weights"] and "base" not in full.sizes
    assert one.shared == ("base",) and one.sizes["copy"] == adapters / 2  # those, in bfloat16
    assert many.shared == () and many.sizes["copy"] > many.sizes["base"]
    assert one.sizes["gradient"] == adapters and one.sizes["moments"] == pytest.approx(
        2 * adapters, rel=0.01
    )
    held = {program.name: program.held for program in programs.programs(one)}
    assert held["run_chunk"] == ("base", "copy", "cache")
    assert held["add_gradient"] == ("weights", "base", "gradient")
    assert "base" not in held["apply_gradient"] and "base" in footprint.ALIVE["train"]


@pytest.mark.parametrize(("kept", "times"), [("float32", 2.0), ("bfloat16", 1.0)])
def test_moments_are_as_large_as_they_are_kept(kept: str, times: float) -> None:
    sizes = scene_of(tiny(f"optimizer.moments={kept}"), "h100:1").sizes
    assert sizes["moments"] == pytest.approx(times * sizes["weights"], rel=1e-3)


# -- arithmetic ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "billions", "kib"),
    [("qwen4b.py:v5e", 4.02, 144), ("qwen7b.py:v5e", 7.62, 56), ("qwen30b.py:v5e", 30.5, 96)],
)
def test_known_models_have_their_known_size(spec: str, billions: float, kib: int) -> None:
    model = plan.model_config(preset(spec))
    shapes = jax.eval_shape(lambda: init_params(model, 0))
    true = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    assert true == pytest.approx(billions * 1e9, rel=0.003)
    assert roofline.parameters(model) == pytest.approx(true, rel=0.001)
    assert roofline.cached_bytes(model) == kib * 1024


def test_decoding_is_bound_by_what_is_read() -> None:
    """One H200, 64 answers of 2,048 tokens behind them: 10.1 thousand tokens a second by hand."""
    model = plan.model_config(preset("qwen4b.py:h200"))
    settings = cheapest.with_knobs(preset("qwen4b.py:h200"), {"sampler.slots": 64})
    load = roofline.Work(prompts=1, prompt=2048 - 50, answers=1000, answer=100)
    _, read = roofline._decode(settings, model, load, copies=1, slots=64)
    assert load.drawn / (read / KINDS["h200"].gb_s / 1e9) == pytest.approx(10_100, rel=0.02)


def test_training_costs_six_operations_a_weight_and_token() -> None:
    model = plan.model_config(preset("qwen4b.py:v5e"))
    assert 3 * roofline.forward_flops(model, 1000, 0) == pytest.approx(6 * 4.02e12, rel=0.01)
    sparse = plan.model_config(preset("qwen30b.py:v5e"))
    assert roofline.forward_flops(sparse, 1, 0) == pytest.approx(2 * 3.04e9, rel=0.02)


def test_phases_of_a_step_add_up_from_its_work() -> None:
    settings = tiny("game=rlvr", "model.remat=none")
    topology, model = topologies.parse("h100:8"), plan.model_config(settings)
    load = roofline.work(settings)
    assert load.answers == settings.problems_per_step * settings.rollouts.clean
    costs = roofline.costs(settings, model, topology, copies=8)
    again = roofline.costs(
        cheapest.with_knobs(settings, {"model.remat": "full"}), model, topology, copies=8
    )
    assert costs["score"].flops == 0.0 and costs["train"].flops == again["train"].flops
    assert again["train"].seconds == pytest.approx(4 / 3 * costs["train"].seconds)


# -- the answer ------------------------------------------------------------------------------------

KEYS = {
    "name", "program_peak_gib", "resident_gib", "peak_gib", "limit_gib", "fits", "flops",
    "modelled_seconds", "how",
}  # fmt: skip


def run(*argv: str) -> tuple[int, dict[str, Any]]:
    out = Path(argv[-1])
    code = plan.main([*argv[:-1], f"--json={out}"])
    return code, json.loads(out.read_text())


def test_a_plan_that_is_only_arithmetic(tmp_path: Path) -> None:
    config = f"--config={CONFIGS / 'tiny.py'}"
    flags = [config, "--topology=v4:2x2x1", f"--cache_dir={tmp_path}", "--config.mesh.fsdp=4"]
    code, answer = run(*flags, str(tmp_path / "plan.json"))
    assert code == 0 and answer["cheapest_change"] is None
    assert {p["name"] for p in answer["phases"]} == {
        "decode", "prefill", "score", "train", "layout"
    }
    for phase in answer["phases"]:
        assert phase.keys() == KEYS and phase["how"] == "analytic" and phase["fits"]
        total = phase["program_peak_gib"] + phase["resident_gib"]
        assert phase["peak_gib"] == pytest.approx(total)
        assert phase["limit_gib"] == pytest.approx(0.95 * answer["device_limit_gib"])


def test_what_does_not_fit_is_told_with_what_would(tmp_path: Path, capsys: Any) -> None:
    config = f"--config={CONFIGS / 'tiny.py'}"
    knobs = ["--config.sampler.slots=4194304", "--config.mesh.fsdp=4"]
    flags = [config, "--topology=v4:2x2x1", f"--cache_dir={tmp_path}", *knobs]
    code, answer = run(*flags, str(tmp_path / "plan.json"))
    assert code == 1 and "does not fit: " in capsys.readouterr().out
    assert answer["cheapest_change"].startswith("--config.sampler.slots=")
    turned = answer["cheapest_change"].split(" (")[0].split()
    code, _ = run(*flags, *turned, str(tmp_path / "plan.json"))
    assert code == 0


def test_mistakes_are_told_before_anything_is_compiled(tmp_path: Path) -> None:
    config = f"--config={CONFIGS / 'tiny.py'}"
    with pytest.raises(ConfigError, match="there are 4"):
        plan.main(
            [config, "--topology=v4:2x2x1", "--config.mesh.fsdp=8", f"--cache_dir={tmp_path}"]
        )
    with pytest.raises(ConfigError, match="a plan fetches nothing"):
        plan.model_config(tiny("model.path=nobody/nothing"))


def test_a_machine_that_would_stand_idle_is_told(tmp_path: Path) -> None:
    config, cache = f"--config={CONFIGS / 'tiny.py'}", f"--cache_dir={tmp_path}"
    with pytest.raises(ConfigError, match="= 1 devices of the 4 of v4:2x2x1"):
        plan.main([config, "--topology=v4:2x2x1", cache])


def test_a_program_too_large_says_its_size() -> None:
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 40.38G of 31.25G hbm.",
        "the total memory required for HLO temporaries (512.00M) exceeds available HBM (15.75G).",
    )
    found = []
    for text in said:
        class Refused:
            def compile(self, text: str = text) -> None:
                raise jax.errors.JaxRuntimeError(text)

        found.append(plan._compile(Refused(), arguments=2**30)[:2])
    assert found == [(40.38, 1.0), (1.5, 1.0)]


def test_cpus_stand_in_where_there_is_no_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arguments are those of the described arrays, exactly; the second time nothing is done."""
    monkeypatch.setattr(topologies, "how", lambda topology: CPU)
    settings, topology = tiny(), topologies.parse("v5e:2x4")
    settings = cheapest.with_knobs(settings, {"mesh.fsdp": 8, "model.remat": "full"})
    scene = programs.set_scene(settings, plan.model_config(settings), topology)
    todo = {program.name: program for program in programs.programs(scene)}
    first = plan.judge(todo["apply_gradient"], scene, topology, tmp_path)
    held = footprint.held_bytes(scene, first) / 2**30
    assert first.argument_gib == pytest.approx(held, rel=1e-3)
    monkeypatch.setattr(plan, "_compile", lambda *_: pytest.fail("compiled again"))
    assert plan.judge(todo["apply_gradient"], scene, topology, tmp_path) == first


# -- compiled for TPU ------------------------------------------------------------------------------

SMALL = ModelConfig(
    family="qwen3", vocab=512, layers=2, width=256, heads=4, kv_heads=2, head_dim=128, ff=512,
    rope_theta=1e6, norm_eps=1e-6, tied=True, qkv_bias=False, qk_norm=True, init_std=0.02,
    max_positions=1024, dtype="bfloat16", param_dtype="float32", remat="full",
)  # fmt: skip
BACKBONES = {
    "qwen3": SMALL,
    "qwen2": dataclasses.replace(SMALL, family="qwen2", tied=False, qkv_bias=True, qk_norm=False),
    "qwen3_moe": dataclasses.replace(
        SMALL, family="qwen3_moe", experts=8, experts_per_token=2, expert_ff=128, norm_topk=True,
        balance=0.001,
    ),
}  # fmt: skip


def small(*knobs: str) -> Settings:
    return tiny(
        "model.dtype=bfloat16", "model.remat=full", "mesh.fsdp=4", "decode.tensor=2",
        "tokens.prompt=128", "tokens.reasoner=120", "tokens.adversary=40", "sampler.slots=16",
        "batch.row_tokens=256", "batch.rows=4", *knobs,
    )  # fmt: skip


@needs_libtpu
@pytest.mark.parametrize(
    ("family", "knobs"), [*((name, ()) for name in BACKBONES), ("qwen3", ("model.lora.rank=8",))]
)
def test_every_program_compiles_for_a_tpu(family: str, knobs: tuple[str, ...]) -> None:
    topology = topologies.parse("v5e:2x2")
    topologies.get_ready(topology)
    scene = programs.set_scene(small(*knobs), BACKBONES[family], topology)
    assert scene.config.attention == "splash"
    for program in programs.programs(scene):
        found = plan.judge(program, scene, topology, None)
        held = footprint.held_bytes(scene, program) / 2**30
        assert found.how == TPU_AOT
        assert held * 0.99 <= found.argument_gib <= found.peak_gib < topology.kind.gib


# -- presets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", PRESETS)
def test_every_preset_passes_its_checks(spec: str) -> None:
    """With every size that must divide, and what it holds within the memory there is."""
    topology = topologies.parse(PRESETS[spec])
    settings = preset(spec)
    check(settings)
    assert settings.game in GAMES
    if topology.kind.platform == "tpu" and not LIBTPU:
        pytest.skip('needs libtpu: pip install "jax[tpu]"')
    topologies.get_ready(topology)
    scene = programs.set_scene(settings, plan.model_config(settings), topology)
    assert scene.mesh.size == topology.count
    for alive in footprint.ALIVE.values():
        held = sum(scene.sizes[name] for name in alive if name in scene.sizes) / 2**30
        assert held < 0.95 * topology.kind.gib


@pytest.mark.long
@needs_libtpu
@pytest.mark.parametrize("spec", [s for s, t in PRESETS.items() if t.startswith("v")])
def test_every_tpu_preset_fits(spec: str, tmp_path: Path) -> None:
    topology: Topology = topologies.parse(PRESETS[spec])
    topologies.get_ready(topology)
    answer = plan.plan(preset(spec), topology, cache=None, name=spec)
    assert {p["name"]: p["fits"] for p in answer["phases"]} == dict.fromkeys(
        footprint.ALIVE, True
    )
    held = answer["arrays_gib"]
    chunk = next(one for one in answer["programs"] if one["name"] == "run_chunk")
    # A tenth of the cache, and the weights that the compiler wants the other way round.
    room = 0.1 * held["cache"] + 0.5 * held["copy"]
    assert chunk["peak_gib"] - chunk["argument_gib"] < room
