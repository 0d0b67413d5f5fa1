"""Sets of real numbers: intervals, points, unions, inequalities; when two are the same."""

from dataclasses import dataclass
from functools import cmp_to_key

from seirenes_jax.verify.scalars import Rules, less, same_scalar
from seirenes_jax.verify.tree import INFINITY, MINUS_INFINITY, REALS, Node, Unreadable

_FLIPPED = {"<": ">", ">": "<", "le": "ge", "ge": "le", "=": "=", "ne": "ne"}


@dataclass(frozen=True, slots=True)
class Piece:
    """One interval; a point is [a, a]."""

    low: Node
    low_in: bool
    high: Node
    high_in: bool


Pieces = tuple[Piece, ...]
_USUAL = "xyztuvwnkmpqrsjlabcd"
_LINE: Pieces = (Piece(MINUS_INFINITY, False, INFINITY, False),)


def region(node: Node) -> Pieces | None:
    """The set of reals that an answer describes, or None where it describes none."""
    op = node.op
    if node == REALS:
        return _LINE
    if node.op == "const" and node.value == "empty":
        return ()
    if op in ("paren", "brack") and len(node.args) == 2:
        return _piece(node.args[0], op == "brack", node.args[1], op == "brack")
    if op == "ival":
        ends = str(node.value)
        return _piece(node.args[0], ends[0] == "[", node.args[1], ends[1] == "]")
    if op == "set":
        return tuple(Piece(arg, True, arg, True) for arg in node.args)
    if op in ("union", "inter", "minus"):
        left, right = region(node.args[0]), region(node.args[1])
        if left is None or right is None:
            return None
        if op == "union":
            return left + right
        return _meet(left, right if op == "inter" else _outside(right))
    if op == "rel":
        return _inequality(node)
    if op == "list" and all(arg.op == "rel" for arg in node.args):
        return _system(node)
    if op == "list" and node.value == "or":
        parts = [region(arg) for arg in node.args]
        known = [part for part in parts if part is not None]
        return sum(known, ()) if len(known) == len(parts) else None
    return None


def _piece(low: Node, low_in: bool, high: Node, high_in: bool) -> Pieces:
    return (Piece(low, low_in and not _endless(low), high, high_in and not _endless(high)),)


def _endless(node: Node) -> bool:
    return node in (INFINITY, MINUS_INFINITY)


def letter(node: Node) -> str | None:
    """The one unknown that an inequality is about."""
    if node.op == "rel":
        at = _place(node)
        return None if at is None else str(node.args[at].value)
    if node.op == "list":
        names = {letter(arg) for arg in node.args}
        return names.pop() if len(names) == 1 else None
    return None


def _place(node: Node) -> int | None:
    """Where the unknown stands: in the middle of a chain, else the likeliest letter."""
    lone = [index for index, part in enumerate(node.args) if part.op == "sym"]
    if len(node.args) == 3 and 1 in lone:
        return 1
    if len(lone) < 2:
        return lone[0] if lone else None
    return min(lone, key=lambda index: _USUAL.find(str(node.args[index].value)) % 100)


def _inequality(node: Node) -> Pieces | None:
    """x < 3, 3 < x, 1 <= x < 2, x in S, x != 3."""
    signs = str(node.value).split()
    parts = node.args
    if signs == ["in"]:
        return region(parts[1]) if parts[0].op == "sym" else None
    if not set(signs) <= {"<", ">", "le", "ge", "ne"}:
        return None
    at = _place(node)
    if at is None or any(
        parts[at].value in part.symbols() for i, part in enumerate(parts) if i != at
    ):
        return None
    kept = _LINE
    if len(parts) == 2:
        return _half(_FLIPPED[signs[0]] if at == 1 else signs[0], parts[1 - at])
    if len(parts) != 3 or at != 1:
        return None
    for sign, bound in ((_FLIPPED[signs[0]], parts[0]), (signs[1], parts[2])):
        kept = _meet_plain(kept, _half(sign, bound))
    return kept


def _half(sign: str, bound: Node) -> Pieces:
    if sign == "ne":
        return _outside((Piece(bound, True, bound, True),))
    if sign in (">", "ge"):
        return (Piece(bound, sign == "ge", INFINITY, False),)
    return (Piece(MINUS_INFINITY, False, bound, sign == "le"),)


def _meet_plain(left: Pieces, right: Pieces) -> Pieces:
    """Two half lines that face each other need no order of their ends, which may be letters."""
    a, b = left[0], right[0]
    low, low_in = (b.low, b.low_in) if a.low == MINUS_INFINITY else (a.low, a.low_in)
    high, high_in = (b.high, b.high_in) if a.high == INFINITY else (a.high, a.high_in)
    return (Piece(low, low_in, high, high_in),)


def _system(node: Node) -> Pieces | None:
    """Several inequalities: "and", x in S, x != a narrow; otherwise each adds."""
    if letter(node) is None:
        return None
    parts = [region(arg) for arg in node.args]
    narrow = node.value == "and" or any(
        set(str(arg.value).split()) & {"in", "ne"} for arg in node.args
    )
    kept: Pieces = _LINE if narrow else ()
    for part in parts:
        if part is None:
            return None
        kept = _meet(kept, part) if narrow else kept + part
    return kept


def _outside(pieces: Pieces) -> Pieces:
    """All reals that are in none of the pieces."""
    kept: list[Piece] = []
    low, low_in = MINUS_INFINITY, False
    for piece in normal(pieces):
        if piece.low != MINUS_INFINITY:
            kept.append(Piece(low, low_in, piece.low, not piece.low_in))
        low, low_in = piece.high, not piece.high_in
    if low != INFINITY:
        kept.append(Piece(low, low_in, INFINITY, False))
    return tuple(kept)


def _meet(left: Pieces, right: Pieces) -> Pieces:
    kept: list[Piece] = []
    for a in left:
        for b in right:
            low, low_in = _edge(
                a.low, a.low_in, b.low, b.low_in, less(a.low, b.low), less(b.low, a.low)
            )
            high, high_in = _edge(
                a.high, a.high_in, b.high, b.high_in, less(b.high, a.high), less(a.high, b.high)
            )
            if less(low, high) or (low_in and high_in and not less(high, low)):
                kept.append(Piece(low, low_in, high, high_in))
    return tuple(kept)


def _edge(
    a: Node, a_in: bool, b: Node, b_in: bool, b_wins: bool, a_wins: bool
) -> tuple[Node, bool]:
    if b_wins:
        return b, b_in
    return (a, a_in) if a_wins else (a, a_in and b_in)


def normal(pieces: Pieces) -> Pieces:
    """Sorted, empty ones dropped, touching ones joined."""
    full = [
        piece
        for piece in pieces
        if less(piece.low, piece.high)
        or (piece.low_in and piece.high_in and not less(piece.high, piece.low))
    ]
    full.sort(key=cmp_to_key(_order))
    kept: list[Piece] = []
    for piece in full:
        if kept and _touches(kept[-1], piece):
            last = kept[-1]
            high, high_in = last.high, last.high_in
            if less(high, piece.high):
                high, high_in = piece.high, piece.high_in
            elif not less(piece.high, high):
                high_in = high_in or piece.high_in
            kept[-1] = Piece(last.low, last.low_in, high, high_in)
        else:
            kept.append(piece)
    return tuple(kept)


def _order(a: Piece, b: Piece) -> int:
    if less(a.low, b.low):
        return -1
    if less(b.low, a.low):
        return 1
    return int(b.low_in) - int(a.low_in)


def _touches(a: Piece, b: Piece) -> bool:
    if less(b.low, a.high):
        return True
    return not less(a.high, b.low) and (a.high_in or b.low_in)


def same_region(left: Pieces, right: Pieces, rules: Rules) -> bool:
    """The same numbers in both."""
    letters = any(end.symbols() for piece in left + right for end in (piece.low, piece.high))
    if not letters:
        left, right = normal(left), normal(right)
    if len(left) != len(right):
        if letters:
            raise Unreadable("intervals with letters as ends, of different number")
        return False
    rest = list(right)
    for piece in left:
        for index, other in enumerate(rest):
            if _same_piece(piece, other, rules):
                del rest[index]
                break
        else:
            return False
    return True


def _same_piece(a: Piece, b: Piece, rules: Rules) -> bool:
    return (
        a.low_in == b.low_in
        and a.high_in == b.high_in
        and same_end(a.low, b.low, rules)
        and same_end(a.high, b.high, rules)
    )


def same_end(a: Node, b: Node, rules: Rules) -> bool:
    """Ends of intervals; infinities are only themselves."""
    if _endless(a) or _endless(b):
        return a == b
    return same_scalar(a, b, rules)
