"""The smallest parts of an answer: numbers, letters, brackets, fractions, roots, functions, matrices."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from seirenes_jax.verify.lexer import END, FUNCTIONS, PLAIN_NAMES, Token
from seirenes_jax.verify.tree import EMPTY, INFINITY, Node, TooBig, Unreadable, num, sym

DEEPEST = 60  # brackets within brackets
MOST_TOKENS = 6_000

CONSTANTS = {
    "pi": Node("const", value="pi"), "infty": INFINITY, "infinity": INFINITY, "inf": INFINITY,
    "oo": INFINITY, "emptyset": EMPTY, "R": Node("const", value="R"),
}  # fmt: skip
DECORATIONS = frozenset(
    "bar hat vec tilde overline widehat widetilde dot ddot underline overrightarrow mathring check".split()
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar aleph partial nabla".split()
)
BIG = frozenset("sum prod int lim limsup liminf bigcup bigcap sup inf oint iint".split())
_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array".split())
_LISTS = frozenset("cases aligned align gathered split rcases dcases".split())
_INVERSE = {name: "arc" + name for name in ("sin", "cos", "tan", "cot", "sec", "csc")}
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "sgn": "sign"}


class Atoms(ABC):
    """A cursor over tokens, and the parts that need no precedence."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        if len(tokens) > MOST_TOKENS:
            raise TooBig(f"an answer of {len(tokens)} tokens; at most {MOST_TOKENS} are compared")
        self.tokens = list(tokens)
        self.at = 0
        self.depth = 0
        self.bars = 0  # open absolute values
        self.cells = 0  # open matrices

    @abstractmethod
    def listing(self) -> Node:
        """Everything up to a closing bracket: items between separators."""

    @abstractmethod
    def term(self) -> Node:
        """A product."""

    @abstractmethod
    def power(self) -> Node:
        """A part with its exponent."""

    @abstractmethod
    def argument(self) -> Node:
        """What a function without brackets is applied to."""

    def peek(self, ahead: int = 0) -> Token:
        """The token under the cursor."""
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else END

    def sees(self, *texts: str) -> bool:
        """The next token is one of these signs or commands."""
        token = self.peek()
        return token.kind == "c" and token.text in texts

    def takes(self, *texts: str) -> bool:
        """As `sees`, and steps over it."""
        if self.sees(*texts):
            self.at += 1
            return True
        return False

    def needs(self, *texts: str) -> str:
        """The next token must be one of these."""
        token = self.peek()
        if not self.takes(*texts):
            raise Unreadable(f"expected {' or '.join(texts)} at {token.text!r}")
        return token.text

    def nested(self) -> Node:
        """A listing one bracket deeper."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooBig(f"brackets nested deeper than {DEEPEST}")
        node = self.listing()
        self.depth -= 1
        return node

    def atom(self) -> Node:
        """One number, letter, bracket or function."""
        token = self.peek()
        self.at += 1
        if token.kind == "n":
            return self._number(token)
        if token.kind == "w":
            return self._word(token)
        if token.kind == "t":
            return sym(token.text.lower())
        if token.kind == "c":
            return self._command(token.text)
        raise Unreadable("the answer ends too early")

    def _number(self, token: Token) -> Node:
        assert token.value is not None
        value = token.value
        if self.sees("_") and value.denominator == 1 and token.text.isdigit():
            self.at += 1
            return Node("base", value=f"{token.text.lstrip('0') or '0'}_{self._base()}")
        if value.denominator != 1 or "." in token.text:
            return num(value)
        start = self.at
        if self.takes("frac"):  # 1\frac{4}{5} is a mixed number
            above, below = self._fraction_part(), self._fraction_part()
            if _proper(above, below):
                return Node("add", (num(value), Node("div", (above, below))))
        elif self.peek().kind == "n" and self.peek().gap and self.peek(1).text == "/":
            above, below = num(self._whole(0)), num(self._whole(2))
            self.at += 3
            if _proper(above, below):  # 1 4/5 likewise
                return Node("add", (num(value), Node("div", (above, below))))
        self.at = start
        return num(value)

    def _whole(self, ahead: int) -> int:
        token = self.peek(ahead)
        return int(token.value) if token.value is not None and token.value.denominator == 1 else 0

    def _base(self) -> str:
        """The base a number is written in, after its underscore."""
        open_ = self.takes("{")
        inner = self.takes("(")
        token = self.peek()
        self.at += 1
        names = {"two": "2", "eight": "8", "ten": "10", "sixteen": "16", "three": "3", "five": "5", "seven": "7"}
        base = names.get(token.text.lower(), token.text)
        if inner:
            self.needs(")")
        if open_:
            self.needs("}")
        if not base.isdigit():
            raise Unreadable(f"the base {base!r} is not a number")
        return base

    def _word(self, token: Token) -> Node:
        name = token.text
        if name.lower() in ("sqrt", "cbrt", "infinity") or name in PLAIN_NAMES:
            return self._named(name.lower() if name.lower() in ("sqrt", "cbrt", "infinity") else name)
        for known in ("sqrt", "infinity", "pi"):  # 2sqrt5 came as "2", "sqrt"; "xsqrt" and "pir" come here
            place = name.find(known)
            if place >= 0 and len(name) > len(known):
                pieces = [name[:place], known, name[place + len(known) :]]
                kept = [Token("w", piece) for piece in pieces if piece]
                self.tokens[self.at - 1 : self.at] = kept
                self.at -= 1
                return self.atom()
        if len(name) > 1:
            self.tokens[self.at - 1 : self.at] = [Token("w", letter) for letter in name]
        return self._letter(self.tokens[self.at - 1].text)

    def _letter(self, name: str) -> Node:
        if name in ("e", "i") and not self.sees("_"):
            return Node("const", value=name)
        if self.sees("_"):
            self.at += 1
            name += "_" + self._subscript()
        while self.takes("'", "''"):
            name += "'"
        return sym(name)

    def _subscript(self) -> str:
        if not self.takes("{"):
            token = self.peek()
            self.at += 1
            if token.kind == "w" and len(token.text) > 1:
                self.tokens.insert(self.at, Token("w", token.text[1:]))
                return token.text[0]
            return token.text
        depth, name = 1, ""
        while depth:
            token = self.peek()
            if token.kind == "e":
                raise Unreadable("a subscript is never closed")
            self.at += 1
            depth += {"{": 1, "}": -1}.get(token.text, 0)
            name += token.text if depth else ""
        return name

    def _named(self, name: str) -> Node:
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name == "sqrt":
            return Node("root", (num(2), self._root_body()))
        if name == "cbrt":
            return Node("root", (num(3), self._root_body()))
        if name in ("floor", "ceil", "abs", "binom") and self.sees("("):
            inside = self.atom()
            args = inside.args if inside.op == "paren" else (inside,)
            return Node(name, args)
        if name in FUNCTIONS:
            return self._function(_ALIASES.get(name, name))
        raise Unreadable(f"cannot read {name!r} here")

    def _function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        for _ in range(2):
            if self.sees("_") and base is None:
                self.at += 1
                base = self._script()
            elif self.sees("^") and exponent is None:
                self.at += 1
                exponent = self._script()
        if exponent is not None and exponent in (num(-1), Node("neg", (num(1),))) and name in _INVERSE:
            name, exponent = _INVERSE[name], None
        body = self.argument()
        if name in ("log", "ln", "lg"):
            bases = {"ln": Node("const", value="e"), "lg": num(10)}
            base = base if base is not None else bases.get(name)
            node = Node("log", (body,) if base is None else (body, base))
        elif base is not None:
            node = Node("fn", (body, base), value=name + "_")
        else:
            args = body.args if body.op in ("paren", "list", "set") else (body,)
            node = Node("fn", args, value=name)
        return node if exponent is None else Node("pow", (node, exponent))

    def _script(self) -> Node:
        """What stands after ^ or _ of a function or a big operator."""
        if self.takes("{"):
            node = self.nested()
            self.needs("}")
            return node
        if self.takes("-"):
            return Node("neg", (self.single(),))
        return self.single()

    def single(self) -> Node:
        """An argument as TeX takes it: a group, or one token."""
        token = self.peek()
        if token.kind == "w" and len(token.text) > 1 and token.text not in PLAIN_NAMES:
            self.tokens[self.at : self.at + 1] = [Token("w", letter) for letter in token.text]
        return self.atom()

    def _fraction_part(self) -> Node:
        token = self.peek()
        if token.kind == "n" and len(token.text) > 1 and token.text.isdigit():  # \frac12 is 1/2
            digits = [Token("n", d, value=num(int(d)).value) for d in token.text]  # type: ignore[arg-type]
            self.tokens[self.at : self.at + 1] = digits
            self.at += 1
            return num(int(token.text[0]))
        return self.single()

    def _root_body(self) -> Node:
        return self.single()

    def _command(self, name: str) -> Node:
        if name in ("(", "[", "]", "{", "{set", "langle"):
            return self._bracket(name)
        if name == "frac":
            above = self._fraction_part()
            return Node("div", (above, self._fraction_part()))
        if name == "binom":
            above = self._fraction_part()
            return Node("binom", (above, self._fraction_part()))
        if name == "sqrt":
            degree = num(2)
            if self.takes("["):
                degree = self.nested()
                self.needs("]")
            return Node("root", (degree, self._root_body()))
        if name in ("|", "lfloor", "lceil"):
            return self._fence(name)
        if name == "begin":
            return self._environment()
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name == "mathbb":
            inner = self.single()
            letter = inner.value if inner.op in ("sym", "const") else ""
            if letter in ("R", "Z", "N", "Q", "C"):
                return Node("const", value=str(letter))
            return inner
        if name in FUNCTIONS and name != "inf":
            return self._function(name)
        if name in BIG:
            return self._big(name)
        if name in DECORATIONS:
            return Node("opaque", value=f"{name}({_spell(self.single())})")
        if name in ("angle", "triangle", "square", "measuredangle"):
            token = self.peek()
            self.at += token.kind == "w"
            return sym(f"{name} {token.text if token.kind == 'w' else ''}".strip())
        if name in GREEK:
            return self._letter(name)
        if name == "dots":
            return Node("dots")
        if name in ("perp", "to", "prime", "*", "'"):
            raise Unreadable(f"cannot read {name!r} here")
        raise Unreadable(f"unknown command or sign {name!r}")

    def _bracket(self, open_: str) -> Node:
        """Groups, tuples, intervals, sets. Which one, the closing bracket and the commas decide."""
        if open_ == "{set" and self.takes("}set"):
            return EMPTY
        bars, self.bars = self.bars, 0
        body = self.nested()
        if open_ == "{set":
            node = self._set(body)
        elif open_ == "{":
            if self.sees("over", "choose"):
                kind = "div" if self.needs("over", "choose") == "over" else "binom"
                body = Node(kind, (body, self.nested()))
            self.needs("}")
            node = body
        elif open_ == "langle":
            self.needs("rangle")
            node = Node("paren", body.args) if body.op == "list" else body
        else:
            node = _closed(open_, self.needs(")", "]", "["), body)
        self.bars = bars
        return node

    def _set(self, body: Node) -> Node:
        if self.takes("|", ":"):  # {x | x > 3}: the condition is the answer
            body = self.nested()
            self.needs("}set")
            return body
        self.needs("}set")
        return Node("set", body.args if body.op == "list" else (body,))

    def _fence(self, name: str) -> Node:
        close = {"|": "|", "lfloor": "rfloor", "lceil": "rceil"}[name]
        bars, self.bars = self.bars, self.bars + 1 if name == "|" else 0
        body = self.nested()
        self.needs(close)
        self.bars = bars
        return Node({"|": "abs", "lfloor": "floor", "lceil": "ceil"}[name], (body,))

    def _big(self, name: str) -> Node:
        low: Node | None = None
        high: Node | None = None
        for _ in range(2):
            if self.takes("_"):
                low = self._script()
            elif self.takes("^"):
                high = self._script()
        parts = [part for part in (low, high) if part is not None]
        kind = name + ("_" if low is not None else "") + ("^" if high is not None else "")
        return Node("big", (*parts, self.term()), value=kind)

    def _environment(self) -> Node:
        name = self._environment_name()
        if name == "array" and self.sees("{"):
            self._subscript()
        if name not in _MATRICES and name not in _LISTS:
            raise Unreadable(f"unknown environment {name!r}")
        self.cells += 1
        rows: list[Node] = []
        while not self.sees("end"):
            cells = [self._cell()]
            while self.takes("&"):
                cells.append(self._cell())
            rows.append(Node("row", tuple(cells)))
            if not self.takes("newline") and not self.sees("end"):
                raise Unreadable("a matrix row does not end")
        self.at += 1
        self.cells -= 1
        if self._environment_name() != name or not rows:
            raise Unreadable("a matrix does not end where it should")
        if name in _LISTS:
            return Node("list", tuple(_joined(row) for row in rows), value=",")
        if len({len(row.args) for row in rows}) != 1:
            raise Unreadable("rows of unequal length")
        return Node("fn", (Node("matrix", tuple(rows)),), "det") if name == "vmatrix" else Node("matrix", tuple(rows))

    def _cell(self) -> Node:
        return sym("") if self.sees("&", "newline", "end") else self.nested()

    def _environment_name(self) -> str:
        self.needs("{")
        token = self.peek()
        self.at += 1
        self.takes("*")
        self.needs("}")
        return token.text


def _joined(row: Node) -> Node:
    return row.args[0] if len(row.args) == 1 else row


def _closed(open_: str, close: str, body: Node) -> Node:
    """A bracket pair around a listing."""
    items = body.args if body.op == "list" else (body,)
    if (open_, close) == ("(", ")"):
        return Node("paren", items) if len(items) > 1 else body
    if (open_, close) == ("[", "]"):
        return Node("brack", items) if len(items) > 1 else body
    if len(items) != 2:
        raise Unreadable("brackets that do not match")
    ends = ("[" if open_ == "[" else "(") + ("]" if close == "]" else ")")
    return Node("paren", items) if ends == "()" else Node("ival", items, ends)


def _proper(above: Node, below: Node) -> bool:
    """Both whole, and the fraction under one."""
    if above.op != "num" or below.op != "num":
        return False
    top, bottom = above.value, below.value
    return isinstance(top, type(bottom)) and 0 < top < bottom  # type: ignore[operator]


def _spell(node: Node) -> str:
    """A name for a decorated part."""
    inner = ",".join(_spell(arg) for arg in node.args)
    return f"{node.value or node.op}({inner})" if inner else str(node.value)
