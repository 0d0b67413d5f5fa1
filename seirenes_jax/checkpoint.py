"""Checkpoints: everything a run needs to go on, all of it or nothing.

One step directory holds the state and the host's own arrays and JSON, and Orbax finalises them
together. Beside them stands a fingerprint of every array: with it a save is read back and compared
before an older one may go, and a restore tells a good checkpoint from a damaged one and falls back
to the one before.
"""

import errno
import gc
import math
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from types import TracebackType
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from seirenes_jax import stored
from seirenes_jax.errors import CheckpointError, ConfigError, SaveError
from seirenes_jax.fingerprint import Leaves, describe, paths
from seirenes_jax.hosts import all_gather
from seirenes_jax.packing import packed
from seirenes_jax.store import Folder, at, first_line, is_remote

# What reading a truncated, flipped or missing file raises. A device out of memory is none of these.
_DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True, eq=False)
class Restored:
    """What a checkpoint held, bit for bit."""

    step: int
    state: Any
    host_arrays: dict[str, np.ndarray]
    host_json: dict[str, Any]
    messages: tuple[str, ...]  # one for every newer checkpoint that was damaged


def kept(steps: Sequence[int], *, keep: int, keep_every: int, best: int | None) -> set[int]:
    """Which steps stay: the newest `keep`, the best one, and every multiple of `keep_every`."""
    regular = [step for step in steps if keep_every and step % keep_every == 0]
    return {*sorted(steps)[-keep:], *regular, *([] if best is None else [best])}


class Checkpoints:
    """The checkpoints of one run folder.

    `tell`: a failed save is said to it and the run goes on; without it, it is a SaveError.
    """

    def __init__(
        self, folder: Folder, keep: int, *, keep_every: int = 0, verify: bool = True,
        tell: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        if keep < 1:
            raise ConfigError(f"checkpoint.keep: got {keep}; wanted at least 1")
        self.folder = _place(folder)
        self.good: int | None = None  # the newest step that was read back, by this process's run
        self._keep, self._keep_every, self._verify, self._tell = keep, keep_every, verify, tell
        self._needed: frozenset[int] = frozenset()  # steps that stay besides
        self._damaged: set[int] = set()
        self._metrics: dict[int, float | None] = {}  # of steps on disk
        self._pending: tuple[int, int] | None = None  # step and bytes of the save under way
        self._faults: list[str] = []  # what reading it back has found
        self._alone = jax.process_count() == 1
        self._reader = Thread()
        self._manager = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._alone = kind is not None  # what ended this process may not have ended the others
        self.close()

    def close(self) -> None:
        """Finish what is under way; SaveError if it fails."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _open(self) -> ocp.CheckpointManager:
        # What a killed or failed save left behind goes. What to keep is decided in `_retain`.
        options = ocp.CheckpointManagerOptions(cleanup_tmp_directories=True)
        return ocp.CheckpointManager(self.folder, options=options)

    def steps(self) -> list[int]:
        """Steps that were saved completely and are not known to be damaged, oldest first."""
        return sorted({*self._manager.all_steps()} - self._damaged)

    def best(self) -> int | None:
        """The step with the highest metric; None where none was saved with one."""
        for step in self.steps():
            if step not in self._metrics:
                try:
                    self._metrics[step] = stored.metric(self.folder, step)
                except _DAMAGE:
                    self._metrics[step] = None  # `restore` says so when it comes to it
        scored = [(m, s) for s in self.steps() if (m := self._metrics[s]) is not None]
        return max(scored)[1] if scored else None

    def save(
        self, step: int, state: Any, *, host_arrays: Mapping[str, np.ndarray],
        host_json: Mapping[str, Any], metric: float | None, needed: Collection[int] = (),
    ) -> None:  # fmt: skip
        """Start saving. The arrays may be donated as soon as this returns; `wait` says how it went.

        `metric` is higher for better. From now on the steps `needed` stay, however old.
        """
        self.wait()
        for damaged in sorted(self._damaged & {*self._manager.all_steps()}):
            self._delete(damaged)  # the run goes on from before them and saves them anew
        self._damaged.clear()
        self._needed = frozenset(needed)
        if step in self.steps():
            raise SaveError(f"step {step} is already saved in {self.folder}; it was left as it is")
        scored = metric if metric is not None and math.isfinite(metric) else None
        head = {"step": step, "metric": scored, "leaves": describe(state), "json": dict(host_json)}
        blob = np.frombuffer(packed(head, host_arrays), np.uint8)
        self._pending = (step, blob.nbytes + sum(x.nbytes for x in jax.tree.leaves(state)))
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state), host=ocp.args.PyTreeSave({"blob": blob})
                ),
                force=True,
            )
        except (*_DAMAGE, RuntimeError) as error:
            self._failed(error)
            return
        self._faults = []
        self._reader = Thread(target=self._read_back, args=(step, self._faults), daemon=True)
        self._reader.start()

    def _read_back(self, step: int, faults: list[str]) -> None:
        """In a thread, beside the next steps: what lies in the folder is what was to be saved."""
        try:
            self._manager.wait_until_finished()
        except (*_DAMAGE, RuntimeError):
            return  # `wait` is told the same and raises it
        try:
            if self._verify:
                stored.check(
                    self.folder, step, share=jax.process_index(), of=jax.process_count()
                )
            else:
                stored.record(self.folder, step)
        except _DAMAGE as error:
            faults.append(first_line(error))

    def wait(self) -> None:
        """Until the save under way is finished and reads back as it was; else SaveError."""
        if self._pending is None:
            return
        step = self._pending[0]
        try:
            self._manager.wait_until_finished()
            self._reader.join()
            if step not in self.steps():
                raise OSError(f"step {step} was never finalised")
            if faults := self._everybodys(self._faults):
                self._damaged.add(step)
                raise OSError(f"it does not read back: {faults[0]}")
        except (*_DAMAGE, RuntimeError) as error:
            self._failed(error)
            return
        self._pending, self.good = None, step
        self._retain()

    def _everybodys(self, faults: list[str]) -> list[str]:
        """Each process reads a share of the arrays; what one finds is true for all."""
        if self._alone:
            return faults
        return [said.decode() for said in all_gather("".join(faults).encode()) if said]

    def _retain(self) -> None:
        """Only now, with the new one known to be good, may older ones go."""
        steps = self.steps()
        stay = kept(steps, keep=self._keep, keep_every=self._keep_every, best=self.best())
        for step in steps:
            if step not in stay | self._needed:
                self._delete(step)

    def _delete(self, step: int) -> None:
        self._manager.delete(step)
        self._metrics.pop(step, None)

    def _failed(self, error: Exception) -> None:
        """Name what happened, and stand ready for another try."""
        assert self._pending is not None
        step, size = self._pending
        self._pending = None
        self._manager.close()
        self._manager = self._open()
        room = ""
        if not is_remote(self.folder):
            room = f"; {shutil.disk_usage(self.folder).free / 2**30:.3f} GiB are free"
        there = ", ".join(map(str, self.steps())) or "none"
        no_space = _is_no_space(error)
        what = "no space left on the device" if no_space else first_line(error)
        change = "Free some space or lower checkpoint.keep, then run" if no_space else "Run"
        said = (
            f"saving step {step} into {self.folder} failed: {what} (it holds about "
            f"{size / 2**30:.3f} GiB{room}). Complete checkpoints still there: {there}. "
        )
        if self._tell is None:
            raise SaveError(f"{said}{change} the same command again.") from error
        self._tell(f"{said}The run goes on without it (checkpoint.on_failure = go_on).")

    def restore(self, abstract_state: Any) -> Restored | None:
        """The newest good checkpoint, laid out by the shardings of `abstract_state`.

        None where nothing was saved. Damaged ones are passed over, each with a message.
        """
        self.wait()
        messages: list[str] = []
        for step in reversed(self.steps()):
            try:
                record, arrays = stored.record(self.folder, step)
                state = _read_state(self._manager, step, record["leaves"], abstract_state)
            except jax.errors.JaxRuntimeError:
                raise  # out of memory says nothing about the file
            except _DAMAGE as error:
                self._damaged.add(step)
                messages.append(
                    f"the checkpoint of step {step} is damaged and was passed over: "
                    f"{first_line(error)}"
                )
                continue
            self.good = step
            return Restored(step, state, arrays, record["json"], tuple(messages))
        if messages:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is good:\n" + "\n".join(messages)
                + "\nRestore the folder from a copy, or start anew in another --workdir."
            )
        return None


def load_params(folder: Folder, abstract_params: Any, step: int | None) -> tuple[int, Any]:
    """Weights alone, of one step or (None) of the newest, whatever else was saved with them."""
    with _opened(folder) as manager:
        steps = sorted(manager.all_steps())
        if not steps or step not in (None, *steps):
            raise ConfigError(f"{folder}: no checkpoint of step {step}; it has {steps or 'none'}")
        chosen = steps[-1] if step is None else step
        try:
            record, _ = stored.record(_place(folder), chosen)
            tree = {"params": abstract_params}
            state = _read_state(manager, chosen, record["leaves"], tree, part="params/")
        except jax.errors.JaxRuntimeError:
            raise
        except _DAMAGE as error:
            raise CheckpointError(
                f"{folder}: the checkpoint of step {chosen} is damaged: {first_line(error)}; "
                f"steps saved there: {steps}"
            ) from error
    return chosen, state["params"]


def _place(folder: object) -> Folder:
    place = at(folder)
    return place if is_remote(place) else place.absolute()


def noted(folder: Folder, step: int) -> dict[str, Any]:
    """The host's own JSON of one step."""
    found: dict[str, Any] = stored.record(_place(folder), step)[0]["json"]
    return found


@contextmanager
def _opened(folder: Folder) -> Iterator[ocp.CheckpointManager]:
    """To read. It may be a live run's folder: nothing is written and nothing cleaned up."""
    options = ocp.CheckpointManagerOptions(create=False, save_root_metadata=False)
    path = _place(folder)
    if not path.is_dir():
        raise ConfigError(f"no folder of checkpoints: got {str(folder)!r}; wanted RUN/checkpoints")
    with ocp.CheckpointManager(path, options=options) as manager:
        yield manager


def _restore(manager: ocp.CheckpointManager, step: int, args: Any) -> Any:
    """`manager.restore`, with what cannot be read raised as an OSError and said once."""
    hook = sys.unraisablehook
    # When one of Orbax's readers fails, the others complain pages long as they are dropped.
    sys.unraisablehook = lambda _: None
    try:
        return manager.restore(step, args=args)
    except Exception as error:
        # A chunk that cannot be read is a bare Exception there, around the cause.
        if type(error) is not Exception or isinstance(error.__cause__, MemoryError):
            raise
        failure = first_line(error.__cause__ or error)
    finally:
        gc.collect()
        sys.unraisablehook = hook
    raise OSError(failure)


def _read_state(
    manager: ocp.CheckpointManager, step: int, leaves: Leaves, abstract: Any, part: str = ""
) -> Any:
    saved = {path: leaf for path, leaf in leaves.items() if path.startswith(part)}
    _refuse_other_shapes(step, saved, paths(abstract))
    arguments = ocp.args.PyTreeRestore(
        abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=bool(part),
    )
    state = _restore(manager, step, ocp.args.Composite(state=arguments))["state"]
    for path, (_, _, mark) in describe(state).items():
        if mark != saved[path][2]:
            raise ValueError(f"{path} is not what was saved")
    return state


def _refuse_other_shapes(step: int, stored: Leaves, wanted: Mapping[str, Any]) -> None:
    have = {path: (tuple(shape), dtype) for path, (shape, dtype, _) in stored.items()}
    want = {path: (tuple(leaf.shape), leaf.dtype.name) for path, leaf in wanted.items()}
    differing = [p for p in sorted(have.keys() | want.keys()) if have.get(p) != want.get(p)]
    if not differing:
        return

    def said(arrays: Mapping[str, tuple[tuple[int, ...], str]], path: str) -> str:
        return f"{arrays[path][1]}{list(arrays[path][0])}" if path in arrays else "nothing"

    lines = [f"  {p}: stored {said(have, p)}, wanted {said(want, p)}" for p in differing[:5]]
    raise CheckpointError(
        f"the checkpoint of step {step} belongs to another model or optimizer: {len(differing)} "
        "arrays differ, such as\n" + "\n".join(lines)
        + "\nUse the config it was saved under, or another --workdir."
    )


def _is_no_space(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # TensorStore says it in words only.
        if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
