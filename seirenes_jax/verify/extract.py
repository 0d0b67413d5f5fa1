"""The final answer out of prose. Owns the rules of where an answer may stand.

The last box outside of `<think>` wins; nothing that stands before it can change that. An empty or
unclosed box, or a thought that never ends, is no answer. Prose ("the answer is 5", "#### 5")
counts only when asked for.
"""

import re

_THINK = re.compile(r"<(/?)(?:think|thinking)>", re.IGNORECASE)
_BOX = re.compile(r"\\{1,2}(?:boxed|fbox)(?![a-zA-Z])[ \t\r\n]*")  # some escape the backslash
_NOTHING = re.compile(
    r"(?:\\(?:text|mathrm|mbox|quad|qquad|left|right|phantom)(?![a-z])|\\[,;:! ]|[\s${}~.])*"
)
# Escaped pairs are skipped as a whole, so that \{ \} \\ never count as braces.
_MARK = re.compile(r"\\{1,2}(?:boxed|fbox)(?![a-zA-Z])[ \t\r\n]*(\{?)|\\.|[{}]", re.DOTALL)
_BARE = re.compile(r"\\[a-zA-Z]+|[0-9]|[a-zA-Z]")

_HASHES = re.compile(r"####[ \t]*([^\r\n]*)")
_SAID = re.compile(
    r"(?:answer|result)\s{0,9}(?:is|:|=|equals)\s{0,9}:?\s{0,9}(?:\*\*)?[ \t]{0,9}", re.IGNORECASE
)
_SENTENCE_END = re.compile(r"\.(?:\s|$)|[。;!?]")


def final_answer(text: str, fallback: bool = False) -> str | None:
    r"""The answer a response commits to, as it was written, or None.

    >>> final_answer(r"First \boxed{3}. No: \boxed{\boxed{5}}.")
    '5'
    """
    spoken = _outside_thoughts(text)
    if spoken is None:
        return None
    if _BOX.search(spoken):
        return _last_box(spoken)
    return _from_prose(spoken) if fallback else None


def _outside_thoughts(text: str) -> str | None:
    """What was said aloud, or None when the last thought never ends.

    A closing mark without an opening one ends a thought that the prompt had opened.
    """
    kept: list[str] = []
    start = 0
    thinking = False
    for mark in _THINK.finditer(text):
        if mark.group(1):
            if not thinking:
                kept.clear()
            thinking = False
            start = mark.end()
        elif not thinking:
            kept.append(text[start : mark.start()])
            thinking = True
    if thinking:
        return None
    kept.append(text[start:])
    return "".join(kept)


def _last_box(text: str) -> str | None:
    """Content of the last box; a closed box around it is taken whole, the inner one opened."""
    first = _BOX.search(text)
    assert first is not None
    # Stack entries: (where the content starts, is it a box); only closed boxes get an end.
    stack: list[tuple[int, bool]] = []
    boxes: list[tuple[int, int]] = []  # closed, outermost last
    last_open = -1
    for mark in _MARK.finditer(text, first.start()):
        word = mark.group()
        if word == "{":
            stack.append((mark.end(), False))
        elif word == "}":
            if stack:
                start, boxed = stack.pop()
                if boxed:
                    while boxes and boxes[-1][0] >= start:
                        boxes.pop()
                    boxes.append((start, mark.start()))
        elif word.lstrip("\\").startswith(("boxed", "fbox")) and word.startswith("\\"):
            last_open = mark.end()
            if mark.group(1):
                stack.append((mark.end(), True))
            else:
                bare = _BARE.match(text, mark.end())
                if bare:  # TeX: \boxed5 boxes one token
                    boxes.append((bare.start(), bare.end()))
    if not boxes or not boxes[-1][0] <= last_open <= boxes[-1][1]:
        return None
    start, end = boxes[-1]
    inside = _BOX.sub("", text[start:end]).strip()
    return None if _NOTHING.fullmatch(inside) else _peeled(inside)


def _peeled(text: str) -> str:
    """Without the braces that nested boxes leave around the whole content: {{5}} -> 5."""
    depth = 0
    pairs: dict[int, int] = {}
    stack: list[int] = []
    for mark in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        if mark.group() == "{":
            stack.append(mark.start())
        elif mark.group() == "}" and stack:
            pairs[stack.pop()] = mark.start()
    left, right = 0, len(text)
    while left < right and pairs.get(left) == right - 1:
        left, right, depth = left + 1, right - 1, depth + 1
        while left < right and text[left].isspace():
            left += 1
        while left < right and text[right - 1].isspace():
            right -= 1
    return text[left:right]


def _from_prose(text: str) -> str | None:
    """The last "#### x" line, else what follows the last "the answer is"."""
    hashes = _HASHES.findall(text)
    if hashes:
        return hashes[-1].strip() or None
    said = [lead.end() for lead in _SAID.finditer(text)]
    if not said:
        return None
    words = text[said[-1] :].partition("\n")[0].strip()
    math = re.match(r"\$+([^$]+)\$+|\\\((.+?)\\\)|\\\[(.+?)\\\]", words)
    if math:
        return next(group for group in math.groups() if group is not None).strip() or None
    end = _SENTENCE_END.search(words)
    return (words[: end.start()] if end else words).strip().rstrip(".").strip("* ") or None
