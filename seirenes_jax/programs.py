"""The programs of one step as a run compiles them, over arrays that are only described.

A scene is what the loop would hold on a machine, none of it allocated; every program is the one
that the loop calls, with arguments of the same shapes, dtypes and places.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seirenes_jax import decode, knobs, sharding, topologies
from seirenes_jax.batch import fill
from seirenes_jax.games import GAMES
from seirenes_jax.knobs import Settings
from seirenes_jax.layout import decode_mesh, decodes_as_it_trains, shared_out, spread_over
from seirenes_jax.models import ModelConfig, split, trained
from seirenes_jax.models.config import fitted
from seirenes_jax.optim import make_optimizer
from seirenes_jax.sampler import Sampler
from seirenes_jax.sampling import Wishes
from seirenes_jax.start import abstract_params
from seirenes_jax.state import abstract_state
from seirenes_jax.step import add_gradient, apply_gradient, score_step

STOP_IDS = (0,)  # which they are changes no program's size
Tree = Any


@dataclass(frozen=True, slots=True)
class Scene:
    """What stands where. `arrays`: by name, everything of size that a step keeps; `sizes`: their
    bytes on one device, what two of them share counted under `shared` alone."""

    settings: Settings
    config: ModelConfig  # as it trains
    decode_config: ModelConfig  # as it decodes
    mesh: Mesh
    island: Mesh
    islands: int
    sampler: Sampler  # for the sizes it works with; it holds nothing
    optimizer: optax.GradientTransformation
    arrays: Mapping[str, Tree]
    shared: tuple[str, ...]  # of the arrays that train, those that decode as they are
    sizes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Program:
    """`held`: the arrays of the scene among its arguments, which its own peak counts. No trace:
    nothing is to be done."""

    phase: str
    name: str
    held: tuple[str, ...]
    trace: Callable[[], Any] | None


def set_scene(settings: Settings, model: ModelConfig, topology: topologies.Topology) -> Scene:
    """A run of these settings on that machine; ConfigError where a size does not divide."""
    mesh = sharding.make_mesh(settings.mesh, topologies.devices(topology))
    shore = topologies.island(topology, settings.decode.hosts * topology.a_process)
    places = np.array(topologies.devices(shore))
    island = decode_mesh(places, settings.decode)
    config = fitted(model, _portable(settings.model, mesh), mesh)
    decode_config = replace(config, mesh=island if island.size > 1 else None)
    tokens, stub = settings.tokens, None
    sampler = Sampler(
        decode_config, stub, settings.sampler, seed=0,  # type: ignore[arg-type]
        prompt_tokens=tokens.prompt, answer_tokens=max(tokens.reasoner, tokens.adversary),
    )
    whole, islands = abstract_params(config, mesh), max(1, mesh.size // island.size)
    params = trained(whole, config)
    optimizer = make_optimizer(settings.optimizer, settings.steps)
    arrays = {
        "weights": params, "gradient": params,
        "moments": abstract_state(params, optimizer, mesh).opt_state,
        "copy": _as(abstract_params(config, island), settings.model.dtype),
        "cache": _cache(decode_config, island, sampler),
    }
    if config.lora is not None:
        arrays["base"] = split(whole)[0]
    elif settings.loss.kl != 0.0:
        arrays["reference"] = params
    if settings.adversary.policy == "frozen":
        arrays |= {"frozen copy": arrays["copy"], "frozen cache": arrays["cache"]}
    shared = tuple(
        name for name in ("weights", "base")
        if name in arrays and decodes_as_it_trains(
            arrays[name], shared_out(mesh, islands), settings.decode, settings.model.dtype
        )
    )  # fmt: skip
    sizes = {name: device_bytes(tree) for name, tree in arrays.items()}
    for name in {"copy", "frozen copy"} & sizes.keys():
        sizes[name] -= sum(sizes[other] for other in shared)
    return Scene(
        settings, config, decode_config, mesh, island, islands, sampler, optimizer, arrays, shared,
        sizes,
    )  # fmt: skip


def _portable(model: knobs.Model, mesh: Mesh) -> knobs.Model:
    """Where CPUs stand in, what they can compile: no kernels."""
    if mesh.devices.flat[0].platform == "cpu":
        return replace(model, attention="xla", moe="plain")
    return model


def _cache(config: ModelConfig, island: Mesh, sampler: Sampler) -> Tree:
    slots, columns = sampler.knobs.slots, sampler.columns
    alone = replace(config, mesh=None)
    blank = jax.eval_shape(lambda: decode.empty(alone, slots=slots, columns=columns))
    places = sharding.slot_shardings(blank, island)
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), blank, places
    )


def _as(tree: Tree, dtype: str) -> Tree:
    kind = jnp.dtype(dtype)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, kind, sharding=x.sharding), tree
    )


def device_bytes(tree: Tree) -> int:
    """Of described arrays, what one device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def programs(scene: Scene) -> list[Program]:
    """In the order of a step. Of the chunks, which look back differently far, the longest."""
    return [*_layout(scene), *_playing(scene), *_learning(scene)]


def count_programs(scene: Scene) -> int:
    """Those a run compiles for its steps: every length of a chunk is one of its own."""
    compiled = [program for program in programs(scene) if program.trace is not None]
    return len(compiled) - 1 + len(scene.sampler.buckets)


def _learning(scene: Scene) -> list[Program]:
    arrays, config, settings = scene.arrays, scene.config, scene.settings
    batch = train_batch(scene)
    state = abstract_state(arrays["weights"], scene.optimizer, scene.mesh)
    streams = GAMES[settings.game].streams
    base, below = (arrays["base"], ("base",)) if "base" in arrays else (None, ())

    def score() -> Any:
        return score_step.trace(arrays["weights"], batch, config=config, base=base)

    def add() -> Any:
        return add_gradient.trace(
            arrays["weights"], arrays["gradient"], batch, config=config, loss=settings.loss,
            streams=streams, base=base,
        )  # fmt: skip

    def apply() -> Any:
        sound: Any = jax.ShapeDtypeStruct((), jnp.bool_)
        return apply_gradient.trace(
            state, arrays["gradient"], sound, optimizer=scene.optimizer,
            most=settings.numbers.gradient,
        )  # fmt: skip

    return [
        Program("score", "score_step", ("weights", *below), score),
        Program("train", "add_gradient", ("weights", *below, "gradient"), add),
        Program("train", "apply_gradient", ("weights", "moments", "gradient"), apply),
    ]


def train_batch(scene: Scene) -> Tree:
    """One micro-batch, described."""
    size, config, loss = scene.settings.batch, scene.config, scene.settings.loss
    replayed = config.experts > 0 and config.replay_routes
    recorded = (config.layers, config.experts_per_token) if replayed else None
    small = fill((), knobs.Batch(row_tokens=1, rows=1), temperature=1.0, recorded=recorded)
    row = small.logp_old_BT
    if loss.rescore:
        small = small.replace(logp_behaviour_BT=row)  # type: ignore[attr-defined]
    if loss.kl != 0.0:
        small = small.replace(logp_ref_BT=row)  # type: ignore[attr-defined]

    def full(x: Any, place: NamedSharding) -> Any:
        shape = (size.rows, size.row_tokens, *np.shape(x)[2:]) if np.ndim(x) else ()
        return jax.ShapeDtypeStruct(shape, x.dtype, sharding=place)

    return jax.tree.map(full, small, sharding.batch_shardings(small, scene.mesh))


def _playing(scene: Scene) -> list[Program]:
    sampler, config, arrays = scene.sampler, scene.decode_config, scene.arrays
    knob, everywhere = sampler.knobs, NamedSharding(scene.island, PartitionSpec())

    def given(shape: tuple[int, ...], dtype: Any) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)

    P, T, B = sampler.prefill_rows, sampler.prompt_tokens, knob.slots
    prompts = given((P, T), jnp.int32), given((P,), jnp.int32)
    seats = decode.Seats(
        take_B=given((B,), jnp.bool_), source_B=given((B,), jnp.int32),
        token_B=given((B,), jnp.int32), limit_B=given((B,), jnp.int32),
        key_B2=given((B, 2), jnp.uint32),
    )  # fmt: skip

    wishes = Wishes(
        temperature_B=given((B,), jnp.float32), top_k_B=given((B,), jnp.int32),
        top_p_B=given((B,), jnp.float32),
    )  # fmt: skip

    def prefill() -> Any:
        return decode.admit.trace(arrays["copy"], arrays["cache"], prompts, seats, config=config)

    def chunk() -> Any:
        return decode.run_chunk.trace(
            arrays["copy"], arrays["cache"], wishes, config=config, chunk=knob.chunk,
            columns=sampler.buckets[-1], stop_ids=STOP_IDS,
            filters=knob.top_k > 0 or knob.top_p < 1.0,
        )  # fmt: skip

    held = (*scene.shared, "copy", "cache")
    return [
        Program("prefill", "admit", held, prefill), Program("decode", "run_chunk", held, chunk),
    ]


def _layout(scene: Scene) -> list[Program]:
    """Base and adapters are laid out one after the other."""
    names = [name for name in ("base", "weights") if name in scene.arrays]
    return [
        Program("layout", f"lay out {name}", (name,),
                None if name in scene.shared else partial(_trace_layout, scene, name))
        for name in names
    ]  # fmt: skip


def _trace_layout(scene: Scene, name: str) -> Any:
    settings, weights = scene.settings, scene.arrays[name]
    islands = shared_out(scene.mesh, scene.islands)
    return spread_over(weights, islands, settings.decode, settings.model.dtype).trace(weights)
