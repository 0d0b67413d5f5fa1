"""Safetensors files: headers that are checked before they are believed, and any rows of a tensor.

No file is ever read whole, so the same code serves a disk and an object store.
"""

import json
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import ml_dtypes
import numpy as np

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.hub import read_json
from seirenes_jax.store import Folder, at

HEADER_BYTES = 64 * 2**20  # a header beyond this is no list of weights
DTYPES = {"F32": np.dtype("float32"), "F16": np.dtype("float16"),
          "BF16": np.dtype(ml_dtypes.bfloat16)}  # fmt: skip
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


def dtype_of(name: str) -> np.dtype[Any]:
    """Of a knob's word: float32, float16, bfloat16."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor stands."""

    file: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int  # of its first byte, in the file


class WeightFiles:
    """The weights of a folder: which tensors there are, and any rows of them. Close after use.

    May be read by several threads at once.
    """

    def __init__(self, folder: Folder | str, *, single: str = SINGLE) -> None:
        self._folder, self._single = at(folder), single
        self._opened = ExitStack()
        self._free: dict[str, list[Any]] = {}  # handles nobody reads from at the moment
        try:
            self.tensors: Mapping[str, Stored] = self._read_headers()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        self._opened.close()

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a tensor, as it is stored. What lies before and after stays."""
        tensor = self.tensors[name]
        row = math.prod(tensor.shape[1:]) * tensor.dtype.itemsize
        handles = self._free[tensor.file]
        try:
            handle = handles.pop()
        except IndexError:
            handle = self._handle(tensor.file)
        try:
            data = _read(handle, tensor.start + start * row, (stop - start) * row, tensor.file)
        finally:
            handles.append(handle)
        return np.frombuffer(data, tensor.dtype).reshape(stop - start, *tensor.shape[1:])

    def _read_headers(self) -> dict[str, Stored]:
        """Of all files that the index names, or of the only one there is."""
        index = self._folder / INDEX
        if not index.is_file():
            if not (self._folder / self._single).is_file():
                raise ConfigError(
                    f"{self._folder}: no weights; wanted {self._single} or {INDEX} (pickled .bin "
                    "weights are not read)"
                )
            return self._open(self._single)
        where = read_json(index).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(x, str) for x in where.values()):
            raise ConfigError(f"{index}: wanted weight_map, a file for every tensor")
        outside = sorted(file for file in set(where.values()) if not _is_plain(file))
        if outside:
            raise ConfigError(f"{index}: wanted files beside it; got {outside[:4]}")
        absent = sorted(f for f in set(where.values()) if not (self._folder / f).is_file())
        if absent:
            raise ConfigError(f"{self._folder}: files named in {INDEX} are missing: {absent[:4]}")
        opened = {file: self._open(file) for file in sorted(set(where.values()))}
        strangers = sorted(name for name, file in where.items() if name not in opened[file])
        if strangers:
            raise ConfigError(
                f"{index}: {len(strangers)} tensors are not in the files named for them: "
                f"{strangers[:4]}"
            )
        return {name: opened[file][name] for name, file in where.items()}

    def _handle(self, file: str) -> Any:
        # Some stores give a handle only on entering what `open` returns.
        return self._opened.enter_context((self._folder / file).open("rb"))

    def _open(self, file: str) -> dict[str, Stored]:
        handle = self._handle(file)
        self._free[file] = [handle]
        return read_header(handle, file=str(self._folder / file), name=file)


def read_header(handle: Any, *, file: str, name: str) -> dict[str, Stored]:
    """All tensors of one file; ConfigError where header and file do not fit together exactly."""
    handle.seek(0, 2)
    size = handle.tell()
    length = int.from_bytes(_read(handle, 0, 8, file), "little") if size >= 8 else 0
    if not 2 <= length <= min(HEADER_BYTES, size - 8):
        raise ConfigError(
            f"{file}: no safetensors file: its header would have {length} bytes, the file has "
            f"{size}; wanted at most {HEADER_BYTES}. Fetch it again"
        )
    try:
        raw = json.loads(_read(handle, 8, length, file), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: its header is no JSON ({error}); fetch it again") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{file}: its header is no table of tensors; fetch it again")
    raw.pop("__metadata__", None)
    found = {key: _entry(entry, f"{file}: {key}") for key, entry in raw.items()}
    at = 0
    for key, (_, _, (start, stop)) in sorted(found.items(), key=lambda item: item[1][2]):
        if start != at:
            raise ConfigError(f"{file}: {key} begins at byte {start}; wanted {at}; fetch it again")
        at = stop
    if 8 + length + at != size:
        raise ConfigError(
            f"{file}: its tensors end at byte {8 + length + at}, the file at {size}; it is cut "
            "off or damaged. Fetch it again"
        )
    return {
        key: Stored(name, dtype, shape, 8 + length + start)
        for key, (dtype, shape, (start, _)) in found.items()
    }


def _entry(entry: object, what: str) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, int]]:
    """Dtype, shape and bytes of one tensor, which must agree."""
    match entry:
        case {"dtype": str(kind), "shape": list(shape), "data_offsets": [start, stop]}:
            numbers = [*shape, start, stop]
            if not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
                raise ConfigError(f"{what}: shape {shape}, bytes {[start, stop]}: wanted integers")
        case _:
            raise ConfigError(f"{what}: wanted dtype, shape and data_offsets")
    if kind not in DTYPES:
        raise ConfigError(
            f"{what} is stored as {kind}; wanted {', '.join(DTYPES)} (quantised weights are not "
            "read)"
        )
    if stop - start != math.prod(shape) * DTYPES[kind].itemsize:
        raise ConfigError(
            f"{what}: {kind} of shape {shape} has {stop - start} bytes; wanted "
            f"{math.prod(shape) * DTYPES[kind].itemsize}. Fetch the file again"
        )
    return DTYPES[kind], tuple(shape), (start, stop)


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _is_plain(name: str) -> bool:
    return "/" not in name and "\\" not in name and name not in ("", ".", "..")


def _read(handle: Any, start: int, count: int, file: str) -> bytes:
    """Exactly so many bytes; a store may give fewer at a time."""
    handle.seek(start)
    parts = []
    missing = count
    while missing:
        part = handle.read(missing)
        if not part:
            raise ConfigError(f"{file}: ends {missing} bytes early; fetch it again")
        parts.append(part)
        missing -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)
