"""The file of responses: appended as they come, readable after any kill, sorted at the end.

One JSON object a sample; `request` says which row of its request it is, of how many. Rows of one
request are written together; where a kill has torn them the whole request is forgotten and asked
again, so that a resumed run ends with the same rows as one that was never disturbed. In memory
only where each row stands.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from seirenes_jax.errors import DataError
from seirenes_jax.report import saving

OK, CONTEXT, FAILED = "ok", "context", "failed"
OTHER_MODEL, OVER_LIMIT = "other_model", "over_limit"
SETTLED = (OK, CONTEXT)  # asking again would not help; anything else is asked again on resume
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Place:
    start: int
    size: int
    status: str


class Responses:
    """One data set's responses. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with saving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        self._places: dict[str, _Place] = {}
        self._end = 0
        try:
            self._read()
        except DataError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self) -> None:
        """Find every row; cut off a torn last line, and a last request that is not whole."""
        self._file.seek(0)
        begun, left, places = 0, 0, []  # where the last request starts, rows it still lacks
        for number, line in enumerate(self._file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                row = json.loads(line)
                at, count = row["request"]
                place = _Place(self._end, len(line), row["status"])
                key: str = row["key"]
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{self.path}:{number}: got {line[:60]!r}; wanted a response ({error}). The "
                    "file was changed: remove that line, or evaluate into another --out"
                ) from error
            if at == 0:
                begun = self._end
            left = count - at - 1
            places.append((key, place))
            self._end += len(line)
        if left:
            self._end = begun
        with saving(self.path):
            self._file.truncate(self._end)
        self._places = {key: place for key, place in places if place.start < self._end}

    def append(self, rows: Sequence[Row]) -> None:
        """The rows of one request, on their way to the disk when this returns."""
        lines = [(json.dumps(row, ensure_ascii=True) + "\n").encode() for row in rows]
        with saving(self.path):
            self._file.write(b"".join(lines))
            self._file.flush()
        for row, line in zip(rows, lines, strict=True):
            self._places[row["key"]] = _Place(self._end, len(line), row["status"])
            self._end += len(line)

    def missing(self, wanted: Iterable[str]) -> set[str]:
        """Of these keys those that are still to be asked."""
        return {
            key
            for key in wanted
            if key not in self._places or self._places[key].status not in SETTLED
        }

    def rows(self, wanted: Iterable[str]) -> Iterator[Row]:
        """The rows of these keys that are there, in the order of the keys."""
        for key in wanted:
            place = self._places.get(key)
            if place is not None:
                self._file.seek(place.start)
                row: Row = json.loads(self._file.read(place.size))
                yield row

    def every(self) -> Iterator[Row]:
        """All rows, in the order of their keys."""
        return self.rows(sorted(self._places))

    def sort(self) -> None:
        """Every key once, in order; the old file stands until the new one is on disk."""
        draft = self.path.with_name(self.path.name + ".tmp")
        places: dict[str, _Place] = {}
        end = 0
        with saving(self.path):
            with draft.open("wb") as file:
                for key in sorted(self._places):
                    place = self._places[key]
                    self._file.seek(place.start)
                    file.write(self._file.read(place.size))
                    places[key] = _Place(end, place.size, place.status)
                    end += place.size
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.path)
            self._file.close()
            self._file = self.path.open("a+b")
        self._places, self._end = places, end
