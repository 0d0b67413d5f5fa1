"""The smallest parts of an answer: numbers, letters, fractions, roots, functions, sums."""

from seirenes_jax.verify.brackets import Brackets
from seirenes_jax.verify.lexer import FUNCTIONS, PLAIN_NAMES, Token
from seirenes_jax.verify.tree import EMPTY, INFINITY, Node, Unreadable, num, sym

CONSTANTS = {
    "pi": Node("const", value="pi"), "infty": INFINITY, "infinity": INFINITY, "inf": INFINITY,
    "oo": INFINITY, "emptyset": EMPTY, "R": Node("const", value="R"),
}  # fmt: skip
DECORATIONS = frozenset(
    "bar hat vec tilde overline widehat widetilde dot ddot overrightarrow mathring check".split()
)
GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar aleph partial "
    "nabla".split()
)
BIG = frozenset("sum prod int lim limsup liminf bigcup bigcap sup inf oint iint".split())
_INVERSE = {name: "arc" + name for name in ("sin", "cos", "tan", "cot", "sec", "csc")}
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "sgn": "sign"}


class Atoms(Brackets):
    """The parts that need no precedence."""

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
        names = {
            "two": "2",
            "eight": "8",
            "ten": "10",
            "sixteen": "16",
            "three": "3",
            "five": "5",
            "seven": "7",
        }
        base = names.get(token.text.lower(), token.text)
        if inner:
            self.needs(")")
        if open_:
            self.needs("}")
        if not base.isdigit() or len(base) > 2:
            raise Unreadable(f"the base {base!r} is not a number up to 99")
        return base

    def _word(self, token: Token) -> Node:
        name = token.text
        if name.lower() in ("sqrt", "cbrt", "infinity") or name in PLAIN_NAMES:
            return self._named(
                name.lower() if name.lower() in ("sqrt", "cbrt", "infinity") else name
            )
        for known in (
            "sqrt",
            "infinity",
            "pi",
        ):  # 2sqrt5 came as "2", "sqrt"; "xsqrt" and "pir" come here
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
            name += "_" + self.subscript()
        while self.takes("'", "''"):
            name += "'"
        return sym(name)

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
        if (
            exponent is not None
            and exponent in (num(-1), Node("neg", (num(1),)))
            and name in _INVERSE
        ):
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
            return self.bracket(name)
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
            return self.fence(name)
        if name == "begin":
            return self.environment()
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
            body = self.single()
            if body.op == "mul" and all(str(arg.value).isupper() for arg in body.args):
                return body  # the segment AB
            spelled = f"{name}({_spell(body)})"
            if self.takes("_"):
                spelled += "_" + self.subscript()
            return Node("opaque", value=spelled)
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
