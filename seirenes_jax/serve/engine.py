"""Requests of many clients over one sampler: a bounded queue in, pieces of answers out.

One thread owns the sampler. Whatever company a request has, it is drawn from its own seed; a
request that is cancelled, or met a stop, frees its slots at the next chunk.
"""

import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from seirenes_jax.rng import draw_key
from seirenes_jax.sampler import Draw, Sampler, Seat
from seirenes_jax.serve.asked import Asked
from seirenes_jax.serve.bodies import Token
from seirenes_jax.serve.spoken import Spoken
from seirenes_jax.types import LIVE, REASONER, Ask, Name, Rollout


class Full(Exception):
    """The queue has no room for this request now."""


class Down(Exception):
    """The sampler has failed; nothing is answered any more."""


@dataclass(frozen=True, slots=True)
class Said:
    """News of one choice. `finish` None: more will come; else `count` tokens were drawn."""

    index: int
    text: str
    tokens: tuple[Token, ...]
    finish: str | None
    count: int


@dataclass(frozen=True, slots=True)
class Failed:
    """There will be no answer."""


News = list[Said] | Failed
Deliver = Callable[[News], None]


@dataclass(slots=True)
class Choice:
    """One answer on its way."""

    job: "Job"
    index: int
    seat: Seat
    spoken: Spoken
    logprobs: list[float] = field(default_factory=list)
    landed: int = 0  # parts of the seat's tokens that were read
    shown: int = 0  # tokens told of
    letters: int = 0  # of those tokens


@dataclass(eq=False, slots=True)
class Job:
    """One request: its prompts as tokens, and where news of it goes (in the engine's thread)."""

    asked: Asked
    prompts: Sequence[tuple[int, ...]]
    max_tokens: Sequence[int]  # a prompt
    deliver: Deliver
    choices: dict[Name, Choice] = field(default_factory=dict)  # unfinished ones

    @property
    def listens(self) -> bool:
        """Must its tokens be read as they come?"""
        return self.asked.stream or self.asked.logprobs or bool(self.asked.stop)


def draw_of(asked: Asked, seed: int, sample: int) -> Draw:
    """A choice's randomness hangs on the request's seed and the choice's number alone."""
    key = draw_key(seed, 0, Name("", 0, "", 0, 0, sample))
    return Draw(key, asked.temperature, asked.top_k, asked.top_p)


class Engine:
    """Owns the thread that owns the sampler; `close` ends it."""

    def __init__(self, sampler: Sampler, max_queue: int) -> None:
        self._sampler = sampler
        self.most_choices = sampler.knobs.slots + max_queue
        self._news = threading.Condition()
        self._inbox: list[Job] = []
        self._cancelled: list[Job] = []
        self._unfinished = self._number = 0
        self._closing = self._down = False
        self._open: dict[Name, Choice] = {}  # the thread's own
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    @property
    def down(self) -> bool:
        return self._down

    def load(self) -> tuple[int, int]:
        """Choices that sit in a slot, choices that wait for one."""
        with self._news:
            seated = min(self._unfinished, self._sampler.knobs.slots)
            return seated, self._unfinished - seated

    def submit(self, job: Job) -> None:
        """Queue a request; Full where it would wait behind too many."""
        with self._news:
            if self._down or self._closing:
                raise Down
            if self._unfinished + job.asked.choices > self.most_choices:
                raise Full
            self._unfinished += job.asked.choices
            self._inbox.append(job)
            self._news.notify()

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more. Finished requests may be cancelled, too."""
        with self._news:
            self._cancelled.append(job)
            self._news.notify()

    def close(self) -> None:
        """End the thread; what is unfinished stays so."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._take():
                finished = self._sampler.ask(())
                self._read(finished)
        except Exception:
            # Whatever it was: the sampler's state is lost. Clients hear of it, the process ends.
            traceback.print_exc(file=sys.stderr)
        finally:
            with self._news:
                self._down = True
                jobs = {id(one.job): one.job for one in self._open.values()}
                jobs |= {id(job): job for job in self._inbox}
            for job in jobs.values():
                job.deliver(Failed())

    def _take(self) -> bool:
        """Wait for something to do; what came in the meantime is seated or forgotten."""
        with self._news:
            while not (self._inbox or self._cancelled or self._closing or self._sampler.busy):
                self._news.wait()
            if self._closing:
                return False
            jobs, self._inbox = self._inbox, []
            cancelled, self._cancelled = self._cancelled, []
        for job in jobs:
            self._seat(job)
        for job in cancelled:
            self._forget(list(job.choices.values()))
        return True

    def _seat(self, job: Job) -> None:
        asked, tokenizer = job.asked, self._sampler.tokenizer
        self._number += 1
        seed = secrets.randbits(63) if asked.seed is None else asked.seed
        for at, (prompt, limit) in enumerate(zip(job.prompts, job.max_tokens, strict=True)):
            ask = Ask(REASONER, (), 1, None, None, limit, LIVE)
            for sample in range(asked.n):
                name = Name(f"request {self._number}", 0, "", at, 0, sample)
                seat = Seat(name, ask, prompt, draw_of(asked, seed, sample))
                spoken = Spoken(tokenizer.decode_many, tokenizer.stop_ids, asked.stop)
                choice = Choice(job, at * asked.n + sample, seat, spoken)
                self._open[name] = job.choices[name] = choice
                self._sampler.put([seat])

    def _forget(self, choices: Sequence[Choice]) -> None:
        """These end now: their slots are free for others."""
        names = {choice.seat.name for choice in choices}
        if names:
            self._sampler.drop(names)
        self._done(choices)

    def _done(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            del self._open[choice.seat.name], choice.job.choices[choice.seat.name]
        with self._news:
            self._unfinished -= len(choices)

    def _read(self, finished: Sequence[Rollout]) -> None:
        """Tell every request what the last chunk brought it."""
        told: dict[int, tuple[Job, list[Said]]] = {}

        def tell(choice: Choice, said: Said) -> None:
            told.setdefault(id(choice.job), (choice.job, []))[1].append(said)

        ended = [(self._open[rollout.name], rollout) for rollout in finished]
        stopped: list[Choice] = []
        for seat in self._sampler.underway():
            choice = self._open[seat.name]
            if choice.job.listens and self._hear(choice):
                stopped.append(choice)
                tell(choice, _last(choice, "stop"))
            elif choice.job.asked.stream and (said := _piece(choice)) is not None:
                tell(choice, said)
        for choice, rollout in ended:
            if choice.job.listens:
                self._hear(choice)
                choice.spoken.close()
                met = choice.spoken.stopped or rollout.stop == "eos"
                tell(choice, _last(choice, "stop" if met else "length"))
            else:
                finish = "stop" if rollout.stop == "eos" else "length"
                count = len(rollout.tokens)
                tell(choice, Said(choice.index, rollout.text, (), finish, count))
        self._forget(stopped)
        self._done([choice for choice, _ in ended])
        for job, news in told.values():
            job.deliver(news)

    @staticmethod
    def _hear(choice: Choice) -> bool:
        """Read what landed since; has a stop been met?"""
        seat, spoken = choice.seat, choice.spoken
        for ids, logprobs in zip(
            seat.tokens[choice.landed :], seat.logprobs[choice.landed :], strict=True
        ):
            choice.landed += 1
            spoken.feed(ids.tolist())
            choice.logprobs += np.asarray(logprobs, float).tolist()
        return spoken.stopped


def _piece(choice: Choice) -> Said | None:
    """What is certain by now and was not told before."""
    text = choice.spoken.take()
    tokens = _tokens(choice, choice.spoken.taken) if choice.job.asked.logprobs else ()
    return Said(choice.index, text, tokens, None, 0) if text or tokens else None


def _last(choice: Choice, finish: str) -> Said:
    """What is left of a choice that ended; all of it where it is not streamed."""
    spoken = choice.spoken
    text = spoken.take()
    tokens = _tokens(choice, None) if choice.job.asked.logprobs else ()
    return Said(choice.index, text, tokens, finish, len(spoken.pieces))


def _tokens(choice: Choice, letters: int | None) -> tuple[Token, ...]:
    """Tokens not told of before; None: all, else those whose letters were given."""
    found: list[Token] = []
    spoken = choice.spoken
    while choice.shown < len(spoken.pieces):
        piece = spoken.pieces[choice.shown]
        if letters is not None and choice.letters + len(piece) > letters:
            break
        logprob, token = choice.logprobs[choice.shown], spoken.drawn[choice.shown]
        found.append(Token(token, piece, logprob, choice.letters))
        choice.shown, choice.letters = choice.shown + 1, choice.letters + len(piece)
    return tuple(found)
