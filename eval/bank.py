"""The hint bank: hints with the problems they are for, one JSON object a line.

A bank is all that an attack needs: every row carries its question and its answer, so the same file
can be put before any model. `FILE.about.json` beside it says how it was made.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eval.items import Dataset, Item, sha256_of
from seirenes_jax.analysis import iter_lines
from seirenes_jax.errors import DataError
from seirenes_jax.hints import contains_answer, normal
from seirenes_jax.report import write_text
from seirenes_jax.verify.extract import final_answer

NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w|\.\d)")


@dataclass(frozen=True, slots=True)
class Hint:
    """One row of a bank."""

    id: str  # of its content: the same hint for the same problem has the same id anywhere
    dataset: str
    problem_id: str
    question: str
    answer: str
    tolerance: str | None
    source: str  # adversary | rule | shuffled | random | correct | triggers
    family: str  # by its wording, hints.classify
    subfamily: str
    text: str
    offers: tuple[str, ...]  # wrong answers that it puts into the reader's mouth
    position: str | None  # append | prepend | system; None: as the run says
    frame: str | None  # hint | note | context | bare; None: as the run says
    writer: str  # the model that wrote it, or the rule


def hint_id(dataset: str, problem_id: str, source: str, text: str) -> str:
    packed = json.dumps([dataset, problem_id, source, text]).encode()
    return hashlib.blake2b(packed, digest_size=6).hexdigest()


def offers(text: str, question: str, gold: str) -> tuple[str, ...]:
    """Answers a hint offers: what it calls the answer, else numbers that the question has not.

    >>> offers("Most of these come out at 24.", "What is 3 times 9?", "27")
    ('24',)
    """
    said = final_answer(text, fallback=True)
    known = set(NUMBER.findall(normal(question)))
    numbers = [number for number in NUMBER.findall(normal(text)) if number not in known]
    found = numbers if said is None else [said]
    return tuple(one for one in dict.fromkeys(found) if not contains_answer(one, gold))


def write_bank(path: Path, bank: Iterable[Hint]) -> None:
    """All rows, all or nothing."""
    rows = (json.dumps(asdict(hint), ensure_ascii=True) + "\n" for hint in bank)
    write_text(path, "".join(rows))


def read_bank(path: Path) -> list[Hint]:
    """The hints of a file, every row checked."""
    if not path.is_file():
        raise DataError(f"{path}: no such bank of hints; make one: python -m eval.hints build")
    bank = [_hint(row, f"{path}:{at}") for at, row in enumerate(iter_lines(path), 1)]
    if not bank:
        raise DataError(f"{path}: holds no hints")
    twice = len(bank) - len({hint.id for hint in bank})
    if twice:
        raise DataError(f"{path}: {twice} hints stand there twice; wanted every id once")
    return bank


def _hint(row: dict[str, Any], where: str) -> Hint:
    try:
        hint = Hint(**{**row, "offers": tuple(row["offers"])})
    except (TypeError, KeyError) as error:
        raise DataError(
            f"{where}: not a row of a hint bank ({error}); wanted the keys "
            f"{', '.join(Hint.__dataclass_fields__)}"
        ) from error
    texts = (hint.id, hint.dataset, hint.problem_id, hint.question, hint.answer, hint.text)
    if not all(isinstance(one, str) for one in texts):
        raise DataError(f"{where}: id, dataset, problem_id, question, answer, text must be text")
    return hint


def sets_of(bank: Sequence[Hint], path: Path) -> list[Dataset]:
    """The problems of a bank as data sets: an attack needs no other file."""
    found: dict[str, dict[str, Item]] = {}
    for hint in bank:
        item = Item(hint.problem_id, hint.question, hint.answer, hint.tolerance, {})
        twin = found.setdefault(hint.dataset, {}).setdefault(item.id, item)
        if twin != item:
            raise DataError(f"{path}: {hint.dataset} {item.id} has two questions or answers")
    return [
        Dataset(name, tuple(items.values()), len(items), sha256_of(items.values()),
                str(path), "", "", "local")
        for name, items in found.items()
    ]  # fmt: skip


def fitting(bank: Sequence[Hint], datasets: Sequence[Dataset], path: Path) -> list[Hint]:
    """The hints for these problems; a hint for another wording of one is no hint for it."""
    asked = {(one.name, item.id): item.question for one in datasets for item in one.items}
    found = [hint for hint in bank if (hint.dataset, hint.problem_id) in asked]
    if not found:
        raise DataError(
            f"{path}: no hint is for these problems: it is for "
            f"{', '.join(sorted({hint.dataset for hint in bank}))}, asked are "
            f"{', '.join(one.name for one in datasets)}"
        )
    for hint in found:
        if asked[hint.dataset, hint.problem_id] != hint.question:
            raise DataError(
                f"{path}: hint {hint.id} is for another wording of {hint.dataset} "
                f"{hint.problem_id}; build the bank from the same data"
            )
    return found
