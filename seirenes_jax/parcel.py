"""What one process tells the others of its play: to bytes and back, exactly.

Words and tokens go as arrays; what arrives is merged in the order of the problems, so that every
process goes on from the same thing, and from the same as one process alone would.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields

from seirenes_jax import streams
from seirenes_jax.games.base import Note
from seirenes_jax.packing import packed, unpacked
from seirenes_jax.play import Counts, Played
from seirenes_jax.types import Credit, Group

TALLIES = ("samples", "tokens", "cut", "verdicts", "gates")


def to_bytes(played: Played, seats: Sequence[int]) -> bytes:
    """The outcome of the problems at these seats of the step."""
    queues: dict[str, list[tuple[int, Group]]] = {}
    for seat, credits in zip(seats, played.credits, strict=True):
        for group in streams.grouped(credits):
            queues.setdefault(group[0].stream, []).append((seat, group))
    held = streams.Streams({name: tuple(queue) for name, queue in queues.items()}, 0)
    arrays, table = streams.to_state(held)
    counts = {field.name: getattr(played.counts, field.name) for field in fields(Counts)}
    head = {"seats": list(seats), "notes": played.notes, "counts": counts, "streams": table}
    return packed(head, arrays)


def merged(parcels: Sequence[bytes]) -> Played:
    """All that was played, in the order of seats."""
    credits: dict[int, list[Credit]] = {}
    notes: dict[int, Note] = {}
    tallies = {name: Counter[str]() for name in TALLIES}
    rounds = 0
    for parcel in parcels:
        head, arrays = unpacked(parcel)
        notes |= dict(zip(head["seats"], head["notes"], strict=True))
        credits |= {seat: [] for seat in head["seats"]}
        for queue in streams.from_state(arrays, head["streams"]).queues.values():
            for seat, group in queue:
                credits[seat] += group
        for name, tally in tallies.items():
            tally.update(head["counts"][name])
        rounds = max(rounds, head["counts"]["rounds"])
    order = sorted(notes)
    return Played(
        tuple(tuple(credits[seat]) for seat in order), tuple(notes[seat] for seat in order),
        Counts(**tallies, rounds=rounds),
    )  # fmt: skip
