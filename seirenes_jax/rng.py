"""Stable integers from names: a draw depends on what it is for, never on when or where."""

import hashlib

from seirenes_jax.types import Name


def stable_hash(*parts: str | int) -> int:
    """64 bits that are the same on every machine, in every process, in every order of calls.

    >>> stable_hash("tiny", 0) == stable_hash("tiny", 0) != stable_hash("tiny", 1)
    True
    """
    # The length in front keeps ("ab", "c") and ("a", "bc") apart.
    packed = b"".join(
        f"{type(part).__name__}{len(str(part))}:{part}".encode() for part in parts
    )
    return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "big")


def draw_key(seed: int, step: int, name: Name) -> tuple[int, int]:
    """The two 32-bit words that seed every token draw of one sample."""
    bits = stable_hash(
        seed, step, name.problem, name.visit, name.turn, name.ask, name.attempt, name.sample
    )
    return bits >> 32, bits & 0xFFFFFFFF
