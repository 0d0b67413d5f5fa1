"""Ten minutes of nonsense against the grader: no exception but its own, no hang, no asymmetry."""

import random
import time
from pathlib import Path

import pytest

from seirenes_jax.verify.equal import Unreadable, equal
from seirenes_jax.verify.extract import final_answer

MINUTES = 10
SLOWEST_S = 1.0  # the judge's deadline
_TABLE = Path(__file__).with_name("table.txt")
_PIECES = (
    r"\frac \dfrac \sqrt \sqrt[3] \binom \left( \right) ( ) [ ] \{ \} { } | \lfloor \rfloor "
    r"\pm \mp + - * / ^ _ ! !! % \% , ; : = < > \le \ge \ne \approx \in \cup \cap \setminus "
    r"\infty \pi e i x y n k 0 1 2 3 9 12 0.5 1,234 1e11 1e-9 \sin \cos \log \log_2 \ln "
    r"\sum_{k=1}^{n} \prod_{i=1}^{99} \text{cm} \text{and} \text{or} \text{if} cm or and "
    r"\begin{pmatrix} \end{pmatrix} & \\ \cdot \times \circ ^\circ \degree $ \$ \overline{3} "
    r"0.\overline{3} \bar{y} 9^{9^{9}} 9! ((9!)!)! \mathbb{R} \emptyset 3:4 52_8 \mod 10^{100} "
    r"2^{2^{2^{2}}} ' '' ～ ５ ² ½ √ − 。 10^{10^{10}} 1/0 0^0 \log 0 1/3 50\% x_1 f(x) f(x)= "
    r"\boxed{ \text{ \mathrm{m} \to \mid the"
).split(" ")


def _nonsense(rng: random.Random, golds: list[str]) -> str:
    kind = rng.random()
    if kind < 0.4:
        return "".join(
            rng.choice(_PIECES) + rng.choice(("", " ")) for _ in range(rng.randint(1, 25))
        )
    text = rng.choice(golds)
    if kind < 0.5:
        return text + rng.choice(golds)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(text))
        choice = rng.random()
        if choice < 0.4:
            text = text[:at] + rng.choice(_PIECES) + text[at:]
        elif choice < 0.7:
            text = text[:at] + text[at + rng.randint(1, 4) :]
        elif choice < 0.9:
            text = text[:at] + text[at:] * rng.choice((2, 3, 40))
        else:
            text = (
                text[:at] + chr(rng.choice((0, 9, 92, 0xD800, 0x200B, 0x1F600, 0x661))) + text[at:]
            )
    return text


def _verdict(gold: str, said: str) -> str:
    try:
        return "right" if equal(gold, said) else "wrong"
    except Unreadable:
        return "unreadable"


def fuzz(seconds: float, seed: int) -> int:
    """Pairs tried. Fails on a crash, a slow pair, an asymmetric one, or an answer unlike itself."""
    rng = random.Random(seed)
    rows = [line.split(" | ") for line in _TABLE.read_text().splitlines() if " | " in line]
    golds = [text for row in rows for text in row[1:3]]
    tried = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one, two = _nonsense(rng, golds), rng.choice((_nonsense(rng, golds), rng.choice(golds)))
        begun = time.thread_time()
        there, back = _verdict(one, two), _verdict(two, one)
        took = time.thread_time() - begun
        assert there == back, f"asymmetric: {one!r} and {two!r}: {there}, {back}"
        assert took < 2 * SLOWEST_S, f"slow: {one!r} and {two!r}: {took:.2f} s"
        assert not one.strip() or _verdict(one, one) == "right", f"not itself: {one!r}"
        final_answer(one + two, fallback=rng.random() < 0.5)
        tried += 1
    return tried


def test_two_seconds_of_nonsense_do_no_harm() -> None:
    assert fuzz(2.0, seed=1) > 200


@pytest.mark.long
def test_ten_minutes_of_nonsense_do_no_harm() -> None:
    assert fuzz(60.0 * MINUTES, seed=2) > 60_000
