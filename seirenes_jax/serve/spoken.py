"""Tokens of an answer as they come -> its text: letter by letter right, cut at a stop.

A letter may be several tokens, so what is not a whole letter yet is held back, and so is what may
be the beginning of a stop.
"""

from collections.abc import Callable, Sequence

DecodeMany = Callable[[Sequence[Sequence[int]]], list[str]]
BROKEN = "\ufffd"  # what half a letter decodes to


class Spoken:
    """One answer. `feed` takes tokens until it says that a stop was met; then `close`."""

    def __init__(
        self, decode_many: DecodeMany, ends: Sequence[int], stops: Sequence[str]
    ) -> None:
        self._decode_many, self._ends, self._stops = decode_many, frozenset(ends), tuple(stops)
        self.drawn: list[int] = []  # every token; the last may be the end
        self.ids: list[int] = []  # those that say something
        self.pieces: list[str] = []  # the letters that each token brought
        self.text = ""
        self.stopped = False
        self._closed = False
        self.taken = 0  # letters that `take` has given
        # Decoding begins at `anchor`, some letters back: what a token says may hang on its
        # neighbour. `known` is the text from there to `read`; all before `read` is in `text`.
        self._anchor = self._read = 0
        self._known = ""

    def feed(self, ids: Sequence[int]) -> bool:
        """More tokens; True once a stop stands in the text, which then ends before it."""
        for token in ids:
            if self.stopped:
                break
            self._add(token)
        return self.stopped

    def _add(self, token: int) -> None:
        self.drawn.append(token)
        if token in self._ends:  # the end itself is never said
            self.pieces.append("")
            return
        self.ids.append(token)
        whole, fresh = self._decode_many([self.ids[self._anchor :], self.ids[self._read :]])
        if len(whole) <= len(self._known) or whole.endswith(BROKEN):
            self.pieces.append("")
            return
        piece = whole[len(self._known) :]
        self._anchor, self._read, self._known = self._read, len(self.ids), fresh
        self.pieces.append(piece)
        self._say(piece)

    def _say(self, piece: str) -> None:
        before = len(self.text)
        self.text += piece
        found = [
            at for stop in self._stops
            if (at := self.text.find(stop, max(0, before - len(stop) + 1))) >= 0
        ]  # fmt: skip
        if found:
            self.text, self.stopped = self.text[: min(found)], True
            self._shorten(before + len(piece) - len(self.text))

    def _shorten(self, letters: int) -> None:
        """Take so many letters off the last pieces."""
        for at in reversed(range(len(self.pieces))):
            piece = self.pieces[at]
            self.pieces[at] = piece[: max(0, len(piece) - letters)]
            letters -= len(piece) - len(self.pieces[at])
            if letters == 0:
                return

    def close(self) -> None:
        """No token follows: half a letter is said as it is."""
        self._closed = True
        if self.stopped or self._read == len(self.ids):
            return
        whole = self._decode_many([self.ids[self._anchor :]])[0]
        rest, self._read = whole[len(self._known) :], len(self.ids)
        if rest:
            self.pieces[-1] += rest
            self._say(rest)

    def take(self) -> str:
        """The letters that are certain and were not given before."""
        end = len(self.text) if self._closed or self.stopped else len(self.text) - self._held()
        given, self.taken = self.text[self.taken : end], max(self.taken, end)
        return given

    def _held(self) -> int:
        """Letters at the end that may be the beginning of a stop."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(self.text)), 0, -1):
            tail = self.text[-count:]
            if any(stop.startswith(tail) for stop in self._stops):
                return count
        return 0
