"""Stopped, killed or damaged at any moment: the same command again ends in the same bits."""

import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.whole import mini

STRUCK = (sys.executable, "tests/whole/struck.py")

KILLS = [  # in one life after the other: (place, when, nth call)
    ("seirenes_jax.checkpoint:Checkpoints.save", "after", 1),  # step 0 is being written
    ("seirenes_jax.sampler:Sampler.ask", "after", 6),  # in play
    ("seirenes_jax.learn:apply_gradient", "before", 2),  # in the update of a second step
    ("seirenes_jax.report:_append", "after", 3),  # its rollouts are written, its metrics are not
    ("seirenes_jax.checkpoint:Checkpoints.save", "after", 1),  # step 2 is being written
    ("seirenes_jax.hf.writer:_write_shard", "before", 1),  # all is played; the export is half done
]
MORE_KILLS = [
    ("seirenes_jax.folder:write_config", "before", 1),
    ("seirenes_jax.gear:leave_model", "before", 1),
    ("seirenes_jax.train:measure_start", "after", 1),
    ("seirenes_jax.report:_append", "after", 1),
    ("seirenes_jax.report:_append", "after", 2),
    ("seirenes_jax.learn:apply_gradient", "after", 2),
    ("seirenes_jax.train:mind_numbers", "after", 2),
    ("seirenes_jax.checkpoint:Checkpoints.save", "before", 1),
    ("seirenes_jax.report:cut_lines", "before", 1),
    ("seirenes_jax.report:cut_lines", "after", 1),
    ("seirenes_jax.train:evaluate_inside", "before", 1),
    ("seirenes_jax.checkpoint:Checkpoints._delete", "before", 1),
    ("seirenes_jax.checkpoint:Checkpoints._delete", "after", 1),
    ("seirenes_jax.finish:write_json", "before", 1),
    ("seirenes_jax.finish:write_json", "before", 2),
    ("seirenes_jax.finish:write_report", "before", 1),
]


def strike(how: str, place: tuple[str, str, int], arguments: list[str]) -> mini.Ended:
    where, when, nth = place
    return mini.launch([how, where, when, str(nth), *arguments], STRUCK)


def die_again_and_again(places: list[tuple[str, str, int]], arguments: list[str]) -> None:
    for place in places:
        assert strike("SIGKILL", place, arguments).code == -signal.SIGKILL, place


def test_killed_in_play_in_update_in_save(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    arguments = mini.flags(tmp_path / "run", cache)
    die_again_and_again(KILLS, arguments)
    assert mini.launch(arguments).code == 0
    assert mini.read(tmp_path / "run") == mini.read(undisturbed)


@pytest.mark.long
def test_killed_in_every_other_place(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    arguments = mini.flags(tmp_path / "run", cache)
    die_again_and_again(MORE_KILLS, arguments)
    assert mini.launch(arguments).code == 0
    assert mini.read(tmp_path / "run") == mini.read(undisturbed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random(undisturbed: Path, cache: Path, tmp_path: Path, seed: int) -> None:
    """From outside, at a random time after the first sign that it plays."""
    arguments, draw, kills = mini.flags(tmp_path / "run", cache), random.Random(seed), 0
    while kills < 12:
        process = mini.start(arguments)
        metrics = tmp_path / "run" / "metrics.jsonl"
        size = metrics.stat().st_size if metrics.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.stat().st_size != size:
                break
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 1.5))
        if process.poll() is None:
            process.kill()
            kills += 1
        if mini.end(process).code == 0:
            break
    assert kills
    assert mini.launch(arguments).code == 0
    assert mini.read(tmp_path / "run") == mini.read(undisturbed)


def test_stopped_politely(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    """SIGTERM, Ctrl-C and SLURM's USR1: exit 75, a sentence, nothing lost."""
    arguments = mini.flags(tmp_path / "run", cache)
    for how, place, saved in (
        ("SIGTERM", ("seirenes_jax.train:measure_start", "before", 1), 0),
        ("SIGTERM", ("seirenes_jax.train:play_rounds", "before", 2), 1),  # though every = 2
        ("SIGINT", ("seirenes_jax.learn:apply_gradient", "after", 1), 2),
        ("SIGUSR1", ("seirenes_jax.train:evaluate_inside", "before", 1), 2),
    ):  # fmt: skip
        ended = strike(how, place, arguments)
        assert ended.code == 75, (place, ended)
        assert f"stopped after step {saved} of 6" in ended.err, (place, ended)
        assert "The same command goes on" in ended.err
    assert mini.launch(arguments).code == 0
    assert mini.read(tmp_path / "run") == mini.read(undisturbed)


def test_a_damaged_checkpoint_is_passed_over(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """And steps can be raised: three steps, their last checkpoint damaged, go on to six."""
    run = tmp_path / "run"
    mini.train(run, cache, steps=3)
    kept = sorted((run / "checkpoints").glob("[0-9]*"))
    assert [folder.name for folder in kept] == ["2", "3"]
    (largest,) = sorted(
        (file for file in (run / "checkpoints" / "3").rglob("*") if file.is_file()),
        key=lambda file: file.stat().st_size,
    )[-1:]
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    ended = mini.train(run, cache)
    assert "step 3 is damaged and was passed over" in ended.out
    assert "step 3 is damaged and was passed over" in (run / "events.log").read_text()
    assert mini.read(run) == mini.read(undisturbed)


def test_no_room_left(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    """A save that fails ends the run with 1 and one message, and takes nothing away."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    kept = sorted(folder.name for folder in (run / "checkpoints").glob("[0-9]*"))
    # No file may grow beyond 60 KiB, a tenth of a checkpoint.
    cramped = ("bash", "-c", 'ulimit -f 60 && exec "$@"', "bash", *mini.COMMAND)
    ended = mini.launch(mini.flags(run, cache, steps=9), cramped)
    assert ended.code == 1
    assert "saving step 8 into" in ended.err and "File too large" in ended.err, ended.err
    assert f"still there: {', '.join(kept)}" in ended.err and "same command again" in ended.err
    mini.train(run, cache)  # steps are cut back to what is saved
    assert mini.read(run) == mini.read(undisturbed)


def test_forked_under_other_knobs(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    source, fork = tmp_path / "run", tmp_path / "fork"
    shutil.copytree(undisturbed, source)
    arguments = mini.flags(source, cache, optimizer__lr=1e-4, steps=7)
    forked = [*arguments, f"--fork={fork}"]
    assert mini.launch(forked).code == 0
    rows = mini.lines(fork / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert rows[:6] == mini.lines(undisturbed / "metrics.jsonl")
    assert mini.read(source) == mini.read(undisturbed)
    again = mini.launch(forked)
    assert again.code == 0 and mini.lines(fork / "metrics.jsonl") == rows
