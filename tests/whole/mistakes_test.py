"""A user's mistakes: exit 2, one message (what happened, got, wanted), and nothing touched."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from seirenes_jax import folder
from seirenes_jax.cli import guard
from tests.whole import mini


@pytest.fixture(scope="module")
def command() -> ModuleType:
    """launch/train.py in this process: an exception nobody expects fails the test by itself."""
    file = mini.ROOT / "launch" / "train.py"
    spec = importlib.util.spec_from_file_location("train_command", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def refused(
    command: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
):  # fmt: skip
    """Run the command; it must be refused with exit code 2, leaving no run behind."""
    monkeypatch.chdir(mini.ROOT)

    def run(*arguments: str) -> str:
        assert guard(command.main, ["--config=configs/tiny.py", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "Traceback" not in said
        return said

    return run


@pytest.mark.parametrize(
    ("knob", "words"),
    [
        ("optimzer.lr=1e-4", "optimzer.lr: no such knob. Did you mean --config.optimizer.lr?"),
        ("lr=1e-4", "Did you mean --config.optimizer.lr?"),
        ("steps=many", "steps: got 'many'; wanted a value of type int"),
        ("game=chess", "game: got 'chess'; wanted one of seirenes, rlvr"),
        ("steps=-1", "steps: got -1; wanted at least 0"),
        ("problems_per_step=0", "problems_per_step: got 0; wanted at least 1"),
        ("optimizer.lr=nan", "optimizer.lr: got nan; wanted at least 0"),
        ("optimizer.clip=0", "optimizer.clip: got 0.0; wanted above 0"),
        ("problems.mastered_share=1.5", "mastered_share: got 1.5; wanted from 0 to 1"),
        ("optimizer.b2=1", "optimizer.b2: got 1.0; wanted from 0 to below 1"),
        ("streams.weights.clean=-1", "streams.weights.clean: got -1.0; wanted at least 0"),
        ("sampler.temperature=0", "sampler.temperature: got 0.0; wanted above 0"),
        ("sampler.top_p=0.9", "use top_k = 0 and top_p = 1.0"),
        ("hints.gates=tag,lock", "hints.gates: got 'lock'; wanted some of tag, length"),
        ("hints.min_tokens=9 hints.max_tokens=8", "max_tokens: got 8; wanted at least hints.min_"),
        ("hints.max_tokens=500", "hints.max_tokens: got 500; a hint stands in the prompt"),
        ("prompts.reasoner={problem} Solve.", "wanted {question} as its only slot"),
        ("batch.row_tokens=50", "batch.row_tokens: got 50; a prompt and its answer take up to"),
        ("model.shape.heads=3 model.shape.kv_heads=2", "does not divide over model.shape.kv_heads"),
        ("model.shape.head_dim=31", "head_dim: got 31"),
        ("model.lora.targets=q,w", "model.lora.targets: got q, w; wanted some of q, k, v, o, gate"),
        ("model.lora.rank=4 model.param_dtype=bfloat16", "adapters are trained in float32"),
        ("mesh.data=3 batch.rows=4", "batch.rows: got 4, which does not divide over mesh.data"),
        ("mesh.data=16 batch.rows=16", "there are 8 (cpu)"),
        ("rollouts.hinted=0", "game=rlvr plays without"),
        ("streams.max_age=9", "streams.max_age: got 9; wanted at most 4"),
        ("problems.path=nowhere.jsonl", "model.path: got nothing"),
        ("model.path=nowhere", "no config.json in 'nowhere'"),
        ("model.path=Qwen/Qwen3-4B", "as a hub id it could not be fetched"),
        ("init_from=nowhere", "nowhere"),
        ("eval.final_problems=5000", "eval.final_problems: got 5000; the tiny world holds out"),
    ],
)
def test_knobs(refused, cache: Path, tmp_path: Path, knob: str, words: str) -> None:
    workdir = tmp_path / "run"
    # No warm start: what can only be told with the data at hand is told soon enough.
    knobs = [f"--config.{one}" for one in ["warm_start.steps=0", *split(knob)]]
    assert words in refused(f"--workdir={workdir}", f"--cache_dir={cache}", *knobs)
    assert not list(workdir.glob("checkpoints/[0-9]*"))


def split(knobs: str) -> list[str]:
    """`a=1 b=2` are two knobs; `a={x} y` is one."""
    return knobs.split(" ") if all("=" in word for word in knobs.split(" ")) else [knobs]


def test_flags(refused, tmp_path: Path) -> None:
    assert "Did you mean --workdir?" in refused("--wrkdir=x")
    assert "--config.seed=" in refused("--seed=1")
    assert "no such file" in refused("--config=configs/tinny.py")
    assert "has no variant" in refused("--config=configs/tiny.py:huge")
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in refused(f"--workdir={file}")
    assert "cache" in refused(f"--workdir={tmp_path / 'run'}", f"--cache_dir={file / 'below'}")


GOOD = '{"question": "1 + 1?", "answer": "2"}\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("", "holds no problems"),
        (GOOD + "{oops\n", "rows.jsonl:2: not JSON"),
        (GOOD + "[1, 2]\n", "rows.jsonl:2: got [1, 2]; wanted an object"),
        (GOOD + '{"quest": "?"}\n', "rows.jsonl:2: no question; got columns quest"),
        (GOOD + '{"question": "3?", "answer": null}\n', "rows.jsonl:2: answer: got None"),
        (GOOD, "1 problems fit the limits, 8 are held out"),
    ],
)
def test_data(refused, undisturbed: Path, tmp_path: Path, text: str | None, words: str) -> None:
    file, run = tmp_path / "rows.jsonl", tmp_path / "run"
    if text is not None:
        file.write_text(text)
    flags = mini.flags(run, tmp_path, problems__path=file, model__path=undisturbed / "hf")
    assert words in refused(*flags)
    assert not (run / "checkpoints").exists() or not any((run / "checkpoints").glob("[0-9]*"))


def test_a_mistake_may_be_corrected(
    refused, undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """The folder of a run that never began takes the corrected command."""
    run, file = tmp_path / "run", tmp_path / "rows.jsonl"
    knobs = {"problems__path": file, "model__path": undisturbed / "hf", "steps": 0}
    assert "no such file" in refused(*mini.flags(run, cache, **knobs))
    assert (run / "config.json").is_file()
    file.write_text("".join(GOOD.replace("1 + 1", f"{n} + 1") for n in range(10)))
    mini.train(run, cache, **(knobs | {"problems_per_step": 2}))
    assert json.loads((run / "summary.json").read_text())["steps"] == 0


def test_folders(refused, undisturbed: Path, tmp_path: Path) -> None:
    """A folder of something else, or of another run, stays as it is."""
    taken, run = tmp_path / "taken", tmp_path / "run"
    taken.mkdir()
    (taken / "thesis.tex").write_text("precious")
    said = refused(*mini.flags(taken, tmp_path))
    assert "thesis.tex" in said and "nothing was touched" in said
    assert [file.name for file in taken.iterdir()] == ["thesis.tex"]

    shutil.copytree(undisturbed, run)
    said = refused(*mini.flags(run, tmp_path, seed=1, rollouts__clean=8, eval__every=1, steps=9))
    assert "  rollouts.clean: stored 4, asked 8\n  seed: stored 0, asked 1\n" in said
    assert "eval.every" not in said and "steps" not in said and "--fork=NEWDIR" in said
    said = refused(*mini.flags(run, tmp_path), f"--fork={taken}")
    assert "is not empty" in said
    said = refused(*mini.flags(tmp_path / "none", tmp_path), f"--fork={tmp_path / 'new'}")
    assert "nothing to fork from" in said and not (tmp_path / "new").exists()
    with folder.held(run):
        assert "another process runs in" in refused(*mini.flags(run, tmp_path))
    (run / "config.json").write_text("{")
    assert "config.json" in refused(*mini.flags(run, tmp_path))
    shutil.rmtree(run / "checkpoints")
    shutil.copy(undisturbed / "config.json", run / "config.json")
    assert "without its checkpoints" in refused(*mini.flags(run, tmp_path))
    assert mini.read(run) == mini.read(undisturbed)


def test_said_before_anything_is_loaded(tmp_path: Path) -> None:
    """The whole command, as a shell runs it: one message, nothing on standard output."""
    ended = mini.launch(["--config=configs/tiny.py", "--config.stepps=3"])
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: --config.stepps: no such knob. Did you mean --config.steps?\n"
