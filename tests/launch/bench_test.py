"""launch/bench.py: does it measure what it says, and refuse what would mean nothing?"""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = ("order", "rounds", "table", "weights", "wire", "meter", "work")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Its files, as the command sees them; they are on no other import path."""
    monkeypatch.syspath_prepend(str(ROOT / "launch" / "bench"))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in PARTS})
    for name in PARTS:
        del sys.modules[name]


def command(*flags: str) -> tuple[int, str, str]:
    told = subprocess.run(
        [sys.executable, "launch/bench.py", *flags], capture_output=True, text=True, cwd=ROOT
    )
    return told.returncode, told.stdout, told.stderr


def test_quick_without_peers(tmp_path: Path) -> None:
    """Both kinds of work, measured, kept, shown."""
    file = tmp_path / "bench.json"
    code, shown, err = command("--quick", "--systems=ours", f"--json={file}")
    assert code == 0, err
    run = json.loads(file.read_text())
    assert list(run["cases"]) == ["decode-quick", "train-quick"]
    for case in run["cases"].values():
        ours = case["systems"]["ours"]
        assert ours["cpu_s"]["min"] <= ours["cpu_s"]["median"] <= ours["cpu_s"]["max"]
        assert ours["tokens_per_cpu_s"] == case["useful_tokens"] / ours["cpu_s"]["median"]
        assert 0 < ours["slot_use"] <= 1 and 0 < ours["roofline"] < 1
        assert ours["compile_s"] > ours["wall_s"]["min"] > 0 and ours["x_vs_tunix"] is None
        assert case["rounds"] == 2 and case["peak_gflops"] > 1
        if Path("/proc/self/clear_refs").exists():
            assert 0 < ours["extra_gib"] < 2
    assert shown.count("| seirenes_jax: ") == 2 and "### train-quick" in shown

    changed = file.stat().st_mtime_ns
    code, again, err = command("--quick", "--systems=ours", f"--json={file}")
    assert code == 0 and again == shown and err.count("kept from") == 2
    assert file.stat().st_mtime_ns == changed

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    code, table, _ = command(f"--table={file}", f"--into={page}")
    assert code == 0 and table == shown
    assert page.read_text() == (
        f"before\n<!-- results -->\n{shown}<!-- end of results -->\nafter\n"
    )


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--cases=decode-XL", "--systems=ours"), "wanted some of decode-quick"),
        (("--systems=ours,vllm",), "got vllm"),
        (("--systems=hf", "--cases=train-S", f"--peers={sys.executable}"), "none of"),
        (("--systems=ours,hf", "--peers=/none"), "bash launch/bench/prepare.sh"),
        (("--systems=ours", "--rounds=0"), "at least 1"),
        (("--systems=ours", "--core=4096"), "got 4096"),
    ],
)
def test_mistakes(
    bench: Any, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:  # fmt: skip
    from seirenes_jax.errors import ConfigError

    with pytest.raises(ConfigError, match=words):
        bench.order.main([*flags, f"--json={tmp_path / 'bench.json'}"])


def test_a_system_that_dies_is_named(bench: Any, tmp_path: Path) -> None:
    dies = tmp_path / "python"
    dies.write_text("#!/bin/sh\necho its last words\nexit 3\n")
    dies.chmod(0o755)
    core = sorted(os.sched_getaffinity(0))[0] if hasattr(os, "sched_getaffinity") else 0
    with pytest.raises(bench.wire.Lost, match=r"run_hf.py ended with code 3[\s\S]*its last words"):
        order = {"kind": "decode", "case": "decode-S", "folder": "", "variant": ""}
        bench.wire.Process("run_hf.py", order, python=str(dies), core=core, log=tmp_path / "log")


def test_answers_are_looked_at_token_by_token(bench: Any) -> None:
    task = bench.work.DECODE["decode-quick"]
    right = [[*range(n, 1, -1), bench.work.EOS] for n in map(int, task.lengths())]
    told = bench.rounds.checked("decode-quick", "ours", {"answers": right, "cpu_s": 1.0})
    assert told == {"cpu_s": 1.0}
    wrong = [*right[:3], [*right[3][:-2], 9, bench.work.EOS], *right[4:]]
    for answers in (wrong, right[:-1] + [right[-1][:-1]], [right[1], right[0], *right[2:]]):
        with pytest.raises(bench.work.Wrong, match="ours: answer"):
            bench.rounds.checked("decode-quick", "ours", {"answers": answers})


def test_losses_that_differ_are_refused(bench: Any) -> None:
    first = {"ours": {"loss": 0.5, "grad_norm": 2.0}, "tunix": {"loss": 0.50004, "grad_norm": 2.0}}
    bench.rounds.agree("train-S", first)
    first["tunix"]["grad_norm"] = 2.001
    with pytest.raises(bench.work.Wrong, match="grad_norm"):
        bench.rounds.agree("train-S", first)


def test_rounds_that_count(bench: Any) -> None:
    """A slow matrix product or a busy machine rejects a round; too few calm ones are filled up."""

    def one(took: float, load: float) -> dict[str, Any]:
        return {"gauge": {"took_s": took}, "load": load}

    rounds = [one(1.0, 0.0), one(1.4, 0.0), one(1.1, 3.5), one(1.2, 2.9)]
    counted, rejected = bench.rounds.counting(rounds, 2)
    assert [c["gauge"]["took_s"] for c in counted] == [1.0, 1.2] and len(rejected) == 2
    counted, _ = bench.rounds.counting(rounds, 3)
    assert [(c["gauge"]["took_s"], c["calm"]) for c in counted][-1] == (1.1, False)


def test_ratios_are_of_each_round(bench: Any) -> None:
    """The machine slows down by half: the ratio does not."""
    told = {"slot_use": 0.5, "extra_gib": 0.1, "loss": 1.0, "wall_s": 9.0, "cpu_s": 1.0}
    ready = SimpleNamespace(ready={"setup": "so", "versions": {}})
    player = bench.rounds.Player(ready, "", told, told, {"so": 1.0})
    rounds = [
        {"ours": {"cpu_s": x, "wall_s": x}, "tunix": {"cpu_s": 3 * x, "wall_s": 3 * x}}
        for x in (1.0, 1.0, 2.0)
    ]
    rounds[2]["tunix"]["cpu_s"] = 8.0
    task = bench.work.TRAIN["train-S"]
    row = bench.rounds.row("ours", player, task, rounds, 1e11)
    assert row["x_vs_tunix"] == 3.0 and row["x_vs_tunix_range"] == [3.0, 4.0]
    assert row["roofline"] == pytest.approx(task.useful_flops() / 1e11)


def test_the_work(bench: Any) -> None:
    """What the cases promise of themselves."""
    long = bench.work.DECODE["decode-S"]
    lengths, prompts = long.lengths(), long.prompts()
    assert lengths.max() == 256 and lengths.min() >= 4 and lengths.sum() == long.tokens == 18_160
    assert [prompt[-1] - 1 for prompt in prompts] == lengths.tolist()
    assert prompts[0][:-1] == prompts[7][:-1] != prompts[8][:-1]
    assert 0.2 < long.static_use(64) < long.static_use(16) < 0.6
    constant = bench.work.DECODE["decode-constant"]
    assert set(constant.lengths()) == {128} and constant.static_use(64) == 1.0
    # 2 FLOPs a weight and token: nearly all there is where contexts are short.
    quick, shape = bench.work.DECODE["decode-quick"], bench.work.SHAPES["XS"]
    least = 2 * (shape.layer_weights + shape.head_weights) * quick.tokens
    assert least < quick.useful_flops() < 1.6 * least
    rows = bench.work.TRAIN["train-S"].padded()
    assert (rows.prompts[:, -1] != 0).all() and (rows.answers[:, 0] != 0).all()
    assert np.mean(np.concatenate([rows.prompts, rows.answers], axis=1) != 0) == pytest.approx(
        rows.use
    )
    assert abs(rows.advantages.reshape(8, 8).sum(axis=1)).max() < 1e-5


def test_weights_are_read_by_the_official_reader(bench: Any, tmp_path: Path) -> None:
    numpy_reader = pytest.importorskip("safetensors.numpy")
    bench.weights.write_model(bench.work.SHAPES["XS"], tmp_path / "m", countdown=True)
    found = numpy_reader.load_file(tmp_path / "m" / "model.safetensors")
    embed, head = found["model.embed_tokens.weight"], found["lm_head.weight"]
    assert embed.dtype == np.float32 and len(found) == 3 + 2 * 11
    scores = head @ (embed / np.linalg.norm(embed, axis=1, keepdims=True)).T
    assert (scores[:-1].argmax(axis=1) == np.arange(1, 256)).all()  # v points at v + 1
