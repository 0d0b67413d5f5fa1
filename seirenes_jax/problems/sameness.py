"""When are two questions the same? Repeats inside a data set, and overlap with benchmarks.

Nothing is guessed from meaning: two texts are equal but for their dress, or share thirteen words
in a row.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

GRAM = 13  # words

_DRESS = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|limits|big|Big|bigg|Bigg)(?![a-zA-Z])"
    r"|\\[()\[\],;:!> ]|\\q?quad(?![a-zA-Z])|[\s$~]"
)
_WIDE = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # written without spaces: every sign a word
_WORD = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+")


def normal(text: str) -> str:
    r"""A text without its dress: spaces, dollar signs, \left, \dfrac, capitals, the last stop.

    >>> normal(r"Find  $\dfrac{1}{2} + x$."), normal(r"find \(\frac12\)")
    ('find\\frac{1}{2}+x', 'find\\frac12')
    """
    bare = _DRESS.sub("", _WIDE.sub(r"\\frac", unicodedata.normalize("NFC", text)))
    return bare.casefold().rstrip(".?!:")


def words(text: str) -> list[str]:
    """The words of a text, numbers and LaTeX names among them; signs are none."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def grams(text: str) -> set[str]:
    """Every thirteen words in a row."""
    found = words(text)
    return {" ".join(found[n : n + GRAM]) for n in range(len(found) - GRAM + 1)}


class Hit(NamedTuple):
    """A training question that a benchmark asks, too."""

    benchmark: str
    question: str  # of the benchmark
    share: float  # of its 13-grams that were found; 1.0 where the texts are equal


class Benchmarks:
    """The questions of benchmarks, ready to be looked for. `overlap` as problems.overlap."""

    def __init__(self, questions: Sequence[tuple[str, str]], *, overlap: float) -> None:
        self.questions, self.overlap = questions, overlap  # (benchmark, question)
        self._whole: dict[str, int] = {}
        self._of_gram: defaultdict[str, list[int]] = defaultdict(list)
        self._grams: list[int] = []
        for index, (_, question) in enumerate(questions):
            self._whole.setdefault(normal(question), index)
            its = grams(question)
            self._grams.append(len(its))
            for gram in its:
                self._of_gram[gram].append(index)

    def meets(self, question: str) -> Hit | None:
        """The benchmark question that this one comes closest to, if it comes too close."""
        index = self._whole.get(normal(question))
        if index is not None:
            return Hit(*self.questions[index], 1.0)
        shared = Counter(
            index for gram in grams(question) if gram in self._of_gram
            for index in self._of_gram[gram]
        )  # fmt: skip
        shares = [(count / self._grams[index], -index) for index, count in shared.items()]
        if not shares:
            return None
        share, index = max(shares)  # of equals the first
        return Hit(*self.questions[-index], share) if share > self.overlap else None
