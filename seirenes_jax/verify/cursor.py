"""A cursor over tokens: what the layers of the grammar share, and how deep they may go."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from seirenes_jax.verify.lexer import END, Token
from seirenes_jax.verify.tree import Node, TooBig, Unreadable

DEEPEST = 80  # brackets, signs and exponents within each other
MOST_TOKENS = 6_000


class Cursor(ABC):
    """A place in a row of tokens, how deep it is, and what is left to the grammar above."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        if len(tokens) > MOST_TOKENS:
            raise TooBig(f"an answer of {len(tokens)} tokens; at most {MOST_TOKENS} are compared")
        self.tokens = list(tokens)
        self.at = 0
        self.depth = 0
        self.bars = 0  # open absolute values
        self.cells = 0  # open matrices
        self.braces = 0  # open sets, where a bar or colon is "such that"

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
    def atom(self) -> Node:
        """One number, letter, bracket or function."""

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
        self.deeper()
        node = self.listing()
        self.depth -= 1
        return node

    def deeper(self) -> None:
        """One level down, if there is one."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise TooBig(f"brackets, signs or exponents nested deeper than {DEEPEST}")
