"""Names of benchmarks, files and hub ids -> the data sets to evaluate on, checked and described."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval import pins
from eval.benchmarks import BENCHMARKS, QUESTIONS, Reader, columns
from eval.items import Dataset, Item, Row, narrowed, sha256_of, unique
from eval.sources import from_hub, from_web, read_rows
from seirenes_jax.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for on the command line."""

    datasets: Sequence[str]  # names of the table, or hub ids: owner/name[:config[:split]]
    data: Sequence[str]  # FILE, or NAME=FILE: read a local file as the benchmark NAME
    question_column: str | None
    answer_column: str | None
    id_column: str | None
    slices: Mapping[str, str]
    limit: int
    lock: Path


def load_all(wanted: Wanted) -> list[Dataset]:
    """Every data set, narrowed; names are unique."""
    found = [_named(name, wanted) for name in wanted.datasets]
    found += [_local(spec, wanted) for spec in wanted.data]
    if not found:
        raise ConfigError(
            f"nothing to evaluate on; wanted --datasets=NAME,... of {', '.join(BENCHMARKS)}, a hub "
            "id owner/name, or --data=FILE"
        )
    names = [dataset.name for dataset in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"--datasets, --data: {twice[0]} is named twice; wanted every set once")
    return [narrowed(dataset, wanted.slices, wanted.limit) for dataset in found]


def _named(name: str, wanted: Wanted) -> Dataset:
    if "/" in name:
        repo, _, rest = name.partition(":")
        config, _, split = rest.partition(":")
        rows = from_hub(repo, config, split)
        items = _items(rows, _generic(rows[0], wanted, name), name)
        return _dataset(repo.split("/")[1], items, origin=f"hub {name}")
    if name not in BENCHMARKS:
        raise ConfigError(f"--datasets: got {name!r}; wanted some of {', '.join(BENCHMARKS)}")
    one = BENCHMARKS[name]
    rows = from_hub(*one.hub) if one.hub[0] else from_web(one.url, pins.cache_folder())
    origin = "hub " + ":".join(one.hub) if one.hub[0] else one.url
    return _benchmark(name, rows, origin, wanted)


def _local(spec: str, wanted: Wanted) -> Dataset:
    name, given, file = spec.partition("=")
    path = Path(file if given else spec)
    rows = read_rows(path)
    if given and name in BENCHMARKS:
        return _benchmark(name, rows, str(path), wanted)
    items = _items(rows, _generic(rows[0], wanted, str(path)), str(path))
    return _dataset(name if given else path.stem, items, origin=str(path))


def _benchmark(name: str, rows: Sequence[Row], origin: str, wanted: Wanted) -> Dataset:
    one = BENCHMARKS[name]
    items = _items(rows, one.read, origin)
    sha256 = sha256_of(items)
    state = pins.check(name, one, sha256, rows=len(rows), origin=origin, lock=wanted.lock)
    return Dataset(name, items, len(rows), sha256, origin, one.published, one.license, state)


def _dataset(name: str, items: tuple[Item, ...], *, origin: str) -> Dataset:
    return Dataset(name, items, len(items), sha256_of(items), origin, "", "", pins.LOCAL)


def _items(rows: Sequence[Row], read: Reader, where: str) -> tuple[Item, ...]:
    return unique([read(row, f"{where}, row {at}") for at, row in enumerate(rows, 1)], where)


def _generic(row: Row, wanted: Wanted, where: str) -> Reader:
    """Columns as told, else by their usual names; other short columns become slices."""
    for flag, name in (
        ("question_column", wanted.question_column), ("answer_column", wanted.answer_column),
        ("id_column", wanted.id_column),
    ):  # fmt: skip
        if name is not None and name not in row:
            raise DataError(
                f"--{flag}={name}: {where} has no such column; it has {', '.join(map(str, row))}"
            )
    question = QUESTIONS if wanted.question_column is None else (wanted.question_column,)
    answer = ("answer",) if wanted.answer_column is None else (wanted.answer_column,)
    named = ("id", "unique_id", "problem_id") if wanted.id_column is None else (wanted.id_column,)
    taken = {*question, *answer, *named}
    return columns(question, answer, id=named, slices=[n for n in row if n not in taken])


def describe(dataset: Dataset) -> str:
    """One line for the console."""
    used = "" if len(dataset.items) == dataset.rows else f", {len(dataset.items)} of them asked"
    faults = [item.id for item in dataset.items if item.fault]
    left = f"; no usable answer: {', '.join(faults[:3])}" if faults else ""
    left += f" and {len(faults) - 3} more" if len(faults) > 3 else ""
    words = {
        pins.KNOWN: "as published",
        pins.FIRST: "not known before: pinned now",
        pins.PINNED: "as at first use",
        pins.LOCAL: "a local file",
    }[dataset.state]
    return (
        f"{dataset.name}: {dataset.rows} rows{used}; sha256 {dataset.sha256[:16]} ({words}); "
        f"{dataset.origin}{left}"
    )
