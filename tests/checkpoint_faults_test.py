"""Saves that fail: damaged, killed, no room, not allowed. What was good stays, and it is said."""

import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import stored
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import SaveError
from tests.checkpoint_test import (
    abstract,
    flip,
    flip_host,
    remove,
    restore,
    same_bits,
    save,
    train_state,
    truncate,
)  # fmt: skip

ROOT = Path(__file__).parent.parent

CHILD = """
import os, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import numpy as np
from checkpoint_test import save, train_state
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.errors import SaveError
checkpoints = Checkpoints({folder!r}, keep=3)
save(checkpoints, 1)
"""


def child(folder: Path, then: str) -> subprocess.CompletedProcess[str]:
    code = CHILD.format(root=str(ROOT), folder=str(folder)) + then
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)


def written_wrong(how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on each save is damaged in the moment it is whole, before it is read back."""
    read = stored.check

    def damaged(folder: Path, step: int, **share: int) -> None:
        how(folder / str(step))
        read(folder, step, **share)

    monkeypatch.setattr(stored, "check", damaged)


@pytest.mark.parametrize("damage", [truncate, flip, remove, flip_host])
def test_what_does_not_read_back_was_not_saved_and_nothing_older_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any
) -> None:
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        save(checkpoints, 1)
        assert checkpoints.good == 1
        with monkeypatch.context() as patch:
            written_wrong(damage, patch)
            with pytest.raises(SaveError, match="does not read back") as error:
                save(checkpoints, 2)
        assert "Complete checkpoints still there: 1." in str(error.value)
        assert (checkpoints.steps(), checkpoints.good) == ([1], 1)
        save(checkpoints, 2)  # in place of the damaged one
        assert (checkpoints.steps(), checkpoints.good) == ([2], 2)
    assert restore(tmp_path, train_state(2)).step == 2


def test_unless_it_is_told_to_a_run_does_not_go_on_after_a_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    with Checkpoints(tmp_path, keep=1, tell=told.append) as checkpoints:
        save(checkpoints, 1)
        with monkeypatch.context() as patch:
            written_wrong(flip, patch)
            save(checkpoints, 2)
            save(checkpoints, 3)
        assert [said.split(" into ")[0] for said in told] == ["saving step 2", "saving step 3"]
        assert all("The run goes on without it" in said for said in told)
        assert checkpoints.steps() == [1]
        save(checkpoints, 4)
        assert checkpoints.steps() == [4] and len(told) == 2


def test_the_record_alone_is_read_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "check", lambda *_, **__: pytest.fail("arrays were read"))
    with Checkpoints(tmp_path, keep=1, verify=False) as checkpoints:
        save(checkpoints, 1)
        assert checkpoints.good == 1


def test_the_step_goes_on_while_a_save_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`save` comes back before; only `wait` waits for it."""
    go = threading.Event()
    read = stored.check
    monkeypatch.setattr(stored, "check", lambda *a, **k: (go.wait(60), read(*a, **k)))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, train_state(1), host_arrays={}, host_json={}, metric=None)
        assert checkpoints.good is None
        go.set()
        checkpoints.wait()
        assert checkpoints.good == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """As root everything can be written: then the child becomes nobody first, who may look on."""
    open_to_all = tempfile.TemporaryDirectory()  # no other place of the tests is
    folder = Path(open_to_all.name) / "kept"
    with Checkpoints(folder, keep=3) as checkpoints:
        save(checkpoints, 1)
    Path(open_to_all.name).chmod(0o755)
    folder.chmod(0o555)
    code = CHILD.format(root=str(ROOT), folder=str(folder)).replace("save(checkpoints, 1)", "")
    then = (
        "from seirenes_jax import parent\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try:\n    save(checkpoints, 2)\n"
        "except SaveError as error:\n    print('said:', str(error))\n"
        "    parent.leave(error.exit_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + then], capture_output=True, text=True, timeout=600
    )
    folder.chmod(0o755)
    assert "said: saving step 2 into" in done.stdout, done.stderr
    assert done.returncode == 1  # and it is: the threads of the failed save would wait for long
    assert "ermission denied" in done.stdout and "still there: 1." in done.stdout
    assert restore(folder, train_state(1)).step == 1
    open_to_all.cleanup()


def test_killed_in_the_middle_of_a_save_the_one_before_stands(tmp_path: Path) -> None:
    done = child(
        tmp_path,
        "checkpoints.save(2, train_state(2, width=400_000), host_arrays={}, host_json={}, "
        "metric=None)\nos.kill(os.getpid(), signal.SIGKILL)\n",
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert any("tmp" in f.name for f in tmp_path.iterdir()), "the save was over before the kill"
    state = train_state(1)
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        restored = checkpoints.restore(abstract(state))
        assert restored is not None and restored.step == 1 and same_bits(restored.state, state)
        save(checkpoints, 2)
        assert checkpoints.steps() == [1, 2]
    assert not any("tmp" in f.name for f in tmp_path.iterdir())


FULL = """
{limit}
try:
    save(checkpoints, 2, width=40_000)
except SaveError as error:
    print("said:", str(error).replace(chr(10), " "))
save(checkpoints, 3)
print("steps:", checkpoints.steps())
"""


def test_no_space_left_is_said_and_costs_nothing_saved_before(tmp_path: Path) -> None:
    """A full file system where one may be mounted; elsewhere a limit on the size of a file."""
    folder = tmp_path / "full"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    can = shutil.which("mount") is not None
    mounted = can and subprocess.run(mount, capture_output=True).returncode == 0
    limit = (
        "import resource\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({2**20}, {resource.RLIM_INFINITY}))"
    )
    try:
        done = child(folder, FULL.format(limit="" if mounted else limit))
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 0, done.stderr
    assert "said: saving step 2 into" in done.stdout
    assert ("no space left on the device" if mounted else "File too large") in done.stdout
    assert "Complete checkpoints still there: 1." in done.stdout
    assert "steps: [1, 3]" in done.stdout
