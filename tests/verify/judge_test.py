"""The pool: verdicts in order, deadlines kept, deaths survived, nothing left behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from seirenes_jax.errors import ConfigError, JudgeError
from seirenes_jax.types import Verdict
from seirenes_jax.verify import judge as judge_module
from seirenes_jax.verify.judge import Judge, grade
from seirenes_jax.verify.process import End, Worker

# Allowed by every limit on size, and still some hundred milliseconds of work.
SLOW = r"\sum_{k=1}^{4000} \frac{k^{50}+1}{k^{49}+7}"
RIGHT, WRONG = ("5", r"\boxed{5}"), ("5", r"\boxed{6}")


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:  # a zombie that nobody waits for is gone as well
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return False


def test_grade_says_all_but_timeout_in_this_process() -> None:
    assert grade("5", r"\boxed{5}") == (Verdict.RIGHT, "5")
    assert grade("5", r"\boxed{6}") == (Verdict.WRONG, "6")
    assert grade("5", "the answer is 5") == (Verdict.WRONG, None)
    assert grade("5", "the answer is 5", fallback=True) == (Verdict.RIGHT, "5")
    assert grade("5", r"\boxed{\frac{1}{}}") == (Verdict.UNREADABLE, r"\frac{1}{}")
    assert grade("", r"\boxed{5}") == (Verdict.UNREADABLE, "5")
    assert grade("4.2", r"\boxed{4.25}", tolerance="0.1") == (Verdict.RIGHT, "4.25")


def test_verdicts_come_in_the_order_of_the_cases() -> None:
    cases = [(str(i % 7), rf"so \boxed{{{i % 5}}}") for i in range(450)]
    with Judge(2) as judge:
        tickets = [judge.submit(cases), judge.submit(cases[::-1]), judge.submit([])]
        first, second, none = (judge.collect(ticket) for ticket in tickets)
        begun = time.perf_counter()
        judge.collect(judge.submit(cases))
        took = time.perf_counter() - begun
    assert first == [grade(*case)[0] for case in cases]
    assert second == first[::-1] and none == []
    assert took < 0.5  # some 5 ms on an idle machine


def test_a_case_past_its_deadline_is_a_timeout_and_costs_the_others_nothing() -> None:
    cases = [RIGHT, ("5", rf"\boxed{{{SLOW}}}"), WRONG, ("5", rf"\boxed{{{SLOW}}}"), RIGHT]
    with Judge(1, deadline_s=0.02) as judge:
        rulings = judge.rulings(judge.submit(cases))
    verdicts = [ruling.verdict for ruling in rulings]
    late = Verdict.TIMEOUT
    assert verdicts == [Verdict.RIGHT, late, Verdict.WRONG, late, Verdict.RIGHT]
    assert rulings[1].seconds == 0.02 and rulings[0].extracted == "5"


def test_a_death_is_retried_once_in_a_fresh_worker() -> None:
    with Judge(1) as judge:
        assert judge.collect(judge.submit([RIGHT])) == [Verdict.RIGHT]
        stop = threading.Event()

        def kill_once() -> None:
            time.sleep(0.05)
            for child in _children(os.getpid()):
                os.kill(child, signal.SIGKILL)
            stop.set()

        killer = threading.Thread(target=kill_once)
        killer.start()
        slow = ("5", rf"\boxed{{{SLOW}}}")
        verdicts = judge.collect(judge.submit([slow, slow, RIGHT]))
        killer.join()
    assert stop.is_set()
    assert verdicts == [grade(*slow)[0], grade(*slow)[0], Verdict.RIGHT]


def _children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[1]) == pid and words[0] != "Z" and b"verify.worker" in command:
            found.append(int(stat.parent.name))
    return found


def test_memory_is_capped_and_said() -> None:
    worker = Worker(1.0, 0.125)
    outcome = worker.judge([("5", r"\boxed{5}", False, None), ("7", "x" * 60_000_000, False, None)])
    worker.close()
    assert [ruling.verdict for ruling in outcome.rulings[:1]] in ([], [Verdict.RIGHT])
    assert outcome.end is End.DEATH


def test_workers_are_recycled_without_losing_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_module, "RECYCLE", 10)
    monkeypatch.setattr(judge_module, "BATCH", 8)
    with Judge(1) as judge:
        before = _children(os.getpid())
        assert (
            judge.collect(judge.submit([RIGHT, WRONG] * 30)) == [Verdict.RIGHT, Verdict.WRONG] * 30
        )
        assert _children(os.getpid()) != before


def test_many_threads_share_one_judge() -> None:
    wrong: list[int] = []
    with Judge(2) as judge:

        def run(number: int) -> None:
            cases = [(str(number), rf"\boxed{{{k}}}") for k in range(40)]
            verdicts = judge.collect(judge.submit(cases))
            if [k for k, verdict in enumerate(verdicts) if verdict is Verdict.RIGHT] != [number]:
                wrong.append(number)

        threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_close_ends_every_worker_and_can_be_called_twice() -> None:
    judge = Judge(2)
    ticket = judge.submit([RIGHT] * 100)
    judge.close()
    judge.close()
    assert judge.collect(ticket) == [Verdict.RIGHT] * 100  # what was handed in is finished
    assert _children(os.getpid()) == []
    with pytest.raises(JudgeError, match="closed"):
        judge.submit([RIGHT])


def test_workers_end_when_their_owner_is_killed() -> None:
    code = (
        "import time\n"
        "from seirenes_jax.verify.judge import Judge\n"
        "judge = Judge(2)\n"
        "judge.collect(judge.submit([('5', r'\\boxed{5}')] * 9))\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "up\n"
    workers = _children(owner.pid)
    assert len(workers) == 2
    owner.kill()
    owner.wait()
    owner.stdout.close()
    end = time.monotonic() + 10
    while not all(_gone(pid) for pid in workers):
        assert time.monotonic() < end, "workers outlive their owner"
        time.sleep(0.02)


def test_a_worker_never_loads_jax_and_is_up_at_once(tmp_path: Path) -> None:
    # A file of the working directory must not be taken for a library either.
    (tmp_path / "struct.py").write_text("raise SystemExit('shadowed')\n")
    here = os.getcwd()
    os.chdir(tmp_path)
    try:
        begun = time.perf_counter()
        worker = Worker(1.0, 1.0)
        outcome = worker.judge([("5", r"\boxed{5}", False, None)])
        took = time.perf_counter() - begun
    finally:
        os.chdir(here)
    maps = Path(f"/proc/{worker.pid}/maps").read_text() if sys.platform == "linux" else ""
    worker.close()
    assert outcome.rulings[0].verdict is Verdict.RIGHT
    assert took < 2.0  # some 50 ms on an idle machine
    assert "jaxlib" not in maps and "numpy" not in maps
    code = (
        "import sys, seirenes_jax.verify.worker, seirenes_jax.verify.numeric\n"
        "print([name for name in ('jax', 'jaxlib', 'numpy', 'sympy') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_broken_text_goes_through_the_pipe() -> None:
    with Judge(1) as judge:
        cases = [
            ("5", "\ud800 \x00 \boxed 5 \\boxed{5}"),
            ("5", "\\boxed{\ud800}"),
            ("é", r"\boxed{é}"),
        ]
        verdicts = judge.collect(judge.submit(cases))
    assert verdicts == [Verdict.RIGHT, Verdict.UNREADABLE, Verdict.RIGHT]


def test_flags_that_cannot_work_are_refused() -> None:
    for workers, deadline_s, memory_gib in ((0, 1.0, 1.0), (1, 0.0, 1.0), (1, 1.0, 0.01)):
        with pytest.raises(ConfigError, match="workers >= 1"):
            Judge(workers, deadline_s, memory_gib)


def test_workers_that_cannot_start_are_an_error_not_a_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Judge(1) as judge:
        with pytest.raises(JudgeError, match="died before they were ready"):
            judge.collect(judge.submit([RIGHT]))
        with pytest.raises(JudgeError):
            judge.submit([RIGHT])
