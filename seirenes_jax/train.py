"""The loop: play, credit, pack, update, write, save. The one file that knows everyone."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from seirenes_jax import folder, metrics, sharding, streams
from seirenes_jax import settings as config_files
from seirenes_jax.batch import Plan, lay_out, pack, pieces
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.checks import check
from seirenes_jax.cli import TRAIN_FLAGS, need, parse
from seirenes_jax.clock import Clock, peak_rss_gib, profiled, set_up_compile_cache
from seirenes_jax.data import Cursor, Order, master
from seirenes_jax.errors import DONE, NumbersError, Stopped
from seirenes_jax.evaluate import Evaluator, accuracy, scores
from seirenes_jax.finish import finish
from seirenes_jax.games import GAMES
from seirenes_jax.games.base import Context, Game, Note, Rules
from seirenes_jax.games.seirenes import START
from seirenes_jax.knobs import Settings
from seirenes_jax.masked import Total
from seirenes_jax.optim import make_optimizer
from seirenes_jax.play import Played, play
from seirenes_jax.progress import Progress, from_host
from seirenes_jax.report import RunLog
from seirenes_jax.rng import stable_hash
from seirenes_jax.sampler import Sampler
from seirenes_jax.signals import Stop, listening
from seirenes_jax.start import Start, begin, leave_model, starting_params
from seirenes_jax.state import Params, TrainBatch, TrainState
from seirenes_jax.step import add_gradient, apply_gradient, score_step, zero_gradient
from seirenes_jax.types import LIVE, Ask, Credit, Group, Name, Rollout
from seirenes_jax.verify.judge import Judge

BAD_STEPS = 3  # updates in a row that were not finite, after which the run ends
LOOKS_BEYOND = ("whiten", "ema")  # advantages that learn from groups of equal rewards too


@dataclass(frozen=True, slots=True)
class Gear:
    """What a run works with. Nothing here changes; what changes is `state` and `progress`."""

    settings: Settings
    start: Start
    game: Game
    plan: Plan
    order: Order
    sampler: Sampler
    judge: Judge
    evaluator: Evaluator
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    reference: Params | None  # starting weights, kept only where KL or a frozen opponent needs them
    log: RunLog
    clock: Clock
    stop: Stop


def main(argv: Sequence[str]) -> int:
    """`launch/train.py`: one run, begun or continued."""
    flags, overrides = parse(argv, flags=TRAIN_FLAGS)
    spec = need(flags, "config")
    settings, config = config_files.load(spec, overrides)
    check(settings)
    workdir = folder.open_run(
        config, spec=spec, workdir=flags["workdir"] or "", fork=flags["fork"] or ""
    )
    cache_dir = folder.cache_dir(flags["cache_dir"] or "")
    with folder.held(workdir):
        run(settings, config, workdir, cache_dir=cache_dir)
    return DONE


def run(
    settings: Settings, config: ConfigDict, workdir: Path, *, cache_dir: Path
) -> dict[str, Any]:
    """Play and learn until `steps` or the budget is reached; returns the summary."""
    with ExitStack() as stack:
        stop = stack.enter_context(listening(settings.preempt.grace_s))
        set_up_compile_cache(cache_dir)
        log = stack.enter_context(
            RunLog(workdir, steps=settings.steps, wandb=settings.report.wandb)
        )
        folder.write_config(workdir, config)
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", settings.checkpoint.keep)
        )
        gear, state, progress = prepare(settings, stack, log, cache_dir=cache_dir, stop=stop)
        state, progress = restore(checkpoints, state, progress, log)
        try:
            if not progress.before:
                measure_start(gear, state, progress)
                save(checkpoints, state, progress, score=None)
            lap(gear, progress)  # what came before is no part of the first step
            while progress.step < settings.steps and not spent(settings, progress):
                with profiled(settings.profile.steps, progress.step + 1, workdir):
                    state, row, notes = one_step(gear, state, progress)
                due = settings.eval.every and progress.step % settings.eval.every == 0
                score = evaluate_inside(gear, state, progress, row) if due else None
                log_step(gear, progress, row, notes)
                if score is not None or progress.step % settings.checkpoint.every == 0:
                    save(checkpoints, state, progress, score=score)
                stop.check()
        except Stopped:
            whole = progress.before and progress.step == log.logged  # its line is written, too
            if whole and progress.step not in checkpoints.steps():
                save(checkpoints, state, progress, score=None)
            checkpoints.wait()
            at = max(checkpoints.steps(), default=0)
            log.event(f"stopped after step {at}")
            raise Stopped(
                f"stopped after step {at} of {settings.steps}; everything is saved in "
                f"{workdir}. The same command goes on from there."
            ) from None
        if progress.step not in checkpoints.steps():
            save(checkpoints, state, progress, score=None)
        checkpoints.wait()
        return finish(gear.evaluator, state.params, progress, settings=settings, log=log,
                      start=gear.start, clock=gear.clock)  # fmt: skip


def prepare(
    settings: Settings, stack: ExitStack, log: RunLog, *, cache_dir: Path, stop: Stop
) -> tuple[Gear, TrainState, Progress]:
    """Everything a step needs, and the state before the first one."""
    clock = Clock()
    mesh = sharding.make_mesh(settings.mesh)
    with clock("warm_start"):
        start = begin(settings, cache_dir, log, check=stop.check)
        leave_model(start, log.folder / "model", settings)
    game = GAMES[settings.game]
    optimizer = make_optimizer(settings.optimizer, settings.steps)
    params = starting_params(start, settings, log.folder)
    params = jax.device_put(params, sharding.param_shardings(params, mesh))
    keeps_start = settings.loss.kl != 0.0 or settings.adversary.policy == "frozen"
    reference = jax.tree.map(jnp.copy, params) if keeps_start else None
    tokens = settings.tokens
    judge = stack.enter_context(
        Judge(settings.judge.workers, settings.judge.deadline_s, settings.judge.memory_gib)
    )
    sampler = Sampler(
        start.config, start.tokenizer, settings.sampler, seed=settings.seed,
        prompt_tokens=tokens.prompt, answer_tokens=max(tokens.reasoner, tokens.adversary),
    )  # fmt: skip
    if reference is not None:
        sampler.load(START, reference, 0)
    limits = {"adversary": tokens.adversary}
    plan = Plan(
        streams=game.streams, limits=tuple(limits.get(s, tokens.reasoner) for s in game.streams),
        advantage=settings.advantage, loss=settings.loss, knobs=settings.streams,
        batch=settings.batch, temperature=settings.sampler.temperature,
    )  # fmt: skip
    gear = Gear(
        settings=settings, start=start, game=game, plan=plan, sampler=sampler, judge=judge,
        order=Order(
            start.train, seed=settings.seed, mastered_share=settings.problems.mastered_share
        ),
        evaluator=Evaluator(settings, start, sampler, judge, log=log, check=stop.check),
        optimizer=optimizer, mesh=mesh, reference=reference, log=log, clock=clock, stop=stop,
    )  # fmt: skip
    state = TrainState(jnp.int32(0), params, jax.jit(optimizer.init)(params))
    waiting = streams.empty(game.streams, settings.streams.max_age)
    progress = Progress(streams=waiting)
    progress.tokens["warm_start"] = start.warm_tokens
    return gear, state, progress


def one_step(
    gear: Gear, state: TrainState, progress: Progress
) -> tuple[TrainState, dict[str, Any], list[Note]]:
    """Play, credit, pack, update. `state` is donated.

    `progress` moves at the very end, all at once: a step that is left halfway has not happened.
    """
    step, clock = progress.step + 1, gear.clock
    with clock("play"):
        gear.sampler.load(LIVE, state.params, progress.step)
        gear.sampler.begin(step, gear.settings.sampler.temperature)
        played, cursor = play_rounds(gear, progress, step)
    notes = [note for one in played for note in one.notes]
    with clock("pack"):
        groups, waiting, live, fifo = queue_groups(gear, progress, step, played)
        completions, baseline = pieces(
            groups, gear.start.tokenizer.render, gear.plan, progress.baseline
        )
        micros = lay_out(pack(completions, gear.plan.batch.row_tokens), gear.plan)
    gear.stop.check()
    with clock("update"):
        state, totals, norm = update(gear, state, micros)
    row = {"step": step, **metrics.played_row(played, live, fifo)}
    row |= metrics.learnt_row(totals, gear.plan.streams)
    row |= {"grad_norm": norm, "grad_norm_stream": None}
    progress.step, progress.cursor, progress.streams = step, cursor, waiting
    progress.baseline, progress.memory = baseline, gear.game.remember(progress.memory, notes)
    master(progress.cursor, [(note["problem_id"], all_right(note)) for note in notes])
    progress.tokens["play"] += row["tokens"]
    row |= {"mastered": len(progress.cursor.mastered), "tokens_total": progress.tokens["play"]}
    mind_numbers(gear, progress, norm)
    return state, row, notes


def play_rounds(gear: Gear, progress: Progress, step: int) -> tuple[list[Played], Cursor]:
    """Fresh problems; with dynamic sampling, further rounds in place of dead clean groups."""
    settings = gear.settings
    context = Context(
        step=step, seed=settings.seed, memory=progress.memory,
        rules=Rules(settings.rollouts, settings.tokens, settings.prompts, settings.adversary,
                    settings.hints, settings.streams),
        count_tokens=gear.start.tokenizer.count,
        prompt_tokens=lambda messages: len(gear.start.tokenizer.render(messages)),
        write_hint=gear.start.write_hint,
    )  # fmt: skip

    def ask(opened: list[tuple[Name, Ask]]) -> list[Rollout]:
        gear.stop.check()
        with gear.clock("decode"):
            finished = gear.sampler.ask(opened)
        bar.advance(len(finished))
        return finished

    rounds: list[Played] = []
    cursor, missing = progress.cursor, settings.problems_per_step
    for _ in range(1 + settings.streams.resample_rounds):
        chosen, cursor = gear.order.take(cursor, missing)
        samples = len(chosen) * samples_a_problem(settings)
        with gear.log.bar(f"step {step} rollouts", samples, "answer") as bar:
            rounds.append(play(chosen, gear.game, context, ask=ask, judge=gear.judge))
        credits = [c for game in rounds[-1].credits for c in game]
        alive = [g for g in streams.grouped(credits) if streams.is_live(g)]
        missing -= sum(group[0].stream == "clean" for group in alive)
        if missing <= 0:
            break
    return rounds, cursor


def samples_a_problem(settings: Settings) -> int:
    """How many answers one problem takes at most."""
    r = settings.rollouts
    return r.clean + (r.hints * (1 + r.hinted) if settings.game != "rlvr" else 0)


def queue_groups(
    gear: Gear, progress: Progress, step: int, played: Sequence[Played]
) -> tuple[list[Group], streams.Streams, dict[str, streams.Live], dict[str, streams.Fifo]]:
    """Through the FIFO: what this step trains on, and what waits."""
    credits: list[Credit] = [c for one in played for game in one.credits for c in game]
    waiting, live = progress.streams.push(
        step, streams.grouped(credits),
        drop_dead=gear.settings.advantage.kind not in LOOKS_BEYOND,
    )  # fmt: skip
    waiting, taken, fifo = waiting.pop(step, gear.settings.streams.groups)
    return [group for name in gear.plan.streams for group in taken[name]], waiting, live, fifo


def update(
    gear: Gear, state: TrainState, micros: Sequence[TrainBatch]
) -> tuple[TrainState, dict[str, Total], float | None]:
    """Accumulate over micro-batches, apply once. No live group at all: no update."""
    if not micros:
        return state, {}, None
    loss, config = gear.settings.loss, gear.start.config
    grads = zero_gradient(state.params)
    found: list[dict[str, Total]] = []
    bar = gear.log.bar("update", len(micros), "micro-batch")
    for micro in micros:
        bar.advance()
        batch = jax.device_put(micro, batch_shardings(micro, gear.mesh))
        if loss.rescore:
            batch = batch.replace(
                logp_old_BT=score_step(state.params, batch, config=config),
                logp_behaviour_BT=batch.logp_old_BT,
            )
        if loss.kl != 0.0:
            batch = batch.replace(logp_ref_BT=score_step(gear.reference, batch, config=config))
        grads, totals = add_gradient(
            state.params, grads, batch, config=config, loss=loss, streams=gear.plan.streams
        )
        found.append(totals)
    bar.close()
    state, applied = apply_gradient(state, grads, optimizer=gear.optimizer)
    merged = {k: total for k, total in jax.device_get(found[0]).items()}
    for totals in jax.device_get(found[1:]):
        merged = {k: merged[k].add(total) for k, total in totals.items()}
    return state, merged, float(applied["grad_norm"])


def batch_shardings(batch: TrainBatch, mesh: jax.sharding.Mesh) -> Any:
    """Rows over the mesh, scalars everywhere."""
    rows, everywhere = sharding.rows_sharding(mesh), sharding.replicated(mesh)
    return jax.tree.map(lambda x: rows if np.ndim(x) else everywhere, batch)


def all_right(note: Note) -> bool:
    """Every try of a problem, clean and hinted, was right."""
    tries = note["clean"] + [t for hint in note["hints"] for t in hint["hinted"]]
    return all(t["verdict"] == "right" for t in tries)


def mind_numbers(gear: Gear, progress: Progress, norm: float | None) -> None:
    """Say that a non-finite gradient was not applied; too many in a row end the run."""
    bad = norm is not None and not np.isfinite(norm)
    progress.bad_steps = progress.bad_steps + 1 if bad else 0
    if bad:
        gear.log.event(f"step {progress.step}: gradient norm {norm}; the update was not applied")
    if progress.bad_steps >= BAD_STEPS:
        raise NumbersError(
            f"step {progress.step}: the gradient was not finite in {BAD_STEPS} steps in a "
            "row and none of them was applied; lower optimizer.lr, with --fork to go on from here"
        )


def spent(settings: Settings, progress: Progress) -> bool:
    """Play has generated its budget of tokens."""
    return 0 < settings.budget.tokens <= progress.tokens["play"]


def measure_start(gear: Gear, state: TrainState, progress: Progress) -> None:
    """The `before` of the summary, kept in the first checkpoint."""
    with gear.clock("eval"):
        marks, written = gear.evaluator.everything(
            state.params, None, gear.settings.eval.final_problems
        )
    progress.before = {"scores": scores(marks, gear.start.rare), "marks": marks}
    progress.start_hints = written
    progress.tokens["eval"] += gear.evaluator.spent()


def evaluate_inside(
    gear: Gear, state: TrainState, progress: Progress, row: dict[str, Any]
) -> float:
    """Clean and the four families on a few held-out problems; their mean decides what is best."""
    with gear.clock("eval"):
        marks = gear.evaluator.families(state.params, gear.settings.eval.problems)
    row["eval"] = {name: accuracy(found) for name, found in marks.items()}
    progress.tokens["eval"] += gear.evaluator.spent()
    clean, *hinted = [share or 0.0 for share in row["eval"].values()]
    score = (clean + float(np.mean(hinted))) / 2
    if score > progress.best.get("score", -1.0):
        progress.best = {"step": progress.step, "score": score}
    return score


def lap(gear: Gear, progress: Progress) -> tuple[dict[str, float], int]:
    """Seconds by phase and compiles since the last lap, added to the run's account."""
    seconds, compiles = gear.clock.lap()
    for phase, took in seconds.items():
        progress.seconds[phase] = progress.seconds.get(phase, 0.0) + took
    return seconds, compiles


def log_step(gear: Gear, progress: Progress, row: dict[str, Any], notes: list[Note]) -> None:
    """Metrics, a few readable problems, and where the time went."""
    seconds, compiles = lap(gear, progress)
    use = gear.sampler.use
    row["time"] = {
        **seconds, "tokens_per_s": row["tokens"] / seconds["play"],
        "slot_use": use.drawn / max(1, use.steps), "rss_gib": peak_rss_gib(),
        "recompiles": compiles,
    }  # fmt: skip
    order = sorted(notes, key=lambda n: stable_hash("shown", progress.step, n["problem_id"]))
    gear.log.log_step(row, order[: gear.settings.report.rollouts_per_step])


def save(
    checkpoints: Checkpoints, state: TrainState, progress: Progress, *, score: float | None
) -> None:
    """All of the run in one atomic step."""
    arrays, stored = progress.to_host()
    checkpoints.save(
        progress.step, state, host_arrays=arrays, host_json=stored, metric=score
    )


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
