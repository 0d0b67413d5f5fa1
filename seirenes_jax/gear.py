"""What a run works with, put together before its first step, and where it goes on from."""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from seirenes_jax import base as bases
from seirenes_jax import evidence, sharding, streams
from seirenes_jax.batch import Plan
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.clock import Clock
from seirenes_jax.console import say
from seirenes_jax.data import Order
from seirenes_jax.evaluate import Evaluator
from seirenes_jax.fingerprint import digest
from seirenes_jax.games import GAMES
from seirenes_jax.games.base import Game
from seirenes_jax.hosts import Hosts, IslandJudge, Whereabouts, players, writes
from seirenes_jax.journal import FOLDER, Journal
from seirenes_jax.knobs import Settings
from seirenes_jax.layout import LayOut, make_layout
from seirenes_jax.models import join, split, trained
from seirenes_jax.models.config import fitted
from seirenes_jax.optim import make_optimizer
from seirenes_jax.progress import Progress, from_host
from seirenes_jax.report import RunLog
from seirenes_jax.sampler import Sampler
from seirenes_jax.signals import Stop
from seirenes_jax.start import Start, abstract_params, begin, leave_model, starting_params
from seirenes_jax.state import Params, TrainState, abstract_state
from seirenes_jax.store import Folder
from seirenes_jax.verify.judge import Judge
from seirenes_jax.watchdog import Watch, Watchdog


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
    journal: Journal | None  # what answers before the sampler is asked
    judge: IslandJudge
    evaluator: Evaluator
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    base: Params | None  # what adapters stand on; None: every weight is trained
    begin_anew: Callable[[], Params]  # makes what is trained as it is at step 0
    reference: Params | None  # starting weights, kept only where KL needs them
    frozen: Params | None  # the same, to decode, where they write the hints
    log: RunLog
    clock: Clock
    watch: Watch
    stop: Stop


def prepare(
    settings: Settings, stack: ExitStack, log: RunLog, *, home: Folder, cache_dir: Any, stop: Stop
) -> tuple[Gear, Progress]:
    """Everything a step needs but the state, and how things stand before the first one."""
    watch = _watchdog(settings, stack, log)
    clock = Clock(watch)
    mesh = sharding.make_mesh(settings.mesh)
    with clock("warm_start"):
        start = begin(settings, cache_dir, log, check=stop.check)
        if writes():
            leave_model(start, log.folder / "model", settings)
    start = replace(start, config=fitted(start.config, settings.model, mesh))

    def begin_anew() -> Params:
        if start.config.lora is not None:
            return bases.first_adapters(start.config, settings.seed, mesh)
        return starting_params(start, settings, log.folder, mesh)

    base = None
    if start.config.lora is not None:
        base = starting_params(start, settings, log.folder, mesh)
    lay_out, island = _layout(start, settings, mesh, base)
    hosts, tokens = players(settings.decode.hosts, island, watch), settings.tokens
    judge = IslandJudge(stack.enter_context(
        Judge(settings.judge.workers, settings.judge.deadline_s, settings.judge.memory_gib)
    ), hosts)  # fmt: skip
    sampler = Sampler(
        replace(start.config, mesh=island if island.size > 1 else None), start.tokenizer,
        settings.sampler, seed=settings.seed, prompt_tokens=tokens.prompt,
        answer_tokens=max(tokens.reasoner, tokens.adversary),
    )  # fmt: skip
    game, optimizer = GAMES[settings.game], make_optimizer(settings.optimizer, settings.steps)
    gear = Gear(
        settings=settings, start=start, game=game, plan=_plan(settings, game), hosts=hosts,
        order=Order(
            start.train, seed=settings.seed, mastered_share=settings.problems.mastered_share
        ),
        lay_out=lay_out, sampler=sampler, journal=_journal(settings, home, hosts, stack),
        judge=judge,
        evaluator=Evaluator(settings, start, sampler, judge, hosts=hosts, log=log, stop=stop),
        optimizer=optimizer, mesh=mesh, log=log, clock=clock, watch=watch, stop=stop,
        base=base, begin_anew=begin_anew, reference=_reference(settings, base, begin_anew),
        frozen=lay_out(begin_anew()) if settings.adversary.policy == "frozen" else None,
    )  # fmt: skip
    progress = Progress(streams=streams.empty(game.streams, settings.streams.max_age))
    progress.tokens["warm_start"] = start.warm_tokens
    progress.base = "" if base is None else digest(base)
    return gear, progress


def _watchdog(settings: Settings, stack: ExitStack, log: RunLog) -> Watch:
    """Watches from here on; what it tells stands in events.log and on stderr."""
    whereabouts = Whereabouts()

    def tell(words: str) -> None:
        say(words, sys.stderr)
        log.event(words)

    dog = stack.enter_context(
        Watchdog(settings.watchdog, tell=tell, others=whereabouts.others)
    )
    stack.enter_context(whereabouts.shared(dog.path))
    return dog.watch


def _journal(
    settings: Settings, home: Folder, hosts: Hosts, stack: ExitStack
) -> Journal | None:
    if not settings.checkpoint.journal:
        return None
    journal = Journal(home / FOLDER, process=jax.process_index(), writer=hosts.leads)
    stack.callback(journal.close)
    return journal


def _reference(
    settings: Settings, base: Params | None, begin_anew: Callable[[], Params]
) -> Params | None:
    if settings.loss.kl == 0.0:
        return None
    return begin_anew() if base is None else base


def _layout(
    start: Start, settings: Settings, mesh: jax.sharding.Mesh, base: Params | None
) -> tuple[LayOut, jax.sharding.Mesh]:
    """From what is trained to what decodes. A base is there once wherever decoding wants it as
    training does; else its other layout comes and goes with that of the adapters."""
    whole, dtype = abstract_params(start.config, mesh), settings.model.dtype
    if base is None:
        return make_layout(whole, mesh, settings.decode, dtype=dtype)
    below, adapters = split(whole)
    lay_base, island = make_layout(below, mesh, settings.decode, dtype=dtype)
    lay_adapters, _ = make_layout(adapters, mesh, settings.decode, dtype=dtype)
    # A frozen adversary needs it all the time: the live one shares it.
    laid = lay_base(base) if settings.adversary.policy == "frozen" else None

    def lay_out(params: Params) -> Params:
        return join(lay_base(base) if laid is None else laid, lay_adapters(params))

    return lay_out, island


def _plan(settings: Settings, game: Game) -> Plan:
    limits = {"adversary": settings.tokens.adversary}
    return Plan(
        streams=game.streams,
        limits=tuple(limits.get(s, settings.tokens.reasoner) for s in game.streams),
        advantage=settings.advantage, loss=settings.loss, knobs=settings.streams,
        batch=settings.batch, temperature=settings.sampler.temperature,
    )  # fmt: skip


def first_state(
    params: Params, optimizer: optax.GradientTransformation, abstract: TrainState
) -> TrainState:
    """Step 0 of these weights, placed as described."""
    places = jax.tree.map(lambda x: x.sharding, abstract)
    opt_state = jax.jit(optimizer.init, out_shardings=places.opt_state)(params)
    return TrainState(put(jnp.int32(0), places.step), params, opt_state)


def put(x: Any, where: NamedSharding) -> jax.Array:
    """An array that every process holds in full, laid out over devices of all of them."""
    return jax.make_array_from_callback(x.shape, where, lambda part: x[part])


def restore(
    checkpoints: Checkpoints, gear: Gear, progress: Progress
) -> tuple[TrainState, Progress]:
    """The newest good checkpoint of this run, read straight to where it lives, else step 0; files
    are cut back to it."""
    log, config = gear.log, gear.start.config
    abstract = abstract_state(
        trained(abstract_params(config, gear.mesh), config), gear.optimizer, gear.mesh
    )
    with gear.watch("restore", lambda: f"a checkpoint in {checkpoints.folder}"):
        found = checkpoints.restore(abstract)
    if found is None:
        log.cut_back(0)
        _cut_evidence(log, progress)
        log.event("begun")
        return first_state(gear.begin_anew(), gear.optimizer, abstract), progress
    stored = from_host(found.host_arrays, found.host_json)
    bases.refuse_another(stored.base, progress.base, gear.settings.model.path or "its start")
    log.cut_back(found.step)
    _cut_evidence(log, stored)
    for message in found.messages:
        log.say(message)
        log.event(message)
    log.event(f"goes on after step {found.step}")
    log.say(f"goes on after step {found.step}")
    return found.state, stored


def _cut_evidence(log: RunLog, progress: Progress) -> None:
    """Steps that are to come again are not bad yet."""
    if writes():
        evidence.keep_only(log.folder, [one["step"] for one in progress.bad])
