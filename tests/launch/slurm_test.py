"""launch/slurm.sh under an srun of this machine: two tasks, their codes, signals, the queue."""

import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.launch.cluster import ROOT, Cluster

FLAGS = ("--config=configs/tiny.py", "--workdir=/shared/a run")


def job(folder: Path, *codes: str) -> tuple[Cluster, Path]:
    made = Cluster(folder, *codes)
    return made, made.checkout(0)


def inside(place: Path, restarts: int = 0) -> dict[str, str]:
    """What SLURM sets."""
    return {
        "SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(place), "SLURM_GPUS_ON_NODE": "4",
        "SLURM_RESTART_COUNT": str(restarts),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("codes", "ends", "queued"),
    [
        (("0", "0"), 0, False),
        (("75", "75"), 0, True),
        (("75", "137"), 0, True),  # one was killed
        (("1", "75"), 1, False),  # the run failed: the other only lost a peer
        (("2", "2"), 2, False),
    ],
)
def test_what_an_exit_code_leads_to(
    codes: tuple[str, str], ends: int, queued: bool, tmp_path: Path
) -> None:
    made, place = job(tmp_path, *codes)
    code, _, err = made.run("launch/slurm.sh", *FLAGS, cwd=place, **inside(place))
    assert code == ends, err
    assert made.calls("scontrol") == (["scontrol requeue 7"] if queued else [])
    (first,) = made.calls("train0")
    assert f"launch/train.py --coordinator=auto {' '.join(FLAGS)} devices=0,1,2,3" in first


def test_it_is_not_queued_again_for_ever(tmp_path: Path) -> None:
    made, place = job(tmp_path, "75", "75")
    code, _, err = made.run(
        "launch/slurm.sh", *FLAGS, cwd=place, SEIRENES_RESTARTS="3", **inside(place, restarts=3)
    )
    assert code == 75 and "not once more" in err and not made.calls("scontrol")


def test_the_signal_before_the_end_reaches_the_processes(tmp_path: Path) -> None:
    made, place = job(tmp_path, "waits", "waits")
    process = made.start("launch/slurm.sh", *FLAGS, cwd=place, **inside(place))
    until = time.monotonic() + 60
    while not all((tmp_path / f"waiting{i}").exists() for i in (0, 1)):
        assert time.monotonic() < until
        time.sleep(0.1)
    (srun,) = subprocess.run(
        ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    subprocess.run(["kill", "-s", "USR1", srun], check=True)
    process.send_signal(signal.SIGUSR1)  # the batch shell is not impressed
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out.count("stopped") == 2, err
    assert made.calls("scontrol") == ["scontrol requeue 7"]


def test_dry_run_and_mistakes(tmp_path: Path) -> None:
    made, place = job(tmp_path, "0", "0")
    code, out, _ = made.run("launch/slurm.sh", "--dry_run", *FLAGS, cwd=place)
    assert code == 0 and "srun " in out and "scontrol requeue" in out and not made.calls("srun")
    assert made.run("launch/slurm.sh", cwd=place, **inside(place))[0] == 2
    code, _, err = made.run("launch/slurm.sh", *FLAGS, cwd=place)
    assert code == 2 and "not inside a SLURM job" in err


def test_what_sbatch_is_told() -> None:
    """One task a node, the signal to the steps (no B:), in time for preempt.grace_s."""
    text = (ROOT / "launch" / "slurm.sh").read_text()
    told = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", text, re.MULTILINE))
    assert told["ntasks-per-node"] == "1" and "requeue" in told and told["open-mode"] == "append"
    name, seconds = told["signal"].split("@")
    grace = re.search(r"grace_s\": ([\d.]+)", (ROOT / "configs" / "base.py").read_text())
    assert name == "USR1" and grace is not None and int(seconds) > float(grace[1])
    # sbatch reads its lines only before the first command.
    assert text.index("#SBATCH") < text.index("\nset ") and "#SBATCH" not in text.split("\nset ")[1]
