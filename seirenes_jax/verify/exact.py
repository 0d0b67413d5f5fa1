"""Exact values of rational expressions. Makes no float, and no number that is too big."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from seirenes_jax.verify.tree import Node, TooBig

MOST_BITS = 1 << 19  # about 158,000 digits
MOST_FACTORIAL = 20_000
MOST_TERMS = 5_000  # of a sum or product
MOST_STEPS = 200_000  # nodes visited in one evaluation

Letters = Mapping[str, Fraction]


@dataclass(slots=True)
class Budget:
    """Nodes that may still be visited."""

    left: int = MOST_STEPS
    bits: int = MOST_BITS  # of any one number

    def spend(self, steps: int = 1) -> None:
        """One node more, or as many as work on a long number is worth."""
        self.left -= steps
        if self.left < 0:
            raise TooBig(f"an expression of more than {MOST_STEPS} steps")


def size(value: Fraction) -> int:
    """Bits of numerator and denominator."""
    return value.numerator.bit_length() + value.denominator.bit_length()


def rational(node: Node, letters: Letters, budget: Budget) -> Fraction | None:
    """The exact value, or None where it is not (seen to be) rational or not defined."""
    budget.spend()
    op = node.op
    if op == "num":
        assert isinstance(node.value, Fraction)
        return node.value
    if op in ("sym", "opaque"):
        return letters.get(str(node.value))
    if op == "big":
        return _repeated(node, letters, budget)
    rule = _RULES.get(op)
    if rule is None:
        return None
    values: list[Fraction] = []
    for arg in node.args:
        value = rational(arg, letters, budget)
        if value is None:
            return None
        values.append(value)
    result = rule(values, budget.bits)
    if result is not None:
        budget.spend(_effort(result))
    return result


def _effort(value: Fraction) -> int:
    """Steps that an operation on a number this long is worth: reducing fractions is quadratic."""
    top, bottom = value.numerator.bit_length(), value.denominator.bit_length()
    return (top + bottom) // 64 + min(top, bottom) ** 2 // 4_000_000


def _add(values: list[Fraction], bits: int) -> Fraction:
    total = Fraction(0)
    for value in values:
        if size(total) + size(value) > bits:
            raise TooBig("a sum too long to build")
        total += value
    return total


def _mul(values: list[Fraction], bits: int) -> Fraction:
    total = Fraction(1)
    for value in values:
        if size(total) + size(value) > bits:
            raise TooBig("a product too long to build")
        total *= value
    return total


def _div(values: list[Fraction], bits: int) -> Fraction | None:
    return None if not values[1] else _mul([values[0], 1 / values[1]], bits)


def _pow(values: list[Fraction], bits: int) -> Fraction | None:
    """base ** exponent where that is rational. An odd root of a negative number is negative."""
    base, exponent = values
    if exponent.denominator != 1:
        root = _root([Fraction(exponent.denominator), base], bits)
        return None if root is None else _pow([root, Fraction(exponent.numerator)], bits)
    if base in (0, 1):
        return None if not base and exponent <= 0 else base
    if base == -1:
        return Fraction(-1 if exponent.numerator % 2 else 1)
    if size(base) * abs(exponent.numerator) > 2 * bits:
        raise TooBig("a power too long to build")
    return base**exponent.numerator


def _root(values: list[Fraction], bits: int) -> Fraction | None:
    degree, body = values
    if degree.denominator != 1 or not 1 <= degree <= 512:
        return None
    n = degree.numerator
    if body < 0 and n % 2 == 0:
        return None
    if size(body) > bits // 16:
        return None
    top, bottom = whole_root(abs(body.numerator), n), whole_root(body.denominator, n)
    if top is None or bottom is None:
        return None
    return Fraction(-top if body < 0 else top, bottom)


def whole_root(value: int, degree: int) -> int | None:
    """The exact root of a whole number, or None."""
    if value < 2 or degree == 1:
        return value
    if degree == 2:
        near = math.isqrt(value)
        return near if near * near == value else None
    high = 1 << -(-value.bit_length() // degree)
    while True:  # Newton from above
        lower = ((degree - 1) * high + value // high ** (degree - 1)) // degree
        if lower >= high:
            return high if high**degree == value else None
        high = lower


def _fact(values: list[Fraction], bits: int, step: int = 1) -> Fraction | None:
    value = values[0]
    if value.denominator != 1 or value < 0:
        return None
    if value > MOST_FACTORIAL:
        raise TooBig("a factorial too long to build")
    n = value.numerator
    return Fraction(math.factorial(n) if step == 1 else math.prod(range(n, 0, -step)))


def _binom(values: list[Fraction], bits: int) -> Fraction | None:
    n, k = values
    if n.denominator != 1 or k.denominator != 1:
        return None
    if not 0 <= k <= n:
        return Fraction(0) if n >= 0 else None
    small = min(k, n - k)
    if small * size(n) > bits // 16:
        raise TooBig("a binomial too long to build")
    return Fraction(math.comb(n.numerator, k.numerator))


def _mod(values: list[Fraction], bits: int) -> Fraction | None:
    return values[0] % values[1] if values[1] else None


def _log(values: list[Fraction], bits: int) -> Fraction | None:
    """Whole logarithms of whole numbers; all others are left to numerics."""
    if len(values) != 2:
        return Fraction(0) if values[0] == 1 else None
    body, base = values
    if body == 1 and base > 0 and base != 1:
        return Fraction(0)
    return None


_Rule = Callable[[list[Fraction], int], Fraction | None]
_RULES: dict[str, _Rule] = {
    "add": _add,
    "mul": _mul,
    "neg": lambda values, bits: -values[0],
    "div": _div,
    "pow": _pow,
    "root": _root,
    "fact": _fact,
    "fact2": lambda values, bits: _fact(values, bits, 2),
    "floor": lambda values, bits: Fraction(math.floor(values[0])),
    "ceil": lambda values, bits: Fraction(math.ceil(values[0])),
    "abs": lambda values, bits: abs(values[0]),
    "percent": lambda values, bits: values[0] / 100,
    "binom": _binom,
    "mod": _mod,
    "log": _log,
    "ratio": lambda values, bits: _div(values, bits) if len(values) == 2 else None,
}


def bounds(node: Node) -> tuple[str, Node, Node] | None:
    """Letter, from and to of a finite sum or product."""
    if node.value not in ("sum_^", "prod_^"):
        return None
    low = node.args[0]
    if low.op != "rel" or low.value != "=" or low.args[0].op not in ("sym", "const"):
        return None
    return str(low.args[0].value), low.args[1], node.args[1]


def _repeated(node: Node, letters: Letters, budget: Budget) -> Fraction | None:
    """A finite sum or product, term by term."""
    parts = bounds(node)
    if parts is None:
        return None
    letter, low, high = parts
    first, last = rational(low, letters, budget), rational(high, letters, budget)
    if first is None or last is None or first.denominator != 1 or last.denominator != 1:
        return None
    if last - first > MOST_TERMS:
        raise TooBig(f"a sum of more than {MOST_TERMS} terms")
    values: list[Fraction] = []
    for k in range(first.numerator, last.numerator + 1):
        value = rational(node.args[2], {**letters, letter: Fraction(k)}, budget)
        if value is None:
            return None
        values.append(value)
    total = _add if node.value == "sum_^" else _mul
    return total(values, budget.bits)
