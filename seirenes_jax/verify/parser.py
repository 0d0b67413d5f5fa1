"""From tokens to a tree: precedence, implied products, relations, lists, units."""

from collections.abc import Sequence

from seirenes_jax.verify.atoms import BIG, CONSTANTS, DECORATIONS, GREEK, Atoms
from seirenes_jax.verify.lexer import FUNCTIONS, PLAIN_NAMES, Token
from seirenes_jax.verify.tree import Node, TooBig, Unreadable, num
from seirenes_jax.verify.units import PLAIN, parse_unit, scale

DEEPEST_TREE = 200
RELATIONS = frozenset("= < > le ge ne approx in equiv notin subset subseteq ni propto".split())
_SEPARATORS = {",": ",", ";": ",", "newline": ",", "and": "and", "or": "or"}
_OPENING = (
    frozenset(
        "( [ { {set frac sqrt binom lfloor lceil langle begin mathbb angle triangle dots".split()
    )
    | FUNCTIONS
    | GREEK
    | DECORATIONS
    | BIG
    | frozenset(CONSTANTS)
)
_CLOSING = frozenset(") } ] ! rfloor rceil degree".split())
_PLAIN_RATES = frozenset("m/s m/h m/min g/mol g/L g/mL J/K J/kg N/m N/C V/m".split())
_VOWELS = frozenset("aeiouy")


def parse(tokens: Sequence[Token]) -> Node:
    """The tree of a whole answer, or `Unreadable`."""
    reader = _Parser(tokens)
    node = reader.listing()
    if reader.takes("over"):
        node = Node("div", (node, reader.listing()))
    if reader.peek().kind != "e":
        raise Unreadable(f"cannot read on from {reader.peek().text!r}")
    _check_depth(node)
    return node


def _check_depth(node: Node) -> None:
    """Trees are walked by recursion; a/b/c/... makes a deep one without any bracket."""
    level = [node]
    for _ in range(DEEPEST_TREE):
        level = [arg for parent in level for arg in parent.args]
        if not level:
            return
    raise TooBig(f"a formula nested deeper than {DEEPEST_TREE}")


class _Parser(Atoms):
    def listing(self) -> Node:
        """Items between commas, "and" and "or"; a single item stands for itself."""
        items: list[Node] = []
        kinds: set[str] = set()
        while True:
            while (kind := self._separator()) is not None:
                kinds.add(kind)
            if self._at_end():
                break
            item = self._relation()
            if self.takes("Rightarrow"):  # 2x = 10 => x = 5: what follows is the answer
                continue
            items.append(item)
            if self._separator_ahead() is None:
                break
        if not items:
            raise Unreadable("nothing to read between separators")
        if len(items) == 1:
            return items[0]
        return Node("list", tuple(items), kinds.pop() if len(kinds) == 1 else ",")

    def _separator_ahead(self) -> str | None:
        token = self.peek()
        if token.kind == "c" and token.text == "newline" and self.cells:
            return None
        text = token.text.lower().strip(" ,") if token.kind == "t" else token.text.lower()
        return _SEPARATORS.get(text) if token.kind != "n" else None

    def _separator(self) -> str | None:
        kind = self._separator_ahead()
        self.at += kind is not None
        return kind

    def _at_end(self) -> bool:
        return self.peek().kind == "e" or self.sees(
            ")", "]", "}", "}set", "rangle", "rfloor", "rceil", "&", "end", "newline"
        )

    def _relation(self) -> Node:
        self.takes("=", "approx")
        parts = [self._region()]
        signs: list[str] = []
        while self.peek().kind == "c" and self.peek().text in RELATIONS:
            signs.append(self.peek().text)
            self.at += 1
            if signs[-1] in ("<", ">") and self.takes("="):
                signs[-1] = "le" if signs[-1] == "<" else "ge"
            parts.append(self._region())
        return Node("rel", tuple(parts), " ".join(signs)) if signs else parts[0]

    def _region(self) -> Node:
        node = self._ratio()
        while self.sees("cup", "cap", "setminus", "bigcup"):
            kind = {"cup": "union", "bigcup": "union", "cap": "inter", "setminus": "minus"}
            node = Node(kind[self.needs("cup", "cap", "setminus", "bigcup")], (node, self._ratio()))
        return node

    def _ratio(self) -> Node:
        parts = [self._sum()]
        # Inside braces a colon is "such that".
        while self.sees(":") and not self.braces:
            self.at += 1
            parts.append(self._sum())
        return Node("ratio", tuple(parts)) if len(parts) > 1 else parts[0]

    def _sum(self) -> Node:
        parts = [self.term()]
        while self.sees("+", "-", "pm", "mp"):
            sign = self.needs("+", "-", "pm", "mp")
            right = self.term()
            if sign in ("pm", "mp"):
                left = parts[0] if len(parts) == 1 else Node("add", tuple(parts))
                parts = [Node("pm", (left, right), "+" if sign == "pm" else "-")]
            else:
                parts.append(right if sign == "+" else Node("neg", (right,)))
        return parts[0] if len(parts) == 1 else Node("add", tuple(parts))

    def term(self) -> Node:
        node = self._unary()
        while True:
            if self.takes("*"):
                node = _times(node, self._unary())
            elif self.takes("/"):
                node = Node("div", (node, self._unary()))
            elif self.takes("bmod", "mod", "pmod"):
                node = Node("mod", (node, self._unary()))
            elif self._unit_ahead(node):
                node = self._with_unit(node)
            elif self._factor_ahead():
                node = _times(node, self.power())
            else:
                return node

    def _factor_ahead(self) -> bool:
        token = self.peek()
        if token.kind == "w":
            return token.text.lower() not in ("and", "or", "mod")
        if token.kind == "n":
            before = self.tokens[self.at - 1]
            if before.kind == "w":  # 2^a 3^b
                return token.gap and self.peek(1).text == "^"
            return before.kind == "c" and before.text in _CLOSING
        if token.kind == "c" and token.text == "|":
            return not self.bars and not self.braces
        return token.kind == "c" and token.text in _OPENING

    def _unary(self) -> Node:
        negative = False
        while self.sees("-", "+"):
            negative ^= self.needs("-", "+") == "-"
        if self.sees("pm", "mp"):
            sign = "+" if self.needs("pm", "mp") == "pm" else "-"
            self.deeper()
            node = Node("pm", (self.term(),), sign)
            self.depth -= 1
        else:
            node = self._money() if self.takes("$") else self.power()
        return Node("neg", (node,)) if negative else node

    def _money(self) -> Node:
        node = self.power()
        word = self.peek().text.lower() if self.peek().kind in "wt" else ""
        if (factor := scale(word)) is not None:
            self.at += 1
            node = _times(node, num(factor))
        return Node("unit", (node,), parse_unit([("$", 1)]))

    def power(self) -> Node:
        node = self._postfixed(self.atom())
        if not self.takes("^"):
            return node
        self.deeper()
        if self.takes("-"):
            exponent = Node("neg", (self._exponent(),))
        else:
            self.takes("+")
            exponent = self._exponent()
        self.depth -= 1
        return self._postfixed(Node("pow", (node, exponent)))

    def _exponent(self) -> Node:
        token = self.peek()
        if token.kind == "w" and len(token.text) > 1 and token.text not in PLAIN_NAMES:
            self.tokens[self.at : self.at + 1] = [Token("w", letter) for letter in token.text]
        if self.takes("prime", "*", "'"):
            raise Unreadable("a mark that is no exponent")
        return self.power()

    def _postfixed(self, node: Node) -> Node:
        while True:
            if self.takes("!!"):
                node = Node("fact2", (node,))
            elif self.takes("!"):
                node = Node("fact", (node,))
            elif self.takes("%"):
                node = Node("percent", (node,))
            elif self.takes("degree"):
                node = self._degrees(node)
            else:
                return node

    def _degrees(self, node: Node) -> Node:
        """30 degrees, perhaps with minutes and seconds; a letter C or F after it is a
        temperature.
        """
        if self.peek().kind in "wt" and self.peek().text in ("C", "F"):
            self.at += 1
            return Node("unit", (node,), parse_unit([("deg" + self.tokens[self.at - 1].text, 1)]))
        parts = [node]
        for mark, size in (("'", 60), ("''", 3600)):
            if self.peek().kind == "n" and self.peek(1).text == mark:
                value = self.peek().value
                assert value is not None
                parts.append(num(value / size))
                self.at += 2
        return Node("degree", (parts[0] if len(parts) == 1 else Node("add", tuple(parts)),))

    def argument(self) -> Node:
        if self.sees("(", "{"):
            return self.atom()
        if self.takes("-"):
            self.deeper()
            node = Node("neg", (self.argument(),))
            self.depth -= 1
            return node
        self.deeper()
        node = self.power()
        self.depth -= 1
        while self._factor_ahead() and not self._function_ahead():
            node = _times(node, self.power())
        return node

    def _function_ahead(self) -> bool:
        token = self.peek()
        return token.text in FUNCTIONS or (token.kind == "c" and token.text in ("(", "["))

    def _unit_ahead(self, node: Node) -> bool:
        """Words after a value: any inside \\text; else only known units and long words."""
        token = self.peek()
        if token.kind == "t":
            return token.text.lower().strip(" ,") not in _SEPARATORS
        if token.kind == "c" and token.text == "$":
            return True
        if token.kind != "w":
            return False
        word = token.text
        if word.lower() in ("percent", "degrees", "degree") or scale(word) is not None:
            return True
        if word in PLAIN_NAMES or word.lower() in _SEPARATORS:
            return False
        before = self.tokens[self.at - 1]
        if token.gap and word + self.peek(1).text + self.peek(2).text in _PLAIN_RATES:
            return True
        if word in PLAIN or word.lower() in PLAIN:
            return before.kind == "n" or token.gap
        known = len(word) > 2 and word.islower() and not _VOWELS.isdisjoint(word)
        return known and token.gap and before.kind == "n"

    def _with_unit(self, node: Node) -> Node:
        word = self.peek().text.lower()
        if (factor := scale(word)) is not None:
            self.at += 1
            return _times(node, num(factor))
        if word in ("percent", "per cent"):
            self.at += 1
            return Node("percent", (node,))
        if word in ("degrees", "degree"):
            self.at += 1
            return Node("degree", (node,))
        parts: list[tuple[str, int]] = []
        sign = 1
        while True:
            words = self.peek().text
            self.at += 1
            while self.peek().kind == "w" and self._unit_word(self.peek().text):
                words += " " + self.peek().text
                self.at += 1
            parts.append((words, sign * self._unit_power()))
            if self.sees("/") and self.peek(1).kind in "tw":
                self.at += 1
                sign = -1
            elif self.sees("*") and self.peek(1).kind == "t":
                self.at += 1
            elif (
                self.peek().kind == "t" and self.peek().text.lower().strip(" ,") not in _SEPARATORS
            ):
                sign = 1
            else:
                break
        unit = Node("unit", (node,), parse_unit(parts))
        if self.peek().kind == "n" and self.tokens[self.at - 1].kind in "wt":  # 3 hours 30 minutes
            rest = self.term()
            if rest.op == "unit":
                return Node("add", (unit, rest))
            raise Unreadable("a number after a unit")
        return unit

    def _unit_word(self, word: str) -> bool:
        return word.lower() not in _SEPARATORS and word not in FUNCTIONS

    def _unit_power(self) -> int:
        if not self.takes("^"):
            return 1
        braced = self.takes("{")
        minus = -1 if self.takes("-") else 1
        token = self.peek()
        if token.kind != "n" or token.value is None or token.value not in (1, 2, 3, 4):
            raise Unreadable(f"cannot read {token.text!r} as the power of a unit")
        self.at += 1
        if braced:
            self.needs("}")
        return minus * int(token.value)


def _times(left: Node, right: Node) -> Node:
    if left.op == "mul":
        return Node("mul", (*left.args, right))
    return Node("mul", (left, right))
