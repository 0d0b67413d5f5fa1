"""Finished answers of the steps since the last good checkpoint, written down as they come.

A run that is killed in the middle of a step plays it again; what the journal holds is not decoded
again. Answers count only for the very weights, step, prompt and draw that they were written under.

A file of `journal/` belongs to one step and one life of one process, named STEP.PROCESS.LIFE, and
is frames one after the other: a length, then a packed answer with its digest. It is appended to and
never read by who writes it; a tail torn by a kill ends it.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import astuple, replace
from typing import Any

from seirenes_jax.hosts import first, writes
from seirenes_jax.packing import LENGTH, packed, unpacked
from seirenes_jax.report import saving
from seirenes_jax.rng import stable_hash
from seirenes_jax.sampler import Sampler
from seirenes_jax.store import Folder, is_remote, reaching
from seirenes_jax.types import Ask, Name, Rollout

FOLDER = "journal"
SYNC_S = 2.0  # between two times that what was written is forced to disk
SEND_S = 20.0  # between two objects, in a bucket
Place = tuple[str, int, int]  # file, where a packed answer begins in it, its length


class Journal:
    """One process's. `writer`: its island's voice; the others hold the same answers."""

    def __init__(self, folder: Folder, *, process: int, writer: bool) -> None:
        self.folder, self.process, self.writer = folder, process, writer
        self.answered = self.tokens = 0  # of this step, from the journal
        self._step, self._policy = 0, ""
        self._index: dict[str, Place] = {}
        self._awaited: dict[Name, str] = {}  # from the sampler, and under which key to write it
        self._files: dict[str, bytes] = {}  # that were answered from in this step
        self._life = 0
        self._handle: int | None = None
        self._waiting: list[bytes] = []
        self._flushed = time.monotonic()

    def begin(self, step: int, policy: str) -> None:
        """All processes at once: what earlier lives wrote of this step is known from here on.

        `policy` is the digest of the weights that play it.
        """
        self.close()
        self._step, self._policy, self.answered, self.tokens = step, policy, 0, 0
        told = json.loads(first(lambda: json.dumps(_scan(self.folder, step))))
        self._index = {key: (str(f), int(at), int(n)) for key, (f, at, n) in told["index"].items()}
        self._life = told["lives"]
        self._files.clear()
        self._awaited.clear()

    def ask(self, sampler: Sampler, opened: Sequence[tuple[Name, Ask]]) -> list[Rollout]:
        """As the sampler's own; what is written down comes at once and never reaches it."""
        found: list[Rollout] = []
        for name, ask in opened:
            for one, key in self._keys(sampler, name, ask).items():
                if key in self._index:
                    found.append(self._read(key, one, ask))
                else:
                    self._awaited[one] = key
        finished = sampler.ask(opened, {rollout.name for rollout in found})
        self._write(finished)
        self.answered += len(found)
        self.tokens += sum(len(rollout.tokens) for rollout in found)
        return found + finished

    def drop(self, step: int | None) -> None:
        """What led to a good checkpoint of this step is not needed again."""
        if not writes() or step is None:
            return
        for file in _files(self.folder):
            if int(file.name.split(".")[0]) <= step:
                file.unlink()

    def close(self) -> None:
        """All that was heard is on disk."""
        self._flush()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _keys(self, sampler: Sampler, name: Name, ask: Ask) -> dict[Name, str]:
        """Of every sample: a digest of all that its answer hangs on."""
        drawn = sampler.knobs
        under = stable_hash(
            self._policy, ask.policy, sampler.seed, self._step, ask.max_tokens,
            repr(sampler.temperature), drawn.top_k, repr(drawn.top_p),
            ",".join(map(str, sampler.tokenizer.render(ask.messages))),
        )  # fmt: skip
        names = [replace(name, sample=i) for i in range(ask.n)]
        return {one: f"{stable_hash(under, *astuple(one)):016x}" for one in names}

    def _read(self, key: str, name: Name, ask: Ask) -> Rollout:
        file, start, length = self._index[key]
        if file not in self._files:
            self._files[file] = (self.folder / file).read_bytes()
        head, arrays = unpacked(self._files[file][start : start + length])
        assert head["name"] == list(astuple(name)), "two samples under one key"
        return Rollout(
            ask=ask, name=name, text=head["text"], tokens=arrays["tokens"],
            logprobs=arrays["logprobs"], stop=head["stop"], verdict=None,
            policy_step=head["policy_step"], routes=arrays.get("routes"),
        )  # fmt: skip

    def _write(self, finished: Sequence[Rollout]) -> None:
        for one in finished:
            key = self._awaited.pop(one.name)
            if not self.writer:
                continue
            head = {
                "key": key, "name": list(astuple(one.name)), "text": one.text, "stop": one.stop,
                "policy_step": one.policy_step,
            }  # fmt: skip
            arrays = {"tokens": one.tokens, "logprobs": one.logprobs}
            routes = {} if one.routes is None else {"routes": one.routes}
            blob = packed(head, arrays | routes)
            self._waiting += [len(blob).to_bytes(LENGTH, "little"), blob]
        # A bucket takes whole objects only: there one holds the answers of some seconds.
        if not is_remote(self.folder) or time.monotonic() - self._flushed > SEND_S:
            self._flush()

    def _flush(self) -> None:
        data, self._waiting = b"".join(self._waiting), []
        if not data:
            return
        name = f"{self._step:08d}.{self.process:04d}.{self._life:04d}"
        if is_remote(self.folder):
            with reaching(self.folder / name):
                (self.folder / name).write_bytes(data)
            self._life, self._flushed = self._life + 1, time.monotonic()
            return
        with saving(self.folder / name):
            if self._handle is None:
                self.folder.mkdir(exist_ok=True)
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND
                self._handle = os.open(self.folder / name, flags, 0o644)
            while data:
                data = data[os.write(self._handle, data) :]
            if time.monotonic() - self._flushed > SYNC_S:
                os.fsync(self._handle)
                self._flushed = time.monotonic()


def _files(folder: Folder) -> list[Any]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.name.split(".")[0].isdigit())


def _scan(folder: Folder, step: int) -> dict[str, Any]:
    """Where each whole answer of a step stands, and the first life that no file bears yet."""
    index: dict[str, Place] = {}
    lives = 0
    for file in _files(folder):
        number, _, life = file.name.split(".")
        if int(number) != step:
            continue
        lives = max(lives, int(life) + 1)
        data, at = file.read_bytes(), 0
        while (start := at + LENGTH) <= len(data):
            length = int.from_bytes(data[at:start], "little")
            try:
                key = unpacked(data[start : start + length])[0]["key"]
            except ValueError:
                break  # torn: what follows was never finished
            index.setdefault(key, (file.name, start, length))
            at = start + length
    return {"index": index, "lives": lives}
