"""Are two numbers or formulas the same? Exactly where rational, else to many digits."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from seirenes_jax.verify.exact import Budget, rational
from seirenes_jax.verify.numeric import NoValue, Point, value_at
from seirenes_jax.verify.tree import Node, TooBig, Unreadable

MOST_LETTERS = 16
DIGITS = 50
_WHOLE = ("floor", "ceil", "fact", "fact2", "binom", "mod", "big")
_REAL_LETTERS = frozenset("xyzuvw") | frozenset(
    "alpha beta gamma theta phi psi omega rho sigma tau".split()
)
# Denominators with no small common structure; whole numbers come from a row of their own.
_DENOMINATORS = (7, 11, 13, 17, 19, 23)
_SIGNS = ("+", "+", "+", "mixed", "-", "mixed")
_MORE = (
    "+",
    "mixed",
    "+",
    "+",
    "mixed",
    "+",
    "-",
    "+",
    "+",
    "+",
)  # for formulas with a small domain
_ENOUGH = 3  # points where both have a value
_LETTER_BITS = 1 << 18  # numbers at the points stay this small


@dataclass(frozen=True, slots=True)
class Rules:
    """How two answers are compared: what a bare log means, and by how much they may differ."""

    log_base: int | None = None
    tolerance: Fraction | None = None


def _draw(name: str, trial: int, most: int) -> int:
    """A fixed number for a letter: the same in every run and on every machine."""
    return zlib.crc32(f"{name}/{trial}".encode()) % most


def points(left: Node, right: Node) -> list[dict[str, Fraction]]:
    """Where formulas are compared: positive, then both signs; whole where that is meant."""
    names = sorted(left.symbols() | right.symbols())
    if len(names) > MOST_LETTERS:
        raise TooBig(f"formulas with {len(names)} letters; at most {MOST_LETTERS} are compared")
    whole = left.has(*_WHOLE) or right.has(*_WHOLE) or _alternates(left) or _alternates(right)
    rows: list[dict[str, Fraction]] = []
    for trial, signs in enumerate(_SIGNS + _MORE):
        row: dict[str, Fraction] = {}
        taken: set[int] = set()
        for name in names:
            if whole and name.split("_")[0] not in _REAL_LETTERS:
                value = 2 + _draw(name, trial, 11)
                while value in taken:
                    value += 1
                taken.add(value)
                row[name] = Fraction(value)
                continue
            below = _DENOMINATORS[_draw(name + "/", trial, len(_DENOMINATORS))]
            negative = signs == "-" or (signs == "mixed" and _draw(name + "-", trial, 2) == 1)
            size = Fraction(1 + _draw(name, trial, 4 * below), below)
            row[name] = -size if negative else size
        rows.append(row)
    return rows


def _alternates(node: Node) -> bool:
    """Holds something like (-1)^n, which asks for a whole n."""
    for part in node.walk():
        if part.op == "pow" and part.args[1].symbols() and not part.args[0].symbols():
            base = part.args[0]
            if base.op == "neg" or (base.op == "num" and base.value == -1) or base.op == "div":
                return True
    return False


def same_scalar(left: Node, right: Node, rules: Rules) -> bool:
    """Do both have the same value, everywhere?"""
    if left == right:
        return True
    names = left.symbols() | right.symbols()
    if not names:
        return _same_constant(left, right, rules)
    if len(names) > MOST_LETTERS:
        raise TooBig(f"formulas with {len(names)} letters; at most {MOST_LETTERS} are compared")
    agreed = _compare_at(left, right, points(left, right), rules)
    if agreed is None:
        raise Unreadable("the formulas have no common values")
    return agreed


def _same_constant(left: Node, right: Node, rules: Rules) -> bool:
    a, b = rational(left, {}, Budget()), rational(right, {}, Budget())
    if a is not None and b is not None:
        return a == b or (rules.tolerance is not None and abs(a - b) <= rules.tolerance)
    point = Point({}, rules.log_base)
    try:
        return _close(left, right, point, rules)
    except NoValue as error:
        raise Unreadable(f"an answer has no value: {error}") from error


def _compare_at(
    left: Node, right: Node, rows: Sequence[dict[str, Fraction]], rules: Rules
) -> bool | None:
    """True, False, or None when no point is good for both."""
    imaginary = any(
        part.op == "const" and part.value == "i" for side in (left, right) for part in side.walk()
    )
    good = 0
    for index, row in enumerate(rows):
        if index >= len(_SIGNS) and good >= _ENOUGH:
            break
        a, b = _exact_at(left, row), _exact_at(right, row)
        if a is not None and b is not None:
            if a != b:
                return False
            good += 1
            continue
        verdict = _close_real(left, right, Point(row, rules.log_base, not imaginary), imaginary)
        if verdict is False:
            return False
        good += verdict is not None
    if good or imaginary:
        return True if good >= 2 else None
    return _compare_complex(left, right, rows, rules)


def _compare_complex(
    left: Node, right: Node, rows: Sequence[dict[str, Fraction]], rules: Rules
) -> bool | None:
    """For formulas that are real nowhere: their principal values."""
    verdicts = [_close_real(left, right, Point(row, rules.log_base), True) for row in rows[:6]]
    known = [verdict for verdict in verdicts if verdict is not None]
    return all(known) if len(known) >= 2 else None


def _exact_at(node: Node, row: dict[str, Fraction]) -> Fraction | None:
    return rational(node, row, Budget(bits=_LETTER_BITS))


def _close_real(left: Node, right: Node, point: Point, imaginary: bool) -> bool | None:
    """Compare at one point; None where one side is undefined, or not real without an i."""
    try:
        a, b = value_at(left, point, DIGITS), value_at(right, point, DIGITS)
        if not imaginary and (_bent(a) or _bent(b)):
            return None
        return _near(a, b) or (_both_tiny(a, b) and _close(left, right, point, Rules()))
    except NoValue:
        return None


def _bent(value: Any) -> bool:
    """Not real."""
    imag = getattr(value, "imag", 0)
    return bool(abs(imag) > abs(value) * Fraction(1, 10**30).__float__())


def _near(a: Any, b: Any) -> bool:
    """The same to all but the last digits."""
    # A fraction and a number of many digits do not compare with each other.
    if isinstance(a, Fraction) and not isinstance(b, Fraction):
        a = b.context.convert(a)
    elif isinstance(b, Fraction) and not isinstance(a, Fraction):
        b = a.context.convert(b)
    if a == b:
        return True
    scale = max(abs(a), abs(b))
    difference = abs(a - b)
    return bool(difference == difference and difference * 10 ** (DIGITS - 12) < scale)


def _both_tiny(a: Any, b: Any) -> bool:
    return bool(abs(a) + abs(b) < 10.0 ** (-DIGITS // 2))


def _close(left: Node, right: Node, point: Point, rules: Rules) -> bool:
    """Constants: equal to many digits, or to a tolerance; what cancels is looked at twice."""
    a, b = value_at(left, point, DIGITS), value_at(right, point, DIGITS)
    if a == b and (a == a + 1 or rules.tolerance is not None):  # infinite
        return True
    if rules.tolerance is not None:
        limit = rules.tolerance
        return bool(abs(a - b) * limit.denominator <= limit.numerator)
    if not _both_tiny(a, b):
        if not _near(a, b):
            return False
        a, b = value_at(left, point, 4 * DIGITS), value_at(right, point, 4 * DIGITS)
        return a == b or bool(abs(a - b) * 10 ** (4 * DIGITS - 20) < max(abs(a), abs(b)))
    # Is it zero, or is it small? A true zero shrinks with the precision.
    small = abs(a - b)
    fine = abs(value_at(left, point, 4 * DIGITS) - value_at(right, point, 4 * DIGITS))
    return bool(fine * 10 ** (2 * DIGITS) <= small)


def same_equation(
    left: tuple[Node, Node], right: tuple[Node, Node], rules: Rules, directed: bool
) -> bool:
    """Is one side's difference a constant (for inequalities: positive) multiple of the other's?"""
    one = Node("add", (left[0], Node("neg", (left[1],))))
    two = Node("add", (right[0], Node("neg", (right[1],))))
    factor: Any = None
    good = 0
    for index, row in enumerate(points(one, two)):
        if index >= len(_SIGNS) and good >= _ENOUGH:
            break
        pair = _values(one, two, row, rules)
        if pair is None:
            continue
        a, b = pair
        if (a == 0) != (b == 0):
            return False
        if a == 0:
            continue
        if factor is None:
            factor = a / b
        elif not _near(a, factor * b):
            return False
        good += 1
    if good < _ENOUGH:
        raise Unreadable("the equations have no common values")
    return not directed or bool(factor > 0)


def _values(one: Node, two: Node, row: dict[str, Fraction], rules: Rules) -> tuple[Any, Any] | None:
    a, b = _exact_at(one, row), _exact_at(two, row)
    if a is not None and b is not None:
        return a, b
    try:
        point = Point(row, rules.log_base)
        x, y = value_at(one, point, DIGITS), value_at(two, point, DIGITS)
    except NoValue:
        return None
    return None if _bent(x) or _bent(y) else (x, y)


def less(left: Node, right: Node) -> bool:
    """Order of two constants, for the ends of intervals."""
    a, b = rational(left, {}, Budget()), rational(right, {}, Budget())
    if a is not None and b is not None:
        return a < b
    try:
        x, y = value_at(left, Point({}), DIGITS), value_at(right, Point({}), DIGITS)
    except NoValue as error:
        raise Unreadable(f"an end of an interval has no value: {error}") from error
    if _bent(x) or _bent(y):
        raise Unreadable("an end of an interval is not real")
    return bool(x < y)
