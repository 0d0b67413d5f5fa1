"""The table of benchmarks: where each is, what its columns are called, how many rows it has.

Owns the ids, splits, accepted row counts, dates and known hashes, and the quirks of each set. Data
is never shipped. A hash that is not known is pinned at first use (`eval/pins.py`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.items import Item, named_by_content
from seirenes_jax.errors import DataError
from seirenes_jax.verify.extract import final_answer

Row = Mapping[str, Any]
Reader = Callable[[Row, str], Item]

QUESTIONS = ("question", "problem", "prompt")
SLICE_WORDS = 60  # characters: longer values are texts, not kinds


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`hub` is a data set id with its configuration and split, or `url` a public file."""

    read: Reader
    published: str  # YYYY-MM: when these problems could first be trained on
    rows: tuple[int, ...]  # accepted counts, one a revision; () = not known
    license: str
    hub: tuple[str, str, str] = ("", "", "")
    url: str = ""
    sha256: tuple[str, ...] = ()  # of `items.sha256_of`


def text_of(value: Any, what: str) -> str:
    """Text, or a number as it would be written: 12.0 as 12."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{what}: got {value!r:.60}; wanted text or a number")
    return str(value).strip()


def cell(row: Row, names: Sequence[str], where: str) -> str:
    """The first of these columns that the row fills."""
    name = next((name for name in names if row.get(name) not in (None, "")), None)
    if name is None:
        raise DataError(
            f"{where}: no {' or '.join(names)}; got the columns {', '.join(map(str, row))}"
        )
    return text_of(row[name], f"{where}: {name}")


def slices_of(row: Row, names: Sequence[str]) -> dict[str, str]:
    """The columns that results can be split by; a list counts as its entries joined."""
    found: dict[str, str] = {}
    for name in names:
        value = row.get(name)
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            words = str(value).strip()
            if words and len(words) <= SLICE_WORDS:
                found[name] = words
    return found


def columns(
    question: Sequence[str] = ("problem",),
    answer: Sequence[str] = ("answer",),
    *,
    id: Sequence[str] = (),
    slices: Sequence[str] = (),
) -> Reader:
    """A reader of rows that hold everything under names of their own."""

    def read(row: Row, where: str) -> Item:
        asked, gold = cell(row, question, where), cell(row, answer, where)
        given = next((row[name] for name in id if row.get(name) not in (None, "")), None)
        named = named_by_content(asked, gold) if given is None else text_of(given, f"{where}: id")
        return Item(named, asked, gold, _tolerance(row), slices_of(row, slices))

    return read


def _tolerance(row: Row) -> str | None:
    """OlympiadBench says per row what absolute error it allows."""
    value = row.get("tolerance", row.get("error"))
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        return None
    words = str(value).strip()
    try:
        return words if float(words) > 0 else None
    except ValueError:
        return None


def _gsm8k(row: Row, where: str) -> Item:
    """The gold stands after "#### ", with commas in numbers."""
    asked, said = cell(row, ("question",), where), cell(row, ("answer",), where)
    _, mark, gold = said.rpartition("####")
    if not mark or not gold.strip():
        raise DataError(f'{where}: answer has no "#### "; got {said[-60:]!r}')
    gold = re.sub(r"(?<=\d),(?=\d)", "", gold.strip())
    return Item(named_by_content(asked, gold), asked, gold, None, {})


def _minerva(row: Row, where: str) -> Item:
    """The gold is the last box of the solution; some of them are in e-notation."""
    asked = cell(row, ("problem", "question"), where)
    solution = row.get("solution")
    gold = final_answer(solution) if isinstance(solution, str) else None
    if gold is None:
        gold = cell(row, ("answer",), where)
    return Item(
        named_by_content(asked, gold), asked, gold, None, slices_of(row, ("type", "subject"))
    )


def _olympiad(row: Row, where: str) -> Item:
    """The gold is a list of one text, which may itself list several answers."""
    asked = cell(row, ("question",), where)
    if row.get("context"):
        asked = f"{text_of(row['context'], f'{where}: context')}\n{asked}"
    answers = row.get("final_answer")
    if not isinstance(answers, (list, tuple)) or not answers:
        raise DataError(f"{where}: final_answer: got {answers!r:.60}; wanted a list of answers")
    gold = ", ".join(text_of(one, f"{where}: final_answer") for one in answers)
    names = ("subfield", "answer_type", "is_multiple_answer")
    kinds = slices_of({**row, "is_multiple_answer": str(row.get("is_multiple_answer"))}, names)
    return Item(cell(row, ("id",), where), asked, gold, _tolerance(row), kinds)


FIELDS = ("algebra", "combinatorics", "geometry", "number theory", "functional equation")


def _imo(row: Row, where: str) -> Item:
    """One row has its columns shifted: its short answer is the name of a field."""
    gold = text_of(row.get("Short Answer") or "", f"{where}: Short Answer")
    shifted = gold.lower() in FIELDS or not gold
    return Item(
        cell(row, ("Problem ID",), where),
        cell(row, ("Problem",), where),
        gold,
        None,
        slices_of(row, ("Category", "Subcategory")),
        f"the file's answer is {gold!r}, a column's neighbour" if shifted else "",
    )


def _gsm_plus(row: Row, where: str) -> Item:
    """Some perturbations take a needed number away; their gold is None: nothing can be computed."""
    asked, gold = cell(row, ("question",), where), str(row.get("answer")).strip()
    fault = "the problem has no answer on purpose" if gold.lower() in ("none", "n/a", "") else ""
    kinds = slices_of(row, ("perturbation_type",))
    return Item(named_by_content(asked, gold), asked, gold, None, kinds, fault)


_MATHARENA = columns(id=("problem_idx",), slices=("problem_type",))
_MATH_PERTURB = columns(id=("problem_id",), slices=("type", "level", "original_split"))
_PERTURB_URL = "https://raw.githubusercontent.com/Kaffaljidhmah2/MATH-Perturb/main/math_perturb_"
_GSM_IC_URL = "https://raw.githubusercontent.com/google-research-datasets/GSM-IC/main/GSM-IC_"
_GSM_IC = columns(("new_question",), slices=("n_steps", "role_label", "sentence_label"))

BENCHMARKS: dict[str, Benchmark] = {
    "aime24": Benchmark(
        columns(id=("id",)), "2024-02", (30,), "of the contest",
        hub=("HuggingFaceH4/aime_2024", "default", "train"),
    ),
    "aime25": Benchmark(
        _MATHARENA, "2025-02", (30,), "CC BY-NC-SA 4.0",
        hub=("MathArena/aime_2025", "default", "train"),
    ),
    "aime26": Benchmark(
        _MATHARENA, "2026-02", (30,), "CC BY-NC-SA 4.0",
        hub=("MathArena/aime_2026", "default", "train"),
    ),
    "hmmt_feb26": Benchmark(
        _MATHARENA, "2026-02", (33,), "CC BY-NC-SA 4.0",
        hub=("MathArena/hmmt_feb_2026", "default", "train"),
    ),
    "imo_answerbench": Benchmark(
        _imo, "2025-11", (400,), "CC BY 4.0",
        url="https://raw.githubusercontent.com/google-deepmind/superhuman/main/imobench/"
        "answerbench_v2.csv",
        sha256=("fab920098eaa6323323d0721d1ead522ea13c8a12a21ae55346169899c3434b6",),
    ),
    "minerva": Benchmark(
        _minerva, "2022-06", (272,), "of the course",
        hub=("math-ai/minervamath", "default", "test"),
    ),
    "olympiadbench": Benchmark(
        _olympiad, "2024-02", (674, 675), "Apache 2.0",
        hub=("Hothan/OlympiadBench", "OE_TO_maths_en_COMP", "train"),
        sha256=("0c6b1a032eb7ef6aa98e70ed276ef571626aa559aff6f3791c8037716e11a089",),  # 675 rows
    ),
    "math500": Benchmark(
        columns(id=("unique_id",), slices=("subject", "level", "difficulty")), "2021-03", (500,),
        "MIT", hub=("HuggingFaceH4/MATH-500", "default", "test"),
        sha256=("2624138889b76b9d639fdd93f1bcfdd37a8f99491e0e692c6888466513a74311",),
    ),
    "amc23": Benchmark(
        columns(QUESTIONS, id=("id",)), "2023-11", (40,), "of the contest",
        hub=("math-ai/amc23", "default", "test"),
    ),
    "gsm8k": Benchmark(
        _gsm8k, "2021-10", (1319,), "MIT", hub=("openai/gsm8k", "main", "test"),
        sha256=("b62322694f88671c1efff506a4bb651bc299afd5b2051cb48d03518cdb305ed3",),
    ),
    "gsm8k_platinum": Benchmark(
        _gsm8k, "2021-10", (1209,), "MIT", hub=("madrylab/gsm8k-platinum", "main", "test"),
    ),
    "gsm_plus": Benchmark(
        _gsm_plus, "2024-02", (2400,), "CC BY-SA 4.0",
        hub=("qintongli/GSM-Plus", "default", "testmini"),
    ),
    "math_perturb_simple": Benchmark(
        _MATH_PERTURB, "2025-02", (279,), "Apache 2.0", url=f"{_PERTURB_URL}simple.jsonl",
        sha256=("55fc0184618f67fb7896be5ddc69a83c1b3aeb82230ca0748cdb8a49574c4edc",),
    ),
    "math_perturb_hard": Benchmark(
        _MATH_PERTURB, "2025-02", (279,), "Apache 2.0", url=f"{_PERTURB_URL}hard.jsonl",
        sha256=("96e53ee64486a2727ca1ede46d8bc4e4abf3319e3878f714e9d30e231f5d182e",),
    ),
    "gsm_ic_2step": Benchmark(_GSM_IC, "2023-01", (), "MIT", url=f"{_GSM_IC_URL}2step.json"),
    "gsm_ic_mstep": Benchmark(_GSM_IC, "2023-01", (), "MIT", url=f"{_GSM_IC_URL}mstep.json"),
}  # fmt: skip
