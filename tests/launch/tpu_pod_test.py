"""launch/tpu_pod.sh on a pod of this machine: set up, run, restart, stop, find again."""

import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.launch.cluster import REAL, ROOT, Cluster
from tests.whole import mini

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a worker of a pod runs Linux")

SCRIPT = str(ROOT / "launch" / "tpu_pod.sh")
POD = ("--name=pod", "--zone=us-east5-a")
TRAIN = ("--", "--config=configs/tiny.py", "--workdir=gs://bucket/a run")


def pod(folder: Path, *codes: str) -> Cluster:
    made = Cluster(folder, *codes)
    for index in range(len(codes)):
        made.checkout(index)
    return made


def test_all_workers_train_and_worker_0_is_shown(tmp_path: Path) -> None:
    made = pod(tmp_path, "0", "0")
    code, out, err = made.run(SCRIPT, *POD, "--project=mine", *TRAIN)
    assert code == 0, err
    assert "worker 0 learns" in out and "worker 1 learns" not in out
    assert "worker 1 learns" in (tmp_path / "tpu_pod_logs/pod/1.log").read_text()
    wanted = f"launch/train.py --coordinator=auto {' '.join(TRAIN[1:])}"
    assert [wanted in call for call in made.calls("train0") + made.calls("train1")] == [True, True]
    (call,) = made.calls("gcloud")
    assert "tpu-vm ssh pod --zone=us-east5-a --worker=all --quiet --project=mine" in call


@pytest.mark.parametrize(
    ("codes", "ends", "starts"),
    [
        (("75 0", "75 0"), 0, 2),  # preempted, and done on the second start
        (("137 0", "75 0"), 0, 2),  # one was killed, the other lost it
        (("1 0", "75 0"), 1, 1),  # the run failed: the others only lost a peer
        (("2", "2"), 2, 1),
        (("75 75 75 75", "75 75 75 75"), 75, 3),  # --restarts=2
    ],
)
def test_what_an_exit_code_leads_to(
    codes: tuple[str, str], ends: int, starts: int, tmp_path: Path
) -> None:
    made = pod(tmp_path, *codes)
    code, _, err = made.run(SCRIPT, *POD, "--restarts=2", *TRAIN)
    assert code == ends, err
    assert len(made.calls("train0")) == starts
    assert err.count("starting again") == starts - 1


def test_ctrl_c_stops_all_workers_and_nothing_starts_again(tmp_path: Path) -> None:
    made = pod(tmp_path, "waits 0", "waits 0")
    process = made.start(SCRIPT, *POD, *TRAIN)
    wait_for(tmp_path / "waiting0", tmp_path / "waiting1")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "asking all workers to stop" in err and "stopped" in out
    assert len(made.calls("train0")) == len(made.calls("train1")) == 1


def test_a_lost_connection_loses_no_run_and_other_flags_do_not_meddle(tmp_path: Path) -> None:
    made = pod(tmp_path, "waits 0", "waits 0")
    process = made.start(SCRIPT, *POD, *TRAIN)
    wait_for(tmp_path / "waiting0", tmp_path / "waiting1")
    os.killpg(process.pid, signal.SIGKILL)  # all that is on this side
    process.communicate()
    code, out, _ = made.run(SCRIPT, *POD, "--", "--config=configs/other.py")
    assert code == 2 and "another run goes on here" in out
    again = made.start(SCRIPT, *POD, *TRAIN)
    time.sleep(1)
    again.send_signal(signal.SIGTERM)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 75 and "worker 0 learns" in out, err
    assert len(made.calls("train0")) == 1  # the first one, found again


def test_setup_brings_this_checkout_and_what_it_needs(tmp_path: Path) -> None:
    made = Cluster(tmp_path, "0", "0")
    for index in (0, 1):  # an older checkout: its .venv stays
        made.checkout(index)
        (tmp_path / f"worker{index}/seirenes_jax/configs").unlink()
        (tmp_path / f"worker{index}/seirenes_jax/seirenes_jax").unlink()
    code, _, err = made.run(SCRIPT, *POD, "--setup", TMPDIR=str(tmp_path))
    assert code == 0, err
    for index in (0, 1):
        place = tmp_path / f"worker{index}/seirenes_jax"
        for file in ("launch/train.py", "seirenes_jax/train.py", "configs/tiny.py", "README.md"):
            assert (place / file).read_bytes() == (ROOT / file).read_bytes()
        assert not (place / ".git").exists()
        (pip,) = [call for call in made.calls(f"python{index}") if "pip install" in call]
        assert f"-r {place}/requirements.txt -r {place}/launch/tpu_requirements.txt" in pip
    assert not made.calls("train0")  # no flags, no run
    assert not list(tmp_path.glob("*.tgz"))


def test_dry_run_prints_all_and_calls_nothing(tmp_path: Path) -> None:
    made = Cluster(tmp_path, "0")
    code, out, err = made.run(SCRIPT, *POD, "--setup", "--dry_run", *TRAIN)
    assert code == 0 and not (tmp_path / "calls").read_text(), err
    assert "tpu-vm scp" in out and "--on_worker\\ install" in out and "--on_worker\\ run" in out
    assert "--config=configs/tiny.py" in out
    cloned = made.run(
        SCRIPT, *POD, "--setup", "--repo=https://host/r.git", "--ref=v1", "--dry_run"
    )[1]
    assert "git\\ clone" in cloned and "https://host/r.git" in cloned and "scp" not in cloned


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--name=pod",), "--zone=ZONE"),
        ((*POD, "--config=a"), "come after --"),
        (POD, "nothing to do"),
        ((*POD, "--restarts=x", *TRAIN), "wanted a number"),
        ((*POD, "--ref=v1", *TRAIN), "--setup --repo"),
    ],
)
def test_a_mistake_is_one_message(flags: tuple[str, ...], said: str, tmp_path: Path) -> None:
    code, _, err = Cluster(tmp_path, "0").run(SCRIPT, *flags)
    assert code == 2 and err.startswith("error: ") and said in err


def test_help_is_the_head_of_the_file(tmp_path: Path) -> None:
    code, out, _ = Cluster(tmp_path).run(SCRIPT, "--help")
    assert code == 0 and out.startswith("Trains on every worker") and "Exit codes" in out


@pytest.mark.long
def test_two_workers_play_one_run(tmp_path: Path) -> None:
    made = Cluster(tmp_path, "-", "-")
    for index in (0, 1):
        made.checkout(index, REAL)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    flags = mini.flags(tmp_path / "run", tmp_path / "cache", steps=2, mesh__data=2)
    code, out, err = made.run(
        SCRIPT, *POD, "--", *flags, PORT=port, JAX_PLATFORMS="cpu",
        XLA_FLAGS="--xla_force_host_platform_device_count=1",
    )
    assert code == 0, out + err
    assert [row["step"] for row in mini.lines(tmp_path / "run" / "metrics.jsonl")] == [1, 2]
    shutil.rmtree(tmp_path / "run" / "checkpoints")


def wait_for(*files: Path) -> None:
    until = time.monotonic() + 60
    while not all(file.exists() for file in files):
        assert time.monotonic() < until
        time.sleep(0.1)
