"""Are two answers equal? May be slow, may raise `Unreadable`."""

import re
from fractions import Fraction


class Unreadable(Exception):
    """An answer is there but cannot be compared."""


_FRACTION = re.compile(r"(-?)\\[dtc]?frac\{(-?\d+)\}\{(-?\d+)\}")


def _number(text: str) -> Fraction | None:
    made = _FRACTION.fullmatch(text)
    try:
        if made:
            value = Fraction(int(made.group(2)), int(made.group(3)))
            return -value if made.group(1) else value
        if re.fullmatch(r"-?\d+(?:\.\d+)?(?:/\d+)?", text):
            return Fraction(text)
    except (ZeroDivisionError, ValueError):
        return None
    return None


def equal(gold: str, said: str, tolerance: str | None = None) -> bool:
    """True when both mean the same."""
    left, right = (re.sub(r"[\s$]|\\[,!;:]", "", text) for text in (gold, said))
    if not left:
        raise Unreadable("the gold answer is empty")
    if left == right:
        return True
    a, b = _number(left), _number(right)
    return a is not None and a == b
