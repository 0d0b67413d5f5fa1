"""Values to many digits, where no exact one is known: roots, logarithms, sines, i."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import mpmath  # type: ignore[import-untyped]

from seirenes_jax.verify.exact import MOST_TERMS, Budget, bounds, rational
from seirenes_jax.verify.tree import Node, TooBig

MOST_MAGNITUDE = 1 << 20  # bits before the point, in absolute value
Number = Any  # mpf or mpc; mpmath has no types


class NoValue(Exception):
    """Not defined at this point, or no rule for it."""


class _Threads(threading.local):
    """mpmath keeps its precision on a context, so every thread owns one."""

    def __init__(self) -> None:
        self.context = mpmath.MPContext()


_THREADS = _Threads()


@dataclass(frozen=True, slots=True)
class Point:
    """Values of the letters, and what a bare log means here."""

    letters: Mapping[str, Fraction]
    log_base: int | None = None  # None: natural
    real: bool = False  # what has no real value has none: sqrt(x) sqrt(y) for negative x and y


def value_at(node: Node, point: Point, digits: int) -> Number:
    """The value to about so many digits. Raises `NoValue` or `TooBig`."""
    context = _THREADS.context
    context.dps = digits
    try:
        value = _Evaluation(context, point).value(node)
    except (
        ZeroDivisionError,
        ValueError,
        OverflowError,
        mpmath.libmp.libhyper.NoConvergence,
    ) as error:
        raise NoValue(str(error)) from error
    if context.isnan(value):
        raise NoValue("not a number")
    return value


class _Evaluation:
    """One walk over a tree."""

    def __init__(self, context: Any, point: Point) -> None:
        self.mp = context
        self.point = point
        self.budget = Budget(20_000)

    def value(self, node: Node) -> Number:
        """The value of a node."""
        self.budget.spend()
        rule = _RULES.get(node.op)
        if rule is None:
            raise NoValue(f"no value for {node.op}")
        return rule(self, node)

    def number(self, value: Fraction) -> Number:
        """A rational to the digits of the context."""
        return self.mp.mpf(value.numerator) / value.denominator

    def bounded(self, value: Number) -> Number:
        """Refuse what would take for ever in the next step."""
        if self.mp.isfinite(value) and value and abs(self.mp.mag(value)) > MOST_MAGNITUDE:
            raise TooBig("a number beyond the range that is compared")
        return value

    def check_real(self, value: Number, fine: bool = False) -> None:
        """Even roots and logarithms of negative numbers are not real."""
        if self.point.real and not fine and self.mp.re(value) < 0:
            raise NoValue("not real here")

    def power(self, base: Number, exponent: Number, exact: Fraction | None) -> Number:
        """base ** exponent, real where an odd root allows it."""
        mp = self.mp
        if base == 0:
            if mp.re(exponent) > 0:
                return mp.mpf(0)
            raise NoValue("a power of zero")
        if not (mp.isfinite(base) and mp.isfinite(exponent)):
            return base**exponent
        self.check_real(base, exact is not None and exact.denominator % 2 == 1)
        if mp.mag(exponent) + abs(mp.mag(base)).bit_length() > 40:
            raise TooBig("a power beyond the range that is compared")
        odd = exact is not None and exact.denominator % 2 == 1 and exact.denominator > 1
        if odd and exact is not None and mp.im(base) == 0 and mp.re(base) < 0:
            size = mp.power(-mp.re(base), exponent)  # also where it came by way of i
            return -size if exact.numerator % 2 else size
        return self.bounded(mp.power(base, exponent))


def _num(run: _Evaluation, node: Node) -> Number:
    assert isinstance(node.value, Fraction)
    return run.number(node.value)


def _sym(run: _Evaluation, node: Node) -> Number:
    name = str(node.value)
    if name not in run.point.letters:
        raise NoValue(f"no value for {name}")
    return run.number(run.point.letters[name])


def _const(run: _Evaluation, node: Node) -> Number:
    mp, name = run.mp, str(node.value)
    if name in run.point.letters:  # i as a summation letter
        return run.number(run.point.letters[name])
    values = {"pi": mp.pi, "e": mp.e, "inf": mp.inf, "i": mp.j}
    if name not in values:
        raise NoValue(f"no value for {name}")
    return +values[name] if name != "i" else mp.mpc(0, 1)


def _add(run: _Evaluation, node: Node) -> Number:
    total = run.mp.mpf(0)
    for arg in node.args:
        total = total + run.value(arg)
    return total


def _mul(run: _Evaluation, node: Node) -> Number:
    total = run.mp.mpf(1)
    for arg in node.args:
        total = run.bounded(total * run.value(arg))
    return total


def _div(run: _Evaluation, node: Node) -> Number:
    below = run.value(node.args[1])
    if below == 0:
        raise NoValue("division by zero")
    return run.value(node.args[0]) / below


def _pow(run: _Evaluation, node: Node) -> Number:
    exact = rational(node.args[1], run.point.letters, run.budget)
    return run.power(run.value(node.args[0]), run.value(node.args[1]), exact)


def _root(run: _Evaluation, node: Node) -> Number:
    degree = rational(node.args[0], run.point.letters, run.budget)
    if degree == 2:
        body = run.value(node.args[1])
        run.check_real(body)
        return run.mp.sqrt(body)
    exponent = 1 / run.value(node.args[0])
    return run.power(run.value(node.args[1]), exponent, 1 / degree if degree else None)


def _log(run: _Evaluation, node: Node) -> Number:
    body = run.value(node.args[0])
    if body == 0:
        raise NoValue("the logarithm of zero")
    run.check_real(body)
    if len(node.args) == 2:
        return run.mp.log(body) / run.mp.log(run.value(node.args[1]))
    top = run.mp.log(body)
    return top if run.point.log_base is None else top / run.mp.log(run.point.log_base)


def _factorial(run: _Evaluation, node: Node) -> Number:
    value = run.value(node.args[0])
    if run.mp.isfinite(value) and run.mp.mag(value) > 40:
        raise TooBig("a factorial beyond the range that is compared")
    return run.bounded(run.mp.factorial(value) if node.op == "fact" else run.mp.fac2(value))


def _rounded(run: _Evaluation, node: Node) -> Number:
    value = run.value(node.args[0])
    near = run.mp.nint(value)
    if abs(value - near) < run.mp.mpf(10) ** (-run.mp.dps // 2):
        return near  # a whole number in disguise
    return run.mp.floor(value) if node.op == "floor" else run.mp.ceil(value)


def _mod(run: _Evaluation, node: Node) -> Number:
    left, right = run.value(node.args[0]), run.value(node.args[1])
    return left - right * run.mp.floor(left / right)


def _fn(run: _Evaluation, node: Node) -> Number:
    name = str(node.value)
    if name in ("max", "min", "gcd", "lcm"):
        values = [rational(arg, run.point.letters, run.budget) for arg in node.args]
        exact = [value for value in values if value is not None]
        if len(exact) < len(values) or name in ("gcd", "lcm"):
            return _of_many(run, node, name, exact)
        return run.number(max(exact) if name == "max" else min(exact))
    if len(node.args) != 1:
        raise NoValue(f"no value for {name} of several")
    rule = _FUNCTIONS.get(name)
    if rule is None:
        raise NoValue(f"no value for {name}")
    value = run.value(node.args[0])
    if run.mp.isfinite(value) and run.mp.mag(value) > 4 * run.mp.dps:
        raise TooBig(f"{name} of a number this big")
    return rule(run.mp, value)


def _of_many(run: _Evaluation, node: Node, name: str, exact: list[Fraction]) -> Number:
    import math

    if name in ("max", "min"):
        values = [run.value(arg) for arg in node.args]
        return max(values) if name == "max" else min(values)
    if len(exact) < len(node.args) or any(value.denominator != 1 for value in exact):
        raise NoValue(f"no value for {name} here")
    whole = [value.numerator for value in exact]
    return run.mp.mpf(math.gcd(*whole) if name == "gcd" else math.lcm(*whole))


def _big(run: _Evaluation, node: Node) -> Number:
    parts = bounds(node)
    if parts is None:
        raise NoValue("an unbounded sum")
    letter, low, high = parts
    first = rational(low, run.point.letters, run.budget)
    last = rational(high, run.point.letters, run.budget)
    if first is None or last is None or first.denominator != 1 or last.denominator != 1:
        raise NoValue("a sum without whole bounds")
    if last - first > MOST_TERMS:
        raise TooBig(f"a sum of more than {MOST_TERMS} terms")
    outer, total = run.point, run.mp.mpf(0 if node.value == "sum_^" else 1)
    for k in range(first.numerator, last.numerator + 1):
        run.point = replace(outer, letters={**outer.letters, letter: Fraction(k)})
        term = run.value(node.args[2])
        total = total + term if node.value == "sum_^" else run.bounded(total * term)
    run.point = outer
    return total


_FUNCTIONS: dict[str, Callable[[Any, Number], Number]] = {
    "sin": lambda mp, x: mp.sin(x), "cos": lambda mp, x: mp.cos(x), "tan": lambda mp, x: mp.tan(x),
    "cot": lambda mp, x: mp.cot(x), "sec": lambda mp, x: mp.sec(x), "csc": lambda mp, x: mp.csc(x),
    "arcsin": lambda mp, x: mp.asin(x), "arccos": lambda mp, x: mp.acos(x),
    "arctan": lambda mp, x: mp.atan(x), "arccot": lambda mp, x: mp.acot(x),
    "arcsec": lambda mp, x: mp.asec(x), "arccsc": lambda mp, x: mp.acsc(x),
    "sinh": lambda mp, x: mp.sinh(x), "cosh": lambda mp, x: mp.cosh(x),
    "tanh": lambda mp, x: mp.tanh(x), "coth": lambda mp, x: mp.coth(x), "exp": lambda mp,
    x: mp.exp(x),
    "sign": lambda mp, x: mp.sign(x), "Re": lambda mp, x: mp.re(x), "Im": lambda mp, x: mp.im(x),
    "arg": lambda mp, x: mp.arg(x),
}  # fmt: skip

_RULES: dict[str, Callable[[_Evaluation, Node], Number]] = {
    "num": _num, "sym": _sym, "opaque": _sym, "const": _const, "add": _add, "mul": _mul,
    "div": _div,
    "neg": lambda run, node: -run.value(node.args[0]), "pow": _pow, "root": _root, "log": _log,
    "fact": _factorial, "fact2": _factorial, "floor": _rounded, "ceil": _rounded, "mod": _mod,
    "abs": lambda run, node: abs(run.value(node.args[0])), "fn": _fn, "big": _big, "ratio": _div,
    "percent": lambda run, node: run.value(node.args[0]) / 100,
    "degree": lambda run, node: run.value(node.args[0]) * run.mp.pi / 180,
    "unit": lambda run, node: run.value(node.args[0]),
    "binom": lambda run, node: run.mp.binomial(run.value(node.args[0]), run.value(node.args[1])),
}  # fmt: skip
