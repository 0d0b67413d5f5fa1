"""Flags are read as the help says, mistakes are one sentence, and every end has its exit code."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seirenes_jax import cli, heap
from seirenes_jax.cli import TRAIN_FLAGS, guard, need, parse
from seirenes_jax.errors import ConfigError, NumbersError, Stopped

ROOT = Path(__file__).parent.parent


def test_both_ways_to_write_a_value() -> None:
    argv = ["--config=c.py:small", "--workdir", "runs/x", "--config.loss.kl", "-0.1"]
    flags, knobs = parse([*argv, "--config.model.path="], flags=TRAIN_FLAGS)
    given = {"config": "c.py:small", "workdir": "runs/x"}
    assert flags == {**TRAIN_FLAGS, **given}
    assert knobs == ["loss.kl=-0.1", "model.path="]


def test_a_value_may_hold_an_equals_sign_and_the_last_wins() -> None:
    flags, knobs = parse(["--a=1", "--a=x=y"], flags={"a": "0"})
    assert (flags, knobs) == ({"a": "x=y"}, [])


def test_a_switch_takes_no_value() -> None:
    flags = {"run": None}
    assert parse(["--prove", "--run=r"], flags=flags, switches=("prove",))[0] == {
        "run": "r", "prove": "yes",
    }  # fmt: skip
    assert parse([], flags=flags, switches=("prove",))[0]["prove"] is None
    with pytest.raises(ConfigError, match="wanted --prove alone"):
        parse(["--prove=no"], flags=flags, switches=("prove",))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--worked=x"], "--worked: no such flag. Did you mean --workdir?"),
        (["--seed=1"], "Knobs are set as --config.seed=VALUE"),
        (["--loss.kl=1"], "Knobs are set as --config.loss.kl=VALUE"),
        (["configs/tiny.py"], "got 'configs/tiny.py'; wanted --name=value"),
        (["-w", "x"], "got '-w'"),
        (["--workdir"], "--workdir: got no value"),
        (["--workdir", "--fork=x"], "--workdir: got no value"),
        (["--workdir="], "--workdir: got nothing"),
        (["--config.seed"], "--config.seed: got no value"),
    ],
)
def test_mistakes_name_the_flag_and_the_way_out(argv: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(argv, flags=TRAIN_FLAGS)
    assert words in str(caught.value)


def test_knobs_are_for_commands_with_a_config() -> None:
    with pytest.raises(ConfigError, match="no such flag"):
        parse(["--config.seed=1"], flags={"run": None})


def test_a_needed_flag_is_asked_for() -> None:
    assert need({"run": "r"}, "run") == "r"
    with pytest.raises(ConfigError, match="--run: it is missing"):
        need({"run": None}, "run")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("--a: got b"), 2, "error: --a: got b\n"),
        (NumbersError("loss is nan"), 1, "error: loss is nan\n"),
        (Stopped("step 3 is saved"), 75, "step 3 is saved\n"),
        (KeyboardInterrupt(), 75, "stopped by Ctrl-C; the same"),
        (OSError(errno.ENOSPC, "No space left", "/x/y"), 1, "no space left on the device (/x/y)"),
    ],
)
def test_an_end_is_one_message_and_a_code(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: list[str]) -> int:
        raise error

    assert guard(main, []) == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_our_own_errors_keep_their_traceback() -> None:
    def main(argv: list[str]) -> int:
        raise PermissionError(errno.EACCES, argv[0])

    with pytest.raises(PermissionError):
        guard(main, ["x"])


def test_success_and_help_run_what_they_should(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard(lambda argv: len(argv), ["a", "b", "c"]) == 3
    assert guard(lambda argv: 9, ["--config=x", "--help"], doc="\nHow to.\n") == 0
    assert capsys.readouterr().out == "How to.\n"


def test_sigterm_is_a_resumable_end_and_the_handler_goes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def main(argv: list[str]) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert guard(main, []) == 75
    assert signal.getsignal(signal.SIGTERM) is before


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv], capture_output=True, text=True, cwd=ROOT, check=False
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["train.py", "--config=configs/base.py", "--wrokdir=x"], "Did you mean --workdir?"),
        (["train.py", "--config=configs/base.py", "--config.steos=1"], "--config.steps?"),
        (["train.py", "--config=configs/none.py"], "no such file"),
        (["train.py"], "--config: it is missing"),
        (["export.py", "--run=nowhere", "--out=x"], "wanted a run folder"),
        (["export.py", "--run=nowhere", "--out=x", "--step=last"], "--step: got 'last'"),
    ],
)
def test_a_mistake_is_told_without_jax_or_traceback(argv: list[str], words: str) -> None:
    """`-X importtime` lists every import: jax must not be among them."""
    told = run("-X", "importtime", f"launch/{argv[0]}", *argv[1:])
    assert told.returncode == 2
    assert words in told.stderr
    assert "Traceback" not in told.stderr
    assert "seirenes_jax.errors" in told.stderr  # the list is really there
    assert not any(line.split("|")[-1].strip() == "jax" for line in told.stderr.splitlines())


@pytest.mark.parametrize("name", ["train.py", "export.py"])
def test_help_shows_every_flag(name: str) -> None:
    told = run(f"launch/{name}", "--help")
    flags = {"train.py": TRAIN_FLAGS, "export.py": ("run", "step", "out", "prove")}[name]
    assert told.returncode == 0
    assert all(f" --{flag}" in told.stdout for flag in flags)


SUITE = """
import pytest
@pytest.mark.skip(reason="needs a browser")
def test_skipped(): pass
@pytest.mark.xfail(reason="known", strict=True)
def test_known(): assert False
def test_good(): assert True
"""


@pytest.mark.parametrize(("extra", "code"), [([], 0), (["-p", "tests.no_skips"], 1)])
def test_a_skip_fails_where_everything_is_installed(
    tmp_path: Path, extra: list[str], code: int
) -> None:
    (tmp_path / "some_test.py").write_text(SUITE)
    told = run("-m", "pytest", "-q", *extra, "-c", os.devnull, str(tmp_path / "some_test.py"))
    assert told.returncode == code, told.stdout
    assert "1 passed, 1 skipped, 1 xfailed" in told.stdout
    assert ("some_test.py::test_skipped: needs a browser" in told.stdout) == bool(extra)


@pytest.mark.parametrize(("vendors", "found"), [(["0x10de", "0x8086"], False), (["0x1ae0"], True)])
def test_tpus_are_looked_for_on_the_bus(vendors: list[str], found: bool, tmp_path: Path) -> None:
    for i, vendor in enumerate(vendors):
        (tmp_path / f"0000:00:0{i}.0").mkdir()
        (tmp_path / f"0000:00:0{i}.0" / "vendor").write_text(f"{vendor}\n")
    assert heap.may_have_tpu(tmp_path) is found


def test_what_is_said_to_a_library_without_tpus_is_what_the_user_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heap, "may_have_tpu", lambda: False)
    monkeypatch.setattr(os, "environ", {"TPU_WORKER_HOSTNAMES": "mine"})
    assert guard(lambda argv: 0, []) == 0
    assert os.environ["TPU_WORKER_HOSTNAMES"] == "mine"
    assert os.environ["TPU_ACCELERATOR_TYPE"] == cli.NO_TPU["TPU_ACCELERATOR_TYPE"]
