"""What a run writes down while it goes: metrics, rollouts, events, TensorBoard, the lines on the console.

`metrics.jsonl` and `rollouts.jsonl` are append-only and cut back on resume; `events.log` only grows.
"""

import contextlib
import importlib
import json
import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TextIO

import numpy as np
from tensorboardX.event_file_writer import EventsWriter  # type: ignore[import-untyped]
from tensorboardX.proto import event_pb2, summary_pb2  # type: ignore[import-untyped]
from tqdm import tqdm  # type: ignore[import-untyped]

from seirenes_jax.errors import ConfigError, SaveError

ESCAPES = re.compile(  # terminal sequences first, then any control or direction sign left over
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
QUIET_SECONDS = 10.0  # without a terminal a bar says a plain line this often, no more


def printable(text: str) -> str:
    """Model text for a terminal: nothing left that could move the cursor, colour or rename anything."""
    return ESCAPES.sub("", text.replace("\r\n", "\n"))


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
            f"could not write {path}: {error.strerror or error}. What was saved before is whole; make "
            "room or allow writing there, then give the same command again to go on."
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
    """Cut an append-only file of JSON lines after its last whole line of a step <= `step`; lines kept."""
    kept, end = 0, 0
    if not path.exists():
        return 0
    with saving(path), path.open("r+b") as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None  # torn by a kill: all after it is cut
            if row is None or row["step"] > step:
                break
            kept, end = kept + 1, end + len(line)
        file.truncate(end)
        file.flush()
        os.fsync(file.fileno())
    return kept


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
        self._board: Any = None
        self._wandb = _start_wandb(wandb, self.folder) if wandb else None
        with saving(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._metrics = _open_lines(self.folder / "metrics.jsonl")
            self._rollouts = _open_lines(self.folder / "rollouts.jsonl")
            self._events = (self.folder / "events.log").open("ab")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all files; saying it twice does no harm."""
        for file in (self._metrics, self._rollouts, self._events):
            file.close()
        if self._board is not None:
            self._board.close()
            self._board = None
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def cut_back(self, step: int) -> None:
        """Forget all steps after `step`: the run goes on from there. `events.log` keeps its lines."""
        for file in (self._metrics, self._rollouts):
            cut_lines(Path(file.name), step)
        if any((self.folder / "tensorboard").glob("*tfevents*")):
            self._start_board(step + 1)

    def log_step(self, metrics: Mapping[str, Any], rollouts: Sequence[Mapping[str, Any]]) -> None:
        """One step: a line of metrics, its sampled rollouts, scalars, and one line on the console."""
        row, step = plain(metrics), int(metrics["step"])
        _append(self._rollouts, [{"step": step, **plain(rollout)} for rollout in rollouts])
        _append(self._metrics, [row])
        scalars = flatten(row)
        if self._board is None:
            self._start_board(step)
        with saving(self.folder / "tensorboard"):
            values = [summary_pb2.Summary.Value(tag=k, simple_value=v) for k, v in scalars.items()]
            self._write_board(step=step, summary=summary_pb2.Summary(value=values))
        if self._wandb is not None:
            self._wandb.log(scalars, step=step)
        now = time.monotonic()
        self._seconds.append(now - self._last)
        self._last = now
        pace = float(np.median(self._seconds))
        self.say(step_line(row, self.steps, pace))

    def event(self, text: str) -> None:
        """A line of `events.log`, with the time."""
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with saving(self.folder / "events.log"):
            self._events.write(f"{stamp} {printable(text)}\n".encode())
            self._events.flush()

    def say(self, text: str) -> None:
        """A line on the console, above any bar."""
        say(text, self.out)

    def bar(self, name: str, total: int, unit: str) -> "Bar":
        """A progress bar with ETA for a phase; a context manager."""
        return Bar(name, total, unit=unit, out=self.out)

    def _start_board(self, step: int) -> None:
        """A new event file whose first word makes TensorBoard drop what older files say from `step` on."""
        folder = self.folder / "tensorboard"
        with saving(folder):
            folder.mkdir(exist_ok=True)
            if self._board is not None:
                self._board.close()
            # The plain writer, not SummaryWriter: that one's thread hangs the run when the disk is full.
            count = sum(1 for _ in folder.glob("*tfevents*"))
            self._board = EventsWriter(str(folder / "events"), filename_suffix=f".{count:06d}")
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write_board(step=step, session_log=start)

    def _write_board(self, *, step: int, summary: Any = None, session_log: Any = None) -> None:
        self._board.write_event(
            event_pb2.Event(
                wall_time=time.time(), step=step, summary=summary, session_log=session_log
            )
        )
        self._board.flush()


class Bar:
    """Progress of one phase: a live bar on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, name: str, total: int, *, unit: str, out: TextIO) -> None:
        self.name, self.total, self.unit, self.out = name, total, unit, out
        self.done = 0
        self._note = ""
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        if out.isatty():
            self._bar = tqdm(
                total=total, desc=name, unit=f" {unit}", file=out, leave=False, dynamic_ncols=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done; `note` is shown beside the bar."""
        self.done += count
        self._note = printable(note)
        if self._bar is not None:
            self._bar.set_postfix_str(self._note, refresh=False)
            self._bar.update(count)
        elif (now := time.monotonic()) - self._said >= QUIET_SECONDS:
            self._said = now
            say(self._line(now - self._start), self.out)

    def close(self) -> None:
        """The bar goes; on a plain console a phase that spoke says how it ended."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._said != self._start:
            say(self._line(time.monotonic() - self._start), self.out)
            self._said = self._start

    def _line(self, seconds: float) -> str:
        left = seconds / max(1, self.done) * (self.total - self.done)
        share = f"{self.name} {self.done}/{self.total} {self.unit}  {clock(seconds)}"
        return f"{share}  ETA {clock(left)}" + (f"  {self._note}" if self._note else "")


def say(text: str, out: TextIO) -> None:
    """Print a line, above a bar if one is up; signs the console cannot show become '?'."""
    encoding = out.encoding or "utf-8"
    tqdm.write(printable(text).encode(encoding, "replace").decode(encoding), file=out)
    out.flush()


def step_line(row: Mapping[str, Any], steps: int, pace: float) -> str:
    """`step 12/150  clean 91%  hinted 42%  drop 49  adv .31  live 12/9/31  1.1 s  24k tok/s  ETA 2:13`"""
    words = [f"step {row['step']}/{steps}"]
    for name, key in (("clean", "clean_acc"), ("hinted", "hinted_acc")):
        if row.get(key) is not None:
            words.append(f"{name} {row[key]:.0%}")
    if row.get("drop") is not None:
        words.append(f"drop {100 * row['drop']:.0f}")
    if row.get("adv_reward") is not None:
        words.append(f"adv {row['adv_reward']:.2f}".replace(" 0.", " .").replace("-0.", "-."))
    if row.get("live"):
        words.append("live " + "/".join(f"{count:g}" for count in row["live"].values()))
    words.append(f"{pace:.1f} s" if pace < 100 else clock(pace))
    speed = row["time"].get("tokens_per_s") if isinstance(row.get("time"), Mapping) else None
    if speed is not None:
        words.append(f"{speed / 1000:.0f}k tok/s" if speed >= 10_000 else f"{speed:.0f} tok/s")
    words.append(f"ETA {clock(pace * max(0, steps - row['step']))}")
    line = "  ".join(words)
    if row.get("eval"):
        held = (f"{k} {v:.0%}" for k, v in flatten(row["eval"]).items())
        line += "\n  held-out  " + "  ".join(held)
    return line


def clock(seconds: float) -> str:
    """0:07, 2:13, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def flatten(row: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number of a row under its path: {"live": {"clean": 3}} -> {"live/clean": 3.0}."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)):
            found[prefix + key] = float(value)
    return found


def _append(file: BinaryIO, rows: Sequence[Mapping[str, Any]]) -> None:
    """Whole lines, ASCII only: no sign inside a text can look like the end of a line."""
    with saving(Path(file.name)):
        file.write(b"".join(json.dumps(row, allow_nan=False).encode() + b"\n" for row in rows))
        file.flush()


def _open_lines(path: Path) -> BinaryIO:
    """Open for appending; what a kill left of a last line is cut away first."""
    if path.exists():
        cut_lines(path, sys.maxsize)
    return path.open("ab")


def _start_wandb(project: str, folder: Path) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise ConfigError(
            f"--config.report.wandb={project}: the wandb package is not installed; install it with "
            "`pip install wandb`, or leave report.wandb empty"
        ) from error
    return wandb.init(project=project, name=folder.name, dir=str(folder), resume="allow")
