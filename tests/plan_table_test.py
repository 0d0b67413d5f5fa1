"""What the documents say of plans is what the plans said; and every cell has a preset."""

import json
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import plan_table
from seirenes_jax.errors import ConfigError
from seirenes_jax.plan_table import Preset
from seirenes_jax.settings import load, read_file

ROOT = Path(__file__).parent.parent
# What must fit: by config and machine.
CELLS = {
    "qwen4b": "v5e:8x8 v5p:2x2x2 v6e:4x4 h100:8 h200:1",
    "qwen7b": "v5e:8x8 v5p:2x2x4 v6e:4x4 h100:8 h200:1",
    "qwen30b": "v5e:16x16 v5p:4x4x4 v6e:8x8 h200:8",
    "qwen4b lora": "v5e:2x4 v6e:2x4 h200:1 h100:1 l4:1",
    "qwen7b lora": "v5e:2x4 v6e:2x4 h200:1 h100:1 l4:1",
}


def answer(peak: float, **changes: Any) -> dict[str, Any]:
    """A made-up plan."""
    names = ("layout", "prefill", "decode", "score", "train")
    phases = [
        {"name": name, "peak_gib": peak + i, "fits": peak + i < 14.96, "how": "tpu-aot"}
        for i, name in enumerate(names)
    ]
    return {
        "config": "x", "device_limit_gib": 15.75, "phases": phases, "programs_of_a_run": 8,
        "compile_seconds": 150.0, "modelled": {"tokens_per_s": 123456.0},
    } | changes  # fmt: skip


def test_every_cell_has_its_preset() -> None:
    found: dict[str, list[str]] = {}
    for preset in plan_table.presets():
        lora = " lora" if preset.variant.startswith("lora_") else ""
        settings, _ = load(str(ROOT / preset.spec))
        assert bool(settings.model.lora.rank) == bool(lora)
        found.setdefault(preset.config + lora, []).append(preset.topology)
    assert found == {name: machines.split() for name, machines in CELLS.items()}


def test_every_variant_says_how_it_is_planned() -> None:
    for file in (ROOT / "configs").glob("qwen*.py"):
        named = {p.variant for p in plan_table.presets() if p.config == file.stem}
        for variant in named:
            assert read_file(f"{file}:{variant}").model.path
        with pytest.raises(ConfigError) as refused:
            read_file(f"{file}:nobody")
        listed = str(refused.value).split("it has ")[1].split(", ")
        assert named == set(listed)


def test_page_and_docstrings_say_what_the_plans_said() -> None:
    page = (ROOT / plan_table.PAGE).read_text()
    told = page.split(plan_table.BEGIN)[1].split(plan_table.END)[0].strip().splitlines()
    assert told == plan_table.table()
    for preset, found in plan_table.answers().items():
        source = (ROOT / "configs" / f"{preset.config}.py").read_text()
        said = plan_table.sentence(found)
        assert plan_table.with_sentence(source, preset, said) == source
        assert found["config"] == preset.spec and found["topology"] == preset.topology
        assert all(phase["fits"] for phase in found["phases"])


def test_a_preset_that_was_not_planned_says_so() -> None:
    planned, every = set(plan_table.answers()), set(plan_table.presets())
    kept = {f"{plan_table.KEPT}/{f.name}" for f in (ROOT / plan_table.KEPT).glob("*.json")}
    assert kept == {preset.kept for preset in planned}
    for preset in every - planned:
        source = (ROOT / "configs" / f"{preset.config}.py").read_text()
        assert plan_table.with_sentence(source, preset, "Plan: not made yet.") == source


def test_a_row_and_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / plan_table.KEPT).mkdir(parents=True)
    source = (
        'def small(c):\n    """Said here.\n\n'
        "        python launch/plan.py --config=configs/qwen9b.py:small --topology=v5e:2x4\n\n"
        '    Plan: not made yet.\n    """\n    c.x = 1\n'
    )
    config, page = tmp_path / "configs" / "qwen9b.py", tmp_path / plan_table.PAGE
    config.write_text(source)
    page.write_text(f"above\n{plan_table.BEGIN}\nold\n{plan_table.END}\nbelow\n")
    (preset,) = plan_table.presets(tmp_path)
    assert preset == Preset("qwen9b", "small", "v5e:2x4")
    (tmp_path / preset.kept).write_text(json.dumps(answer(11.0)))
    for _ in range(2):  # the second time changes nothing
        plan_table.write(tmp_path)
        assert config.read_text() == source.replace(
            "Plan: not made yet.",
            "Plan: train fills 15.0 of 15.8 GiB a device (tpu-aot); 120,000 tokens/s, modelled.",
        )
        row = (
            "| `qwen9b.py:small` | v5e:2x4 | 11.0, 12.0, 13.0, 14.0, **15.0 (full)** | 15.8 | "
            "120,000 | 8, 2.5 min | tpu-aot |"
        )
        assert page.read_text().splitlines()[-3:] == [row, plan_table.END, "below"]


def test_a_docstring_that_plans_another_preset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "qwen9b.py").write_text(
        'def small(c):\n    """python launch/plan.py --config=configs/qwen9b.py:big '
        '--topology=v5e:2x4"""\n'
    )
    with pytest.raises(ConfigError, match="wanted qwen9b.py:small"):
        list(plan_table.presets(tmp_path))
    with pytest.raises(ConfigError, match="begins with 'Plan:'"):
        plan_table.with_sentence("def small(c):\n    pass\n", Preset("a", "small", "b"), "Plan: x")
