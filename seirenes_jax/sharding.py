"""Where arrays live: a mesh, one table from logical to mesh axes, a check that names collisions.

    data      copies of the model; also the axis that may span slices of a TPU
    fsdp      parameters and optimizer in parts, gathered layer by layer
    tensor    heads, feed-forward columns and vocabulary in parts
    expert    experts in parts; everywhere else one more axis of rows
    sequence  positions of a row in parts (training and scoring; keys and values are gathered)
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seirenes_jax import knobs
from seirenes_jax.errors import ConfigError

# Neighbours on the last axis are the closest devices: the more an axis talks, the later it stands.
MESH_AXES = ("data", "fsdp", "expert", "sequence", "tensor")

# Logical axis -> mesh axes.
RULES: dict[str | None, str | tuple[str, ...] | None] = {
    "rows": ("data", "fsdp", "expert"), "columns": "sequence", "vocab": "tensor", "width": "fsdp",
    "heads": "tensor", "kv_heads": "tensor", "ff": "tensor", "experts": "expert",
    "expert_ff": "tensor", "head_dim": None, "layers": None, None: None,
}  # fmt: skip

# The last one or two names of a parameter's path -> its logical axes, without the layers'. Heads
# and their width are one axis there; that it is cut between heads is seen to in ModelConfig.
AXES: dict[str, tuple[str | None, ...]] = {
    "embed": ("vocab", "width"), "head": ("width", "vocab"),
    "q/kernel": ("width", "heads"), "q/bias": ("heads",),
    "k/kernel": ("width", "kv_heads"), "k/bias": ("kv_heads",),
    "v/kernel": ("width", "kv_heads"), "v/bias": ("kv_heads",), "o/kernel": ("heads", "width"),
    "gate/kernel": ("width", "ff"), "up/kernel": ("width", "ff"), "down/kernel": ("ff", "width"),
    "scale": (None,),
    "q/lora_a": ("width", None), "q/lora_b": (None, "heads"),
    "k/lora_a": ("width", None), "k/lora_b": (None, "kv_heads"),
    "v/lora_a": ("width", None), "v/lora_b": (None, "kv_heads"),
    "o/lora_a": ("heads", None), "o/lora_b": (None, "width"),
    "gate/lora_a": ("width", None), "gate/lora_b": (None, "ff"),
    "up/lora_a": ("width", None), "up/lora_b": (None, "ff"),
    "down/lora_a": ("ff", None), "down/lora_b": (None, "width"),
    "router/kernel": ("width", None), "moe/gate": ("experts", "width", "expert_ff"),
    "moe/up": ("experts", "width", "expert_ff"), "moe/down": ("experts", "expert_ff", "width"),
}  # fmt: skip


def make_mesh(sizes: knobs.Mesh, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over the first of these devices (None: all there are)."""
    found = list(jax.devices() if devices is None else devices)
    shape = tuple(getattr(sizes, axis) for axis in MESH_AXES)
    wanted = int(np.prod(shape))
    if wanted > len(found):
        raise ConfigError(
            f"mesh: {' x '.join(MESH_AXES)} = {' x '.join(map(str, shape))} = {wanted} devices; "
            f"there are {len(found)} ({found[0].platform}); lower mesh.*"
        )
    return Mesh(arranged(shape, found[:wanted]), MESH_AXES)


def arranged(shape: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    """Host by host, so that an island's devices stand together in the very order in which it
    decodes (one program spans one order alone); slices of a TPU, joined by a network, along data.
    """
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if shape[0] % slices:
        raise ConfigError(
            f"mesh.data: got {shape[0]} over {slices} slices; between slices only copies of the "
            f"model are kept: wanted a multiple of {slices}"
        )

    def place(device: Any) -> tuple[int, int, int]:
        return getattr(device, "slice_index", 0), device.process_index, device.id

    return np.array(sorted(devices, key=place)).reshape(shape)


def spec(*axes: str | None) -> PartitionSpec:
    """Logical axes -> mesh axes."""
    return PartitionSpec(*(RULES[axis] for axis in axes))


def place(x: jax.Array, mesh: Mesh | None, *axes: str | None) -> jax.Array:
    """Say inside a program where an array lives. Without a mesh there is one place."""
    if mesh is None:
        return x
    placed: jax.Array = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(*axes)))
    return placed


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """A sharding for every parameter, from the tables; each axis must divide."""

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = [entry.key for entry in path]
        axes = next(
            (AXES[key] for key in ("/".join(names[-2:]), names[-1]) if key in AXES), None
        )
        if axes is None:
            raise ConfigError(f"parameter {'/'.join(names)} has no row in the table of axes")
        stacked: tuple[str | None, ...] = ("layers",) if names[0] == "layers" else ()
        where = spec(*stacked, *axes)
        check_divides("/".join(names), leaf.shape, where, mesh)
        return NamedSharding(mesh, where)

    return jax.tree_util.tree_map_with_path(one, params)


def place_params(params: Any, mesh: Mesh | None) -> Any:
    """Inside a program: a tree like the parameters lives where they live. A gradient else does
    not: what was gathered for its product stays whole."""
    if mesh is None:
        return params
    return jax.tree.map(
        jax.lax.with_sharding_constraint, params, param_shardings(params, mesh)
    )


def check_divides(name: str, shape: tuple[int, ...], spec: PartitionSpec, mesh: Mesh) -> None:
    """ConfigError with name and sizes where an axis does not divide or is used twice."""
    used: list[str] = []
    for size, entry in zip(shape, spec, strict=True):
        axes = (entry,) if isinstance(entry, str) else tuple(entry or ())
        parts = int(np.prod([mesh.shape[axis] for axis in axes]))
        if size % parts:
            raise ConfigError(
                f"mesh: {name} of shape {shape} has an axis of {size}, which does not divide over "
                f"{' x '.join(axes)} = {parts}; change mesh.{axes[0]}"
            )
        used += axes
    if len(used) != len(set(used)):
        raise ConfigError(f"mesh: {name} would use an axis of {used} twice")


def row_parts(mesh: Mesh | None) -> int:
    """Over how many devices rows are shared out; their number must be a multiple."""
    axes = RULES["rows"]
    assert isinstance(axes, tuple)
    return 1 if mesh is None else int(np.prod([mesh.shape[axis] for axis in axes]))


def batch_shardings(batch: Any, mesh: Mesh) -> Any:
    """Rows over the mesh, their columns over its sequence axis, scalars everywhere."""

    def one(x: Any) -> NamedSharding:
        rows_columns = ("rows", "columns")
        return NamedSharding(mesh, spec(*rows_columns[: np.ndim(x)]))

    return jax.tree.map(one, batch)


def slot_shardings(state: Any, mesh: Mesh) -> Any:
    """Decoding: slots over the mesh as rows are, the cache's heads over its tensor axis."""

    def one(x: Any) -> NamedSharding:
        cache = ("layers", "rows", "kv_heads", None, "head_dim")
        return NamedSharding(mesh, spec(*cache) if np.ndim(x) == len(cache) else spec("rows"))

    return jax.tree.map(one, state)
