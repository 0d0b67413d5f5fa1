"""From cleaned text to tokens. Owns which LaTeX commands mean nothing, the same, or words."""

import re
from fractions import Fraction
from typing import NamedTuple

from seirenes_jax.verify.tree import TooBig, Unreadable

MOST_DIGITS = 100_000
MOST_EXPONENT = 20_000  # of e-notation


class Token(NamedTuple):
    """kind: n number, c command or sign, w plain letters, t words inside \\text, e end."""

    kind: str
    text: str
    gap: bool = False  # space before it
    value: Fraction | None = None


END = Token("e", "")

_SAME = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge", "geqq": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "cdot": "*", "times": "*", "ast": "*", "div": "/",
    "colon": ":",
    "lbrace": "{set", "rbrace": "}set", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "lVert": "|", "rVert": "|",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "varnothing": "emptyset",
    "ldots": "dots", "cdots": "dots", "dotsc": "dots", "dotsb": "dots", "vdots": "dots",
    "ddots": "dots",
    "vee": "or", "lor": "or", "land": "and", "wedge": "and", "sim": "approx", "simeq": "approx",
    "thickapprox": "approx", "approxeq": "approx", "implies": "Rightarrow",
    "Longrightarrow": "Rightarrow",
    "iff": "Rightarrow", "Leftrightarrow": "Rightarrow", "smallsetminus": "setminus",
    "backslash": "setminus",
    "rightarrow": "to", "longrightarrow": "to", "varphi": "phi", "vartheta": "theta",
    "varepsilon": "epsilon", "varrho": "rho", "tg": "tan", "ctg": "cot", "arctg": "arctan",
    "lg": "lg",
    "R": "R", "infin": "infty", "degrees": "degree", "perp": "perp", "arcctg": "arccot",
}  # fmt: skip
_NOTHING = frozenset(
    "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr "
    "displaystyle textstyle "
    "scriptstyle limits nolimits quad qquad thinspace enspace space mathbf mathit mathsf mathcal "
    "mathscr "
    "mathfrak boldsymbol bm bf it rm sf em small large Large normalsize footnotesize underbrace "
    "overbrace "
    "cancel bcancel underline not ensuremath hfill displaylines nonumber notag mathstrut strut "
    "relax negthinspace "
    "mathopen mathclose mathbin mathrel mathord mathpunct centering".split()
)
_WORDS = frozenset(
    "text textbf textit textrm textsf texttt textnormal textup textmd textsc mbox hbox mathrm "
    "operatorname "
    "mathop mathtt emph".split()
)
FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth asin "
    "acos atan "
    "log ln lg exp gcd lcm max min det deg dim ker Re Im arg sgn sign".split()
)
PLAIN_NAMES = FUNCTIONS | frozenset(
    "sqrt cbrt pi infinity inf infty oo floor ceil abs binom mod and or".split()
)
# English in the middle of mathematics: for, some, ... are no products of letters.
_ENGLISH = frozenset(
    "for some all any every each where when if then otherwise is are be the of that such with "
    "not only to by at "
    "as has have can will positive negative odd even prime real integer integers number numbers "
    "where else "
    "excluding except".split()
)
_CLAUSES = frozenset(
    "for if where when with such since because otherwise is are not as then".split()
)

_TOKEN = re.compile(
    r"(?P<cycle>\d*\.\d*\s*\\(?:overline|bar|overbar)\s*\{\d{1,40}\}|\d*\.\d*\\dot\s*\{?\d\}?(?!\d))"
    r"|(?P<endless>\d{0,20}\.\d{0,20}?(?P<again>\d)(?P=again){2,40}\s*(?:\.\.\.+|\\[lc]?dots(?![a-z])))"
    r"|(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+(?![\d.]))?)"
    r"|\\(?P<command>[a-zA-Z]+)\*?"
    r"|\\(?P<escaped>.)"
    r"|(?P<dots>\.\.\.+)"
    r"|(?P<word>[a-zA-Z]+)"
    r"|(?P<sign><=|>=|!=|==|=>|->|:=|''|!!|[-+*/^_=<>(){}\[\]|!,;:%&'?.~])"
    r"|(?P<space>\s+)"
    r"|(?P<letter>[^\W\d_])"
)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?![\d])(?:\.\d+)?|\d{1,3}(?: \d{3})+(?![\d])(?:\.\d+)?")
_SIGN_NAMES = {
    "<=": "le",
    ">=": "ge",
    "!=": "ne",
    "==": "=",
    "=>": "Rightarrow",
    "->": "to",
    ":=": "=",
}
_ESCAPED = {"{": "{set", "}": "}set", "|": "|", "%": "%", "$": "$", "\\": "newline", "&": "&"}
_UNITS_INSIDE = re.compile(r"[A-Za-z. ]+(?:/[A-Za-z. ]+)+")
_MATHS_INSIDE = re.compile(r"[\d\\^_=+*/()$<>|{}\[\]]")


def grouped(text: str) -> bool:
    """Holds digits that could be one number with thousands separators, or several numbers."""
    return _GROUPED.search(text) is not None


def whole(digits: str) -> int:
    """An integer of any sensible length; Python itself stops at 4300 digits."""
    if len(digits) <= 4000:
        return int(digits)
    if len(digits) > MOST_DIGITS:
        raise TooBig(f"a number of {len(digits)} digits; at most {MOST_DIGITS} are compared")
    half = len(digits) // 2
    return int(whole(digits[:-half]) * 10**half + whole(digits[-half:]))


def decimal(text: str) -> Fraction:
    """Exact value of digits, point and e-notation.

    >>> decimal("1.5e-3")
    Fraction(3, 2000)
    """
    mantissa, _, exponent = text.lower().partition("e")
    before, _, after = mantissa.partition(".")
    value = Fraction(whole((before + after) or "0"), 10 ** len(after))
    if exponent:
        if len(exponent) > 8 or abs(int(exponent)) > MOST_EXPONENT:
            raise TooBig(f"the exponent {exponent[:20]} is beyond {MOST_EXPONENT}")
        value *= Fraction(10) ** int(exponent)
    return value


def _cycle(text: str) -> Fraction:
    r"""0.1\overline{6} is 1/6."""
    digits = re.findall(r"\d+", text.partition(".")[2])
    before = text.partition(".")[0] or "0"
    fixed, cycle = (digits[0], digits[1]) if len(digits) == 2 else ("", digits[0])
    start = Fraction(whole(before + fixed), 10 ** len(fixed))
    return start + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))


def _braced(text: str, at: int) -> tuple[str, int] | None:
    """Content of the brace group that opens at or after `at`, and where it ends."""
    while at < len(text) and text[at] == " ":
        at += 1
    if at >= len(text) or text[at] != "{":
        return None
    depth = 0
    for mark in re.finditer(r"\\.|[{}]", text[at:]):
        depth += {"{": 1, "}": -1}.get(mark.group(), 0)
        if not depth:
            return text[at + 1 : at + mark.start()], at + mark.end()
    raise Unreadable("a brace is never closed")


def _words(command: str, inside: str, *, gap: bool, merge: bool, after_value: bool) -> list[Token]:
    r"""Tokens of \text{...} and its kin."""
    bare = inside.strip().strip("~").strip()
    if not bare:
        return []
    if _UNITS_INSIDE.fullmatch(bare):
        above, *below = bare.split("/")
        parts = [Token("t", above.strip(), gap)]
        for part in below:
            parts += [Token("c", "/"), Token("t", part.strip())]
        return parts
    if _MATHS_INSIDE.search(bare):
        return [token for token in lex(bare, merge=merge) if token.kind != "e"]
    word = bare.lower()
    if word.strip() == "to":
        return [Token("c", ":", gap)]
    if after_value and word in ("min", "sec", "deg"):
        return [Token("t", word, gap)]
    if word in PLAIN_NAMES or bare in FUNCTIONS:
        return [Token("w", bare if bare in FUNCTIONS else word, gap)]
    symbol = bare in ("e", "i", "d") or not after_value
    if command in ("mathrm", "operatorname", "mathop") and len(bare) == 1 and symbol:
        return [Token("w", bare, gap)]
    if word.split()[0].strip(",") in _CLAUSES:
        raise Unreadable(f"the words {bare!r} in the middle of mathematics")
    return [Token("t", re.sub(r"\s+", " ", bare), gap)]


def lex(text: str, *, merge: bool) -> list[Token]:
    """Tokens of cleaned text. `merge` reads 1,234 as one number, else as two."""
    tokens: list[Token] = []
    at, gap = 0, False
    while at < len(text):
        if merge and text[at].isdigit() and not (at and text[at - 1] in "0123456789."):
            whole_group = _GROUPED.match(text, at)
            if whole_group:
                digits = whole_group.group().replace(",", "").replace(" ", "")
                tokens.append(Token("n", digits, gap, decimal(digits)))
                at, gap = whole_group.end(), False
                continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise Unreadable(f"cannot read the character {text[at]!r}")
        at = found.end()
        kind, body = str(found.lastgroup), found.group()
        if kind == "space":
            gap = True
            continue
        if kind == "command" and (name := found.group("command")) in _WORDS:
            group = _braced(text, at)
            if group:
                inside, at = group
                after_value = bool(tokens) and (tokens[-1].kind == "n" or tokens[-1].text in "})")
                tokens += _words(name, inside, gap=gap, merge=merge, after_value=after_value)
            continue
        if not _add(tokens, kind, body, found, gap):
            gap = gap or kind in ("escaped", "command")
            continue
        gap = False
    tokens.append(END)
    return tokens


def _add(tokens: list[Token], kind: str, body: str, found: re.Match[str], gap: bool) -> bool:
    """Append what a match means; False when it means nothing."""
    if kind == "number":
        tokens.append(Token("n", body, gap, decimal(body)))
    elif kind == "endless":  # 0.333...
        shown = found.group("again")
        start = re.match(r"\d*\.\d*?(?=(\d)\1\1+\s*[.\\])", body)
        assert start is not None
        tokens.append(Token("n", body, gap, _cycle(f"{start.group()}_{shown}")))
    elif kind == "cycle":
        tokens.append(Token("n", body, gap, _cycle(body)))
    elif kind == "dots":
        tokens.append(Token("c", "dots", gap))
    elif kind in ("word", "letter"):
        if body == "to" and gap and tokens and tokens[-1].kind == "n":
            tokens.append(Token("c", ":", gap))
            return True
        if body.lower() in _ENGLISH and (gap or not tokens):
            raise Unreadable(f"the word {body!r} in the middle of mathematics")
        tokens.append(Token("w", body, gap))
    elif kind == "sign":
        if body == "~":
            return False
        tokens.append(Token("c", _SIGN_NAMES.get(body, body), gap))
    elif kind == "escaped":
        name = found.group("escaped")
        if name in _ESCAPED:
            tokens.append(Token("c", _ESCAPED[name], gap))
        elif name in ",;:! ":
            return False
        else:
            raise Unreadable(f"cannot read the command \\{name}")
    else:
        name = found.group("command")
        if name in _NOTHING:
            return False
        tokens.append(Token("c", _SAME.get(name, name), gap))
    return True
