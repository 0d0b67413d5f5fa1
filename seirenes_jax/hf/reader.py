"""Import: the tensors of a folder straight into our arrays, stacked and shared out over devices.

A process reads the rows of a tensor that its own devices need, whole rows, each once. Besides the
arrays themselves it holds one tensor (of a stack: one layer's, or PIECE bytes) and some blocks of
file at a time.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from seirenes_jax.errors import ConfigError
from seirenes_jax.hf.files import WeightFiles
from seirenes_jax.hf.table import Cut, Weight, leaf_of, tensors, weights
from seirenes_jax.models.config import ModelConfig
from seirenes_jax.state import Params
from seirenes_jax.store import Folder

PIECE = 128 * 2**20  # bytes put onto the devices at once, unless those of one layer are more
BLOCK = 8 * 2**20  # bytes of a file read at once
READERS = 8  # of them at a time: one stream from an object store is slow
TURNED = 32  # rows turned at once, which fit a processor's cache


@dataclass(frozen=True, slots=True)
class Part:
    """What some of this process's devices hold of one array: all of them the same."""

    cut: Cut
    devices: tuple[Any, ...]


def load(folder: Folder | str, config: ModelConfig, abstract: Params) -> Params:
    """The parameters of a folder, as `abstract` wants each: shape, dtype, sharding."""
    table = weights(config)
    params: dict[str, Any] = {}
    with WeightFiles(folder) as files, ThreadPoolExecutor(READERS) as readers:
        _check(files, table, config, str(folder))
        for weight in table:
            tree = params
            for key in weight.path[:-1]:
                tree = tree.setdefault(key, {})
            tree[weight.path[-1]] = _array(files, readers, weight, leaf_of(abstract, weight.path))
    return params


def _check(files: WeightFiles, table: Sequence[Weight], config: ModelConfig, folder: str) -> None:
    """Every tensor is there, in its shape, and none besides."""
    wanted = {name: weight.theirs for name, weight, _ in tensors(table)}
    stored = files.tensors
    # Some tied models store their head nevertheless: it is the embedding.
    head = "lm_head.weight" if config.tied and "lm_head.weight" in stored else None
    missing = sorted(wanted.keys() - stored.keys())
    unexpected = sorted(stored.keys() - wanted.keys() - {head})
    if missing or unexpected:
        raise ConfigError(
            f"{folder}: the weights are not those of its config.json: {len(missing)} missing "
            f"{missing[:4]}, {len(unexpected)} unexpected {unexpected[:4]}"
        )
    for name, shape in wanted.items():
        if stored[name].shape != shape:
            raise ConfigError(
                f"{stored[name].file}: {name} has shape {list(stored[name].shape)}; config.json "
                f"wants {list(shape)}"
            )
    if head is not None and not _equal(files, head, "model.embed_tokens.weight"):
        raise ConfigError(
            f"{folder}: tie_word_embeddings is true, yet lm_head.weight differs from the "
            "embedding; set tie_word_embeddings to false in config.json"
        )


def _equal(files: WeightFiles, one: str, other: str) -> bool:
    a, b = files.tensors[one], files.tensors[other]
    return (a.shape, a.dtype) == (b.shape, b.dtype) and all(
        files.rows(one, *rows).tobytes() == files.rows(other, *rows).tobytes()
        for rows in _blocks(files, one, 0, a.shape[0])
    )


def _blocks(files: WeightFiles, name: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
    tensor = files.tensors[name]
    row = math.prod(tensor.shape[1:]) * tensor.dtype.itemsize
    rows = max(1, BLOCK // row)
    return ((at, min(at + rows, stop)) for at in range(start, stop, rows))


def _array(
    files: WeightFiles, readers: ThreadPoolExecutor, weight: Weight, wanted: jax.ShapeDtypeStruct
) -> jax.Array:
    """One of our arrays: at once where it is small, else some layers at a time, in place."""
    place, dtype = wanted.sharding, np.dtype(wanted.dtype)
    places = place.addressable_devices_indices_map(weight.shape)
    parts = _parts(weight, places)

    def piece(some: slice) -> jax.Array:
        """These layers of the array, or (no stack) the array."""
        cuts = [(some, *part.cut[1:]) if weight.stack else part.cut for part in parts]
        held = [_aligned(tuple(s.stop - s.start for s in cut), dtype) for cut in cuts]
        _fill(files, readers, weight, list(zip(cuts, held, strict=True)))
        put = {
            device: jax.device_put(x, device)
            for part, x in zip(parts, held, strict=True) for device in part.devices
        }  # fmt: skip
        shape = (some.stop - some.start, *weight.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, place, [put[d] for d in places])

    layers = weight.shape[0]
    at_once = _layers_at_once(weight, dtype) if weight.stack else layers
    if at_once == layers:
        return piece(slice(0, layers)).block_until_ready()
    made: jax.Array = jax.jit(lambda: jnp.zeros(weight.shape, dtype), out_shardings=place)()
    write = jax.jit(jax.lax.dynamic_update_slice_in_dim, donate_argnums=0, static_argnums=3,
                    out_shardings=place)  # fmt: skip
    for i in range(0, layers, at_once):
        made = write(made, piece(slice(i, i + at_once)), np.int32(i), 0)
        made.block_until_ready()  # then the piece may go
    return made


def _layers_at_once(weight: Weight, dtype: np.dtype[Any]) -> int:
    """Up to PIECE bytes, all pieces alike; the same in every process, whatever it holds."""
    one = math.prod(weight.shape[1:]) * dtype.itemsize
    layers = weight.shape[0]
    return max(n for n in range(1, layers + 1) if layers % n == 0 and (n == 1 or n * one <= PIECE))


def _parts(weight: Weight, places: Mapping[Any, tuple[slice, ...]]) -> list[Part]:
    """The distinct parts among what each device holds."""
    found: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    for device, index in places.items():
        cut = tuple(s.indices(n)[:2] for s, n in zip(index, weight.shape, strict=True))
        found.setdefault(cut, []).append(device)
    if weight.stack and any(cut[0] != (0, weight.shape[0]) for cut in found):
        raise ConfigError(f"{'/'.join(weight.path)}: layers cannot be shared out over devices")
    return [
        Part(tuple(slice(*ends) for ends in cut), tuple(devices)) for cut, devices in found.items()
    ]


def _fill(
    files: WeightFiles, readers: ThreadPoolExecutor, weight: Weight,
    targets: Sequence[tuple[Cut, np.ndarray]],
) -> None:  # fmt: skip
    """Read every tensor of these parts, once for all that want the same rows of it."""
    depth = len(weight.stack)
    jobs: dict[tuple[str, int, int], list[tuple[slice | None, np.ndarray]]] = {}
    for cut, held in targets:
        rows, *columns = weight.cut_of_theirs(cut[depth:])
        for local in np.ndindex(held.shape[:depth]):
            index = [part.start + i for part, i in zip(cut, local, strict=False)]
            job = (weight.tensor(index), rows.start, rows.stop)
            jobs.setdefault(job, []).append((columns[0] if columns else None, held[local]))

    def read(some: tuple[tuple[str, int, int], tuple[int, int]]) -> None:
        job, (start, stop) = some
        block = files.rows(job[0], start, stop)
        for columns, held in jobs[job]:
            _put(block if columns is None else block[:, columns], held, start - job[1], weight)

    for _ in readers.map(read, [(job, rows) for job in jobs for rows in _blocks(files, *job)]):
        pass  # an error of a reader is raised here


def _put(rows: np.ndarray, held: np.ndarray, at: int, weight: Weight) -> None:
    """Rows of theirs into a part of ours, from row `at` of the part on."""
    if not weight.turned:
        held[at : at + len(rows)] = rows
        return
    for i in range(0, len(rows), TURNED):
        some = rows[i : i + TURNED].astype(held.dtype)
        held[:, at + i : at + i + len(some)] = some.T


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Memory that a CPU device takes over as it is; otherwise it would be there twice."""
    count, edge = math.prod(shape) * dtype.itemsize, 64
    raw = np.empty(count + edge, np.uint8)
    start = -raw.ctypes.data % edge
    return raw[start : start + count].view(dtype).reshape(shape)
