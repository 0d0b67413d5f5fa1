"""Saved steps as they lie in their folder: which there are, how large, what they hold, is it whole.

Never jax: a listing takes no device, and a check runs in a thread of its own beside a live run.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import tensorstore as ts

from seirenes_jax.packing import unpacked
from seirenes_jax.store import Folder, below, first_line, is_remote

Leaves = Mapping[str, Sequence[Any]]  # path -> [shape, dtype, fingerprint]

COMMITTED = "commit_success.txt"  # comes last in a bucket, where no folder appears at once
SLAB = 2**14  # elements hashed at once: they and their weights stay in a processor's cache
WORD = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def steps(folder: Folder) -> list[int]:
    """Steps that were saved completely, oldest first; none where there is no folder."""
    if not folder.is_dir():
        return []
    found = [entry for entry in folder.iterdir() if entry.name.isdigit()]
    whole = [e for e in found if not is_remote(folder) or (e / COMMITTED).exists()]
    return sorted(int(entry.name) for entry in whole)


def size(folder: Folder, step: int) -> int:
    """Bytes of one step."""
    return sum(int(file.stat().st_size) for file in below(folder / str(step)))


def record(folder: Folder, step: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What the host saved with a step; ValueError or OSError where it cannot be trusted."""
    with _reading():
        data = _array(folder / str(step) / "host", "blob").read().result()
    found, arrays = unpacked(np.asarray(data).tobytes())
    if found["step"] != step:
        raise ValueError(f"the directory of step {step} holds step {found['step']}")
    return found, arrays


def check(folder: Folder, step: int, *, share: int = 0, of: int = 1) -> None:
    """Read every array of a step and compare shape, dtype and fingerprint with its record's;
    ValueError or OSError on the first that differs. `share` of `of`: every so many-th array alone.
    """
    leaves: Leaves = record(folder, step)[0]["leaves"]
    for path in sorted(leaves)[share::of]:
        shape, dtype, mark = leaves[path]
        with _reading():
            array = _array(folder / str(step) / "state", path.replace("/", "."))
            if list(array.shape) != list(shape) or array.dtype.name != dtype:
                raise ValueError(
                    f"{path} is {array.dtype.name}{list(array.shape)}; wanted {dtype}{shape}"
                )
            found = fingerprint(array)
        if found != list(mark):
            raise ValueError(f"{path} is not what was saved")


def fingerprint(array: Any) -> list[int]:
    """As `fingerprint.fingerprints` makes it on the devices; one stored chunk at a time in memory.

    `array` is a tensorstore or anything with a shape that is read by slices.
    """
    on_disk = isinstance(array, ts.TensorStore)
    width = array.chunk_layout.read_chunk.shape if on_disk and array.shape else array.shape
    total = np.zeros(2, np.uint32)
    starts = [range(0, n, max(1, w)) for n, w in zip(array.shape, width, strict=True)]
    for corner in product(*starts):
        ends = (min(a + w, n) for a, w, n in zip(corner, width, array.shape, strict=True))
        part = array[tuple(slice(a, b) for a, b in zip(corner, ends, strict=True))]
        block = np.asarray(part.read().result() if on_disk else part)
        for slab, at in _slabs(block, corner):
            total += _sums(slab, at, array.shape)
    return [int(x) for x in total]


def _slabs(
    block: np.ndarray, corner: tuple[int, ...]
) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """A block in pieces of at most SLAB elements, each with where it begins in the whole array."""
    if block.size <= SLAB or not block.ndim:
        yield block, corner
        return
    axis = next(i for i, n in enumerate(block.shape) if n > 1)
    thick = max(1, SLAB * block.shape[axis] // block.size)
    for start in range(0, block.shape[axis], thick):
        some = (slice(None),) * axis + (slice(start, start + thick),)
        at = (*corner[:axis], corner[axis] + start, *corner[axis + 1 :])
        yield from _slabs(block[some], at)


def _sums(slab: np.ndarray, at: tuple[int, ...], shape: Sequence[int]) -> np.ndarray:
    """The two weighted sums of a piece, modulo 2^32; those of all pieces add up."""
    bits = np.ascontiguousarray(slab).view(WORD[slab.dtype.itemsize]).astype(np.uint32)
    place = np.zeros(1, np.uint32)
    for start, n, whole in zip(at, slab.shape, shape, strict=True):
        along = np.arange(start, start + n, dtype=np.uint32)
        place = place[..., None] * np.uint32(whole % 2**32) + along
    sums = np.zeros(2, np.uint32)
    for i, salt in enumerate((0, 0x9E3779B9)):
        weight = _mix(place + np.uint32(salt))
        weight |= np.uint32(1)
        weight *= bits.reshape(weight.shape)
        sums[i] = np.sum(weight, dtype=np.uint32)
    return sums


def _mix(x: np.ndarray) -> np.ndarray:
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return x


def _array(folder: Folder, name: str) -> Any:
    """One array as Orbax lays it down, opened."""
    place = str(folder) if is_remote(folder) else f"file://{folder.absolute()}"
    base = ts.KvStore.Spec(f"{place}/").to_json()
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    return ts.open({"driver": "zarr", "kvstore": store}, open=True, read=True).result()


@contextmanager
def _reading() -> Iterator[None]:
    """What cannot be read is an OSError in one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        if len(str(error).splitlines()) <= 1 and len(str(error)) < 300:
            raise
        raise OSError(first_line(error)) from error
    except Exception as error:  # every store has its own
        raise OSError(first_line(error)) from error


def metric(folder: Folder, step: int) -> float | None:
    """What a step scored in its evaluation; None where it had none."""
    found: float | None = record(folder, step)[0]["metric"]
    return found
