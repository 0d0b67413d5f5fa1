"""Where arrays live: a mesh, one table from logical to mesh axes, a check that names collisions."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seirenes_jax import knobs
from seirenes_jax.errors import ConfigError

# Logical axis -> mesh axis. Rows go over data and fsdp together.
RULES: dict[str | None, str | tuple[str, ...] | None] = {
    "rows": ("data", "fsdp"), "vocab": "tensor", "width": "fsdp", "heads": "tensor",
    "kv_heads": "tensor", "ff": "tensor", "head_dim": None, "layers": None, None: None,
}  # fmt: skip

# The last one or two names of a parameter's path -> its logical axes, without the layers'.
AXES: dict[str, tuple[str | None, ...]] = {
    "embed": ("vocab", "width"), "head": ("width", "vocab"),
    "q/kernel": ("width", "heads", "head_dim"), "q/bias": ("heads", "head_dim"),
    "k/kernel": ("width", "kv_heads", "head_dim"), "k/bias": ("kv_heads", "head_dim"),
    "v/kernel": ("width", "kv_heads", "head_dim"), "v/bias": ("kv_heads", "head_dim"),
    "o/kernel": ("heads", "head_dim", "width"), "gate/kernel": ("width", "ff"),
    "up/kernel": ("width", "ff"), "down/kernel": ("ff", "width"), "scale": (None,),
}  # fmt: skip


def make_mesh(sizes: knobs.Mesh) -> Mesh:
    """data x fsdp x tensor over the first devices of this process's platform."""
    shape = (sizes.data, sizes.fsdp, sizes.tensor)
    wanted, devices = int(np.prod(shape)), jax.devices()
    if wanted > len(devices):
        raise ConfigError(
            f"mesh: data x fsdp x tensor = {' x '.join(map(str, shape))} = {wanted} devices; this "
            f"machine has {len(devices)} ({devices[0].platform}); lower mesh.*"
        )
    return Mesh(np.array(devices[:wanted]).reshape(shape), ("data", "fsdp", "tensor"))


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
        spec = PartitionSpec(*(RULES[axis] for axis in stacked + axes))
        check_divides("/".join(names), leaf.shape, spec, mesh)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(one, params)


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


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """For arrays whose leading axis is rows."""
    return NamedSharding(mesh, PartitionSpec(RULES["rows"]))


def replicated(mesh: Mesh) -> NamedSharding:
    """For scalars and small tables."""
    return NamedSharding(mesh, PartitionSpec())
