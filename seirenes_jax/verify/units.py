"""Units: their names, sizes and powers. Owns which words are units."""

import re
from fractions import Fraction

from seirenes_jax.verify.tree import Unit

_Size = tuple[tuple[tuple[str, int], ...], Fraction]


def _sizes() -> dict[str, _Size]:
    table: dict[str, _Size] = {}

    def add(base: str, factor: Fraction | int, names: str, power: int = 1) -> None:
        for name in names.split():
            table[name] = (((base, power),), Fraction(factor))

    inch = Fraction(254, 10000)
    add("m", 1, "m meter metre")
    add("m", Fraction(1, 100), "cm centimeter centimetre")
    add("m", Fraction(1, 1000), "mm millimeter millimetre")
    add("m", 1000, "km kilometer kilometre")
    add("m", inch, "in inch inche")
    add("m", 12 * inch, "ft foot feet")
    add("m", 36 * inch, "yd yard")
    add("m", 63360 * inch, "mi mile")
    add("m", Fraction(1, 1000), "liter litre l L", power=3)
    add("m", Fraction(1, 10**6), "ml mL milliliter millilitre cc", power=3)
    add("m", 10000, "hectare ha", power=2)
    add("kg", 1, "kg kilogram")
    add("kg", Fraction(1, 1000), "g gram")
    add("kg", Fraction(1, 10**6), "mg milligram")
    add("kg", 1000, "tonne")
    add("kg", Fraction(45359237, 10**8), "lb pound")
    add("kg", Fraction(45359237, 16 * 10**8), "oz ounce")
    add("s", 1, "s sec second")
    add("s", Fraction(1, 1000), "ms millisecond")
    add("s", 60, "min minute")
    add("s", 3600, "h hr hour")
    add("s", 86400, "day")
    add("s", 7 * 86400, "week")
    add("month", 1, "month")
    add("month", 12, "yr year")
    add("usd", 1, "$ dollar usd buck")
    add("usd", Fraction(1, 100), "cent ¢")
    add("eur", 1, "€ euro")
    add("gbp", 1, "£")
    add("angle", 1, "degree deg")  # measured in degrees
    add("angle", Fraction(1, 60), "arcminute")
    add("angle", Fraction(1, 3600), "arcsecond")
    table["mph"] = ((("m", 1), ("s", -1)), 63360 * inch / 3600)
    table["kph"] = table["kmh"] = ((("m", 1), ("s", -1)), Fraction(1000, 3600))
    table["unit"] = ((), Fraction(1))
    for name, base in (
        ("N", "newton"), ("J", "joule"), ("W", "watt"), ("V", "volt"), ("A", "ampere"),
        ("K", "kelvin"), ("Hz", "hertz"), ("Pa", "pascal"), ("mol", "mole"), ("rad", "radian"),
        ("radian", "radian"), ("erg", "erg"), ("eV", "eV"), ("Mpc", "Mpc"), ("kJ", "kJ"),
    ):  # fmt: skip
        table[name] = (((base, 1),), Fraction(1))
    return table


SIZES = _sizes()
# Spelled in plain letters (not inside \text), one letter is a variable, whatever it could
# abbreviate.
PLAIN = frozenset(name + end for name in SIZES for end in ("", "s") if len(name) > 1) | {
    "inches",
    "sq",
    "square",
    "cubic",
    "per",
}
_IGNORED = {"of", "in", "the", "a", "an", "total", "exactly", "long", "old", "each"}
_SCALE = {
    "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "hundred": 100,
    "dozen": 12,
}  # fmt: skip


def scale(word: str) -> int | None:
    """What a word like "million" multiplies by."""
    return _SCALE.get(word.lower())


def _size(word: str) -> _Size:
    """An unknown word is a unit of its own: apples are not oranges."""
    for name in (word, word.lower()):
        for stem in (name, name[:-1] if len(name) > 2 and name.endswith("s") else name):
            if stem in SIZES:
                return SIZES[stem]
    lower = word.lower()
    if len(lower) > 3 and lower.endswith("s") and not lower.endswith("ss"):
        lower = lower[:-1]
    return (("word:" + lower, 1),), Fraction(1)


def parse_unit(parts: list[tuple[str, int]]) -> Unit:
    """A unit from (words, power) factors; "square" and "cubic" and "per" are understood.

    >>> parse_unit([("miles per hour", 1)]).dims
    (('m', 1), ('s', -1))
    """
    dims: dict[str, int] = {}
    factor = Fraction(1)
    for words, power in parts:
        each = [word for word in re.split(r"[\s.\-]+", words) if word]
        pending, sign = 1, 1
        for index, word in enumerate(each):
            lower = word.lower()
            if lower in ("square", "sq"):
                pending = 2
            elif lower == "cubic":
                pending = 3
            elif lower == "per":
                sign = -1
            elif lower == "squared":
                continue
            elif lower == "cubed":
                continue
            elif lower not in _IGNORED:
                after = each[index + 1].lower() if index + 1 < len(each) else ""
                extra = {"squared": 2, "cubed": 3}.get(after, 1)
                exponent = sign * power * pending * extra
                pending = 1
                bases, size = _size(word)
                factor *= size**exponent
                for base, inner in bases:
                    dims[base] = dims.get(base, 0) + inner * exponent
    kept = tuple(sorted((base, power) for base, power in dims.items() if power))
    return Unit(kept, factor, " ".join(words for words, _ in parts))
