"""Are two answers equal? May be slow, may raise `Unreadable`; never executes what it reads."""

import re
from fractions import Fraction

from seirenes_jax.verify.clean import LONGEST, clean
from seirenes_jax.verify.compare import same
from seirenes_jax.verify.lexer import decimal, grouped, lex, whole
from seirenes_jax.verify.parser import parse
from seirenes_jax.verify.scalars import Rules
from seirenes_jax.verify.tree import Node, TooBig, Unreadable
from seirenes_jax.verify.words import (
    as_math,
    choice,
    hedged,
    prose,
    prose_key,
    same_words,
    without_clause,
)

__all__ = ["TooBig", "Unreadable", "equal"]

MOST_CLEANED = 60_000  # characters
_WHOLE = re.compile(r"[+-]?\d+")
_CLOCK = re.compile(
    r"(\d{1,2})\s*:\s*(\d\d)(?:\s*:\s*(\d\d))?\s*(?:\\text\s*\{)?\s*([ap])?\.?\s*(m)?\.?\s*\}?",
    re.IGNORECASE,
)
_IN_BASE = re.compile(
    r"\(?\s*(?:\\text\s*\{)?([0-9A-Fa-f]+)\}?\s*\)?\s*(?:_\s*\{?\s*\(?|"
    r"\(?\s*(?:\\text\s*\{)?\s*(?:in )?base\s*)"
    r"(?:\\text\s*\{)?\s*(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\s*[})]*"
)
_BASE_WORDS = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10,
    "twelve": 12, "sixteen": 16,
}  # fmt: skip


def equal(gold: str, said: str, tolerance: str | None = None) -> bool:
    """True when both mean the same; `tolerance` is an absolute error, as text."""
    if not gold.strip() or not said.strip():
        raise Unreadable("an answer is empty")
    if gold.strip() == said.strip():
        return True
    if max(len(gold), len(said)) > MOST_CLEANED:
        return _same_long(gold, said)
    left, right = clean(gold), clean(said)
    if not left or not right:
        raise Unreadable("an answer holds nothing but signs")
    if left == right or _key(left) == _key(right):
        return True
    limit = None if tolerance is None else decimal(tolerance.strip())
    if _WHOLE.fullmatch(left) and _WHOLE.fullmatch(right):
        return _same_whole(left, right, limit)
    if max(len(left), len(right)) > LONGEST:
        raise TooBig(f"an answer of more than {LONGEST} characters")
    try:
        return _same_text(left, right, limit)
    except RecursionError as error:  # the caller's own stack was nearly full
        raise TooBig("a formula nested too deep") from error


def _same_long(gold: str, said: str) -> bool:
    """Inputs too long to clean: only digits are compared."""
    left, right = (re.sub(r"[\s$]+", "", text) for text in (gold, said))
    if left == right:
        return True
    if _WHOLE.fullmatch(left) and _WHOLE.fullmatch(right):
        return _same_whole(left, right, None)
    raise TooBig(f"an answer of more than {MOST_CLEANED} characters")


def _key(text: str) -> str:
    """Spaces that change nothing removed: those not between two letters or digits."""
    return re.sub(r"(?<![A-Za-z0-9]) | (?![A-Za-z0-9])", "", text)


def _same_whole(left: str, right: str, limit: Fraction | None) -> bool:
    """Two integers, however long: as digits first."""
    signs = [text.startswith("-") for text in (left, right)]
    digits = [text.lstrip("+-").lstrip("0") for text in (left, right)]
    if digits[0] == digits[1]:
        return signs[0] == signs[1] or not digits[0]
    if limit is None:
        return False
    values = [
        whole(text or "0") * (-1 if sign else 1) for text, sign in zip(digits, signs, strict=True)
    ]
    return abs(values[0] - values[1]) <= limit


def _same_text(left: str, right: str, limit: Fraction | None) -> bool:
    if hedged(left) or hedged(right):
        return False
    letters = choice(left), choice(right)
    if letters[0] is not None and letters[1] is not None:
        return letters[0][0] == letters[1][0]
    words = [prose(left), prose(right)]
    if words[0] is not None and words[1] is not None:
        if same_words(words[0], words[1]):
            return True
        left, right = (as_math(word) or word for word in words if word is not None)
        if (left, right) == tuple(words):
            return False
        words = [
            None if text != word else word for text, word in zip((left, right), words, strict=True)
        ]
    for index, word in enumerate(words):
        if word is not None:
            maths = as_math(word)
            if maths is None and not (word.isalpha() and len(word) <= 4):
                return False
            if maths is not None and index == 0:
                left = maths
            elif maths is not None:
                right = maths
    return _same_maths(left, right, limit)


def _same_maths(left: str, right: str, limit: Fraction | None) -> bool:
    """Compare every reading of one with every reading of the other."""
    try:
        (ours, condition), (theirs, other) = _readings(left), _readings(right)
    except TooBig:
        raise
    except Unreadable:
        if prose_key(left) == prose_key(right):
            return True
        raise
    bases: list[int | None] = [None]
    if _bare_log(ours) or _bare_log(theirs):
        bases.append(10)
    unreadable: Unreadable | None = None
    for log_base in bases:
        for a in ours:
            for b in theirs:
                try:
                    if same(a, b, Rules(log_base, limit)):
                        return _same_conditions(condition, other)
                except Unreadable as error:
                    unreadable = error
    if unreadable is not None:
        raise unreadable
    return False


def _same_conditions(one: str, two: str) -> bool:
    """Conditions are compared as text; one may be missing."""
    if one and two and one != two:
        raise Unreadable("the same answer under conditions that cannot be compared")
    return True


def _bare_log(nodes: list[Node]) -> bool:
    return any(part.op == "log" and len(part.args) == 1 for node in nodes for part in node.walk())


def _readings(text: str) -> tuple[list[Node], str]:
    """The trees a text may mean, and its trailing condition, if it cannot be read with it."""
    special = _special(text)
    if special is not None:
        return [special], ""
    try:
        return _trees(text), ""
    except TooBig:
        raise
    except Unreadable:
        parts = without_clause(text)
        if parts is None:
            raise
        return _trees(parts[0]), parts[1]


def _trees(text: str) -> list[Node]:
    if not grouped(text):
        return [parse(lex(text, merge=False))]
    trees: list[Node] = []
    failed: Unreadable | None = None
    for merge in (True, False):
        try:
            trees.append(parse(lex(text, merge=merge)))
        except TooBig:
            raise
        except Unreadable as error:
            failed = error
    if not trees and failed is not None:
        raise failed
    return trees


def _special(text: str) -> Node | None:
    """Times of day and numbers in a base, which look like ratios and subscripts."""
    clock = _CLOCK.fullmatch(text)
    if clock and int(clock[2]) < 60 and int(clock[1]) < 25 and bool(clock[4]) == bool(clock[5]):
        parts = ":".join(str(int(part)) for part in clock.groups()[:3] if part is not None)
        return Node("time", value=parts + (f" {clock[4].lower()}" if clock[4] else ""))
    base = _IN_BASE.fullmatch(text)
    if base:
        number = _BASE_WORDS.get(base[2]) or int(base[2])
        digits = base[1].upper().lstrip("0") or "0"
        if 2 <= number <= 36 and all(int(digit, 36) < number for digit in digits):
            return Node("base", value=f"{digits}_{number}")
    return None
