"""Sweeps of a train command that only writes a run folder: what is run, kept and compared."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import gather, settings, sweep
from seirenes_jax.errors import ConfigError, SeirenesError, Stopped

ROOT = Path(__file__).parents[1]

def rows_of(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["measure"]: row for row in table["comparisons"]}


# Answers of the last evaluation, by cell and seed: four problems, None where nothing was readable.
CLEAN = {
    "ours-0": [1, 1, 1, 1], "ours-1": [1, 1, 1, 0],
    "base-0": [1, 1, 1, 0], "base-1": [1, 0, 0, 0],
}  # fmt: skip
FAMILY = {"ours-0": [1, 1, 1, None], "ours-1": [1, 1, 0, None]}
SUMMARY_CLEAN = {"ours-0": 0.8, "ours-1": 0.9, "base-0": 0.6, "base-1": 0.5}

FAKE_TRAIN = '''
import json, os, signal, sys, time
from pathlib import Path
flags = dict(word[2:].split("=", 1) for word in sys.argv[2:])
told = json.loads(Path(sys.argv[1]).read_text())
run = Path(flags["workdir"])
key = run.name
run.mkdir(parents=True, exist_ok=True)
with (run / "calls").open("a") as calls:
    calls.write(json.dumps(flags) + "\\n")
calls = len((run / "calls").read_text().splitlines())
def save(*_):
    (run / "saved").write_text("all")
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
how = told["ends"].get(key, "well")
if how == "waits":
    (run / "waiting").write_text("")
    time.sleep(60)
if how == "killed at first" and calls == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if how == "refused":
    sys.exit(2)
if how == "stopped":
    sys.exit(75)
for name, value in told["files"][key].items():
    (run / name).write_text(value)
'''
FAKE_PROBE = '''
import json, sys
from pathlib import Path
run = Path(sys.argv[1])
found = {"checkpoints": [0, 9], "clean": [0.9, 0.9], "hinted": [[0.8, 0.9], [0.3, 0.9]],
         "cost": [[0.1, 0.0], [0.6, None]]}
(run / "crossplay.json").write_text(json.dumps(found))
'''
CONFIG = '''
BASE = {base!r}
COMMON = {{"steps": 7}}
CELLS = {{"ours": {{"hints.gates": ("tag", "leak")}}, "base": {{"game": "rlvr"}}}}
SEEDS = (0, 1)
COMPARE = (("ours", "base"),)
CROSSPLAY = ("ours",)
'''


def run_files(key: str) -> dict[str, str]:
    """What a run of this cell leaves."""
    clean = SUMMARY_CLEAN[key]
    scores = {"clean": clean, "hinted": 0.5, "rare": {"odd one": 0.25}, "own_adversary": None}
    ours = key.startswith("ours")
    families = {name: FAMILY.get(key, [0] * 4) for name in gather.FAMILIES}
    seen = {name: [0, 0, 0, 0] for name in ("clean", *gather.FAMILIES)}
    rows = [
        {"step": step, "adv_reward": 0.1 * step if ours else None, "tokens_total": 10 * step}
        for step in range(1, 8)
    ]
    rows[4]["eval"] = {"clean": 0.7, **dict.fromkeys(gather.FAMILIES, 0.25)}
    rows[2]["families"] = {"statistical_trap/usual": 1, "other/empty": 1} if ours else {}
    summary = {
        "before": {"clean": 0.5, "hinted": 0.25, "rare": {"odd one": 0.0}}, "after": scores,
        "n_problems": 4, "seconds": 120.04, "tokens": {"play": 70}, "versions": {}, "device": "",
        "command": "secret of the folder",
    }  # fmt: skip
    after = {"clean": CLEAN[key], **families}
    marks = {"problem_ids": ["a", "b", "c", "d"], "before": seen, "after": after}
    return {
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "rollouts.jsonl": json.dumps({"step": 3, "clean": [], "hints": []}) + "\n",
        "summary.json": json.dumps(summary),
        "eval.json": json.dumps(marks),
    }


class Bench:
    """A sweep in a temporary folder and its fake commands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "out"
        self.file = folder / "grid.py"
        self.file.write_text(CONFIG.format(base=str(ROOT / "configs" / "tiny.py")))
        self.ends: dict[str, str] = {}
        (folder / "train.py").write_text(FAKE_TRAIN)
        (folder / "probe.py").write_text(FAKE_PROBE)

    @property
    def train(self) -> list[str]:
        told = {"ends": self.ends, "files": {key: run_files(key) for key in CLEAN}}
        (self.folder / "told.json").write_text(json.dumps(told))
        return [sys.executable, str(self.folder / "train.py"), str(self.folder / "told.json")]

    def run(self, cells: Sequence[str] | None = None, *, workers: int = 4) -> sweep.Sweep:
        grid = sweep.read(self.file)
        sweep.run(
            grid, sweep.plan(grid, cells=cells), out=self.out, workers=workers, train=self.train,
            probe=[sys.executable, str(self.folder / "probe.py")],
        )  # fmt: skip
        return grid

    def change(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def cells(self) -> list[str]:
        return sorted(file.stem for file in (self.out / "cells").glob("*.json"))

    def calls(self, key: str) -> list[dict[str, str]]:
        lines = (self.out / "runs" / key / "calls").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    Bench(folder).run()
    return folder / "out"


@pytest.fixture
def measured(bench: Bench, measured_once: Path) -> Bench:
    """A bench whose four cells are measured."""
    shutil.copytree(measured_once, bench.out)
    return bench


def test_every_cell_gets_its_knobs_its_seed_and_its_folder(measured: Bench) -> None:
    assert measured.cells() == ["base-0", "base-1", "ours-0", "ours-1"]
    (call,) = measured.calls("ours-1")
    assert call["config"].endswith("configs/tiny.py")
    assert call["workdir"].endswith("/out/runs/ours-1")
    knobs = {k.removeprefix("config."): v for k, v in call.items() if k.startswith("config.")}
    built, _ = settings.load(call["config"], [f"{path}={text}" for path, text in knobs.items()])
    assert (built.seed, built.steps, built.hints.gates) == (1, 7, ("tag", "leak"))
    assert measured.calls("base-0")[0]["config.game"] == "rlvr"


def test_what_is_measured_is_not_run_again(bench: Bench) -> None:
    bench.run(["base"])
    assert bench.cells() == ["base-0", "base-1"]
    bench.run()
    assert [len(bench.calls(key)) for key in ("base-0", "base-1", "ours-0")] == [1, 1, 1]


def test_a_killed_cell_is_named_the_others_run_and_the_same_command_goes_on(bench: Bench) -> None:
    bench.ends = {"ours-0": "killed at first"}
    with pytest.raises(SeirenesError, match=r"1 of 4 cells failed: ours-0 \(exit.* -9\)") as told:
        bench.run()
    assert told.value.exit_code == 1
    assert bench.cells() == ["base-0", "base-1", "ours-1"]
    bench.run()
    first, again = bench.calls("ours-0")
    assert first == again and "ours-0" in bench.cells()


def test_a_stopped_cell_stops_the_sweep_with_75(bench: Bench) -> None:
    bench.ends = {"base-0": "stopped", "ours-0": "waits"}
    with pytest.raises(Stopped, match="base-0") as told:
        bench.run(workers=2)
    assert told.value.exit_code == 75
    assert bench.cells() == []
    assert (bench.out / "runs" / "ours-0" / "saved").exists()
    assert not (bench.out / "runs" / "ours-1").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_reach_the_running_cell_once(bench: Bench, number: int) -> None:
    bench.ends = {"ours-0": "waits"}
    code = (
        "import sys; from pathlib import Path; from seirenes_jax import sweep, cli\n"
        "def main(argv):\n"
        "    grid = sweep.read(argv[0])\n"
        "    sweep.run(grid, sweep.plan(grid), out=Path(argv[1]), train=argv[2:], probe=['no'])\n"
        "sys.exit(cli.guard(main, sys.argv[1:]))\n"
    )
    words = [sys.executable, "-c", code, str(bench.file), str(bench.out), *bench.train]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (bench.out / "runs" / "ours-0" / "waiting").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "the same command" in said and "Traceback" not in said
    assert (bench.out / "runs" / "ours-0" / "saved").exists()


def test_a_refused_cell_is_the_users_mistake(bench: Bench) -> None:
    bench.ends = {"ours-0": "refused"}
    with pytest.raises(ConfigError, match="cell ours-0 was refused"):
        bench.run(workers=1)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"game": "rlvr"', '"gaem": "rlvr"', "cell base: --config.gaem: no such knob. Did you"),
        ('"game": "rlvr"', '"game": "chess"', "cell base: --config.game: got 'chess'"),
        ('"steps": 7', '"steps": 7.5', "cell ours: --config.steps: got '7.5'"),
        ('"steps": 7', '"steps": -7', "steps: got -7"),
        ('"steps": 7', '"seed": 7', "use SEEDS"),
        ('"game": "rlvr"', '"tokens.prompt": 9_999', "batch.row_tokens"),
        ("SEEDS = (0, 1)", "SEEDS = (0, 0)", "SEEDS: got"),
        ("SEEDS = (0, 1)", "SEEDS = {'ours': (0,)}", "such a tuple for every cell"),
        ("SEEDS = (0, 1)", "SEED = (0, 1)", "SEED means nothing here"),
        ('("ours", "base"),)', '("ours", "bass"),)', "COMPARE: got"),
        ('CROSSPLAY = ("ours",)', "", "defines no CROSSPLAY"),
        ('"base": {', '"the/base": {', "file names"),
        ("SEEDS = (0, 1)", "SEEDS = (0, 1", "cannot be read"),
        ("configs/tiny.py", "configs/tony.py", "no such file"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_once(bench: Bench, old: str, new: str, said: str) -> None:
    bench.change(old, new)
    with pytest.raises(ConfigError) as told:
        bench.run(["ours"])
    assert said in str(told.value)
    assert not bench.out.exists()


def test_unknown_cells_and_seeds_are_named(bench: Bench) -> None:
    grid = sweep.read(bench.file)
    with pytest.raises(ConfigError, match="no cell 'our'. Did you mean 'ours'"):
        sweep.plan(grid, cells=["our"])
    with pytest.raises(ConfigError, match="no seed 5; it has 0, 1"):
        sweep.plan(grid, seeds=[5])
    with pytest.raises(ConfigError, match="no such file"):
        sweep.read(bench.folder / "none.py")


def test_cells_may_have_seeds_of_their_own(bench: Bench) -> None:
    bench.change("SEEDS = (0, 1)", "SEEDS = {'ours': (0, 1, 2), 'base': (0,)}")
    jobs = sweep.plan(sweep.read(bench.file))
    assert [job.key for job in jobs] == ["ours-0", "base-0", "ours-1", "ours-2"]


def test_a_cell_measured_under_other_knobs_is_refused_and_left_out(measured: Bench) -> None:
    measured.change('"game": "rlvr"', '"game": "rlvr", "rollouts.clean": 28')
    with pytest.raises(ConfigError, match="rollouts.clean: measured under 8, planned 28"):
        measured.run()
    table = sweep.report(sweep.read(measured.file), out=measured.out)
    assert list(table["cells"]) == ["ours"] and table["comparisons"] == []
    said = [text.split(";")[0] for text in table["missing"]]
    assert said == ["base-0: left out", "base-1: left out"]


def test_knobs_that_only_keep_more_do_not_make_another_cell(measured: Bench) -> None:
    measured.change('"game": "rlvr"', '"game": "rlvr", "checkpoint.keep": 99')
    measured.run()
    assert len(measured.calls("base-0")) == 1


def test_what_is_kept_of_a_run(measured: Bench) -> None:
    kept = json.loads((measured.out / "cells" / "ours-0.json").read_text())
    assert (kept["cell"], kept["seed"], kept["base"]) == ("ours", 0, "configs/tiny.py")
    assert kept["overrides"] == {"steps": 7, "hints.gates": ["tag", "leak"]}
    assert kept["summary"]["seconds"] == 120.04 and "command" not in kept["summary"]
    assert kept["marks"]["after"]["clean"] == "1111"
    assert kept["marks"]["after"]["statistical_trap"] == "111-"
    assert kept["eval"]["steps"] == [5] and kept["eval"]["tokens"] == [50]
    assert kept["eval"]["accuracy"]["clean"] == [0.7]
    # Steps 1-5 and 6-7 of a reward that is a tenth of the step.
    assert kept["adv_reward"] == {"steps": [5, 10], "values": [0.3, 0.65]}
    shares = {"other/empty": [0.5], "statistical_trap/usual": [0.5]}
    assert kept["families"]["shares"] == shares
    assert kept["crossplay"]["cost"][1] == [0.6, None]
    assert json.loads((measured.out / "cells" / "base-0.json").read_text())["crossplay"] is None


def test_the_comparison_is_the_one_made_by_hand(measured: Bench) -> None:
    table = sweep.report(sweep.read(measured.file), out=measured.out)
    clean = rows_of(table)["clean"]
    # Seeds: 0.8 - 0.6 and 0.9 - 0.5. Mean 0.3, standard error 0.1, t of one degree 12.706.
    assert clean["each_seed"] == pytest.approx([0.2, 0.4])
    assert clean["mean"] == pytest.approx(0.3)
    assert [clean["low"], clean["high"]] == pytest.approx([0.3 - 1.2706, 0.3 + 1.2706], abs=1e-4)
    # Problems a-d, mean over seeds of ours - base: 0, 1/2, 1/2, 1/2.
    assert clean["problems"]["mean"] == pytest.approx(0.375)
    assert clean["problems"]["low"] < 0.375 < clean["problems"]["high"] == 0.5
    assert clean["problems"]["n"] == 4
    # Four families alike: 1, 1, 1/2; the fourth problem was never readable and is left out.
    assert rows_of(table)["hinted"]["problems"]["mean"] == pytest.approx(2.5 / 3)
    assert rows_of(table)["hinted"]["problems"]["n"] == 3
    assert rows_of(table)["rare: odd one"]["each_seed"] == [0.0, 0.0]
    assert rows_of(table)["rare: odd one"]["problems"] is None  # its single answers were not kept
    assert table["cells"]["ours"]["after"]["clean"] == pytest.approx(0.85)
    assert table["start"]["clean"] == pytest.approx(0.5)
    assert table["cells"]["base"]["minutes"] == pytest.approx(2.0, abs=0.01)
    # The last checkpoint's hints cost the start 0.6, its own 0.1.
    assert [row["gain"] for row in table["crossplay"]] == pytest.approx([0.5, 0.5])


def test_the_table_can_be_read(measured: Bench) -> None:
    grid = sweep.read(measured.file)
    sweep.report(grid, out=measured.out)
    words = (measured.out / "table.md").read_text()
    assert "| clean | 50.0 | 85.0 | 55.0 |" in words
    assert "| clean | +30.0 | -97.1 to +157.1 |" in words and "+20.0, +40.0 |" in words
    assert "| ours, seed 1 | +10.0 | +60.0 | +50.0 |" in words
    assert "## Missing" not in words
    for picture in ("curves.png", "curves.pdf", "families.png", "crossplay.png"):
        assert (measured.out / picture).stat().st_size > 1000
    copied = sweep.collect(grid, out=measured.out, into=measured.folder / "docs")
    names = sorted(str(file.relative_to(measured.folder / "docs")) for file in copied)
    assert names == [
        "cells/base-0.json", "cells/base-1.json", "cells/ours-0.json", "cells/ours-1.json",
        "crossplay.png", "curves.png", "families.png", "table.json", "table.md",
    ]  # fmt: skip
    # What was collected is a sweep folder: the same table comes out of it.
    told = json.loads((measured.out / "table.json").read_text())
    assert sweep.report(grid, out=measured.folder / "docs") == told


def test_missing_cells_are_named_and_seeds_pair(measured: Bench) -> None:
    grid = sweep.read(measured.file)
    (measured.out / "cells" / "base-1.json").unlink()
    table = sweep.report(grid, out=measured.out)
    assert table["missing"] == ["base-1: not measured yet"]
    clean = rows_of(table)["clean"]
    assert clean["seeds"] == [0] and clean["mean"] == pytest.approx(0.2)
    words = (measured.out / "table.md").read_text()
    assert "- base-1: not measured yet" in words
    assert "| clean | +20.0 | unknown |" in words  # one seed says nothing of seeds


def test_nothing_measured_is_a_table_too(bench: Bench) -> None:
    table = sweep.report(sweep.read(bench.file), out=bench.out)
    assert len(table["missing"]) == 4
    assert "no held-out problems" in (bench.out / "table.md").read_text()


def test_other_problems_are_not_paired(measured: Bench) -> None:
    grid = sweep.read(measured.file)
    file = measured.out / "cells" / "base-0.json"
    kept = json.loads(file.read_text())
    kept["marks"]["problems"] = "0" * 16
    file.write_text(json.dumps(kept))
    assert rows_of(sweep.report(grid, out=measured.out))["clean"]["problems"] is None


def test_the_first_proof_is_fair() -> None:
    grid = sweep.read(ROOT / "configs" / "ablations" / "tiny_first.py")
    jobs = {job.key: job for job in sweep.plan(grid)}
    assert len(jobs) == 8
    assert len({job.knobs["budget.tokens"] for job in jobs.values()}) == 1
    assert all(job.knobs["eval.final_problems"] >= 1000 for job in jobs.values())
    ours, grpo = jobs["seirenes-0"].knobs, jobs["grpo_same_tokens-0"].knobs
    hints = ours["rollouts.hints"]
    sequences = ours["rollouts.clean"] + hints + hints * ours["rollouts.hinted"]
    assert grpo["rollouts.clean"] == sequences
    assert jobs["seirenes-1"].knobs["adversary.policy"] == "live"


def test_the_command_tells_a_mistake_without_jax(bench: Bench) -> None:
    bench.change('"game": "rlvr"', '"gaem": "rlvr"')
    words = [sys.executable, "-X", "importtime", str(ROOT / "launch" / "ablate.py")]
    done = subprocess.run(
        [*words, f"--config={bench.file}", f"--out={bench.out}"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no such knob" in done.stderr and "Traceback" not in done.stderr
    assert "| jax\n" not in done.stderr and "seirenes_jax.sweep" in done.stderr
    assert not bench.out.exists()
