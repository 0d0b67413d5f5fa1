"""Do two trees mean the same? Owns what may be missing on one side, what is ordered and what is not."""

from collections.abc import Sequence
from fractions import Fraction

from seirenes_jax.verify.exact import Budget, rational
from seirenes_jax.verify.regions import letter, region, same_end, same_region
from seirenes_jax.verify.scalars import Rules, same_equation, same_scalar
from seirenes_jax.verify.tree import EMPTY, Node, TooBig, Unit, Unreadable, num, rename, signed, sym

_MANY = ("list", "set", "paren", "brack")
_SETS = ("union", "inter", "minus", "ival")
_ORDER = {"<": "<", ">": "<", "le": "le", "ge": "le", "=": "=", "ne": "ne"}
_LONGEST_LIST = 400
_SHAPES = frozenset(
    ("list", "set", "paren", "brack", "ival", "union", "inter", "minus", "matrix", "row", "rel", "ratio", "time",
     "base", "dots", "unit", "percent", "degree")
)  # fmt: skip
_DEGREES = (("angle", 1),)


def same(a: Node, b: Node, rules: Rules) -> bool:
    """True when both answers mean the same."""
    a, b = _branches(a), _branches(b)
    if a == b:
        return True
    if "rel" in (a.op, b.op):
        return _same_relation(a, b, rules)
    if _assigns(a) or _assigns(b):
        return _same_assignments(a, b, rules)
    if "matrix" in (a.op, b.op) or _scaled_matrix(a) or _scaled_matrix(b):
        return _same_matrix(a, b, rules)
    if a.op in _SETS or b.op in _SETS or _described(a) or _described(b):
        return _same_regions(a, b, rules)
    if a.op in _MANY or b.op in _MANY:
        return _same_many(a, b, rules)
    return _same_value(a, b, rules)


def _branches(node: Node) -> Node:
    """Both branches of plus-minus as a list; a list of such flattened."""
    if node.op in ("list", "set"):
        items: list[Node] = []
        for arg in node.args:
            branch = _branches(arg)
            items += branch.args if branch.op == "list" and arg.has("pm") else (branch,)
        flat = Node(node.op, tuple(items), node.value)
        if node.value == "or" and len(items) > 1 and _all_equal(items):
            return items[0]
        return flat
    if not node.has("pm"):
        return node
    if node.op == "rel" and len(node.args) == 2 and not node.args[0].has("pm"):
        right = _branches(node.args[1])
        return Node("list", tuple(Node("rel", (node.args[0], arg), node.value) for arg in right.args), "or")
    return Node("list", (signed(node, True), signed(node, False)), "or")


def _all_equal(items: Sequence[Node]) -> bool:
    values = [rational(item, {}, Budget()) for item in items]
    return values[0] is not None and all(value == values[0] for value in values)


def named(node: Node) -> bool:
    """A name for a quantity: x, f(x), AB, the sum x + y, a/b, |AB|, an angle."""
    if node.op in ("sym", "opaque"):
        return True
    if node.op == "mul":
        head = node.args[0]
        return head.op == "sym" and all(
            arg.op in ("sym", "paren", "rel", "num", "const")
            or (arg.op == "add" and head.value not in ("x", "y", "z") and len(node.args) == 2)
            for arg in node.args[1:]
        )
    if node.op in ("add", "div", "abs", "paren"):
        return all(arg.op == "sym" or (arg.op == "mul" and named(arg)) for arg in node.args)
    return node.op == "fn" and all(arg.op in ("sym", "mul") for arg in node.args)


def told(node: Node) -> tuple[Node, Node] | None:
    """(Name, value) of "x = 5", "5 = x", "S = 2 + 3 = 5" or "x is about 5"."""
    if node.op != "rel":
        return None
    signs = str(node.value).split()
    parts = node.args
    if not set(signs) <= {"=", "approx", "equiv"} or "equiv" in signs:
        return None
    if named(parts[0]):
        exact = [part for part, sign in zip(parts[1:], signs, strict=True) if sign == "="]
        return parts[0], (exact or parts[1:])[-1]
    if len(parts) == 2 and named(parts[1]) and signs == ["="]:
        return parts[1], parts[0]
    return None


def _consistent(node: Node, rules: Rules) -> bool:
    """Every "=" of a chain of values holds."""
    values = [part for part in node.args if not named(part)]
    signs = str(node.value).split()
    if "approx" in signs:
        return True
    return all(same(one, two, rules) for one, two in zip(values, values[1:], strict=False))


def _chain_value(node: Node, rules: Rules) -> Node | None:
    """The value of "2 + 3 = 5" or "sqrt 2 = about 1.41": the first part, where all the "=" hold."""
    signs = str(node.value).split()
    if not set(signs) <= {"=", "approx"} or any(part.symbols() for part in node.args):
        return None
    exact = [node.args[0]]
    for sign, part in zip(signs, node.args[1:], strict=True):
        if sign == "approx":
            break
        exact.append(part)
    if not all(same(exact[0], part, rules) for part in exact[1:]):
        return None
    return exact[-1]


def _same_relation(a: Node, b: Node, rules: Rules) -> bool:
    if a.op == "rel" and b.op == "rel":
        return _same_relations(a, b, rules)
    rel, other, flipped = (a, b, False) if a.op == "rel" else (b, a, True)
    pair = told(rel)
    if pair is not None:
        if other.op == "list" and other.value == "or" and all(told(arg) for arg in other.args):
            other = Node("list", tuple(_value(arg) for arg in other.args), "or")
        return _consistent(rel, rules) and _same_sided(pair[1], other, flipped, rules)
    value = _chain_value(rel, rules)
    if value is not None:
        return _same_sided(value, other, flipped, rules)
    if region(rel) is not None or other.op in _SETS or other.op in _MANY:
        return _same_regions(a, b, rules)
    return False


def _same_sided(value: Node, other: Node, flipped: bool, rules: Rules) -> bool:
    return same(other, value, rules) if flipped else same(value, other, rules)


def _same_relations(a: Node, b: Node, rules: Rules) -> bool:
    one, two = told(a), told(b)
    if one is not None and two is not None:
        left, right = one[1], two[1]
        if not (_consistent(a, rules) and _consistent(b, rules)):
            return False
        if one[0] == two[0] or _same_applied(one[0], two[0]):
            old, new = _argument(two[0]), _argument(one[0])
            if old is not None and new is not None and old != new:
                right = rename(right, old, new)
            return same(left, right, rules)
        if left.op in _MANY or right.op in _MANY:
            return False
    if _described(a) and _described(b) and letter(a) == letter(b):
        return _same_regions(a, b, rules)
    signs_a, signs_b = str(a.value).split(), str(b.value).split()
    if len(signs_a) != 1 or len(signs_b) != 1 or any(s not in _ORDER for s in signs_a + signs_b):
        return _same_parts(a, b, rules)
    if any(part.op in _SHAPES for part in a.args + b.args):
        return _same_parts(a, b, rules)
    if _ORDER[signs_a[0]] != _ORDER[signs_b[0]]:
        return False
    left_pair = (a.args[1], a.args[0]) if signs_a[0] in (">", "ge") else (a.args[0], a.args[1])
    right_pair = (b.args[1], b.args[0]) if signs_b[0] in (">", "ge") else (b.args[0], b.args[1])
    directed = signs_a[0] not in ("=", "ne")
    return same_equation(left_pair, right_pair, rules, directed)


def _same_parts(a: Node, b: Node, rules: Rules) -> bool:
    """Relations that are only compared part by part: congruences, memberships."""
    if a.value != b.value or len(a.args) != len(b.args):
        return False
    return all(same(x, y, rules) for x, y in zip(a.args, b.args, strict=True))


def _same_applied(a: Node, b: Node) -> bool:
    """f(x) and f(n): the same function of one letter."""
    old, new = _argument(a), _argument(b)
    return old is not None and new is not None and a.args[0] == b.args[0]


def _argument(node: Node) -> str | None:
    if node.op == "mul" and len(node.args) == 2 and node.args[1].op == "sym":
        return str(node.args[1].value)
    return None


def _value(node: Node) -> Node:
    pair = told(node)
    return node if pair is None else pair[1]


def _described(node: Node) -> bool:
    """An inequality, or a list of them, in one letter."""
    if node.op == "list":
        return len(node.args) > 1 and all(_described(arg) for arg in node.args)
    return (
        node.op == "rel"
        and set(str(node.value).split()) <= {"<", ">", "le", "ge", "ne", "in"}
        and letter(node) is not None
    )


def _same_regions(a: Node, b: Node, rules: Rules) -> bool:
    if _described(a) and _described(b) and letter(a) != letter(b):
        return False
    left, right = _as_region(a), _as_region(b)
    if left is None or right is None:
        if a.op == b.op and len(a.args) == len(b.args) and a.op in ("union", "inter"):
            return _unordered(a.args, b.args, rules)
        if left is None and right is None:
            raise Unreadable("sets that cannot be compared")
        return False
    return same_region(left, right, rules)


def _as_region(node: Node) -> "tuple[object, ...] | None":  # type: ignore[misc]
    return region(node)


def _assigns(node: Node) -> bool:
    """A list like x = 1, y = 2, or solutions x = 1, x = 2."""
    return node.op == "list" and any(told(arg) is not None for arg in node.args)


def _same_assignments(a: Node, b: Node, rules: Rules) -> bool:
    if _assigns(a) and _assigns(b) and _names(a) is not None and _names(b) is not None:
        return _unordered(a.args, b.args, rules)
    one, two = (a, b) if _assigns(a) else (b, a)
    names = _names(one)
    if names is None:  # x = 1, 2: the name stands for all
        plain = Node("list", tuple(_value(arg) for arg in one.args), ",")
        bare = Node("list", tuple(_value(arg) for arg in two.args), ",") if two.op == "list" else two
        return same(plain, bare, rules)
    values = tuple(_value(arg) for arg in one.args)
    if len(set(names)) == 1:
        return same(Node("list", values, ","), two, rules)
    if two.op in ("paren", "brack", "list"):  # x = 1, y = 2 against (1, 2)
        return _ordered(values, two.args, rules)
    return False


def _names(node: Node) -> list[Node] | None:
    pairs = [told(arg) for arg in node.args]
    return [pair[0] for pair in pairs if pair is not None] if all(pairs) else None


def _same_many(a: Node, b: Node, rules: Rules) -> bool:
    kinds = (a.op, b.op)
    if a.op not in _MANY or b.op not in _MANY:
        many, one = (a, b) if a.op in _MANY else (b, a)
        if one == EMPTY:
            return not many.args
        if many.op == "set" and len(many.args) == 1:
            return same(many.args[0], one, rules)
        if len(many.args) == 2 and (whole := region(one)) is not None and many.op in ("paren", "brack"):
            return same_region(region(many) or (), whole, rules)
        return False
    if "set" in kinds:
        if kinds != ("set", "set") and "list" not in kinds:
            return False
        return _covers(a.args, b.args, rules) and _covers(b.args, a.args, rules)
    if kinds == ("list", "list"):
        return _unordered(a.args, b.args, rules)
    if kinds[0] != kinds[1] and len(a.args) == 2 and "brack" in kinds:
        return False  # ends of intervals matter
    return _ordered(a.args, b.args, rules)


def _ordered(a: Sequence[Node], b: Sequence[Node], rules: Rules) -> bool:
    return len(a) == len(b) and all(_same_item(x, y, rules) for x, y in zip(a, b, strict=True))


def _same_item(a: Node, b: Node, rules: Rules) -> bool:
    if a.has("const") and b.has("const"):
        try:
            return same_end(a, b, rules) if a.op not in _SHAPES and b.op not in _SHAPES else same(a, b, rules)
        except Unreadable:
            return same(a, b, rules)
    return same(a, b, rules)


def _covers(a: Sequence[Node], b: Sequence[Node], rules: Rules) -> bool:
    if len(a) * len(b) > _LONGEST_LIST**2:
        raise TooBig("sets too long to compare")
    return all(any(_same_quietly(x, y, rules) for y in b) for x in a)


def _unordered(a: Sequence[Node], b: Sequence[Node], rules: Rules) -> bool:
    """The same items, each as often."""
    if len(a) != len(b):
        return False
    values_a = [rational(item, {}, Budget()) for item in a]
    values_b = [rational(item, {}, Budget()) for item in b]
    if all(value is not None for value in values_a + values_b) and rules.tolerance is None:
        return sorted(_known(values_a)) == sorted(_known(values_b))
    if len(a) > _LONGEST_LIST:
        raise TooBig("lists too long to compare")
    rest = list(b)
    for item in a:
        for index, other in enumerate(rest):
            if _same_quietly(item, other, rules):
                del rest[index]
                break
        else:
            return False
    return True


def _known(values: Sequence[Fraction | None]) -> list[Fraction]:
    return [value for value in values if value is not None]


def _same_quietly(a: Node, b: Node, rules: Rules) -> bool:
    """Within a search for partners, two that cannot be compared are no partners."""
    try:
        return same(a, b, rules)
    except TooBig:
        raise
    except Unreadable:
        return False


def _scaled_matrix(node: Node) -> bool:
    return node.op in ("mul", "neg", "div") and any(
        arg.op == "matrix" or _scaled_matrix(arg) for arg in node.args
    )


def _rows(node: Node) -> list[tuple[Node, ...]] | None:
    """Entries of a matrix; factors before it are multiplied in; a tuple is a column."""
    if node.op == "matrix":
        return [row.args for row in node.args]
    if node.op == "brack" and all(arg.op == "brack" for arg in node.args):
        return [arg.args for arg in node.args]
    if node.op in ("paren", "brack"):
        return [(arg,) for arg in node.args]
    if node.op == "neg":
        inner = _rows(node.args[0])
        return None if inner is None else [tuple(Node("neg", (x,)) for x in row) for row in inner]
    if node.op == "div":
        inner = _rows(node.args[0])
        return None if inner is None else [tuple(Node("div", (x, node.args[1])) for x in row) for row in inner]
    if node.op == "mul":
        inside = [arg for arg in node.args if arg.op == "matrix" or _scaled_matrix(arg)]
        outside = tuple(arg for arg in node.args if arg not in inside)
        inner = _rows(inside[0]) if len(inside) == 1 else None
        return None if inner is None else [tuple(Node("mul", (*outside, x)) for x in row) for row in inner]
    return None


def _same_matrix(a: Node, b: Node, rules: Rules) -> bool:
    left, right = _rows(a), _rows(b)
    if left is None or right is None:
        one, other = (left, b) if right is None else (right, a)
        if one is not None and len(one) == 1 and len(one[0]) == 1:
            return same(one[0][0], other, rules)
        return False
    return len(left) == len(right) and all(
        _ordered(x, y, rules) for x, y in zip(left, right, strict=True)
    )


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


def _same_value(a: Node, b: Node, rules: Rules) -> bool:
    """Numbers and formulas, with their percent signs, units, bases and ratios."""
    a, b = _total(a), _total(b)
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
    return same_scalar(a, b, rules)


def _same_spelled(a: Node, b: Node, rules: Rules) -> bool:
    """Numbers in a base keep their base; equal values in two stated bases are equal. Times are times."""
    if a.op == "base" and b.op == "base":
        return _in_base(a) == _in_base(b)
    if a.op == "time" and b.op == "time":
        one, two = (str(node.value).split() for node in (a, b))
        return one[0] == two[0] and (len(one) == 1 or len(two) == 1 or one[1] == two[1])
    if "ratio" in (a.op, b.op):
        time = a if a.op == "time" else b
        if time.op == "time" and " " not in str(time.value):
            ratio = Node("ratio", tuple(num(int(part)) for part in str(time.value).split(":")))
            return _same_ratio(ratio if time is a else a, ratio if time is b else b, rules)
    return False


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
    if len(ratio.args) != 2 or plain.op in _SHAPES:
        return False
    return same_scalar(Node("div", ratio.args), plain, rules)


def _same_percent(a: Node, b: Node, rules: Rules) -> bool:
    """A percent sign may be missing, or be spelled out as a hundredth."""
    if a.op == b.op:
        return same_scalar(a.args[0], b.args[0], rules)
    sign, plain = (a, b) if a.op == "percent" else (b, a)
    if plain.op in _SHAPES:
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
        if not unit.dims or not other.dims:
            return same_scalar(x, y, rules)
        return False
    if x.op in _SHAPES or y.op in _SHAPES:
        return same(x, y, rules) if x.op == y.op else False
    if same_scalar(x, y, rules):
        return True
    known = unit or other
    assert known is not None
    degrees, plain = (x, y) if unit is not None else (y, x)
    if known.dims == _DEGREES:
        return same_scalar(Node("degree", (Node("mul", (degrees, num(known.factor))),)), plain, rules)
    if plain.symbols() and len(known.spelled) == 1:  # 5 m typed without \text
        return same_scalar(Node("mul", (degrees, sym(known.spelled))), plain, rules)
    return False
