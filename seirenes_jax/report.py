"""What a run writes down while it goes: metrics, rollouts, events, TensorBoard, its summary.

`metrics.jsonl`, `rollouts.jsonl` and `alarms.jsonl` are append-only and cut back on resume;
`events.log` only grows. A write the disk refuses is a SaveError.
"""

import contextlib
import importlib
import io
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np

from seirenes_jax import board
from seirenes_jax.console import Bar, clock, flatten, printable, say, step_line
from seirenes_jax.errors import ConfigError, DataError, SaveError


def plain(value: Any) -> Any:
    """As strict JSON has it: arrays and NumPy scalars unpacked, what is not finite null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def saving(path: Path) -> Iterator[None]:
    """A write that the disk refuses is a SaveError that says what to do."""
    try:
        yield
    except OSError as error:
        raise SaveError(
            f"could not write {path}: {error.strerror or error}. What was saved before is whole; "
            "make room or allow writing there, then give the same command again to go on."
        ) from error


def write_json(path: Path, value: object) -> None:
    """All or nothing: the old file stands until the new one is on disk."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """All or nothing, as UTF-8."""
    draft = path.with_name(path.name + ".tmp")
    with saving(path):
        try:
            with draft.open("wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, must survive a power cut
        finally:
            os.close(folder)


def cut_lines(path: Path, step: int) -> int:
    """Cut an append-only file of JSON lines after its last step <= `step`; how many lines stay.

    A last line torn by a kill goes, too. Damage elsewhere is an error: cutting there loses steps.
    """
    kept, end = 0, 0
    if not path.exists():
        return 0
    with saving(path), path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            if _step_of(line, path, kept + 1) > step:
                break
            kept, end = kept + 1, end + len(line)
        file.truncate(end)
        file.flush()
        os.fsync(file.fileno())
    return kept


def _step_of(line: bytes, path: Path, number: int) -> int:
    try:
        step: int = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}:{number}: got {line[:60]!r}; wanted a JSON object with a step. The file was "
            "changed or damaged: remove that line, or start in another --workdir"
        ) from error
    return step


class RunLog:
    """The writer of one run folder.

    >>> with RunLog(folder, steps=150) as log:
    ...     log.cut_back(restored_step)
    ...     log.log_step(metrics, rollouts)
    """

    def __init__(
        self, folder: Path, *, steps: int, wandb: str = "", out: TextIO | None = None
    ) -> None:
        self.folder = Path(folder)
        self.steps = steps
        self.out = sys.stdout if out is None else out
        self._seconds: deque[float] = deque(maxlen=20)  # of the last steps, for the ETA
        self._last = time.monotonic()
        self.logged = 0  # the last step whose line is written
        self._board: FileIO | None = None
        self._wandb = _start_wandb(wandb, self.folder) if wandb else None
        with saving(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._metrics = _open_lines(self.folder / "metrics.jsonl")
            self._rollouts = _open_lines(self.folder / "rollouts.jsonl")
            self._alarms = _open_lines(self.folder / "alarms.jsonl")
            self._events = (self.folder / "events.log").open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all files; saying it twice does no harm."""
        for file in (
            self._metrics, self._rollouts, self._alarms, self._events, self._board
        ):  # fmt: skip
            if file is not None:
                file.close()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def cut_back(self, step: int) -> None:
        """Forget all steps after `step`, the one restored. `events.log` keeps its lines."""
        for file in (self._metrics, self._rollouts, self._alarms):
            cut_lines(Path(file.name), step)
        self.logged = step
        if any((self.folder / "tensorboard").glob("*tfevents*")):
            self._board = self._start_board(step + 1)

    def log_step(
        self, metrics: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]],
        alarms: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        """One step: its metrics, sampled rollouts, alarms, scalars, and one line on the console."""
        row, step = plain(metrics), int(metrics["step"])
        _append(self._rollouts, [{"step": step, **plain(rollout)} for rollout in rollouts])
        _append(self._alarms, [plain(alarm) for alarm in alarms])
        _append(self._metrics, [row])
        self.logged = step
        scalars = flatten(row)
        if self._board is None:
            self._board = self._start_board(step)
        _write(self._board, board.scalars(step, scalars))
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)
        now = time.monotonic()
        taken = row.get("time")
        own = now - self._last
        self._seconds.append(taken.get("step", own) if isinstance(taken, dict) else own)
        self._last = now
        pace = float(np.median(self._seconds))
        self.say(step_line(row, self.steps, pace))

    def event(self, text: str) -> None:
        """A line of `events.log`, with the time."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        _write(self._events, f"{stamp} {printable(text)}\n".encode())

    def say(self, text: str) -> None:
        """A line on the console, above any bar."""
        say(text, self.out)

    def bar(self, name: str, total: int, unit: str) -> Bar:
        """A progress bar with ETA for a phase; a context manager."""
        return Bar(name, total, unit=unit, out=self.out)

    def _start_board(self, step: int) -> FileIO:
        """A new event file; its start mark makes TensorBoard drop older ones from `step` on."""
        folder = self.folder / "tensorboard"
        with saving(folder):
            folder.mkdir(exist_ok=True)
            if self._board is not None:
                self._board.close()
            file = board.next_file(folder).open("ab", buffering=0)
        _write(file, board.opening(step))
        return file


class Mute(RunLog):
    """The log of a process that writes nothing: another one of the run does."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logged = Path(folder), 0

    def close(self) -> None:
        """Nothing is open."""

    def cut_back(self, step: int) -> None:
        """The files are another's."""
        self.logged = step

    def log_step(
        self, metrics: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]],
        alarms: Sequence[Mapping[str, Any]] = (),
    ) -> None:  # fmt: skip
        """Remember how far the run is."""
        self.logged = int(metrics["step"])

    def event(self, text: str) -> None:
        """Said elsewhere."""

    def say(self, text: str) -> None:
        """Said elsewhere."""

    def bar(self, name: str, total: int, unit: str) -> Bar:
        """A bar that nobody sees."""
        return Bar(name, total, unit=unit, out=io.StringIO())


def _append(file: FileIO, rows: Sequence[Mapping[str, Any]]) -> None:
    """Whole lines, ASCII only: no sign inside a text can look like the end of a line."""
    _write(file, b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows))


def _write(file: FileIO, data: bytes) -> None:
    """Straight to the system: nothing waits in a buffer that a close would stumble over again."""
    with saving(Path(file.name)):
        while data:
            data = data[file.write(data) :]


def _open_lines(path: Path) -> FileIO:
    """Open for appending; what a kill left of a last line is cut away first."""
    file = path.open("a+b", buffering=0)
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        end = start if newline < 0 else start + newline + 1
        if newline >= 0:
            break
    file.truncate(end)
    return file


def _start_wandb(project: str, folder: Path) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"--config.report.wandb={project}: the wandb package is not installed; install it with "
            "`pip install wandb`, or leave report.wandb empty"
        ) from error
    return wandb.init(project=project, name=folder.name, dir=str(folder), resume="allow")


MEASURES = (  # of summary.json, in the order they are shown; (key, words, stands under `hinted`)
    ("clean", "clean", False),
    ("hinted", "hinted (mean of the four)", False),
    ("information_overload", "information overload", True),
    ("statistical_trap", "statistical trap", True),
    ("semantic_misleading", "semantic misleading", True),
    ("instruction_contamination", "instruction contamination", True),
    ("correct_hint", "correct hint", False),
    ("irrelevant_hint", "irrelevant hint", False),
    ("own_adversary", "hints of its own adversary", False),
    ("warmstart_adversary", "hints of the warm start's adversary", False),
)
Measure = tuple[str, float | None, float | None, bool]


def measures(summary: Mapping[str, Any]) -> list[Measure]:
    """(words, before, after, indented) of all that was measured; what is null twice is left out."""
    before = summary.get("before") or {}
    after = summary.get("after") or {}
    rows = [(words, before.get(key), after.get(key), inner) for key, words, inner in MEASURES]
    first, last = before.get("rare") or {}, after.get("rare") or {}
    for name in dict.fromkeys((*first, *last)):
        words = "rare: " + name.replace("_", " ")
        rows.append((words, first.get(name), last.get(name), False))
    return [row for row in rows if row[1] is not None or row[2] is not None]


def before_after_table(summary: Mapping[str, Any]) -> str:
    """The last words of a run: before -> after, then time and tokens by phase."""
    rows = measures(summary)
    width = max([len(words) + 2 * inner for words, _, _, inner in rows] + [34])
    head = f"{summary.get('n_problems', '?')} held-out problems, greedy"
    lines = [f"{head:<{width}}   before  ->   after   change"]
    for words, before, after, inner in rows:
        name = "  " * inner + words
        change = f"{'-':>7}"
        if before is not None and after is not None:
            change = f"{100 * (after - before):+7.1f}"
        lines.append(f"{name:<{width}}  {_percent(before)}  ->  {_percent(after)}  {change}")
    seconds = summary.get("seconds_by_phase") or {}
    tokens = summary.get("tokens") or {}
    if seconds or tokens:
        lines += ["", f"{'phase':<{width}}  {'time':>7}      {'tokens':>8}"]
    for phase in dict.fromkeys((*seconds, *tokens)):
        took = clock(seconds[phase]) if phase in seconds else "-"
        wrote = f"{tokens[phase]:,}" if phase in tokens else "-"
        lines.append(f"{phase.replace('_', ' '):<{width}}  {took:>7}  {wrote:>12}")
    if summary.get("seconds") is not None:
        took = clock(summary["seconds"])
        lines.append(f"{'all':<{width}}  {took:>7}  {sum(tokens.values()):>12,}")
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return f"{'-':>6}" if share is None else f"{share:>6.1%}"
