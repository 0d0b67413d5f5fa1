"""Several processes play one game: what they learn, how they save, what if one is lost."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.whole import mini

DECIDED = ("clean_acc", "hinted_acc", "live", "families", "gates", "verdicts", "tokens", "fifo",
           "length", "stop_length", "reward", "mastered")  # fmt: skip


def start(
    n: int, arguments: list[str], *, devices: int = 1, command: Sequence[str] = mini.COMMAND
) -> list[subprocess.Popen[str]]:
    """One command a process, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={devices}"
    return [
        subprocess.Popen(
            [*command, *arguments, f"--coordinator=localhost:{port}", f"--processes={n}",
             f"--process={i}"],
            cwd=mini.ROOT, env=mini.environment() | {"XLA_FLAGS": flags}, text=True,
            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in range(n)
    ]  # fmt: skip


def end(processes: list[subprocess.Popen[str]]) -> list[mini.Ended]:
    return [mini.end(process) for process in processes]


def alone(arguments: list[str], *, devices: int) -> mini.Ended:
    env = mini.environment() | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
    }
    return mini.end(subprocess.Popen(
        [*mini.COMMAND, *arguments], cwd=mini.ROOT, env=env, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ))  # fmt: skip


def same_first_step(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert {key: one[key] for key in DECIDED} == {key: other[key] for key in DECIDED}
    assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-5)
    for stream, loss in one["loss"].items():
        if loss is None:  # nothing of it is trained
            assert other["loss"][stream] is None, stream
        else:
            assert loss == pytest.approx(other["loss"][stream], rel=1e-4, abs=1e-6), stream


@pytest.fixture(scope="module")
def single(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process with two devices."""
    run = tmp_path_factory.mktemp("single") / "run"
    ended = alone(mini.flags(run, cache, steps=2, mesh__data=2), devices=2)
    assert ended.code == 0, ended
    return run


def test_two_processes_learn_what_one_learns_and_one_goes_on(
    single: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = end(start(2, mini.flags(run, cache, steps=2, mesh__data=2)))
    assert [one.code for one in ended] == [0, 0], ended
    assert "before" in ended[0].out and not ended[1].out.replace("[Gloo]", "").count("step ")
    ours, theirs = mini.lines(run / "metrics.jsonl"), mini.lines(single / "metrics.jsonl")
    same_first_step(ours[0], theirs[0])
    assert (run / "hf" / "model.safetensors").is_file() and (run / "report.html").is_file()
    # On another number of processes the same run goes on.
    ended_alone = mini.launch(mini.flags(run, cache, steps=3))
    assert ended_alone.code == 0 and "goes on after step 2" in ended_alone.out
    assert [row["step"] for row in mini.lines(run / "metrics.jsonl")] == [1, 2, 3]


@pytest.mark.long
@pytest.mark.parametrize(
    ("processes", "knobs"),
    [(4, {"mesh__data": 4, "batch__rows": 4}), (2, {"mesh__data": 2, "decode__hosts": 2})],
)
def test_four_islands_and_one_island_of_two(
    processes: int, knobs: dict[str, int], single: Path, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    ended = end(start(processes, mini.flags(run, cache, steps=2, **knobs)))
    assert {one.code for one in ended} == {0}, ended
    same_first_step(
        mini.lines(run / "metrics.jsonl")[0], mini.lines(single / "metrics.jsonl")[0]
    )


@pytest.mark.parametrize("victim", [0, 1])
def test_a_lost_process_ends_the_others_resumably_and_is_named(
    victim: int, cache: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = start(2, mini.flags(run, cache, steps=500, eval__every=0, mesh__data=2))
    wait_for_steps(run, 1, processes)
    killed = time.monotonic()
    os.kill(child_of(processes[victim].pid), signal.SIGKILL)
    other = mini.end(processes[1 - victim])
    assert time.monotonic() - killed < 60
    assert other.code == 75, other
    assert ("process 1 of 2" if victim else "coordinator (process 0)") in other.err, other.err
    assert mini.end(processes[victim]).code == 128 + signal.SIGKILL


def test_without_its_parent_a_process_does_not_live_on(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = start(1, mini.flags(run, cache, steps=500, eval__every=0))
    wait_for_steps(run, 1, processes)
    child = child_of(processes[0].pid)
    processes[0].kill()
    until = time.monotonic() + 30
    while lives(child) and time.monotonic() < until:
        time.sleep(0.2)
    assert not lives(child)
    processes[0].communicate()


def test_one_process_told_to_stop_stops_all_and_saves(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = start(2, mini.flags(run, cache, steps=500, eval__every=0, mesh__data=2))
    wait_for_steps(run, 1, processes)
    processes[1].send_signal(signal.SIGTERM)
    ended = end(processes)
    assert [one.code for one in ended] == [75, 75], ended
    rows = mini.lines(run / "metrics.jsonl")
    saved = [int(file.name) for file in (run / "checkpoints").iterdir() if file.name.isdigit()]
    assert max(saved) == rows[-1]["step"]


def test_a_mistake_is_told_by_all_and_nobody_waits(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = end(start(2, mini.flags(tmp_path / "file", cache, mesh__data=2)))
    assert [one.code for one in ended] == [2, 2], ended
    assert all("is a file; wanted a folder" in one.err for one in ended)


def wait_for_steps(run: Path, steps: int, processes: list[subprocess.Popen[str]]) -> None:
    until = time.monotonic() + 300
    while not (run / "metrics.jsonl").is_file() or len(mini.lines(run / "metrics.jsonl")) < steps:
        assert time.monotonic() < until and all(p.poll() is None for p in processes)
        time.sleep(0.2)


def lives(pid: int) -> bool:
    """Does it run? What nobody has buried yet has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def child_of(pid: int) -> int:
    """The process that does the work of this parent."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])
