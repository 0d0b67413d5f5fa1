"""Numbers as people state them: units, degrees, percent, bases, ratios, times of day."""

from collections.abc import Sequence
from fractions import Fraction

from seirenes_jax.verify.lexer import decimal
from seirenes_jax.verify.scalars import Rules, same_scalar
from seirenes_jax.verify.tree import Node, Unit, Unreadable, num, sym
from seirenes_jax.verify.units import SIZES

# Everything that is not a number or a formula.
SHAPES = frozenset(
    "list set paren brack ival union inter minus matrix row rel ratio time base dots unit "
    "percent degree".split()
)
_DEGREES = (("angle", 1),)
_RADIANS = (("radian", 1),)


def _total(node: Node) -> Node:
    """3 hours 30 minutes as one unit."""
    if node.op != "add" or not all(arg.op == "unit" for arg in node.args):
        return node
    units = [arg.value for arg in node.args if isinstance(arg.value, Unit)]
    if len({unit.dims for unit in units}) != 1:
        return node
    parts = tuple(
        Node("mul", (_total(arg.args[0]), num(unit.factor / units[0].factor)))
        for arg, unit in zip(node.args, units, strict=True)
    )
    return Node("unit", (Node("add", parts),), units[0])


def same_value(a: Node, b: Node, rules: Rules) -> bool:
    """Numbers and formulas, with their percent signs, units, bases and ratios."""
    a, b = _decimal(_total(a)), _decimal(_total(b))
    ops = (a.op, b.op)
    if "base" in ops or "time" in ops:
        return _same_spelled(a, b, rules)
    if "ratio" in ops:
        return _same_ratio(a, b, rules)
    if "dots" in ops:
        return False
    if "percent" in ops:
        return _same_percent(a, b, rules)
    if "unit" in ops or "degree" in ops:
        return _same_measure(a, b, rules)
    for one, two in ((a, b), (b, a)):
        if one.op == "const" and one.value in ("inf", "empty", "R", "Z", "N", "Q", "C"):
            if two.op == "neg" and two.args[0] == one:
                return False
            return one == two if not two.symbols() else False
        if one.op == "neg" and one.args[0].op == "const" and one.args[0].value == "inf":
            return one == two
    if same_scalar(a, b, rules):
        return True
    if a.has("degree") or b.has("degree"):
        return same_scalar(_without_degrees(a), _without_degrees(b), rules)
    return False


def _decimal(node: Node) -> Node:
    """A number that is said to be in base ten is a number."""
    if node.op != "base" or not str(node.value).endswith("_10"):
        return node
    return num(decimal(str(node.value)[:-3]))


def _same_spelled(a: Node, b: Node, rules: Rules) -> bool:
    """Numbers in a base keep their base, unless both state one. Times are times."""
    if a.op == "base" and b.op == "base":
        return _in_base(a) == _in_base(b)
    if a.op == "time" and b.op == "time":
        return _same_time(str(a.value).split(), str(b.value).split())
    if "ratio" in (a.op, b.op):
        time = a if a.op == "time" else b
        if time.op == "time" and " " not in str(time.value):
            ratio = Node("ratio", tuple(num(int(part)) for part in str(time.value).split(":")))
            return _same_ratio(ratio if time is a else a, ratio if time is b else b, rules)
    return False


def _same_time(one: Sequence[str], two: Sequence[str]) -> bool:
    """am or pm may be missing on one side; 2:30 pm is 14:30."""
    if len(one) == len(two) == 1:
        return one == two
    if len(one) == len(two):
        return _of_day(one) == _of_day(two)
    marked, bare = (one, two) if len(one) == 2 else (two, one)
    return marked[0] == bare[0] or _of_day(marked) == bare[0]


def _of_day(time: Sequence[str]) -> str:
    """A marked time on the 24-hour clock."""
    hour, _, rest = time[0].partition(":")
    return f"{int(hour) % 12 + (12 if time[1] == 'p' else 0)}:{rest}"


def _in_base(node: Node) -> int:
    digits, base = str(node.value).split("_")
    if not 2 <= int(base) <= 36:
        raise Unreadable(f"no digits for base {base}")
    try:
        return int(digits, int(base))
    except ValueError as error:
        raise Unreadable(f"{digits} is no number in base {base}") from error


def _same_ratio(a: Node, b: Node, rules: Rules) -> bool:
    """3:4 is 6:8 and 3/4, but never 3."""
    if a.op == "ratio" and b.op == "ratio":
        if len(a.args) != len(b.args):
            return False
        return all(
            same_scalar(Node("mul", (a.args[0], y)), Node("mul", (b.args[0], x)), rules)
            for x, y in zip(a.args[1:], b.args[1:], strict=True)
        )
    ratio, plain = (a, b) if a.op == "ratio" else (b, a)
    if len(ratio.args) != 2 or plain.op in SHAPES:
        return False
    return same_scalar(Node("div", ratio.args), plain, rules)


def _same_percent(a: Node, b: Node, rules: Rules) -> bool:
    """A percent sign may be missing, or be spelled out as a hundredth."""
    if a.op == b.op:
        return same_scalar(a.args[0], b.args[0], rules)
    sign, plain = (a, b) if a.op == "percent" else (b, a)
    if plain.op in SHAPES:
        return False
    return same_scalar(sign.args[0], plain, rules) or same_scalar(sign, plain, rules)


def _measure(node: Node) -> tuple[Node, Unit | None]:
    if node.op == "degree":
        return node.args[0], Unit(_DEGREES, Fraction(1), "degree")
    if node.op == "unit" and isinstance(node.value, Unit):
        return node.args[0], node.value
    return node, None


def _same_measure(a: Node, b: Node, rules: Rules) -> bool:
    """Units convert; one may be missing on one side; a bare number may be an angle in radians."""
    (x, unit), (y, other) = _measure(a), _measure(b)
    if unit is not None and other is not None:
        if unit.dims == other.dims:
            left, right = Node("mul", (x, num(unit.factor))), Node("mul", (y, num(other.factor)))
            return same_scalar(left, right, rules)
        if {unit.dims, other.dims} == {_DEGREES, _RADIANS}:
            return (
                _degrees_are(x, unit, y, rules)
                if unit.dims == _DEGREES
                else _degrees_are(y, other, x, rules)
            )
        return same_scalar(x, y, rules) if not unit.dims or not other.dims else False
    if x.op in SHAPES or y.op in SHAPES:
        return False
    if same_scalar(x, y, rules):
        return True
    known = unit or other
    assert known is not None
    degrees, plain = (x, y) if unit is not None else (y, x)
    if known.dims == _DEGREES:
        return same_scalar(
            Node("degree", (Node("mul", (degrees, num(known.factor))),)), plain, rules
        )
    letters = plain.symbols()
    if len(letters) == 1:  # 5 m typed without \text
        name = next(iter(letters))
        dims, factor = SIZES.get(name, ((), Fraction(1)))
        if dims == known.dims:
            typed = Node("mul", (degrees, num(known.factor / factor), sym(name)))
            return same_scalar(typed, plain, rules)
    return False


def _degrees_are(degrees: Node, unit: Unit, radians: Node, rules: Rules) -> bool:
    turned = Node("degree", (Node("mul", (degrees, num(unit.factor))),))
    return same_scalar(turned, radians, rules)


def _without_degrees(node: Node) -> Node:
    """180 degrees - 2a as 180 - 2a; inside of functions degrees stay degrees."""
    if node.op == "degree":
        return node.args[0]
    if node.op == "fn" or not node.args:
        return node
    return Node(node.op, tuple(_without_degrees(arg) for arg in node.args), node.value)
