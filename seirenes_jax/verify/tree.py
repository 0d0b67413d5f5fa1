"""What an answer is once it has been read: a small immutable tree; and its errors."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction


class Unreadable(Exception):
    """An answer is there but cannot be compared."""


class TooBig(Unreadable):
    """A number or tree beyond the size that may be built."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: powers of base words, a factor to them, and how it was spelled."""

    dims: tuple[tuple[str, int], ...]
    factor: Fraction
    spelled: str


@dataclass(frozen=True, slots=True)
class Node:
    """One part of an answer.

    Numbers: num(value) sym(name) const(pi e i inf -inf empty R Z N Q C) add mul neg div pow
    root(degree, x)
    fact fact2 floor ceil abs log(x, base) fn(name) binom mod pm(+ or -) percent degree unit(value)
    big(sum, prod, ...) opaque(name).
    Shapes: list(value is its separator) set paren brack ival(value is its ends) union inter minus
    matrix row rel(value is its operators) ratio time base(digits in base) dots.
    """

    op: str
    args: tuple["Node", ...] = ()
    value: Fraction | Unit | str | None = None

    def walk(self) -> Iterator["Node"]:
        """This node and all below it."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.args)

    def has(self, *ops: str) -> bool:
        """Some node here or below is one of these."""
        return any(node.op in ops for node in self.walk())

    def symbols(self) -> frozenset[str]:
        """Names of the letters that stand for something unknown."""
        return frozenset(str(node.value) for node in self.walk() if node.op in ("sym", "opaque"))


ZERO = Node("num", value=Fraction(0))
ONE = Node("num", value=Fraction(1))
EMPTY = Node("const", value="empty")
REALS = Node("const", value="R")
INFINITY = Node("const", value="inf")
MINUS_INFINITY = Node("neg", (INFINITY,))


def num(value: int | Fraction) -> Node:
    """A rational number."""
    return Node("num", value=Fraction(value))


def sym(name: str) -> Node:
    """A letter."""
    return Node("sym", value=name)


def rename(node: Node, old: str, new: str) -> Node:
    """The same tree with one letter called otherwise."""
    if node.op == "sym":
        return sym(new) if node.value == old else node
    if not node.args:
        return node
    return replace(node, args=tuple(rename(arg, old, new) for arg in node.args))


def signed(node: Node, plus: bool) -> Node:
    r"""One branch of every \pm (and the other one of every \mp) below."""
    if not node.has("pm"):
        return node
    args = tuple(signed(arg, plus) for arg in node.args)
    if node.op != "pm":
        return replace(node, args=args)
    positive = plus == (node.value == "+")
    last = args[-1] if positive else Node("neg", (args[-1],))
    return last if len(args) == 1 else Node("add", (args[0], last))
