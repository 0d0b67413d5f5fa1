"""Everything of a run that is not weights: where it stands, what waits, what it remembers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seirenes_jax import streams as fifo
from seirenes_jax.data import Cursor
from seirenes_jax.games.base import Memory


@dataclass(slots=True)
class Progress:
    """One owner: the local `progress` of train.py."""

    streams: fifo.Streams
    step: int = 0
    cursor: Cursor = field(default_factory=Cursor)
    memory: Memory = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)  # of roles, advantage.kind = ema
    best: dict[str, float] = field(default_factory=dict)  # {"step", "score"} of the best evaluation
    before: dict[str, Any] = field(default_factory=dict)  # the evaluation of the starting weights
    start_hints: list[str | None] = field(default_factory=list)  # what their adversary wrote for it
    tokens: dict[str, int] = field(default_factory=lambda: {"warm_start": 0, "play": 0, "eval": 0})
    seconds: dict[str, float] = field(default_factory=dict)  # by phase; a clock's, never compared
    bad_steps: int = 0  # in a row, not applied
    # Of those, what is kept in RUN/bad, the newest last: {"step", "checkpoint"}: where the weights
    # are that it was computed with.
    bad: list[dict[str, int]] = field(default_factory=list)
    alarms: Memory = field(default_factory=dict)  # what alarms.py remembers
    base: str = ""  # digest of what adapters stand on

    def to_host(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON for the checkpoint."""
        arrays, waiting = fifo.to_state(self.streams)
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in OWN_FORM}
        return arrays, {**plain, "cursor": self.cursor.to_json(), "streams": waiting}


OWN_FORM = ("streams", "cursor")


def from_host(arrays: Mapping[str, np.ndarray], stored: Mapping[str, Any]) -> Progress:
    """The exact progress that `to_host` was given."""
    plain = {name: value for name, value in stored.items() if name not in OWN_FORM}
    cursor = Cursor(stored["cursor"]["index"], set(stored["cursor"]["mastered"]))
    return Progress(streams=fifo.from_state(arrays, stored["streams"]), cursor=cursor, **plain)
