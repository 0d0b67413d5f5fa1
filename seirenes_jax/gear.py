"""What a run works with, put together before its first step, and where it goes on from."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from seirenes_jax import sharding, streams
from seirenes_jax.batch import Plan
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.clock import Clock
from seirenes_jax.data import Order
from seirenes_jax.evaluate import Evaluator
from seirenes_jax.games import GAMES
from seirenes_jax.games.base import Game
from seirenes_jax.games.seirenes import START
from seirenes_jax.hosts import Hosts, IslandJudge, players, writes
from seirenes_jax.knobs import Settings
from seirenes_jax.layout import LayOut, make_layout
from seirenes_jax.models.config import fitted
from seirenes_jax.optim import make_optimizer
from seirenes_jax.progress import Progress, from_host
from seirenes_jax.report import RunLog
from seirenes_jax.sampler import Sampler
from seirenes_jax.signals import Stop
from seirenes_jax.start import Start, begin, leave_model, starting_params
from seirenes_jax.state import Params, TrainState
from seirenes_jax.verify.judge import Judge


@dataclass(frozen=True, slots=True)
class Gear:
    """Nothing here changes; what changes is `state` and `progress`."""

    settings: Settings
    start: Start
    game: Game
    plan: Plan
    order: Order
    hosts: Hosts
    lay_out: LayOut  # training weights -> decoding weights
    sampler: Sampler
    judge: IslandJudge
    evaluator: Evaluator
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    reference: Params | None  # starting weights, kept only where KL needs them
    log: RunLog
    clock: Clock
    stop: Stop


def prepare(
    settings: Settings, stack: ExitStack, log: RunLog, *, cache_dir: Any, stop: Stop
) -> tuple[Gear, TrainState, Progress]:
    """Everything a step needs, and the state before the first one."""
    clock = Clock()
    mesh = sharding.make_mesh(settings.mesh)
    with clock("warm_start"):
        start = begin(settings, cache_dir, log, check=stop.check)
        if writes():
            leave_model(start, log.folder / "model", settings)
    start = replace(start, config=fitted(start.config, settings.model, mesh))
    params = starting_params(start, settings, log.folder, mesh)
    lay_out, island = make_layout(params, mesh, settings.decode, dtype=settings.model.dtype)
    hosts, tokens = players(settings.decode.hosts, island), settings.tokens
    judge = IslandJudge(stack.enter_context(
        Judge(settings.judge.workers, settings.judge.deadline_s, settings.judge.memory_gib)
    ), hosts)  # fmt: skip
    sampler = Sampler(
        replace(start.config, mesh=island if island.size > 1 else None), start.tokenizer,
        settings.sampler, seed=settings.seed, prompt_tokens=tokens.prompt,
        answer_tokens=max(tokens.reasoner, tokens.adversary),
    )  # fmt: skip
    if settings.adversary.policy == "frozen":
        sampler.load(START, jax.tree.map(jnp.copy, lay_out(params)), 0)
    game, optimizer = GAMES[settings.game], make_optimizer(settings.optimizer, settings.steps)
    gear = Gear(
        settings=settings, start=start, game=game, plan=_plan(settings, game), hosts=hosts,
        order=Order(
            start.train, seed=settings.seed, mastered_share=settings.problems.mastered_share
        ),
        lay_out=lay_out, sampler=sampler, judge=judge,
        evaluator=Evaluator(settings, start, sampler, judge, hosts=hosts, log=log, stop=stop),
        optimizer=optimizer, mesh=mesh, log=log, clock=clock, stop=stop,
        reference=jax.tree.map(jnp.copy, params) if settings.loss.kl != 0.0 else None,
    )  # fmt: skip
    progress = Progress(streams=streams.empty(game.streams, settings.streams.max_age))
    progress.tokens["warm_start"] = start.warm_tokens
    return gear, first_state(params, optimizer, mesh), progress


def _plan(settings: Settings, game: Game) -> Plan:
    limits = {"adversary": settings.tokens.adversary}
    return Plan(
        streams=game.streams,
        limits=tuple(limits.get(s, settings.tokens.reasoner) for s in game.streams),
        advantage=settings.advantage, loss=settings.loss, knobs=settings.streams,
        batch=settings.batch, temperature=settings.sampler.temperature,
    )  # fmt: skip


def first_state(
    params: Params, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> TrainState:
    """Step 0; the optimizer's moments lie as their parameters do, its counters everywhere."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    shardings: Any = optax.tree_map_params(
        optimizer, lambda _, s: s, jax.eval_shape(optimizer.init, params),
        sharding.param_shardings(params, mesh), transform_non_params=lambda _: everywhere,
    )  # fmt: skip
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(params)
    return TrainState(put(jnp.int32(0), everywhere), params, opt_state)


def put(x: Any, where: NamedSharding) -> jax.Array:
    """An array that every process holds in full, laid out over devices of all of them."""
    return jax.make_array_from_callback(x.shape, where, lambda part: x[part])


def restore(
    checkpoints: Checkpoints, state: TrainState, progress: Progress, log: RunLog
) -> tuple[TrainState, Progress]:
    """The newest good checkpoint of this run, else what was given; files are cut back to it."""
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    found = checkpoints.restore(abstract)
    log.cut_back(0 if found is None else found.step)
    if found is None:
        log.event("begun")
        return state, progress
    for message in found.messages:
        log.say(message)
        log.event(message)
    log.event(f"goes on after step {found.step}")
    log.say(f"goes on after step {found.step}")
    return found.state, from_host(found.host_arrays, found.host_json)
