"""Who waits too long is told of, with what it waits for; who waits for ever is ended."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import hosts, knobs, settings
from seirenes_jax.clock import Clock
from seirenes_jax.games import GAMES
from seirenes_jax.hosts import Whereabouts
from seirenes_jax.play import play
from seirenes_jax.verify.judge import Judge
from seirenes_jax.watchdog import Watchdog, stacks
from tests import scripted

LIMITS = knobs.Watchdog(factor=10.0, floor_s=60.0, laps=3, hard_s=1000.0)


class Made:
    """A watchdog whose time is told to it."""

    def __init__(self, limits: knobs.Watchdog = LIMITS, others: Callable[[], str] = str) -> None:
        self.time, self.told, self.left = 0.0, [], []
        self.dog = Watchdog(
            limits, tell=self.told.append, leave=self.left.append, now=lambda: self.time,
            others=others,
        )  # fmt: skip

    def laps(self, name: str, *seconds: float) -> None:
        for took in seconds:
            with self.dog.watch(name):
                self.time += took

    def after(self, seconds: float) -> int:
        """Look once so much later; how often something was told so far."""
        self.time += seconds
        self.dog.look()
        return len(self.told)


def test_told_beyond_a_multiple_of_the_median_and_at_every_doubling() -> None:
    made = Made()
    made.laps("play", 8.0, 300.0, 12.0)  # the median is 12, whatever the longest was
    with made.dog.watch("play", lambda: "problem p7"):
        assert made.after(120.0) == 0
        assert made.after(0.5) == 1
        assert made.after(119.0) == 1
        assert made.after(1.0) == 2  # at 240
        assert made.after(300.0) == 3  # at 480
        assert made.after(1.0) == 3
    assert "play has taken 120.5 s; its median is 12 s, of 3 laps" in made.told[0]
    assert "play #4, for 120.5 s: problem p7" in made.told[0]
    assert "test_told_beyond" not in made.told[0] and not made.left  # this thread is the looker


def test_nothing_is_told_below_the_floor_or_before_there_are_laps() -> None:
    made = Made()
    with made.dog.watch("update"):  # the first one compiles
        assert made.after(999.0) == 0
    made.laps("update", 0.1, 0.1)
    with made.dog.watch("update"):
        assert made.after(60.0) == 0  # 600 times the median, but no more than the floor
        assert made.after(0.5) == 1


def test_a_lap_that_was_left_by_an_error_is_no_lap() -> None:
    made = Made()
    made.laps("play", 30.0, 30.0)
    with pytest.raises(ValueError, match="stop"), made.dog.watch("play"):
        raise ValueError("stop")
    with made.dog.watch("play"):
        assert made.after(900.0) == 0
    assert made.dog.path() == ""


@pytest.mark.parametrize(("hard_s", "left"), [(1000.0, 1), (0.0, 0)])
def test_the_hard_limit_leaves_whatever_the_laps(hard_s: float, left: int) -> None:
    made = Made(replace(LIMITS, hard_s=hard_s))
    with made.dog.watch("warm_start"), made.dog.watch("save", lambda: "step 7"):
        made.after(1000.0)
        assert not made.left
        made.after(1.0)
        assert len(made.left) == left
    if left:
        assert "watchdog.hard_s = 1000 s are over" in made.left[0]
        assert "save #1, for 1001.0 s: step 7" in made.told[-1]


def test_all_that_is_open_is_shown_with_where_the_others_are() -> None:
    made = Made(others=lambda: "  process 1 of 2 on b: play #2 > chunk #9")
    made.laps("exchange", 0.1, 0.1, 0.1)

    def torn() -> str:
        raise RuntimeError("dictionary changed size during iteration")

    with made.dog.watch("play", torn), made.dog.watch("exchange"):
        assert made.dog.path() == "play #1 > exchange #4"
        made.after(61.0)
    (told,) = made.told
    assert "play #1, for 61.0 s: (what it waits for cannot be told: dictionary" in told
    assert told.index("play #1") < told.index("exchange #4") < told.index("process 1 of 2 on b")


def test_alone_there_are_no_others() -> None:
    here = Whereabouts()
    with here.shared(lambda: "play #1"):
        assert here.others() == ""


def test_with_several_processes_each_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of three, over one table as the runtime keeps it; nothing was heard of the third yet."""
    table: dict[str, str] = {"at/1": "node-b: play #7 > chunk #210"}

    class Store:
        def key_value_set(self, key: str, words: str, allow_overwrite: bool) -> None:
            table[key] = words

        def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
            return [(key, words) for key, words in table.items() if key.startswith(prefix)]

    monkeypatch.setattr(hosts, "_store", Store)
    monkeypatch.setattr(hosts, "BEAT_S", 0.01)
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 3)
    monkeypatch.setattr(hosts.jax, "process_index", lambda: 0)
    here = Whereabouts()
    with here.shared(lambda: "play #7 > exchange #7"):
        until = time.monotonic() + 20
        while "node-b" not in here.others() and time.monotonic() < until:
            time.sleep(0.01)
        assert here.others().splitlines() == [
            "  process 1 of 3 on node-b: play #7 > chunk #210",
            "  process 2 of 3 on a host not heard of: nothing",
        ]
    assert table["at/0"].endswith(": play #7 > exchange #7")


def test_the_thread_looks_and_stacks_show_where_a_thread_stands() -> None:
    told: list[str] = []
    limits = knobs.Watchdog(factor=1.0, floor_s=0.05, laps=1, hard_s=0.0)
    asleep = threading.Event()

    def stuck_here() -> None:
        asleep.wait(20)

    sleeper = threading.Thread(target=stuck_here, name="sleeper")
    sleeper.start()
    with Watchdog(limits, tell=told.append) as dog:
        clock = Clock(dog.watch)
        with clock("play"):
            pass
        with clock("play", lambda: "p3"):
            until = time.monotonic() + 20
            while not told and time.monotonic() < until:
                time.sleep(0.01)
    assert "thread sleeper:" in told[0] and "in stuck_here" in told[0], told
    assert "thread MainThread:" in told[0] and "test_the_thread_looks" in told[0]
    assert "thread sleeper:" in stacks() and "Traceback" not in stacks()
    asleep.set()
    sleeper.join()
    assert clock.lap()[0].keys() == {"step", "play"}


def test_play_names_what_it_waits_for() -> None:
    """The sampler that hangs: the oldest open ask and how many samples are out."""
    made = Made()
    calls = 0

    def ask(opened: list[Any]) -> list[Any]:
        nonlocal calls
        calls += 1
        made.time += 1.0
        if calls == 5:
            assert made.after(900.0) == 1
        return sampler.ask(opened)

    sampler = scripted.Sampler(lambda name, ask: "right" if calls > 4 + name.sample else None)
    problems = [(scripted.problem("p0"), 0), (scripted.problem("p1"), 0)]
    play(problems, GAMES["rlvr"], scripted.context(), ask=ask, judge=scripted.Judge(),
         watch=made.dog.watch)  # fmt: skip
    assert calls > 5 and made.dog.path() == ""
    (told,) = made.told
    assert "samples are out, oldest: problem 'p0' visit 0 turn 0, reasoner" in told


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="workers are found in /proc")
def test_a_judge_says_which_worker_is_at_which_case() -> None:
    before = workers()
    with Judge(1, deadline_s=30.0) as judge:
        assert judge.collect(judge.submit([("1", "\\boxed{1}")]))  # it is up
        assert judge.waits_for() == "no worker is at work, 0 batches wait for a worker"
        (pid,) = workers() - before
        os.kill(pid, signal.SIGSTOP)
        try:
            ticket = judge.submit([("42", "so it is \\boxed{42}"), ("7", "\\boxed{8}")])
            until = time.monotonic() + 20
            while "worker" not in (said := judge.waits_for()) or "no worker" in said:
                assert time.monotonic() < until
                time.sleep(0.01)
            assert f"worker {pid} at case 1 of 1: gold '42', answer ...'so it is" in said
            assert "1 batches wait" in said
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [str(v) for v in judge.collect(ticket)] == ["right", "wrong"]


def workers() -> set[int]:
    """Judge workers that are children of this process."""
    tasks = [Path(f"/proc/self/task/{task}/children") for task in os.listdir("/proc/self/task")]
    children = {int(word) for file in tasks if file.exists() for word in file.read_text().split()}
    said = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    return {pid for pid, command in said.items() if b"verify.worker" in command}


def test_the_limits_may_differ_on_resume() -> None:
    _, config = settings.load("configs/tiny.py")
    stored = json.loads(settings.to_json(config))
    _, other = settings.load("configs/tiny.py", ["watchdog.hard_s=5", "watchdog.factor=2"])
    settings.refuse_changes(stored, other)
