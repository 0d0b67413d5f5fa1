"""The one kit all offline pages are made with: frozen parts in, one self-contained HTML file out.

A page holds its data once, as JSON that no text can break out of, and the kit's own style and
script (`assets/`). The script builds everything from text nodes; a content policy that names the
hashes of just these two lets nothing else run or load, so what stands in model text stays text.

>>> text = page("My run", "a few steps", [Section("Curves", "", (Lines("loss", (series,)),))])
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
STYLES = ("kit.css", "cards.css")
SCRIPTS = ("kit.js", "charts.js", "cards.js")

Cell = str | int | float | None  # None is shown as a dash and sorts last


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Text as it stands: a command, a file."""

    text: str


@dataclass(frozen=True, slots=True)
class Facts:
    """A few large values: (label, value, aside)."""

    items: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Columns are (name, format): text | code | percent | share (percent without sign and decimals)
    | points | number | whole | seconds.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    title: str = ""
    sortable: bool = True
    inner: tuple[int, ...] = ()  # rows that stand indented under the one above


@dataclass(frozen=True, slots=True)
class Series:
    """One line; None breaks it. `low` and `high` draw an interval band."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: int
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """A chart; `stacked`: areas over one common x; `smooth`: points of the bold running mean."""

    title: str
    series: tuple[Series, ...]
    note: str = ""
    format: str = "number"
    x_label: str = "step"
    range: tuple[float, float] | None = None
    smooth: int = 0
    stacked: bool = False
    height: int = 230


@dataclass(frozen=True, slots=True)
class Heat:
    """A matrix of values; low and high fix the ends of the colour scale.

    `links`, where given, has (anchor of a card, what to say of the cell) for every cell.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    note: str = ""
    corner: str = ""
    format: str = "percent"
    low: float | None = None
    high: float | None = None
    links: tuple[tuple[tuple[str, str] | None, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """A block of a card: a text with badges (text, tone: good | bad | "")."""

    label: str
    text: str
    badges: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Tries:
    """A block of a card: judged answers (verdict, text), the one numbered `open` shown first."""

    label: str
    tries: tuple[tuple[str, str], ...]
    open: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a card: cells of blocks. A card passes a filter when one of its rows does."""

    cells: tuple[tuple[Words | Tries, ...], ...]
    flags: tuple[str, ...] = ()
    tone: str = ""  # problem | hint | "hint flagged"
    always: bool = False  # shown with its card though the row itself does not pass


@dataclass(frozen=True, slots=True)
class Card:
    """One problem. The link #anchor opens the viewer at it."""

    step: int
    title: str
    aside: str
    rows: tuple[Row, ...]
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Cards:
    """The viewer: step slider, search, filters (flag, label) as buttons, facets as a list.

    `stepped` False: the cards know no steps, and there is no slider.
    """

    cards: tuple[Card, ...]
    filters: tuple[tuple[str, str], ...] = ()
    facet_label: str = ""
    facets: tuple[tuple[str, str], ...] = ()
    stepped: bool = True


@dataclass(frozen=True, slots=True)
class Grid:
    """Charts side by side, as many as fit."""

    parts: "tuple[Part, ...]"


@dataclass(frozen=True, slots=True)
class Fold:
    """Shut until it is asked for."""

    title: str
    parts: "tuple[Part, ...]"


Part = Prose | Listing | Facts | Table | Lines | Heat | Cards | Grid | Fold


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    note: str
    parts: tuple[Part, ...]


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole file as text."""
    style, script = _asset(STYLES), _asset(SCRIPTS)
    data = {"title": title, "subtitle": subtitle, "sections": [_plain(s) for s in sections]}
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n<main>"
        "<noscript>This page draws itself with its own script; please allow it.</noscript></main>\n"
        f'<script type="application/json" id="page">{embed(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Text as HTML content or attribute value."""
    signs: dict[str, str | int | None] = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
    signs |= {'"': "&quot;", "'": "&#39;"}
    return text.translate(str.maketrans(signs))


def embed(data: object) -> str:
    """JSON for inside a script element: no `<` is left, so no text can close it or open another."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    # half a surrogate pair cannot be written as UTF-8; as an escape it can
    return "".join(f"\\u{ord(c):04x}" if "\ud800" <= c <= "\udfff" else c for c in text)


@cache
def _asset(names: tuple[str, ...]) -> str:
    return "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _plain(value: Any) -> Any:
    """Parts as JSON-able data; numbers to six digits, what is not finite as unknown."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = {"kind": type(value).__name__}
        return kind | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
