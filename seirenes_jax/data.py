"""Which problem comes next: a pure function of the seed, a global index and the mastered set.

The whole state is that index and that set, whatever the number of processes: grain deals the
problems, epoch after epoch, and any place of that endless deal can be asked for by its number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import grain

from seirenes_jax.errors import DataError
from seirenes_jax.rng import stable_hash
from seirenes_jax.types import Problem


@dataclass(slots=True)
class Cursor:
    """How far the run has read. JSON-able through `to_json`."""

    index: int = 0
    mastered: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, object]:
        return {"index": self.index, "mastered": sorted(self.mastered)}


class Order:
    """An endless, seeded order over problems: every epoch a new permutation."""

    def __init__(self, problems: Sequence[Problem], *, seed: int, mastered_share: float) -> None:
        if not problems:
            raise DataError("problems: got none; wanted at least one")
        self.problems, self.seed, self.mastered_share = problems, seed, mastered_share
        self._deal: grain.MapDataset[tuple[Problem, int]] = (
            grain.MapDataset.source(problems)
            .shuffle(seed=seed % 2**32)  # of each epoch anew
            .repeat()
            .map_with_index(lambda index, problem: (problem, index // len(problems)))  # its visit
        )

    def take(self, cursor: Cursor, n: int) -> tuple[list[tuple[Problem, int]], Cursor]:
        """The next n (problem, visit), each problem at most once, and the cursor behind them.

        A mastered problem is passed over but for a small share, so that forgetting is noticed.
        """
        cursor = Cursor(cursor.index, set(cursor.mastered))
        taken: dict[str, tuple[Problem, int]] = {}
        passes = 0
        while len(taken) < n:
            problem, visit = self._deal[cursor.index]
            passes += cursor.index % len(self.problems) == 0
            cursor.index += 1
            if problem.id in taken:
                continue
            if problem.id in cursor.mastered and not self._again(cursor.index) and passes < 3:
                continue  # after two whole epochs of mastered problems alone, they are played again
            taken[problem.id] = (problem, visit)
            if len(taken) == len(self.problems):
                break
        return list(taken.values()), cursor

    def _again(self, index: int) -> bool:
        return stable_hash("mastered", self.seed, index) < self.mastered_share * 2**64


def master(cursor: Cursor, solved: Sequence[tuple[str, bool]]) -> None:
    """Every try right, clean and hinted: mastered. Any failure: not (any more)."""
    for problem_id, all_right in solved:
        (cursor.mastered.add if all_right else cursor.mastered.discard)(problem_id)
