"""Many processes as one run: how they meet, what they hand each other, and when one is lost.

Each process plays its own share of the problems; `exchange` hands every process what all of them
brought, in the order of processes. All that follows is computed everywhere alike, so no process
ever waits for a decision of another.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from seirenes_jax.errors import RESUMABLE, ConfigError, SaveError, SeirenesError, Stopped
from seirenes_jax.parent import CHILD
from seirenes_jax.signals import Stop
from seirenes_jax.types import Verdict
from seirenes_jax.verify.judge import Judge
from seirenes_jax.watchdog import Watch, What, unwatched

BEAT_S = 2.0  # between two signs of life
SILENT_S = 20.0  # without one: lost
GOODBYE_S = 60  # for all processes to come to the end
RUNTIME_S = 100  # the runtime's own patience; longer than ours, for it names nobody
STOP = "stop/asked"  # where a process that hears a signal leaves its name
PART = 32 * 2**20  # bytes of one exchange; it stands on every device for a moment


@dataclass(frozen=True, slots=True)
class Hosts:
    """Which of how many players this is. The processes of one island play as one."""

    island: int
    islands: int
    members: int  # processes of an island
    mesh: Mesh  # an island's devices; this process's own
    watch: Watch = unwatched  # is told of every wait for other processes

    @property
    def leads(self) -> bool:
        """Is this its island's voice?"""
        return jax.process_index() % self.members == 0

    def mine(self, n: int) -> range:
        """This island's share of n things."""
        return range(self.island, n, self.islands)

    def exchange(self, blob: bytes) -> list[bytes]:
        """What every island brought, in order, on every process; b"" = it was stopped."""
        if jax.process_count() == 1:
            return [blob]
        with self.watch("exchange"):
            brought = all_gather(blob)[:: self.members]
        if not all(brought):
            raise Stopped("stopped on the word of another process")
        return brought

    def spread(self, n: int, work: Callable[[Sequence[int]], list[Any]]) -> list[Any]:
        """`work` on this island's share of 0..n-1; its JSON-able results for all n, in order."""
        if jax.process_count() == 1:
            return work(range(n))
        parts = self.exchange(self.unless_stopped(
            lambda: json.dumps(work(self.mine(n))).encode()
        ))  # fmt: skip
        found: list[Any] = [None] * n
        for island, part in enumerate(parts):
            for i, result in zip(range(island, n, self.islands), json.loads(part), strict=True):
                found[i] = result
        return found

    def unless_stopped(self, work: Callable[[], bytes]) -> bytes:
        """Its result. One that is stopped halfway says so in the exchange, lest the others wait."""
        try:
            return work()
        except Stopped:
            if jax.process_count() == 1:
                raise
            return b""

    def agree(self, mine: bool) -> bool:
        """Did any process say yes?"""
        if jax.process_count() == 1:
            return mine
        with self.watch("agreement"):
            return bool(np.any(multihost_utils.process_allgather(np.array([mine]))))

    def together(self, mine: np.ndarray) -> np.ndarray:
        """Sum of small numbers over the processes of this island."""
        if self.members == 1:
            return mine
        me = jax.process_index()
        own = [device for device in self.mesh.devices.flat if device.process_index == me]
        rows = NamedSharding(self.mesh, PartitionSpec(self.mesh.axis_names))
        shape = (self.mesh.size, *mine.shape)
        parts = [
            jax.device_put((mine if i == 0 else np.zeros_like(mine))[None], device)
            for i, device in enumerate(own)
        ]
        whole = jax.make_array_from_single_device_arrays(shape, rows, parts)
        with self.watch("island"):
            return np.asarray(_summed(whole))

    def check(self, stop: Stop) -> None:
        """Leave what is being played, all processes of the island at the same point of it."""
        if self.members == 1:
            stop.check()
        elif self.together(np.array([stop.asked is not None], np.int32)).any():
            raise Stopped("stopped; nothing that was saved is lost, the same command goes on")


@jax.jit
def _summed(rows: jax.Array) -> jax.Array:
    return jnp.sum(rows, axis=0)


class IslandJudge:
    """The judge of an island: one process rules, so that all of them go on alike."""

    def __init__(self, judge: Judge, hosts: Hosts) -> None:
        self.judge, self.hosts = judge, hosts

    def submit(self, cases: Sequence[tuple[str, str]]) -> Any:
        """As the judge's own."""
        if self.hosts.members == 1:
            return self.judge.submit(cases)
        return len(cases), self.judge.submit(cases) if self.hosts.leads else None

    def collect(self, ticket: Any) -> list[Verdict]:
        """As the judge's own."""
        if self.hosts.members == 1:
            return self.judge.collect(ticket)
        n, own = ticket
        kinds = list(Verdict)
        codes = np.zeros(n, np.int32)
        if self.hosts.leads:
            codes[:] = [kinds.index(verdict) for verdict in self.judge.collect(own)]
        return [kinds[code] for code in self.hosts.together(codes)]

    def waits_for(self) -> str:
        """As the judge's own; its island's voice has it."""
        return self.judge.waits_for()


def players(members: int, mesh: Mesh, watch: Watch = unwatched) -> Hosts:
    """Islands of `members` processes each (decode.hosts) and this one's mesh."""
    count = jax.process_count()
    return Hosts(jax.process_index() // members, count // members, members, mesh, watch)


class Whereabouts:
    """What every process is at, as far as it has been heard: for whoever waits for them."""

    def __init__(self) -> None:
        self._heard: dict[int, str] = {}  # process -> `host: play #4 > exchange #4`

    def others(self) -> str:
        """One line for each other process; nothing where there is none."""
        me, count = jax.process_index(), jax.process_count()
        return "\n".join(
            f"  process {i} of {count} on {self._heard.get(i, 'a host not heard of: nothing')}"
            for i in range(count) if i != me
        )  # fmt: skip

    @contextmanager
    def shared(self, mine: What) -> Iterator[None]:
        """Tell the others where this process is, and hear of them, while inside."""
        if jax.process_count() == 1:
            yield
            return
        over = threading.Event()
        threading.Thread(target=self._share, args=(mine, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()

    def _share(self, mine: What, over: threading.Event) -> None:
        store, key, told = _store(), f"at/{jax.process_index()}", ""
        while not over.wait(BEAT_S):
            try:
                if (words := f"{socket.gethostname()}: {mine()}") != told:
                    store.key_value_set(key, words, allow_overwrite=True)
                    told = words
                heard = store.key_value_dir_get("at/")
            except jax.errors.JaxRuntimeError:
                return  # the coordinator is gone; the watcher says so
            self._heard = {int(name.removeprefix("at/")): words for name, words in heard}


def writes() -> bool:
    """Is this the one process that writes the run folder?"""
    return jax.process_index() == 0


def first(action: Callable[[], str]) -> str:
    """What process 0 makes of it, told to all; its mistake is everybody's."""
    if jax.process_count() == 1:
        return action()
    said: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            said = {"value": action()}
        except SeirenesError as error:
            said = {"error": str(error), "code": error.exit_code}
    told = json.loads(all_gather(json.dumps(said).encode())[0])
    if "error" in told:
        kind = ConfigError if told["code"] == ConfigError.exit_code else SaveError
        raise kind(told["error"])
    value: str = told["value"]
    return value


def all_gather(blob: bytes) -> list[bytes]:
    """What every process brought, in their order."""
    sizes = multihost_utils.process_allgather(np.array([len(blob)], np.int32)).reshape(-1)
    found = [bytearray() for _ in sizes]
    for start in range(0, int(sizes.max()), PART):
        width = min(PART, int(sizes.max()) - start)
        padded = np.zeros(width, np.uint8)
        here = np.frombuffer(blob[start : start + width], np.uint8)
        padded[: len(here)] = here
        rows = multihost_utils.process_allgather(padded).reshape(len(sizes), width)
        for row, size, whole in zip(rows, sizes, found, strict=True):
            whole += row[: max(0, int(size) - start)].tobytes()
    return [bytes(whole) for whole in found]


def whole(x: jax.Array) -> np.ndarray:
    """An array that may lie over the devices of many processes, on the host of each."""
    if jax.process_count() == 1:
        return np.asarray(x)
    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


@contextmanager
def connected(coordinator: str, processes: int | None, index: int | None) -> Iterator[None]:
    """Join the run's processes; "" = this process is alone, "auto" = ask the cluster.

    A process that falls silent ends the others with exit code 75, each naming it.
    """
    if not coordinator:
        yield
        return
    # SIGTERM is ours to hear: signals.py saves and says so.
    jax.config.update("jax_enable_preemption_service", False)
    address = None if coordinator == "auto" else coordinator
    try:
        jax.distributed.initialize(
            address, processes, index, heartbeat_timeout_seconds=RUNTIME_S,
            shutdown_timeout_seconds=GOODBYE_S,
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--coordinator={coordinator}: the processes did not find each other: {error}"
        ) from error
    over = threading.Event()
    threading.Thread(target=_watch, args=(over,), daemon=True).start()
    try:
        yield
        jax.distributed.shutdown()
    except SeirenesError:
        raise
    except Exception:
        # A collective that breaks is how the loss of another process is first heard; the watcher
        # soon knows which one, and leaves.
        over.wait(SILENT_S + 2 * BEAT_S)
        raise
    finally:
        over.set()


@contextmanager
def heeding(stop: Stop) -> Iterator[None]:
    """A stop that one process hears is heard by all within a second or two."""
    if jax.process_count() == 1:
        yield
        return
    over = threading.Event()
    threading.Thread(target=_pass_on, args=(stop, over), daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _pass_on(stop: Stop, over: threading.Event) -> None:
    store = _store()
    while not over.wait(1.0):
        try:
            if stop.asked is not None:
                store.key_value_set(STOP, stop.asked, allow_overwrite=True)
                return
            if told := store.key_value_dir_get(STOP):
                stop.hear(told[0][1])
                return
        except jax.errors.JaxRuntimeError:
            return  # the coordinator is gone; the watcher says so


def _store() -> Any:
    """The runtime's table of keys and values."""
    from jax._src.distributed import global_state  # public nowhere else

    return global_state.client


def _watch(over: threading.Event) -> None:
    """Give a sign of life; leave when another process gives none."""
    store, me, count = _store(), jax.process_index(), jax.process_count()
    heard: dict[str, tuple[str, float]] = {}  # process -> its last sign, and when it was new
    n = 0
    while not over.wait(BEAT_S):
        n += 1
        if os.environ.get(CHILD, str(os.getppid())) != str(os.getppid()):
            _leave("the parent of this process is gone")
        try:
            store.key_value_set(f"alive/{me}", f"{n} {socket.gethostname()}", allow_overwrite=True)
            signs = dict(store.key_value_dir_get("alive/"))
        except jax.errors.JaxRuntimeError as error:
            if not over.is_set():
                _leave(f"the coordinator (process 0) was lost: {str(error).splitlines()[0]}")
            return
        now = time.monotonic()
        for key, sign in signs.items():
            if heard.get(key, ("", 0.0))[0] != sign:
                heard[key] = (sign, now)
        for key, (sign, when) in heard.items():
            if now - when > SILENT_S:
                number, host = key.removeprefix("alive/"), sign.partition(" ")[2]
                _leave(f"process {number} of {count} on {host} was lost")


def _leave(why: str) -> None:
    """No collective comes back once a process is gone: the only way is out."""
    said = f"\n{why}; what was saved is whole, the same command on all processes goes on\n"
    with suppress(OSError):  # nobody may be left to hear it
        sys.stdout.flush()
        os.write(2, said.encode())
    os._exit(RESUMABLE)
