"""Words in, words out: continuous batching over the slots of `decode.py`.

`ask` is handed newly opened asks, keeps the slots full and returns the samples that finished. The
schedule depends on token counts only, and every draw hangs on its sample's name, so what is drawn
does not depend on slots, company or timing.

While the caller works on what one chunk brought, the next chunk is already running.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from seirenes_jax.decode import Drawn, Seats, admit, empty, run_chunk
from seirenes_jax.errors import ConfigError, DataError
from seirenes_jax.knobs import Sampler as SamplerKnobs
from seirenes_jax.models import ModelConfig
from seirenes_jax.rng import draw_key
from seirenes_jax.sampling import Wishes
from seirenes_jax.sharding import row_parts
from seirenes_jax.state import DecodeState, Params
from seirenes_jax.text import Tokenizer
from seirenes_jax.types import Ask, Name, Rollout

PREFILL_ROWS = 8  # distinct prompts of one prefill call


@dataclass(frozen=True, slots=True)
class Draw:
    """How one sample is drawn, and the randomness that is its own."""

    key: tuple[int, int]
    temperature: float
    top_k: int  # 0 = off
    top_p: float  # 1.0 = off

    @property
    def filters(self) -> bool:
        return self.top_k > 0 or self.top_p < 1.0


@dataclass(slots=True)
class Seat:
    """One sample on its way through a slot."""

    name: Name
    ask: Ask
    prompt: tuple[int, ...]
    draw: Draw
    tokens: list[np.ndarray] = field(default_factory=list)
    logprobs: list[np.ndarray] = field(default_factory=list)
    routes: list[np.ndarray] = field(default_factory=list)  # of its inputs, the stored prompt first
    drawn: int = 0


@dataclass(slots=True)
class Lane:
    """One policy's slots. Policies cannot share a batch: their weights differ."""

    params: Params
    step: int
    state: DecodeState
    seats: list[Seat | None]
    queue: deque[Seat] = field(default_factory=deque)
    flying: Drawn | None = None
    # Routes of prompts on their way from the device: [P, T, N, k], and who sits on which row.
    filled: list[tuple[jax.Array, list[tuple[Seat, int]]]] = field(default_factory=list)


@dataclass(slots=True)
class Use:
    """Slot-steps run and slot-steps that drew a token, since the last reset."""

    steps: int = 0
    drawn: int = 0
    chunks: int = 0


class Sampler:
    """Owns the slots and caches of every loaded policy; `release` frees them."""

    def __init__(
        self, config: ModelConfig, tokenizer: Tokenizer, knobs: SamplerKnobs, *, seed: int,
        prompt_tokens: int, answer_tokens: int, prefill_rows: int = PREFILL_ROWS,
        prefill_tokens: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """`prefill_tokens`: lengths that prompts are filled up to; the longest is always one."""
        self.config, self.tokenizer, self.knobs, self.seed = config, tokenizer, knobs, seed
        self.prompt_tokens, self.answer_tokens = prompt_tokens, answer_tokens
        wanted = prompt_tokens + answer_tokens + knobs.chunk
        self.columns = -(-wanted // 16) * 16
        if wanted > config.max_positions:
            raise ConfigError(
                f"tokens.prompt + the longest answer + sampler.chunk = {wanted} positions, "
                f"but the model has {config.max_positions}; lower tokens.* or use a longer model"
            )
        parts = row_parts(config.mesh)
        if knobs.slots % parts:
            raise ConfigError(
                f"sampler.slots: got {knobs.slots}, which do not divide over the {parts} devices "
                "that share out rows; wanted a multiple"
            )
        self.prefill_rows = -(-min(prefill_rows, knobs.slots) // parts) * parts
        self.prefill_tokens = sorted({*prefill_tokens, prompt_tokens})
        # How far back a chunk looks: the shortest of these that covers every live slot.
        self.buckets = sorted({-(-self.columns * part // 64) * 16 for part in (2, 3, 4)})
        self.use = Use()
        self.step, self.temperature = 0, knobs.temperature
        self._lanes: dict[str, Lane] = {}

    def load(self, policy: str, params: Params, step: int) -> None:
        """Give a policy its weights. Its slots must be idle."""
        lane = self._lanes.get(policy)
        if lane is None:
            state = _beside(params, empty(
                self.config, slots=self.knobs.slots, columns=self.columns
            ))  # fmt: skip
            self._lanes[policy] = Lane(params, step, state, [None] * self.knobs.slots)
        else:
            assert not self._busy(lane), "weights never change under a running answer"
            lane.params, lane.step = params, step

    def release(self) -> None:
        """Let go of all weights and caches; what learns has their room. `load` makes them anew."""
        assert not any(map(self._busy, self._lanes.values())), "an answer is still being written"
        self._lanes.clear()

    def begin(self, step: int, temperature: float) -> None:
        """From here on asks are drawn at this temperature, and their draws hang on this step."""
        self.step, self.temperature = step, temperature
        self.use = Use()

    def ask(
        self, opened: Sequence[tuple[Name, Ask]], answered: Collection[Name] = ()
    ) -> list[Rollout]:
        """Queue what was opened, but samples that are answered elsewhere; one chunk further; the
        samples that finished."""
        for name, ask in opened:
            self._enqueue(name, ask, answered)
        finished: list[Rollout] = []
        for lane in self._lanes.values():
            if lane.flying is not None:
                finished += self._land(lane)
            self._admit(lane)
            if any(seat is not None for seat in lane.seats):
                self._launch(lane)
        return finished

    def generate(
        self, asks: Sequence[tuple[Name, Ask]], on_chunk: Callable[[int], None] | None = None
    ) -> list[Rollout]:
        """All of them, in the order asked; `on_chunk` hears how many each chunk finished."""
        done = self.ask(asks)
        while any(self._busy(lane) for lane in self._lanes.values()):
            finished = self.ask(())
            done += finished
            if on_chunk is not None:
                on_chunk(len(finished))
        found = {rollout.name: rollout for rollout in done}
        return [found[_sample(name, i)] for name, ask in asks for i in range(ask.n)]

    @staticmethod
    def _busy(lane: Lane) -> bool:
        return bool(lane.queue) or lane.flying is not None or any(lane.seats)

    def _enqueue(self, name: Name, ask: Ask, answered: Collection[Name]) -> None:
        if ask.policy not in self._lanes:
            raise ConfigError(
                f"an ask wants policy {ask.policy!r}; loaded are {', '.join(self._lanes) or 'none'}"
            )
        prompt = self.tokenizer.render(ask.messages)
        if len(prompt) > self.prompt_tokens or ask.max_tokens > self.answer_tokens:
            raise DataError(
                f"problem {name.problem}: a prompt of {len(prompt)} tokens with an answer of "
                f"at most {ask.max_tokens}; this sampler holds {self.prompt_tokens} + "
                f"{self.answer_tokens}; raise tokens.prompt or drop the problem"
            )
        names = [one for i in range(ask.n) if (one := _sample(name, i)) not in answered]
        self.put(Seat(one, ask, prompt, self._draw(one)) for one in names)

    def _draw(self, name: Name) -> Draw:
        key = draw_key(self.seed, self.step, name)
        return Draw(key, self.temperature, self.knobs.top_k, self.knobs.top_p)

    def put(self, seats: Iterable[Seat]) -> None:
        """Queue samples that say themselves how they are drawn; `ask` brings them back."""
        for seat in seats:
            wanted = len(seat.prompt) + seat.ask.max_tokens
            assert 0 < len(seat.prompt) <= self.prompt_tokens and seat.ask.max_tokens > 0
            assert wanted <= self.prompt_tokens + self.answer_tokens, "no room in the cache"
            self._lanes[seat.ask.policy].queue.append(seat)

    def drop(self, names: Collection[Name]) -> None:
        """Forget these samples; their slots are free from the next `ask` on."""
        for lane in self._lanes.values():
            lane.queue = deque(seat for seat in lane.queue if seat.name not in names)
            # The device goes on drawing in such a slot until another sample takes it: nobody looks.
            lane.seats = [
                None if seat is not None and seat.name in names else seat for seat in lane.seats
            ]

    def waits_for(self) -> str:
        """How much is on its way, and whose answer is in the first slot."""
        seats = list(self.underway())
        queued = sum(len(lane.queue) for lane in list(self._lanes.values()))
        if not seats:
            return f"no sample in a slot, {queued} queued"
        name, limit = seats[0].name, seats[0].ask.max_tokens
        return (
            f"{len(seats)} samples in slots, {queued} queued; in the first slot problem "
            f"{name.problem!r} turn {name.turn}, {seats[0].drawn} of at most {limit} tokens drawn"
        )

    def underway(self) -> Iterator[Seat]:
        """Samples that sit in a slot, with what they have so far."""
        for lane in self._lanes.values():
            yield from (seat for seat in lane.seats if seat is not None)

    @property
    def busy(self) -> bool:
        """Is anything queued or on its way?"""
        return any(map(self._busy, self._lanes.values()))

    def _admit(self, lane: Lane) -> None:
        """Fill free slots from the queue, some distinct prompts a call."""
        free = [slot for slot, seat in enumerate(lane.seats) if seat is None]
        while free and lane.queue:
            rows: dict[tuple[int, ...], int] = {}
            placed: list[tuple[int, Seat]] = []
            length = self._filled_up(lane.queue[0].prompt)
            while free and lane.queue and self._filled_up(lane.queue[0].prompt) == length:
                prompt = lane.queue[0].prompt
                if prompt not in rows and len(rows) == self.prefill_rows:
                    break
                rows.setdefault(prompt, len(rows))
                placed.append((free.pop(0), lane.queue.popleft()))
            for slot, seat in placed:
                lane.seats[slot] = seat
            prompts, seats = self._arrange(rows, placed, length)
            lane.state, routes_PTNk = admit(
                lane.params, lane.state, prompts, seats, config=self.config
            )
            if routes_PTNk is not None:
                lane.filled.append((routes_PTNk, [(seat, rows[seat.prompt]) for _, seat in placed]))

    def _filled_up(self, prompt: tuple[int, ...]) -> int:
        return next(length for length in self.prefill_tokens if len(prompt) <= length)

    def _arrange(
        self, rows: dict[tuple[int, ...], int], placed: list[tuple[int, Seat]], length: int
    ) -> tuple[Any, Seats]:
        B = self.knobs.slots
        tokens_PT = np.zeros((self.prefill_rows, length), np.int32)
        length_P = np.zeros(self.prefill_rows, np.int32)
        for prompt, row in rows.items():
            length_P[row] = len(prompt) - 1
            tokens_PT[row, : len(prompt) - 1] = prompt[:-1]
        take_B = np.zeros(B, bool)
        source_B, token_B, limit_B = (np.zeros(B, np.int32) for _ in range(3))
        key_B2 = np.zeros((B, 2), np.uint32)
        for slot, seat in placed:
            take_B[slot] = True
            source_B[slot] = rows[seat.prompt]
            token_B[slot] = seat.prompt[-1]
            limit_B[slot] = seat.ask.max_tokens
            key_B2[slot] = seat.draw.key
        on_host: Any = Seats
        seats: Seats = on_host(
            take_B=take_B, source_B=source_B, token_B=token_B, limit_B=limit_B, key_B2=key_B2
        )
        return (tokens_PT, length_P), seats

    def _launch(self, lane: Lane) -> None:
        reach = max(len(seat.prompt) - 1 + seat.drawn for seat in lane.seats if seat is not None)
        columns = next(bucket for bucket in self.buckets if bucket >= reach)
        lane.state, lane.flying = run_chunk(
            lane.params, lane.state, self._wishes(lane), config=self.config,
            chunk=self.knobs.chunk, columns=columns, stop_ids=self.tokenizer.stop_ids,
            filters=any(seat.draw.filters for seat in lane.seats if seat is not None),
        )  # fmt: skip

    def _wishes(self, lane: Lane) -> Wishes:
        B = self.knobs.slots
        temperature_B, top_p_B = np.ones(B, np.float32), np.ones(B, np.float32)
        top_k_B = np.zeros(B, np.int32)
        for slot, seat in enumerate(lane.seats):
            if seat is not None:
                temperature_B[slot], top_k_B[slot] = seat.draw.temperature, seat.draw.top_k
                top_p_B[slot] = seat.draw.top_p
        on_host: Any = Wishes
        wishes: Wishes = on_host(temperature_B=temperature_B, top_k_B=top_k_B, top_p_B=top_p_B)
        return wishes

    def _land(self, lane: Lane) -> list[Rollout]:
        """Wait for the running chunk and hand every slot its tokens."""
        assert lane.flying is not None
        drawn: Drawn = jax.tree.map(np.asarray, lane.flying)
        lane.flying = None
        for routes_PTNk, placed in lane.filled:
            kept = np.asarray(routes_PTNk)
            for newcomer, row in placed:
                newcomer.routes.append(kept[row, : len(newcomer.prompt) - 1])
        lane.filled = []
        done: list[Seat] = []
        for slot, seat in enumerate(lane.seats):
            if seat is None:
                continue
            count = int(drawn.count_B[slot])
            seat.tokens.append(np.asarray(drawn.tokens_BU[slot, :count]))
            seat.logprobs.append(np.asarray(drawn.logprobs_BU[slot, :count]))
            if drawn.routes_BUNk is not None:
                seat.routes.append(np.asarray(drawn.routes_BUNk[slot, :count]))
            seat.drawn += count
            self.use.drawn += count
            stopped = int(seat.tokens[-1][-1]) in self.tokenizer.stop_ids
            if stopped or seat.drawn == seat.ask.max_tokens:
                done.append(seat)
                lane.seats[slot] = None
        self.use.steps += drawn.tokens_BU.size
        self.use.chunks += 1
        return self._rollouts(lane, done)

    def _rollouts(self, lane: Lane, done: list[Seat]) -> list[Rollout]:
        tokens = [np.concatenate(seat.tokens) for seat in done]
        texts = self.tokenizer.decode_many([ids.tolist() for ids in tokens])
        return [
            Rollout(
                ask=seat.ask, name=seat.name, text=text, tokens=ids,
                logprobs=np.concatenate(seat.logprobs),
                stop="eos" if int(ids[-1]) in self.tokenizer.stop_ids else "length",
                verdict=None, policy_step=lane.step,
                routes=np.concatenate(seat.routes) if seat.routes else None,
            )
            for seat, ids, text in zip(done, tokens, texts, strict=True)
        ]  # fmt: skip


def _beside(params: Params, state: DecodeState) -> DecodeState:
    """On a mesh of one the first state says what all later ones say of their place: a program is
    compiled for what its arguments say."""
    where = jax.tree.leaves(params)[0].sharding
    if not isinstance(where, NamedSharding) or where.mesh.size > 1:
        return state
    placed: DecodeState = jax.device_put(state, NamedSharding(where.mesh, PartitionSpec()))
    return placed


def _sample(name: Name, sample: int) -> Name:
    return Name(name.problem, name.visit, name.turn, name.ask, name.attempt, sample)
