"""launch/train.py under fire: killed when it has come to a place for the nth time, or soon after.

    python tests/chaos/struck.py '{"strikes": [...], "keep_journal": false}' --config=...

A strike: `place` (module:function), `nth` call of it, `delay_s` after that, `how` (SIGKILL ends the
run's process group; ONE ends this process alone; WORKER ends a judge worker, as the system does
when it is out of memory) and `note`, a file that tells where it hit. All patching is done here:
the product knows nothing of it.
"""

import functools
import importlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

PHASES = {  # what the main thread is in, told by the innermost of these
    "warm start": ("seirenes_jax.start:warm_start",),
    "evaluation": ("seirenes_jax.train:measure_start", "seirenes_jax.train:evaluate_inside"),
    "restore": ("seirenes_jax.train:restore",),
    "play": ("seirenes_jax.train:play_rounds",),
    "judging": (
        "seirenes_jax.verify.judge:Judge.submit", "seirenes_jax.verify.judge:Judge.collect",
    ),
    "packing": ("seirenes_jax.train:queue_groups", "seirenes_jax.train:micro_batches"),
    "update": ("seirenes_jax.train:update",),
    "log": ("seirenes_jax.train:log_step",),
    "save": ("seirenes_jax.train:save", "seirenes_jax.train:settle"),
    "export": ("seirenes_jax.hf.writer:export", "seirenes_jax.finish:write_json"),
}  # fmt: skip
inside: list[str] = ["start"]


def wrap(place: str, around: Any) -> None:
    """Replace the function at `module:name` by around(original), wherever it was imported to."""
    module, _, path = place.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    changed = functools.wraps(original)(around(original))
    setattr(owner, name, changed)
    if not parents:
        for other in [m for n, m in sys.modules.items() if n.startswith("seirenes_jax")]:
            if getattr(other, name, None) is original:
                setattr(other, name, changed)


def told(phase: str) -> Any:
    """While the main thread is in the function, it is in this phase."""

    def around(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return original(*args, **kwargs)
            inside.append(phase)
            try:
                return original(*args, **kwargs)
            finally:
                inside.pop()

        return call

    return around


def struck(strike: dict[str, Any]) -> Any:
    """From the nth call on the clock of the strike runs."""
    calls = 0

    def around(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == strike["nth"]:
                threading.Thread(target=fall, args=(strike,), daemon=True).start()
            return original(*args, **kwargs)

        return call

    return around


def fall(strike: dict[str, Any]) -> None:
    time.sleep(strike["delay_s"])
    found = workers() if strike["how"] == "WORKER" else []
    Path(strike["note"]).write_text(
        json.dumps({"hit": inside[-1], "workers": len(found), "time": time.time()})
    )
    if strike["how"] == "SIGKILL":
        os.killpg(0, signal.SIGKILL)
    elif strike["how"] == "ONE":
        os.kill(os.getpid(), signal.SIGKILL)
    elif found:
        os.kill(found[0], signal.SIGKILL)


def workers() -> list[int]:
    """Judge workers of this process."""
    found = []
    for task in Path("/proc/self/task").glob("*/children"):
        for child in task.read_text().split():
            line = Path(f"/proc/{child}/cmdline")
            if line.exists() and b"verify.worker" in line.read_bytes():
                found.append(int(child))
    return found


def main(argv: list[str]) -> int:
    """As launch/train.py's, under this plan."""
    from seirenes_jax import parent, settings
    from seirenes_jax.cli import TRAIN_FLAGS, need, parse

    plan = json.loads(argv[0])
    flags, overrides = parse(argv[1:], flags=TRAIN_FLAGS)
    settings.load(need(flags, "config"), overrides)
    if parent.needed(flags["coordinator"]):
        return parent.watch_over([sys.executable, *sys.argv])
    from seirenes_jax import train
    from seirenes_jax.journal import Journal

    for phase, places in PHASES.items():
        for place in places:
            wrap(place, told(phase))
    for strike in plan["strikes"]:
        wrap(strike["place"], struck(strike))
    if plan["keep_journal"]:
        Journal.drop = lambda *_: None  # type: ignore[method-assign]
    return train.main(argv[1:])


if __name__ == "__main__":
    from seirenes_jax import parent
    from seirenes_jax.cli import guard

    parent.leave(guard(main, sys.argv[1:]))
