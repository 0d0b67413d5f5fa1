"""Rows of one file, as they stand there: every one numbered, every size bounded.

What is broken inside a row is the row's fault and told with it; what is broken in the file itself
is a DataError. Nothing is read whole but .json; .parquet comes in batches and by column.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any, BinaryIO, NamedTuple

from etils import epath

from seirenes_jax.errors import DataError
from seirenes_jax.problems.places import suffix

MOST_ROWS = 50_000_000  # of a file
MOST_BYTES = 64 << 30  # of a file, unpacked
LINE_BYTES = 64 << 20
WHOLE_BYTES = 256 << 20  # of a .json file
CHUNK_BYTES = 4 << 30  # of one column of a row group, unpacked
BATCH_BYTES = 256 << 20  # what one batch may unfold to
BATCH_ROWS = 4096

Moved = Callable[[int], None]  # so many bytes of the file are behind us


class Row(NamedTuple):
    """A row and its number, from 1: the line in .jsonl, counted without the head in .csv."""

    number: int
    value: Any
    fault: str = ""  # why it is not to be trusted, or not there at all


def place(file: epath.Path, number: int) -> str:
    """Where a row stands, as an editor takes it."""
    return f"{file}:{number}" if ".jsonl" in file.name else f"{file}: row {number}"


def columns(file: epath.Path) -> frozenset[str]:
    """The columns of a file: of its schema, or of its first row that is an object."""
    if suffix(file.name) == ".parquet":
        with file.open("rb") as raw:
            return frozenset(_opened(raw, file).schema_arrow.names)
    for row in read(file, (), lambda count: None):
        if isinstance(row.value, dict):
            return frozenset(map(str, row.value))
    return frozenset()


def read(file: epath.Path, wanted: Collection[str], moved: Moved) -> Iterator[Row]:
    """Every row; of .parquet only the `wanted` columns are unpacked."""
    count = 0
    for row in READERS[suffix(file.name) or ""](file, wanted, moved):
        count += 1
        if count > MOST_ROWS:
            raise DataError(f"{file}: more than {MOST_ROWS:,} rows; split the file")
        yield row


def _jsonl(file: epath.Path, wanted: Collection[str], moved: Moved) -> Iterator[Row]:
    with file.open("rb") as raw:
        lines = io.BufferedReader(raw, 1 << 20)  # a file of a bucket cannot cut long lines
        yield from _lines(lines, lines, file, moved)


def _jsonl_gz(file: epath.Path, wanted: Collection[str], moved: Moved) -> Iterator[Row]:
    with file.open("rb") as raw, gzip.open(raw) as unpacked:
        try:
            yield from _lines(io.BufferedReader(unpacked), raw, file, moved)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{file}: damaged or torn ({error}); fetch it again") from error


def _lines(text: BinaryIO, raw: BinaryIO, file: epath.Path, moved: Moved) -> Iterator[Row]:
    number = unpacked = behind = 0
    while line := text.readline(LINE_BYTES + 1):
        number, unpacked = number + 1, unpacked + len(line)
        if len(line) > LINE_BYTES:
            raise DataError(f"{file}:{number}: a line of more than {LINE_BYTES >> 20} MiB")
        if unpacked > MOST_BYTES:
            raise DataError(f"{file}: unpacks to more than {MOST_BYTES >> 30} GiB; split it")
        if line.strip():
            yield _parsed(number, line)
        if number % BATCH_ROWS == 0:
            behind, before = raw.tell(), behind
            moved(behind - before)
    moved(raw.tell() - behind)


def _parsed(number: int, line: bytes) -> Row:
    try:
        return Row(number, json.loads(line))
    except UnicodeDecodeError as error:
        return Row(number, None, f"not UTF-8 ({error.reason}); save the file as UTF-8")
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        got = shown(line.decode("utf-8", "replace"))
        return Row(number, None, f"not JSON ({error}): got {got}; wanted one object a line")


def _json(file: epath.Path, wanted: Collection[str], moved: Moved) -> Iterator[Row]:
    """A list of objects, or one object."""
    size = file.stat().length
    if size > WHOLE_BYTES:
        raise DataError(f"{file}: more than {WHOLE_BYTES >> 20} MiB; convert it to .jsonl")
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error}); wanted a list of objects") from error
    for number, one in enumerate(value if isinstance(value, list) else [value], start=1):
        yield Row(number, one)
    moved(size)


def _csv(file: epath.Path, wanted: Collection[str], moved: Moved) -> Iterator[Row]:
    """The first line names the columns. A quote in the wrong place shows in the count of cells."""
    with file.open("rb") as raw:
        number = 0
        rows = csv.DictReader(io.TextIOWrapper(raw, "utf-8-sig", newline=""))
        try:
            for number, row in enumerate(rows, start=1):
                whole = None not in row and None not in row.values()
                wanted_cells = len(rows.fieldnames or ())
                yield Row(number, row, "" if whole else f"wanted {wanted_cells} cells in it")
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{file}: row {number + 1}: not readable as CSV ({error})") from error
    moved(file.stat().length)


def _parquet(file: epath.Path, wanted: Collection[str], moved: Moved) -> Iterator[Row]:
    import pyarrow

    with file.open("rb") as raw:
        table = _opened(raw, file)
        names = [name for name in table.schema_arrow.names if name in wanted]
        size, rows = file.stat().length, table.metadata.num_rows
        if rows > MOST_ROWS:
            raise DataError(f"{file}: says it holds {rows:,} rows; at most {MOST_ROWS:,} are read")
        number = behind = 0
        for group in range(table.metadata.num_row_groups):
            at_once = _rows_at_once(raw, table.metadata.row_group(group), names, file)
            try:
                batches = table.iter_batches(at_once, row_groups=[group], columns=names)
                for batch in batches:
                    for value in batch.to_pylist():
                        number += 1
                        yield Row(number, value)
                    behind, before = size * number // rows, behind
                    moved(behind - before)
            except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
                raise DataError(f"{file}: damaged behind row {number} ({error})") from error


def _opened(raw: IO[bytes], file: epath.Path) -> Any:
    # Imported here: it takes a moment, and most files of problems are .jsonl.
    import pyarrow
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(raw, pre_buffer=False)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not a readable .parquet file ({error})") from error


def _rows_at_once(raw: IO[bytes], group: Any, names: Collection[str], file: epath.Path) -> int:
    """So many rows that they unfold to BATCH_BYTES at most, whatever the file claims.

    A dictionary stores a text once and names it in any number of rows; each row that is read holds
    the whole text again. So what counts is the size of the dictionary, not that of the file.
    """
    longest = 1
    for index in range(group.num_columns):
        chunk = group.column(index)
        path = chunk.path_in_schema
        if not any(path == name or path.startswith(name + ".") for name in names):
            continue
        size = chunk.total_uncompressed_size
        if "DELTA_BYTE_ARRAY" in chunk.encodings:  # a row may repeat the row before
            longest = max(longest, size)
        longest = max(longest, _dictionary_bytes(raw, chunk))
        if size > CHUNK_BYTES or longest > BATCH_BYTES:
            raise DataError(
                f"{file}: column {path} unpacks to {max(size, longest) >> 20:,} MiB in one row "
                f"group; at most {CHUNK_BYTES >> 20:,} MiB, a text at most {BATCH_BYTES >> 20} MiB:"
                " write it in smaller row groups"
            )
    return max(1, min(BATCH_ROWS, BATCH_BYTES // longest))


def _dictionary_bytes(raw: IO[bytes], chunk: Any) -> int:
    """The unpacked size of a column's dictionary, as its page says; 0 where there is none."""
    if not any("DICTIONARY" in encoding for encoding in chunk.encodings):
        return 0
    raw.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
    page, size = _two_numbers(raw.read(16))
    dictionary = 2  # the page's kind
    return size if page == dictionary else 0


def _two_numbers(head: bytes) -> tuple[int, int]:
    """The first two fields of a page header: its kind and its unpacked size.

    Thrift's compact form: a byte that says "the next field, an i32", then a zigzag varint.
    """
    found: list[int] = []
    at = 0
    while len(found) < 2 and at < len(head):
        value = shift = 0
        at += 1
        while at < len(head):
            value |= (head[at] & 0x7F) << shift
            at, shift, more = at + 1, shift + 7, head[at] & 0x80
            if not more:
                break
        found.append(value >> 1 ^ -(value & 1))
    return (found[0], abs(found[1])) if len(found) == 2 else (-1, 0)


READERS: dict[str, Callable[[epath.Path, Collection[str], Moved], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl_gz,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}


def shown(value: Any) -> str:
    """A value in a message, cut short."""
    words = repr(value)
    return words if len(words) <= 60 else words[:57] + "..."
