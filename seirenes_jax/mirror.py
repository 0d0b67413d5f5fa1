"""A run in a bucket: its files are written in a spool on this machine and sent after.

Only whole objects can be written there, so what grows line by line grows in the spool. Checkpoints,
`journal/`, `hf/` and `base/` go straight to the bucket. What is in the bucket counts: the spool is
fetched anew each time a run begins or goes on. A folder on this machine is its own spool, and
nothing is sent.
"""

import json
import os
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from seirenes_jax.console import say
from seirenes_jax.errors import ConfigError, SaveError
from seirenes_jax.folder import LEASE, held
from seirenes_jax.rng import stable_hash
from seirenes_jax.store import Folder, at, below, copy, first_line, is_remote, reaching

SEND_S = 30.0  # between two looks at what has changed; a file of n MB is sent every n s at most
IN_THE_BUCKET = ("checkpoints", "journal", "hf", "base", LEASE)  # never in the spool
BEAT_S = 5.0  # between two signs of life
SILENT_S = 30.0  # without one: whoever held the lease is gone
SETTLE_S = 1.0  # for two who take a lease at once to see each other


class Mirror:
    """Where a run lives (`home`) and where its files are written first (`spool`)."""

    def __init__(self, home: str, cache_dir: Path) -> None:
        self.home: Folder = at(home)
        self.spool: Path = self.home
        self._kept = False  # by this process
        if is_remote(home):
            name = f"{stable_hash('spool', home):016x}"
            self.spool = cache_dir / "spool" / name / self.home.name
        self._sent: dict[str, tuple[tuple[int, int], float]] = {}  # file -> its state, and when
        self._lock = threading.Lock()
        self._lease = Lease(self.home / LEASE)

    @contextmanager
    def held(self) -> Iterator[str]:
        """One run at a time; what it writes is in the bucket at the end. Gives the name of it."""
        with held(self.spool):
            if not is_remote(self.home):
                yield str(self.home)
                return
            with self._lease.taken(), self._sent_along():
                try:
                    yield str(self.home)
                except BaseException:
                    with suppress(SaveError):  # what ends the run is the news
                        self.send()
                    raise
                self.send()

    @contextmanager
    def _sent_along(self) -> Iterator[None]:
        """The spool fetched, and from time to time sent, while inside."""
        with reaching(self.home):
            self._fetch()
        say(f"{self.home}: files are written in {self.spool} first", sys.stdout)
        self._kept, over = True, threading.Event()

        def work() -> None:
            while not over.wait(SEND_S):
                try:
                    self.send(patiently=True)
                except SaveError as error:  # the next save, which must not fail, tries again
                    say(str(error), sys.stderr)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._kept = False

    def _fetch(self) -> None:
        """Make the spool what the bucket holds."""
        for entry in self.spool.iterdir():  # not the folder itself: it is the lock
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        entries = self.home.iterdir() if self.home.is_dir() else ()
        for entry in [entry for entry in entries if entry.name not in IN_THE_BUCKET]:
            for file in below(entry) if entry.is_dir() else (entry,):
                name = str(file)[len(str(self.home)) + 1 :]
                copy(file, self.spool / name)
                self._sent[name] = (_state(self.spool / name), time.monotonic())

    def send(self, *, patiently: bool = False) -> None:
        """Send what has changed; `patiently` leaves large files that were sent a moment ago."""
        if not self._kept:
            return
        with self._lock:
            self._lease.still_ours()
            for file in below(self.spool):
                name = file.relative_to(self.spool).as_posix()
                if file.suffix == ".tmp" or name.startswith("wandb/"):
                    continue
                state, now = _state(file), time.monotonic()
                before, when = self._sent.get(name, ((-1, 0), 0.0))
                if state == before or patiently and now - when < state[0] / 2**20:
                    continue
                with reaching(self.home / name):
                    copy(file, self.home / name)
                self._sent[name] = (state, now)


class Lease:
    """Says in the bucket who runs there. A bucket knows no locks: one that moves belongs to a
    live run, one that stands still for SILENT_S to a dead one.
    """

    def __init__(self, file: Folder) -> None:
        self._file = file
        self._token = uuid.uuid4().hex
        self._beats = 0
        self._lost = ""  # to whom

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Ours while inside; ConfigError where a live run has it."""
        self._wait_for_silence()
        with reaching(self._file):
            self._beat()
        time.sleep(SETTLE_S)
        self._look()
        self._refuse(self._lost)
        over = threading.Event()
        thread = threading.Thread(target=self._keep, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(Exception):  # it is found dead, then
                if not self._lost:
                    self._file.unlink()

    def still_ours(self) -> None:
        """SaveError where another run has taken it for dead."""
        if self._lost:
            raise SaveError(
                f"{self._lost} runs in {self._file.parent}, too: this process gave no sign of life "
                f"for {SILENT_S:g} s. It ends here; the other one goes on"
            )

    def _wait_for_silence(self) -> None:
        found = self._read()
        if not found or _is_dead(found):
            return
        say(f"{_whose(found)} left {self._file}; is it alive? (up to {SILENT_S:g} s)", sys.stdout)
        until = time.monotonic() + SILENT_S
        while time.monotonic() < until:
            time.sleep(min(1.0, SILENT_S / 4))
            now = self._read()
            if not now:
                return
            if now != found:
                self._refuse(_whose(now))

    def _refuse(self, other: str) -> None:
        if other:
            raise ConfigError(
                f"--workdir: {other} runs in {self._file.parent}; nothing was touched. Wait for "
                "it, stop it, or use another --workdir"
            )

    def _keep(self, over: threading.Event) -> None:
        while not over.wait(BEAT_S):
            with suppress(Exception):  # a store that does not answer may answer soon
                self._look()
                if self._lost:
                    return
                self._beat()

    def _look(self) -> None:
        found = self._read()
        if found and found["token"] != self._token:
            self._lost = _whose(found)

    def _beat(self) -> None:
        self._beats += 1
        self._file.write_text(json.dumps({
            "host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "beats": self._beats,
            "token": self._token,
        }))  # fmt: skip

    def _read(self) -> dict[str, Any]:
        """Who has it; nothing where nobody does."""
        try:
            found: dict[str, Any] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        except Exception as error:  # every store has its own
            raise ConfigError(
                f"{self._file} cannot be read: {first_line(error)}; if it is no lease, remove it"
            ) from error
        return found


def _whose(lease: dict[str, Any]) -> str:
    return f"process {lease['pid']} on {lease['host']} (last sign of life {lease['time']})"


def _is_dead(lease: dict[str, Any]) -> bool:
    """Known to be: it ran on this machine, since it was started, and does no more."""
    if not _boot() or (lease["host"], lease["boot"]) != (socket.gethostname(), _boot()):
        return False
    try:
        os.kill(lease["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _boot() -> str:
    """Which start of which machine this is; nothing where the system does not tell."""
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.is_file() else ""


def _state(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns
