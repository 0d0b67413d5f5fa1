"""Answers in words: names, choices, "no solution", number words, hedges."""

import re

from seirenes_jax.verify.lexer import PLAIN_NAMES

_WRAPPED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|md)?|mbox|hbox|mathrm|mathbf|mathit|operatorname\*?|emph|bf|rm)"
    r"\s*\{([^{}]*)\}"
)
_PROSE = re.compile(r"[^\W\d_][^\d\\$={}<>+*/^_|\[\]%~@#&]*")
_HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|likely|not sure|unsure|i think|i guess|i believe|"
    r"could be|might|"
    r"either|neither|don'?t know|cannot tell|unclear)\b|\?",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"(?:\(\s*([A-Ja-j])\s*\)|([A-J]))\s*[.):]?")
_CHOICE_AND_MORE = re.compile(r"(?:\(\s*([A-Ja-j])\s*\)|([A-J])\s*[.):])\s*(?P<rest>.+)")
_CLAUSE = re.compile(
    r"[\s,(]*(?:\\text\s*\{\s*)?\b(?:where|for (?:some|all|any|every|each|positive|nonneg\w*|"
    r"integers?|which)|"
    r"for (?=[\\$a-zA-Z]\s*(?:[<>=]|\\[gl]e|\\in))|such that|with|because|since)\b.*$",
    re.DOTALL,
)
_ARTICLES = frozenset("the a an".split())

_SAME = {
    r"\emptyset": (
        "no solution", "no solutions", "none", "empty set", "no real solution", "no real solutions",
        "empty", "no such values", "there are no solutions", "there is no solution", "no values",
        "nothing",
    ),
    r"\mathbb{Z}": ("all integers", "integers", "set of integers", "set of all integers"),
    "does not exist": ("does not exist", "dne", "not exist", "doesnt exist", "undefined",
    "not defined"),
    r"\mathbb{R}": (
        "all real numbers", "all reals", "real numbers", "reals", "all real", "any real number",
        "every real number", "all real values", "set of real numbers", "set of all real numbers",
    ),
    r"\infty": ("infinity", "infinite", "positive infinity", "plus infinity"),
    r"-\infty": ("negative infinity", "minus infinity"),
    "infinitely many": ("infinitely many", "infinitely many solutions", "infinite solutions",
                        "infinite number of solutions", "infinite number"),
}  # fmt: skip
_CANONICAL = {phrase: name for name, phrases in _SAME.items() for phrase in phrases}
_ONES = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen "
        "sixteen seventeen eighteen nineteen".split(),
        range(20),
        strict=True,
    )
)
_TENS = dict(
    zip(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),
        range(20, 100, 10),
        strict=True,
    )
)
_SCALES = {"thousand": 1000, "million": 10**6, "billion": 10**9}


def hedged(text: str) -> bool:
    """Leaves itself a way out."""
    return _HEDGE.search(text) is not None


def unwrapped(text: str) -> str:
    r"""Without \text{} and its kin."""
    for _ in range(6):
        bare = _WRAPPED.sub(r" \1 ", text)
        if bare == text:
            break
        text = bare
    return re.sub(r"\s+", " ", text).strip(" .")


def choice(text: str) -> tuple[str, bool] | None:
    """(Letter, does something follow it) of a multiple-choice answer; other letters spoil it."""
    bare = re.sub(
        r"^(?:option|choice|answer|part|statement)\b\s*:?\s*", "", unwrapped(text), flags=re.I
    )
    found = _CHOICE.fullmatch(bare)
    if found is None and r"\text" in text and re.fullmatch(r"[a-j]", bare):
        return bare.upper(), False
    if found is None:
        found = _CHOICE_AND_MORE.fullmatch(bare)
        if found is None or re.search(r"[A-Za-z]", re.sub(r"\\[a-zA-Z]+", "", found["rest"])):
            return None
        if not found[1] or found[1].islower():
            return None
        return found[1], True
    return (found[1] or found[2]).upper(), False


def prose(text: str) -> str | None:
    """Normalised words of an answer that is only words, or None for mathematics."""
    bare = unwrapped(text)
    if not _PROSE.fullmatch(bare):
        return None
    words = re.findall(r"[^\W\d_]+(?:['-][^\W\d_]+)*", bare.lower())
    telling = [
        word
        for word in words
        if word not in PLAIN_NAMES and (len(word) > 2 or word in ("no", "us"))
    ]
    if not telling or not all(
        word in ("and", "or", "i", "a", "x") or len(word) > 1 for word in words
    ):
        if not telling or len(telling) * 2 <= len(words) or "(" in bare:
            return None
    separated = re.sub(r"\s*(?:,|;|\band\b)\s*", ",", bare.lower())
    items = [
        " ".join(
            word
            for word in re.findall(r"[^\W\d_]+", item.replace("'", ""))
            if word not in _ARTICLES
        )
        for item in separated.split(",")
    ]
    joined = ",".join(sorted(item for item in items if item))
    return _CANONICAL.get(joined, joined)


def as_math(words: str) -> str | None:
    """Mathematics that some words stand for: five, no solution, all real numbers."""
    if words.startswith(("\\", "-")):
        return words
    return _number_words(words)


def _number_words(words: str) -> str | None:
    """Leading number words as digits: "twenty five apples" -> "25 apples"."""
    total = current = 0
    used = 0
    each = words.split()
    for word in each:
        if word in _ONES:
            current += _ONES[word]
        elif word in _TENS:
            current += _TENS[word]
        elif word == "hundred" and used:
            current *= 100
        elif word in _SCALES and used:
            total += current * _SCALES[word]
            current = 0
        else:
            break
        used += 1
    if not used:
        return None
    return " ".join([str(total + current), *each[used:]])


def same_words(left: str, right: str) -> bool:
    """The same words, or the same product of letters: abc and cab, but not east and seat."""
    if left == right:
        return True
    plain = all(
        word.isalpha() and len(word) <= 4 and not set(word) & set("eiou") for word in (left, right)
    )
    return plain and sorted(left) == sorted(right)


def without_clause(text: str) -> tuple[str, str] | None:
    """(Answer, condition) where a condition trails: "cx, where c is real"."""
    found = _CLAUSE.search(text)
    if found is None or found.start() == 0 or "otherwise" in found.group():
        return None
    main = text[: found.start()].rstrip(" ,(")
    return (main, prose_key(found.group())) if main else None


def prose_key(text: str) -> str:
    """Words mixed with mathematics as text, without case, articles, spaces and wrappers."""
    bare = re.sub(r"\\(?:left|right|[,;:! ])(?![a-z])", "", unwrapped(text)).lower()
    bare = re.sub(r"\b(?:the|an?|all|any|every)\b(?=\s)", "", bare)
    return re.sub(r"[\s.,;:]+", "", bare)
