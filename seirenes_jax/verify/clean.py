"""From what was typed to one way of typing it: Unicode, dollars, thousands, degrees."""

import re
import unicodedata

from seirenes_jax.verify.tree import Unreadable

LONGEST = 20_000  # characters of an answer that is still parsed

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufe0f]"
)
_GARBAGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ud800-\udfff]")

_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-",
    "×": r"\times ", "✕": r"\times ", "⋅": r"\cdot ", "·": r"\cdot ", "∙": r"\cdot ",
    "•": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "√": r"\sqrt ", "∛": r"\sqrt[3]", "∞": r"\infty ",
    "≤": r"\le ", "⩽": r"\le ", "≦": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≧": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "≡": r"\equiv ", "±": r"\pm ", "∓": r"\mp ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∖": r"\setminus ",
    "°": r"\degree ", "º": r"\degree ", "′": "'", "″": "''", "’": "'", "‘": "'", "“": '"', "”": '"',
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "…": r"\dots ",
    "⋯": r"\dots ",
    "。": ".", "｡": ".", "、": ",", "，": ",", "⟨": r"\langle ", "⟩": r"\rangle ", "∠": r"\angle ",
    "⇒": r"\Rightarrow ", "→": r"\to ", "∣": "|", "∑": r"\sum ", "∏": r"\prod ", "￥": "¥",
    "˚": r"\degree ",
    "㎝": " cm", "㎞": " km", "㎏": " kg", "㎡": " m^2", "℃": r"\degree C",
}  # fmt: skip
_GREEK = {
    char: "\\" + name + " "
    for char, name in zip(
        "αβγδεζηθικλμνξπρστυφχψωϕϑΓΔΘΛΞΠΣΥΦΨΩ",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
        "upsilon phi chi psi omega phi theta Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi "
        "Omega".split(),
        strict=True,
    )
}
_TABLE = str.maketrans({**_SIGNS, **_GREEK})
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ", "0123456789+-()n", strict=True))
_RAISED_RUN = re.compile("[" + "".join(_RAISED) + "]+")
_LOWERED_RUN = re.compile("[" + "".join(_LOWERED) + "]+")
_SPLIT = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹]+)[⁄/]([₀₁₂₃₄₅₆₇₈₉]+)")  # typed as 2 over 3
_OUTWARD = re.compile(r"([(\[\]])([^\[\],;]+[,;][^\[\],;]+)([)\[\]])")  # ]1,2[ is (1,2)
_PLAIN_UNION = re.compile(r"(?<=[)\]}])\s*U\s*(?=[(\[{\\])")

_WRAPPER = re.compile(r"(?<!\\)\\[()\[\]](?!\d*(?:pt|em|ex|mm))")
_DEGREE = re.compile(
    r"\^\s*(?:\{\s*(?:\\[,!;: ]\s*)*\\circ\s*\}|\\circ(?![a-zA-Z])|\{\s*o\s*\})|\\circ\s*$"
)
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\!\s*|\\[,;: !]|~)(?:\\!)?\s*(?=\d{3}(?!\d))")
_DECIMAL_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d)")
_DROPPED = re.compile(
    r"\\(?:hspace|vspace|phantom|hphantom|vphantom|label|tag|color|textcolor)\*?\s*\{[^{}]*\}"
)
_LINE_SKIP = re.compile(r"\\\\\[[^\]]*\]")
_TIMES = re.compile(r"(?<=[\d.}])\s*[xX*]\s*(?=10\s*(?:\^|\*\*))")
_PREFIX = re.compile(
    r"(?:\\text(?:bf)?\{)?\s*(?:(?:so|thus|hence|therefore),?\s+)?(?:the\s+)?(?:final\s+|correct\s+)?"
    r"(?:answer|result|option|choice)(?:\s+is\b|\s*:|\s*=)\s*:?\s*\}?",
    re.IGNORECASE,
)
_BLANK = re.compile(r"\s+")


def _plain_signs(text: str) -> str:
    """Unicode mathematics as LaTeX, full width as half width, other scripts' digits as 0-9."""
    text = _INVISIBLE.sub("", text)
    text = _SPLIT.sub(
        lambda run: (
            rf"\frac{{{''.join(_RAISED[c] for c in run[1])}}}"
            rf"{{{''.join(_LOWERED[c] for c in run[2])}}}"
        ),
        text,
    )
    text = _RAISED_RUN.sub(lambda run: "^{" + "".join(_RAISED[c] for c in run.group()) + "}", text)
    text = _LOWERED_RUN.sub(
        lambda run: "_{" + "".join(_LOWERED[c] for c in run.group()) + "}", text
    )
    text = text.translate(_TABLE)
    if text.isascii():
        return text
    pieces: list[str] = []
    for char in text:
        parts = unicodedata.decomposition(char).split() if ord(char) > 127 else []
        if parts and parts[0] == "<fraction>" and parts[-1] != "2044":
            over = "".join(chr(int(code, 16)) for code in parts[1:]).split("⁄")
            pieces.append(rf"\frac{{{over[0]}}}{{{over[1]}}}")
        elif ord(char) > 127 and (digit := unicodedata.digit(char, -1)) >= 0:
            pieces.append(str(digit))
        else:
            pieces.append(char)
    return unicodedata.normalize("NFKC", "".join(pieces)).translate(_TABLE)


def _without_dollars(text: str) -> str:
    """Math marks go; a lone dollar before a digit is money."""
    if "$" in text:
        marks = len(re.findall(r"(?<!\\)\$", text))
        if marks % 2 and re.match(r"-?\s*\$\s*[\d.]", text):
            text = text.replace("$", r"\$", 1)
        text = re.sub(r"(?<!\\)\$+", " ", text)
    return _WRAPPER.sub(" ", text) if "\\" in text else text


def clean(text: str) -> str:
    """One way of typing it. Raises `Unreadable` on control characters and broken text."""
    if _GARBAGE.search(text):
        raise Unreadable("the answer holds control characters or broken text")
    if not text.isascii():
        text = _plain_signs(text)
    if r"\not" in text:
        text = re.sub(r"\\not\s*(?:=|\\equiv(?![a-z]))", r"\\ne ", text)
        text = re.sub(r"\\not\s*\\in(?![a-z])", r"\\notin ", text)
    text = _without_dollars(text)
    if "\\" in text or "{" in text:
        text = _DEGREE.sub(r"\\degree ", text)
        text = _THOUSANDS.sub("", text)
        text = _DECIMAL_COMMA.sub(".", text)
        text = _DROPPED.sub(" ", text)
        text = _LINE_SKIP.sub(r"\\\\", text)
    text = _TIMES.sub(r" \\times ", text).replace(
        "**", "^" if re.search(r"\w\*\*[\w(]", text) else " "
    )
    text = _BLANK.sub(" ", text).strip().strip('`"').strip()
    outward = _OUTWARD.fullmatch(text)
    if outward and (outward[1] == "]" or outward[3] == "["):
        open_ = "(" if outward[1] == "]" else outward[1]
        text = f"{open_}{outward[2]}{')' if outward[3] == '[' else outward[3]}"
    text = _PLAIN_UNION.sub(r" \\cup ", text)
    if text.endswith("\\") and not text.endswith("\\\\"):
        text = text[:-1].rstrip()  # it was a space
    prefix = _PREFIX.match(text)
    if prefix and prefix.end() < len(text):
        text = text[prefix.end() :].strip()
        if prefix.group().startswith("\\text") and not prefix.group().endswith("}"):
            text = text[:-1] if text.endswith("}") else text
    while (
        text
        and (text[-1] in ".,;" or text.endswith("\\\\"))
        and not text.endswith((r"\dots.", "..."))
    ):
        text = text[:-2].rstrip() if text.endswith("\\\\") else text[:-1].rstrip()
        if text.endswith("\\") and not text.endswith("\\\\"):
            text = text[:-1]  # the comma belonged to a thin space
    return text
