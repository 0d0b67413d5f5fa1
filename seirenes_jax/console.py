"""What a person at the console sees: bars with ETA, one line a step, and no sign of mischief.

Nothing a model wrote reaches the terminal but through `printable`.
"""

import re
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TextIO

from tqdm import tqdm  # type: ignore[import-untyped]

ESCAPES = re.compile(  # terminal sequences first, then any control or direction sign left over
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?|\x1b[ -/]*[0-~]?"
    r"|\x9b[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
QUIET_SECONDS = 10.0  # without a terminal a bar says a plain line this often, no more


def printable(text: str) -> str:
    """Model text for a terminal: nothing left that could move the cursor, colour or rename."""
    return ESCAPES.sub("", text.replace("\r\n", "\n"))


class Bar:
    """Progress of one phase: a live bar on a terminal, a plain line every ten seconds elsewhere."""

    def __init__(self, name: str, total: int, *, unit: str, out: TextIO) -> None:
        self.name, self.total, self.unit, self.out = name, total, unit, out
        self.done = 0
        self._note = ""
        self._start = self._said = time.monotonic()
        self._begun: tuple[float, int] | None = None  # when the first came, and how many it was
        self._bar: Any = None
        if out.isatty():
            self._bar = tqdm(
                total=total, desc=name, unit=f" {unit}", file=out, leave=False, dynamic_ncols=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def advance(self, count: int = 1, note: str = "") -> None:
        """So many more are done; `note` is shown beside the bar."""
        self.done += count
        self._begun = self._begun or (time.monotonic(), self.done)
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
        left = self._pace(seconds) * (self.total - self.done)
        share = f"{self.name} {self.done}/{self.total} {self.unit}  {clock(seconds)}"
        return f"{share}  ETA {clock(left)}" + (f"  {self._note}" if self._note else "")

    def _pace(self, seconds: float) -> float:
        """Seconds each takes. What came before the first (reading, compiling) says nothing of it
        from the second on."""
        at, count = self._begun or (0.0, self.done)
        if self.done > count:
            return (self._start + seconds - at) / (self.done - count)
        return seconds / max(1, self.done)


def say(text: str, out: TextIO) -> None:
    """Print a line, above a bar if one is up; signs the console cannot show become '?'."""
    encoding = out.encoding or "utf-8"
    tqdm.write(printable(text).encode(encoding, "replace").decode(encoding), file=out)
    out.flush()


def step_line(row: Mapping[str, Any], steps: int, pace: float) -> str:
    """One step, readable; a held-out evaluation stands on a line of its own.

    step 12/99  clean 91%  hinted 42%  drop 49  adv .31  live .75/.56/.48  1.1 s  9k tok/s  ETA 9:13
    """
    words = [f"step {row['step']}/{steps}"]
    for name, key in (("clean", "clean_acc"), ("hinted", "hinted_acc")):
        if row.get(key) is not None:
            words.append(f"{name} {row[key]:.0%}")
    if row.get("drop") is not None:
        words.append(f"drop {100 * row['drop']:.0f}")
    if row.get("adv_reward") is not None:
        words.append(f"adv {row['adv_reward']:.2f}".replace(" 0.", " .").replace("-0.", "-."))
    if row.get("live"):
        shares = ("-" if x is None else f"{round(x, 2):g}" for x in row["live"].values())
        words.append("live " + "/".join(shares))
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
