"""Do two trees mean the same? Owns what may be missing on one side, and what is ordered."""

from collections.abc import Sequence
from fractions import Fraction

from seirenes_jax.verify.exact import Budget, rational
from seirenes_jax.verify.measures import SHAPES, same_value
from seirenes_jax.verify.regions import letter, region, same_end, same_region
from seirenes_jax.verify.scalars import Rules, same_equation
from seirenes_jax.verify.tree import EMPTY, Node, TooBig, Unreadable, rename, signed

_MANY = ("list", "set", "paren", "brack")
_SETS = ("union", "inter", "minus", "ival")
_ORDER = {"<": "<", ">": "<", "le": "le", "ge": "le", "=": "=", "ne": "ne"}
_LONGEST_LIST = 400


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
    return same_value(a, b, rules)


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
        return Node(
            "list", tuple(Node("rel", (node.args[0], arg), node.value) for arg in right.args), "or"
        )
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
    if rel.value == "in" and named(rel.args[0]):
        return _same_sided(rel.args[1], other, flipped, rules)
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
    if any(part.op in SHAPES for part in a.args + b.args):
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
    left, right = region(a), region(b)
    if left is None or right is None:
        if a.op == b.op and len(a.args) == len(b.args) and a.op in ("union", "inter"):
            return _unordered(a.args, b.args, rules)
        if left is None and right is None:
            raise Unreadable("sets that cannot be compared")
        return False
    return same_region(left, right, rules)


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
        bare = (
            Node("list", tuple(_value(arg) for arg in two.args), ",") if two.op == "list" else two
        )
        return same(plain, bare, rules)
    values = tuple(_value(arg) for arg in one.args)
    if len({str(name.value).split("_")[0] for name in names}) == 1 and names[0].op == "sym":
        return same(Node("list", values, ","), two, rules)  # x = 1, x = 2, or x_1 = 1, x_2 = 2
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
        if (
            len(many.args) == 2
            and (whole := region(one)) is not None
            and many.op in ("paren", "brack")
        ):
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
            return (
                same_end(a, b, rules)
                if a.op not in SHAPES and b.op not in SHAPES
                else same(a, b, rules)
            )
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
        return (
            None
            if inner is None
            else [tuple(Node("div", (x, node.args[1])) for x in row) for row in inner]
        )
    if node.op == "mul":
        inside = [arg for arg in node.args if arg.op == "matrix" or _scaled_matrix(arg)]
        outside = tuple(arg for arg in node.args if arg not in inside)
        inner = _rows(inside[0]) if len(inside) == 1 else None
        return (
            None
            if inner is None
            else [tuple(Node("mul", (*outside, x)) for x in row) for row in inner]
        )
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
