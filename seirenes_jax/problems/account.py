"""What became of every row of a data set: the account that a run prints at its start."""

from collections import Counter
from dataclasses import dataclass, field

from seirenes_jax.problems.sameness import Hit

EXAMPLES = 3  # of each kind


@dataclass(slots=True)
class Account:
    """Counts of rows. What was read is what was left out and what is left; `whole` says so."""

    place: str
    formats: set[str] = field(default_factory=set)
    expected: int | None = None  # rows, where the data set is known
    read: int = 0
    malformed: int = 0
    duplicates: int = 0
    contradicting: int = 0  # one question, several answers: nothing says which is right
    levels: int = 0
    contaminated: Counter[str] = field(default_factory=Counter)  # by benchmark
    unanswered: int = 0
    unreadable: int = 0  # answers that the verifier cannot read
    long: int = 0
    left: int = 0
    faults: list[str] = field(default_factory=list)  # of the first malformed rows, with their place
    hits: list[tuple[str, Hit]] = field(default_factory=list)  # (question, what it met)

    def whole(self) -> bool:
        """No row is unaccounted for."""
        gone = (
            self.malformed + self.duplicates + self.contradicting + self.levels + self.long
            + self.contaminated.total() + self.unanswered + self.unreadable
        )  # fmt: skip
        return self.read == gone + self.left

    def lines(self) -> list[str]:
        """The account for a console and for events.log."""
        by = ", ".join(f"{name} {count:,}" for name, count in sorted(self.contaminated.items()))
        rows = (
            ("read", self.read, self._expectation()),
            ("malformed", self.malformed, ""),
            ("duplicates", self.duplicates, ""),
            ("contradicting answers", self.contradicting, ""),
            ("without a checkable answer", self.unanswered + self.unreadable, ""),
            ("of other levels", self.levels, ""),
            ("contaminated", self.contaminated.total(), by),
            ("too long", self.long, ""),
            ("left", self.left, ""),
        )
        formats = ", ".join(sorted(self.formats))
        lines = [f"problems of {self.place} ({formats})"]
        lines += [
            f"  {name:<27} {count:>11,}" + (f"  {note}" if note else "")
            for name, count, note in rows
        ]
        lines += [f"  passed over: {fault}" for fault in self.faults]
        lines += [
            f'  contaminated: "{_cut(question)}" meets {hit.benchmark} '
            f'({hit.share:.0%} of "{_cut(hit.question)}")'
            for question, hit in self.hits
        ]
        return lines

    def _expectation(self) -> str:
        if self.expected is None or self.expected == self.read:
            return ""
        return f"published with {self.expected:,}: a part, or another revision?"


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 90 else flat[:87] + "..."
