"""What is evaluated on: one problem, one data set, and the hash that says which rows they were."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seirenes_jax.analysis import iter_lines
from seirenes_jax.errors import DataError

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """One problem of a benchmark. `fault` says why its gold answer cannot be used, if it cannot."""

    id: str
    question: str
    answer: str
    tolerance: str | None  # absolute error the benchmark allows
    slices: Mapping[str, str]  # category, level, ...: what results can be split by
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """The items of one benchmark, and where they came from."""

    name: str
    items: tuple[Item, ...]
    rows: int  # of the whole set, before any slice or limit
    sha256: str  # of the whole set: what was asked and what was expected, not the file's bytes
    origin: str
    published: str  # YYYY-MM; "" where unknown
    license: str
    state: str  # known | first use | as at first use | local: what is known of the hash


def sha256_of(items: Iterable[Item]) -> str:
    """The same rows have the same hash, whatever file format they came in."""
    digest = hashlib.sha256()
    for item in items:
        row = [item.id, item.question, item.answer, item.tolerance]
        digest.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def named_by_content(question: str, answer: str) -> str:
    """An id for a row that has none."""
    packed = json.dumps([question, answer]).encode()
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


def unique(items: Sequence[Item], where: str) -> tuple[Item, ...]:
    """Every id once; a row that repeats another word for word is dropped."""
    found: dict[str, Item] = {}
    for item in items:
        twin = found.setdefault(item.id, item)
        if (twin.question, twin.answer) != (item.question, item.answer):
            raise DataError(
                f"{where}: two problems have the id {item.id!r}; wanted every id once: rename one, "
                "or name another column with --id_column"
            )
    return tuple(found.values())


def narrowed(dataset: Dataset, wanted: Mapping[str, str], limit: int) -> Dataset:
    """Only items of these slices, only the first `limit` of them (0 = all)."""
    known = {key for item in dataset.items for key in item.slices}
    for key in wanted:
        if key not in known:
            there = ", ".join(sorted(known)) or "none"
            raise DataError(f"--slice: {dataset.name} has no {key!r}; it has {there}")
    items = [
        item
        for item in dataset.items
        if all(item.slices.get(key, "").lower() == value.lower() for key, value in wanted.items())
    ]
    if not items:
        values = {item.slices.get(key, "") for item in dataset.items for key in wanted}
        raise DataError(
            f"--slice: no problem of {dataset.name} fits {dict(wanted)}; there are "
            f"{', '.join(sorted(filter(None, values))[:20])}"
        )
    return replace(dataset, items=tuple(items[: limit or None]))


def to_rows(dataset: Dataset) -> list[dict[str, Any]]:
    """As the run folder keeps them: grading again needs nothing else."""
    return [
        {
            "id": item.id, "question": item.question, "answer": item.answer,
            "tolerance": item.tolerance, "slices": dict(item.slices), "fault": item.fault,
        }
        for item in dataset.items
    ]  # fmt: skip


def from_rows(path: Path) -> tuple[Item, ...]:
    """The items a run folder kept."""
    names = ("id", "question", "answer", "tolerance", "slices", "fault")
    try:
        return tuple(Item(*(row[name] for name in names)) for row in iter_lines(path))
    except KeyError as error:
        raise DataError(
            f"{path}: a row has no {error}; the file was changed. Evaluate into another --out"
        ) from error
