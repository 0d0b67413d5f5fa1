"""Brackets: groups, tuples, intervals, sets, absolute values, matrices and systems."""

from seirenes_jax.verify.cursor import Cursor
from seirenes_jax.verify.lexer import Token
from seirenes_jax.verify.tree import EMPTY, Node, Unreadable, sym

_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix vmatrix smallmatrix array".split())
_LISTS = frozenset("cases aligned align gathered split rcases dcases".split())


class Brackets(Cursor):
    """What stands between brackets, bars and \\begin ... \\end."""

    def subscript(self) -> str:
        """What stands after an underscore, as a name."""
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

    def bracket(self, open_: str) -> Node:
        """Groups, tuples, intervals, sets. Which one, the closing bracket and the commas decide."""
        if open_ == "{set" and self.takes("}set"):
            return EMPTY
        outer = self.bars, self.braces
        self.bars, self.braces = 0, int(open_ == "{set")
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
        self.bars, self.braces = outer
        return node

    def _set(self, body: Node) -> Node:
        if self.takes("|", ":"):  # {x | x > 3}: the condition is the answer
            body = self.nested()
            self.needs("}set")
            return body
        self.needs("}set")
        return Node("set", body.args if body.op == "list" else (body,))

    def fence(self, name: str) -> Node:
        close = {"|": "|", "lfloor": "rfloor", "lceil": "rceil"}[name]
        bars, self.bars = self.bars, self.bars + 1 if name == "|" else 0
        body = self.nested()
        self.needs(close)
        self.bars = bars
        return Node({"|": "abs", "lfloor": "floor", "lceil": "ceil"}[name], (body,))

    def environment(self) -> Node:
        name = self._environment_name()
        if name == "array" and self.sees("{"):
            self.subscript()
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
        return (
            Node("fn", (Node("matrix", tuple(rows)),), "det")
            if name == "vmatrix"
            else Node("matrix", tuple(rows))
        )

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
