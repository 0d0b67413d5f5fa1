"""Files of every kind give the same rows; what is too large or torn is told, not swallowed."""

import csv
import gzip
import json
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from etils import epath
from pyarrow import parquet

from seirenes_jax.errors import DataError
from seirenes_jax.problems import load, rows, sieve
from tests.problems import made
from tests.problems.made import jsonl, knobs

ROWS = [
    {"question": f"{n}, $\\pi$ – and?\nSo?", "answer": str(n), "level": str(n)} for n in range(9)
]


def written(folder: Path, kind: str) -> Path:
    """ROWS as a file of this kind."""
    file = folder / f"set{kind}"
    if kind == ".jsonl":
        jsonl(folder, *ROWS)
    elif kind == ".jsonl.gz":
        with gzip.open(file, "wt", encoding="utf-8") as out:
            out.writelines(json.dumps(row) + "\n" for row in ROWS)
    elif kind == ".json":
        file.write_text(json.dumps(ROWS))
    elif kind == ".csv":
        with file.open("w", newline="", encoding="utf-8-sig") as text:
            table = csv.DictWriter(text, list(ROWS[0]))
            table.writeheader()
            table.writerows(ROWS)
    else:
        parquet.write_table(pa.Table.from_pylist(ROWS), file, row_group_size=4)
    return file


@pytest.mark.parametrize("kind", rows.READERS)
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, kind: str) -> None:
    found = load(str(written(tmp_path, kind)))
    assert [(p.question, p.answer, p.level) for p in found] == [
        (row["question"], row["answer"], int(row["level"])) for row in ROWS
    ]
    assert {p.source for p in found} == {"set"}


@pytest.mark.parametrize("kind", rows.READERS)
def test_the_bytes_behind_us_add_up_to_the_file(tmp_path: Path, kind: str) -> None:
    file = epath.Path(written(tmp_path, kind))
    steps: list[int] = []
    names = rows.columns(file)
    assert names == {"question", "answer", "level"}
    numbers = [row.number for row in rows.read(file, names, steps.append)]
    assert len(numbers) == len(ROWS) and sum(steps) == file.stat().length
    assert numbers == list(range(1, 10))


def test_one_object_a_file_is_one_row(tmp_path: Path) -> None:
    for name, question in (("1.json", "Why?"), ("2.json", "How?")):
        (tmp_path / name).write_text(json.dumps(made.math(question, "\\boxed{3}")))
    assert [p.question for p in load(str(tmp_path))] == ["Why?", "How?"]


def test_only_the_columns_that_are_looked_at_are_unpacked(tmp_path: Path) -> None:
    """The other column's pages are overwritten: whoever unpacked it would fall over."""
    file = tmp_path / "set.parquet"
    table = pa.Table.from_pylist([made.openr1(f"{n}?", str(n)) for n in range(50)])
    parquet.write_table(table, file, use_dictionary=False, compression="none")
    group = parquet.read_metadata(file).row_group(0)
    chunks = [group.column(n) for n in range(group.num_columns)]
    (traces,) = (c for c in chunks if c.path_in_schema.startswith("generations"))
    with file.open("r+b") as raw:
        raw.seek(traces.data_page_offset)
        raw.write(b"\xff" * traces.total_compressed_size)
    found, account = sieve(knobs(file))
    assert len(found) == 50 and account.formats == {"openr1"}
    with pytest.raises(OSError):
        parquet.read_table(file)


def test_what_is_broken_in_a_file_is_told_with_its_place(tmp_path: Path) -> None:
    file = written(tmp_path, ".parquet")
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(DataError, match="set.parquet: not a readable .parquet file"):
        load(str(file))
    packed = written(tmp_path, ".jsonl.gz")
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match="set.jsonl.gz: damaged or torn"):
        load(str(packed))
    (tmp_path / "set.json").write_text('[{"question": ')
    with pytest.raises(DataError, match="set.json: not JSON"):
        load(str(tmp_path / "set.json"))


def test_a_row_of_csv_with_too_many_or_few_cells_is_named(tmp_path: Path) -> None:
    file = tmp_path / "set.csv"
    file.write_text("question,answer\n1?,1\n2?,2,more\n")
    with pytest.raises(DataError, match="set.csv: row 2: wanted 2 cells"):
        load(str(file))
    file.write_text('id,question,answer,kind\n1,1?,1,a\n2,"torn\n,"2",b\n')  # two cells in one
    with pytest.raises(DataError, match="set.csv: row 2: wanted 4 cells"):
        load(str(file))


def bomb(file: Path, *, nested: bool, text: str, count: int) -> None:
    """A few kB: one text stored once and named by every row."""
    column: Any = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), [text])
    ones = ["1"] * count
    if nested:
        gold = pa.StructArray.from_arrays([column], ["ground_truth"])
        table = pa.table({"prompt": ones, "reward_model": gold})
    else:
        table = pa.table({"question": column, "answer": ones})
    parquet.write_table(
        table, file, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False
    )


@pytest.mark.parametrize("nested", [True, False])
def test_a_small_file_that_unfolds_to_terabytes_is_refused_in_bounded_memory(
    tmp_path: Path, nested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH_BYTES", 32 << 20)
    file = tmp_path / "set.parquet"
    bomb(file, nested=nested, text="x" * (8 << 20), count=200_000)
    assert file.stat().st_size < 20_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match="set.parquet: row 1: .*8,388,608 characters"):
        load(str(file))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10  # kB; not 1.5 TB
    monkeypatch.setattr(rows, "BATCH_BYTES", 4 << 20)
    with pytest.raises(DataError, match="unpacks to 8 MiB in one row group; .* smaller row groups"):
        load(str(file))


def test_a_dictionary_is_measured_by_its_page_and_its_rows_come_in_fair_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "set.parquet"
    bomb(file, nested=False, text="x" * 1000, count=100)
    group = parquet.read_metadata(file).row_group(0)
    with file.open("rb") as raw:
        assert rows._dictionary_bytes(raw, group.column(0)) == 1004  # its length stands before it
        monkeypatch.setattr(rows, "BATCH_BYTES", 10_040)
        assert rows._rows_at_once(raw, group, ["question"], epath.Path(file)) == 10
        assert rows._rows_at_once(raw, group, ["answer"], epath.Path(file)) > 1000


@pytest.mark.parametrize("kind", [".jsonl", ".jsonl.gz"])
def test_lines_rows_and_bytes_are_bounded(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(written(tmp_path, kind))
    for limit, value, words in (
        ("LINE_BYTES", 60, "a line of more than"),
        ("MOST_BYTES", 100, "unpacks to more than"),
        ("MOST_ROWS", 8, "more than 8 rows"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(rows, limit, value)
            with pytest.raises(DataError, match=words):
                load(file)
    assert len(load(file)) == 9


def test_a_parquet_file_that_claims_too_many_rows_and_a_large_json_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MOST_ROWS", 8)
    with pytest.raises(DataError, match="says it holds 9 rows; at most 8"):
        load(str(written(tmp_path, ".parquet")))
    monkeypatch.setattr(rows, "WHOLE_BYTES", 8)
    with pytest.raises(DataError, match="convert it to .jsonl"):
        load(str(written(tmp_path, ".json")))
