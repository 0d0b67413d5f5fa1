"""The loop: play, credit, pack, update, write, save. The one file that knows everyone."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from seirenes_jax import alarms, folder, hosts, machine, maintenance, metrics, parcel, streams
from seirenes_jax import base as bases
from seirenes_jax import settings as config_files
from seirenes_jax.checkpoint import Checkpoints
from seirenes_jax.checks import check
from seirenes_jax.cli import TRAIN_FLAGS, need, parse, whole_number
from seirenes_jax.clock import profiled
from seirenes_jax.data import Cursor, master
from seirenes_jax.errors import DONE, Stopped
from seirenes_jax.evaluate import accuracy, scores
from seirenes_jax.fingerprint import digest
from seirenes_jax.finish import finish
from seirenes_jax.games.base import Context, Note, Rules
from seirenes_jax.games.seirenes import START
from seirenes_jax.gear import Gear, prepare, restore
from seirenes_jax.handshake import shake_hands
from seirenes_jax.knobs import Checkpoint, Settings
from seirenes_jax.learn import micro_batches, mind_numbers, queue_groups, refuse_more, update
from seirenes_jax.mirror import Mirror
from seirenes_jax.play import Played, play
from seirenes_jax.progress import Progress
from seirenes_jax.report import Mute, RunLog
from seirenes_jax.rng import stable_hash
from seirenes_jax.signals import listening
from seirenes_jax.state import TrainState
from seirenes_jax.types import LIVE, Ask, Name, Problem, Rollout


def main(argv: Sequence[str]) -> int:
    """`launch/train.py`: one run, begun or continued; this process may be one of many."""
    flags, overrides = parse(argv, flags=TRAIN_FLAGS)
    spec = need(flags, "config")
    settings, config = config_files.load(spec, overrides)
    check(settings)
    cache_dir = folder.cache_dir(flags["cache_dir"] or "")
    machine.set_up_compile_cache(cache_dir)
    processes, index = (whole_number(flags, name) for name in ("processes", "process"))
    with hosts.connected(flags["coordinator"] or "", processes, index), ExitStack() as stack:

        home = hosts.first(lambda: str(folder.open_run(
            config, spec=spec, workdir=flags["workdir"] or "", fork=flags["fork"] or ""
        )))  # fmt: skip
        mirror = Mirror(home, cache_dir)
        hosts.first(lambda: stack.enter_context(mirror.held()))
        run(settings, config, mirror, cache_dir=cache_dir)
    return DONE


def run(
    settings: Settings, config: ConfigDict, mirror: Mirror, *, cache_dir: Path
) -> dict[str, Any]:
    """Play and learn until `steps` or the budget is reached; returns the summary."""
    with ExitStack() as stack:
        stop = stack.enter_context(listening(settings.preempt.grace_s))
        stack.enter_context(hosts.heeding(stop))
        stack.enter_context(
            maintenance.heeding(stop, maintenance.server(jax.default_backend()))
        )
        log: RunLog = Mute(mirror.spool)
        if hosts.writes():
            log = stack.enter_context(
                RunLog(mirror.spool, steps=settings.steps, wandb=settings.report.wandb)
            )
            folder.write_config(mirror.spool, config)
        checkpoints = stack.enter_context(open_checkpoints(settings.checkpoint, mirror, log))
        gear, progress = prepare(
            settings, stack, log, home=mirror.home, cache_dir=cache_dir, stop=stop
        )
        if gear.base is not None:
            bases.keep(gear.base, progress.base, start=gear.start, settings=settings,
                       home=mirror.home)  # fmt: skip
        state, progress = restore(checkpoints, gear, progress)
        try:
            if not progress.before:
                measure_start(gear, state, progress)
                save(checkpoints, mirror, gear, state, progress, score=None)
            lap(gear, progress)  # what came before is no part of the first step
            begun = progress.step
            while progress.step < settings.steps and not spent(settings, progress):
                with profiled(settings.profile.steps, progress.step + 1, mirror.spool):
                    state, row, notes, told = one_step(
                        gear, state, progress, first=progress.step == begun
                    )
                due = settings.eval.every and progress.step % settings.eval.every == 0
                score = evaluate_inside(gear, state, progress, row) if due else None
                log_step(gear, progress, row, notes, told=told)
                due = score is not None or progress.step % settings.checkpoint.every == 0
                if due or progress.bad_steps == 1:  # to compute them again takes these weights
                    save(checkpoints, mirror, gear, state, progress, score=score)
                refuse_more(gear, progress)
                if gear.hosts.agree(stop.asked is not None):
                    raise Stopped("between two steps")
        except Stopped:
            save_what_is_whole(gear, checkpoints, mirror, state, progress)
            at = max(checkpoints.steps(), default=0)
            log.event(f"stopped after step {at}")
            raise Stopped(
                f"stopped after step {at} of {settings.steps}; everything is saved in "
                f"{mirror.home}. The same command goes on from there."
            ) from None
        if progress.step not in checkpoints.steps():
            save(checkpoints, mirror, gear, state, progress, score=None)
        settle(checkpoints, gear)
        return finish(gear.evaluator, state.params, progress, settings=settings, log=log,
                      start=gear.start, clock=gear.clock, lay_out=gear.lay_out,
                      mirror=mirror, base=gear.base)  # fmt: skip


def save_what_is_whole(
    gear: Gear, checkpoints: Checkpoints, mirror: Mirror, state: TrainState, progress: Progress
) -> None:
    """The last step, where all of it is written and it is not saved yet."""
    whole = progress.before and progress.step == gear.log.logged  # its line is written, too
    if whole and progress.step not in checkpoints.steps():
        save(checkpoints, mirror, gear, state, progress, score=None)
    settle(checkpoints, gear)


def one_step(
    gear: Gear, state: TrainState, progress: Progress, *, first: bool
) -> tuple[TrainState, dict[str, Any], list[Note], alarms.Told]:
    """Play, credit, pack, update. `state` is donated. `first`: of this process.

    `progress` moves at the very end, all at once: a step that is left halfway has not happened.
    """
    step, clock = progress.step + 1, gear.clock
    with clock("layout"):
        if gear.journal is not None:
            gear.journal.begin(step, digest(state.params))
        gear.sampler.load(LIVE, gear.lay_out(state.params), progress.step)
        if gear.frozen is not None:
            gear.sampler.load(START, gear.frozen, 0)
    with clock("play"):
        gear.sampler.begin(step, gear.settings.sampler.temperature)
        played, cursor = play_rounds(gear, progress, step)
        gear.sampler.release()  # the update has the room of what decoded
    notes = [note for one in played for note in one.notes]
    with clock("pack"):
        groups, waiting, live, fifo = queue_groups(gear, progress, step, played)
        packed = micro_batches(gear, progress, groups)
    if first:
        with clock("probe"):
            shake_hands(gear, state.params, played, progress.step)
    if gear.hosts.agree(gear.stop.asked is not None):
        raise Stopped("before the update")
    with clock("update"):
        state, learnt = update(gear, state, packed.micros)
    row = {"step": step, **metrics.played_row(played, live, fifo)}
    row |= metrics.learnt_row(learnt.totals, gear.plan.streams)
    row |= {"grad_norm": learnt.norm, "grad_norm_stream": None}
    progress.step, progress.cursor, progress.streams = step, cursor, waiting
    progress.baseline, progress.memory = packed.baseline, gear.game.remember(progress.memory, notes)
    master(progress.cursor, [(note["problem_id"], all_right(note)) for note in notes])
    progress.tokens["play"] += row["tokens"]
    row |= {"mastered": len(progress.cursor.mastered), "tokens_total": progress.tokens["play"]}
    told, progress.alarms = alarms.look(row, notes, progress.alarms, gear.settings.alarms)
    row["signs"] = dict(told.signs)
    mind_numbers(gear, progress, packed, learnt)
    return state, row, notes, told


def play_rounds(gear: Gear, progress: Progress, step: int) -> tuple[list[Played], Cursor]:
    """Fresh problems; with dynamic sampling, further rounds in place of dead clean groups."""
    settings = gear.settings
    rounds: list[Played] = []
    cursor, missing = progress.cursor, settings.problems_per_step
    for _ in range(1 + settings.streams.resample_rounds):
        chosen, cursor = gear.order.take(cursor, missing)
        rounds.append(play_together(gear, progress, step, chosen))
        credits = [c for game in rounds[-1].credits for c in game]
        alive = [g for g in streams.grouped(credits) if streams.is_live(g)]
        missing -= sum(group[0].stream == "clean" for group in alive)
        if missing <= 0:
            break
    return rounds, cursor


def play_together(
    gear: Gear, progress: Progress, step: int, chosen: Sequence[tuple[Problem, int]]
) -> Played:
    """Each island plays its share; every process gets it all, as if one had played it."""
    seats = gear.hosts.mine(len(chosen))

    def own() -> Played:
        return play_own(gear, progress, step, [chosen[seat] for seat in seats])

    if gear.hosts.islands == 1:
        return own()
    brought = gear.hosts.unless_stopped(lambda: parcel.to_bytes(own(), seats))
    return parcel.merged(gear.hosts.exchange(brought))


def play_own(
    gear: Gear, progress: Progress, step: int, problems: Sequence[tuple[Problem, int]]
) -> Played:
    """This island's share of the step's problems."""
    settings, tokenizer = gear.settings, gear.start.tokenizer
    context = Context(
        step=step, seed=settings.seed, memory=progress.memory,
        rules=Rules(settings.rollouts, settings.tokens, settings.prompts, settings.adversary,
                    settings.hints, settings.streams),
        count_tokens=tokenizer.count,
        prompt_tokens=lambda messages: len(tokenizer.render(messages)),
        write_hint=gear.start.write_hint,
    )  # fmt: skip

    def ask(opened: list[tuple[Name, Ask]]) -> list[Rollout]:
        gear.hosts.check(gear.stop)
        with gear.clock("decode"):
            if gear.journal is not None:
                finished = gear.journal.ask(gear.sampler, opened)
            else:
                finished = gear.sampler.ask(opened)
        bar.advance(len(finished))
        return finished

    samples = len(problems) * samples_a_problem(settings)
    with gear.log.bar(f"step {step} rollouts", samples, "answer") as bar:
        return play(problems, gear.game, context, ask=ask, judge=gear.judge, watch=gear.watch)


def samples_a_problem(settings: Settings) -> int:
    """How many answers one problem takes at most."""
    r = settings.rollouts
    return r.clean + (r.hints * (1 + r.hinted) if settings.game != "rlvr" else 0)


def all_right(note: Note) -> bool:
    """Every try of a problem, clean and hinted, was right."""
    tries = note["clean"] + [t for hint in note["hints"] for t in hint["hinted"]]
    return all(t["verdict"] == "right" for t in tries)


def spent(settings: Settings, progress: Progress) -> bool:
    """Play has generated its budget of tokens."""
    return 0 < settings.budget.tokens <= progress.tokens["play"]


def measure_start(gear: Gear, state: TrainState, progress: Progress) -> None:
    """The `before` of the summary, kept in the first checkpoint."""
    with gear.clock("eval", gear.sampler.waits_for):
        marks, written = gear.evaluator.everything(
            gear.lay_out(state.params), None, gear.settings.eval.final_problems
        )
    progress.before = {"scores": scores(marks, gear.start.rare), "marks": marks}
    progress.start_hints = written
    progress.tokens["eval"] += gear.evaluator.spent()


def evaluate_inside(
    gear: Gear, state: TrainState, progress: Progress, row: dict[str, Any]
) -> float:
    """Clean and the four families on a few held-out problems; their mean decides what is best."""
    with gear.clock("eval", gear.sampler.waits_for):
        marks = gear.evaluator.families(
            gear.lay_out(state.params), gear.settings.eval.problems
        )
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


def log_step(
    gear: Gear, progress: Progress, row: dict[str, Any], notes: list[Note], *, told: alarms.Told
) -> None:
    """Metrics, a few readable problems, and where the time went."""
    seconds, compiles = lap(gear, progress)
    use = gear.sampler.use
    row["time"] = {
        **seconds, "tokens_per_s": row["tokens"] / seconds["play"],
        "slot_use": use.drawn / max(1, use.steps), "rss_gib": machine.peak_rss_gib(),
        "recompiles": compiles,
    }  # fmt: skip
    if gear.journal is not None:
        row["time"]["journal_tokens"] = gear.journal.tokens
        if gear.journal.answered:
            gear.log.event(
                f"step {progress.step}: {gear.journal.answered} answers of "
                f"{gear.journal.tokens} tokens come from the journal"
            )
    order = sorted(notes, key=lambda n: stable_hash("shown", progress.step, n["problem_id"]))
    shown = order[: gear.settings.report.rollouts_per_step]
    gear.log.log_step(row, shown, told.lines(progress.step))
    for words in told.words:
        gear.log.say(words)
        gear.log.event(words)


def open_checkpoints(knobs: Checkpoint, mirror: Mirror, log: RunLog) -> Checkpoints:
    """Those of the run's folder; what failed is said each time where the run is to go on."""

    def tell(said: str) -> None:
        log.say(said)
        log.event(said)

    return Checkpoints(
        mirror.home / "checkpoints", knobs.keep, keep_every=knobs.keep_every, verify=knobs.verify,
        tell=tell if knobs.on_failure == "go_on" else None,
    )  # fmt: skip


def save(
    checkpoints: Checkpoints, mirror: Mirror, gear: Gear, state: TrainState, progress: Progress,
    *, score: float | None,
) -> None:  # fmt: skip
    """All of the run in one atomic step; the lines of its files are where it is before it is."""

    def waits_for() -> str:
        return f"the checkpoint of step {progress.step} in {checkpoints.folder}"

    with gear.watch("save", waits_for):
        mirror.send()
        arrays, stored = progress.to_host()
        checkpoints.save(
            progress.step, state, host_arrays=arrays, host_json=stored, metric=score,
            needed=[one["checkpoint"] for one in progress.bad],
        )  # fmt: skip
        if gear.journal is not None:
            gear.journal.drop(checkpoints.good)


def settle(checkpoints: Checkpoints, gear: Gear) -> None:
    """What is being saved is saved, and read back."""
    with gear.watch("save"):
        checkpoints.wait()
        if gear.journal is not None:
            gear.journal.drop(checkpoints.good)
