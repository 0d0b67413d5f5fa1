"""What processes tell each other of their play: nothing is lost, nothing changes, order is kept."""

import numpy as np
import pytest

from seirenes_jax import parcel, streams
from seirenes_jax.packing import packed, unpacked
from seirenes_jax.play import Played
from tests import scripted


def groups(played: Played) -> dict[str, list[list[tuple[object, ...]]]]:
    """All that an update reads of the credits: by stream, in order."""
    found: dict[str, list[list[tuple[object, ...]]]] = {}
    for group in streams.grouped([c for game in played.credits for c in game]):
        found.setdefault(group[0].stream, []).append([
            (c.rollout.name, c.rollout.tokens.tolist(), c.rollout.logprobs.tolist(), c.reward,
             c.weight, c.rollout.text, c.rollout.ask)
            for c in group
        ])  # fmt: skip
    return found


def test_shares_merge_to_what_one_process_played() -> None:
    whole = scripted.played(5)
    shares = [scripted.played(5, seats=range(i, 5, 2)) for i in range(2)]
    parcels = [parcel.to_bytes(one, range(i, 5, 2)) for i, one in enumerate(shares)]
    merged = parcel.merged(parcels)
    assert groups(merged) == groups(whole)
    assert merged.notes == whole.notes
    assert merged.counts.tokens == whole.counts.tokens
    assert merged.counts.verdicts == whole.counts.verdicts


def test_a_rollout_of_two_credits_stays_one() -> None:
    merged = parcel.merged([parcel.to_bytes(scripted.played(2), range(2))])
    seen = {id(c.rollout): c.rollout.name for game in merged.credits for c in game}
    assert len(set(seen.values())) == len(seen)


def test_damaged_bytes_are_refused() -> None:
    data = bytearray(packed({"a": 1}, {"x": np.arange(3, dtype=np.int32)}))
    head, arrays = unpacked(bytes(data))
    assert head == {"a": 1} and arrays["x"].tolist() == [0, 1, 2]
    data[-1] ^= 1
    with pytest.raises(ValueError, match="not what was packed"):
        unpacked(bytes(data))
