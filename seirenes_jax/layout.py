"""From training to decoding: the weights in the compute dtype, laid out over an island's devices.

An island is the devices of one or more processes that play their own share of the problems; no
traffic crosses its shore while it decodes. Its mesh has the axes of training, so the one table of
shardings serves both.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from seirenes_jax import knobs, sharding
from seirenes_jax.errors import ConfigError
from seirenes_jax.state import Params

LayOut = Callable[[Params], Params]


def island_devices(mesh: Mesh, members: int) -> np.ndarray:
    """[islands, devices]: the training mesh's devices, those of `members` processes together."""
    processes = len({device.process_index for device in mesh.devices.flat})
    if processes % members:
        raise ConfigError(
            f"decode.hosts: got {members}, which does not divide the {processes} processes of this "
            "run"
        )
    return shared_out(mesh, processes // members)


def shared_out(mesh: Mesh, islands: int) -> np.ndarray:
    """[islands, devices], process by process."""
    devices = sorted(mesh.devices.flat, key=lambda device: (device.process_index, device.id))
    return np.array(devices).reshape(islands, -1)


def decode_mesh(devices: np.ndarray, decode: knobs.Decode) -> Mesh:
    """One island: `decode.tensor` x `decode.expert` devices hold a copy, copies split the slots."""
    copy = decode.tensor * decode.expert
    if devices.size % copy:
        raise ConfigError(
            f"decode.tensor x decode.expert = {decode.tensor} x {decode.expert}: it does not "
            f"divide the {devices.size} devices of an island (decode.hosts = {decode.hosts})"
        )
    sizes = {"data": devices.size // copy, "tensor": decode.tensor, "expert": decode.expert}
    shape = [sizes[axis] if axis in sizes else 1 for axis in sharding.MESH_AXES]
    return Mesh(devices.reshape(shape), sharding.MESH_AXES)


def make_layout(
    abstract_params: Params, train_mesh: Mesh, decode: knobs.Decode, *, dtype: str
) -> tuple[LayOut, Mesh]:
    """How training weights become this island's decoding weights; and the island's mesh."""
    islands = island_devices(train_mesh, decode.hosts)
    mine = jax.process_index() // decode.hosts if len(islands) > 1 else 0
    mesh = decode_mesh(islands[mine], decode)
    if decodes_as_it_trains(abstract_params, islands, decode, dtype):
        return _as_they_are, mesh
    spread = spread_over(abstract_params, islands, decode, dtype)
    if len(islands) == 1:
        return spread, mesh
    target = sharding.param_shardings(abstract_params, mesh)

    def lay_out(params: Params) -> Params:
        return jax.tree.map(_ashore, spread(params), target)

    return lay_out, mesh


def decodes_as_it_trains(
    abstract_params: Params, islands: np.ndarray, decode: knobs.Decode, dtype: str
) -> bool:
    """One dtype, and on every device of the one island the same parts: the weights that train are
    those that decode; nothing is copied."""
    if len(islands) > 1:
        return False
    places = sharding.param_shardings(abstract_params, decode_mesh(islands[0], decode))
    kind = jnp.dtype(dtype)
    same = jax.tree.map(
        lambda leaf, place: leaf.dtype == kind
        and leaf.sharding.is_equivalent_to(place, len(leaf.shape)),
        abstract_params, places,
    )  # fmt: skip
    return all(jax.tree.leaves(same))


def spread_over(
    abstract_params: Params, islands: np.ndarray, decode: knobs.Decode, dtype: str
) -> Any:
    """The program that casts the weights and lays them out over all devices, every island alike."""
    shore = decode_mesh(islands[0], decode)
    places = sharding.param_shardings(abstract_params, shore)
    if len(islands) > 1:
        sea = Mesh(islands.reshape(-1, *shore.devices.shape), ("island", *shore.axis_names))
        places = jax.tree.map(lambda place: NamedSharding(sea, place.spec), places)
    kind = jnp.dtype(dtype)

    def cast(params: Params) -> Params:
        return jax.tree.map(lambda x: x.astype(kind), params)

    return jax.jit(cast, out_shardings=places)


def _as_they_are(params: Params) -> Params:
    return params


def _ashore(x: jax.Array, local: NamedSharding) -> jax.Array:
    """The same buffers under the island's own sharding; nothing is copied."""
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, local, shards)
