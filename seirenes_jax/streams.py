"""Groups of credits waiting for their step: one queue a stream, oldest first, bounded by age.

Dead groups (nothing to learn from) are dropped, not regenerated; groups that a step does not take
wait for a later one; what waited too long is evicted. Pure: every call returns new streams.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from seirenes_jax.errors import CheckpointError, ConfigError
from seirenes_jax.types import Ask, Credit, Group, Name, Rollout, Verdict

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Live:
    """How many groups a step brought to a stream, and how many of them carry a signal."""

    live: int
    groups: int


@dataclass(frozen=True, slots=True)
class Fifo:
    """A stream after a pop."""

    depth: int  # groups still waiting
    age: float  # mean age of the groups taken, in steps; 0 where none was taken
    evicted: int  # groups that were too old


@dataclass(frozen=True, slots=True)
class Streams:
    """The queues. A held group is (step it was played in, credits)."""

    queues: Mapping[str, tuple[tuple[int, Group], ...]]
    max_age: int  # steps a group may wait; 0 = this step or never

    def push(
        self, step: int, groups: Sequence[Group], *, drop_dead: bool = True
    ) -> "tuple[Streams, dict[str, Live]]":
        """Queue the groups of a step.

        `drop_dead=False` keeps groups of equal rewards: baselines that look beyond the group
        (whitening, EMA over a role) learn from those too. Groups without any weight go in any case.
        """
        queues = dict(self.queues)
        seen, live = Counter[str](), Counter[str]()
        for group in groups:
            stream = group[0].stream
            if stream not in queues:
                raise ConfigError(
                    f"a credit of stream {stream!r}; this game has {', '.join(queues)}:"
                    " name it in the game's streams"
                )
            seen[stream] += 1
            live[stream] += is_live(group)
            if is_live(group) or (not drop_dead and any(credit.weight > 0 for credit in group)):
                queues[stream] += ((step, group),)
        return Streams(queues, self.max_age), {s: Live(live[s], seen[s]) for s in queues}

    def pop(
        self, step: int, wanted: Mapping[str, int]
    ) -> "tuple[Streams, dict[str, tuple[Group, ...]], dict[str, Fifo]]":
        """Evict what is too old; take up to `wanted` groups a stream, oldest first; 0 = all."""
        queues, taken, fifo = {}, {}, {}
        for stream, queue in self.queues.items():
            young = tuple(held for held in queue if step - held[0] <= self.max_age)
            count = len(young) if wanted[stream] == 0 else wanted[stream]
            queues[stream] = young[count:]
            taken[stream] = tuple(group for _, group in young[:count])
            ages = [step - played for played, _ in young[:count]]
            age = sum(ages) / len(ages) if ages else 0.0
            fifo[stream] = Fifo(len(queues[stream]), age, len(queue) - len(young))
        return Streams(queues, self.max_age), taken, fifo


def empty(names: Sequence[str], max_age: int) -> Streams:
    """Streams of a game, nothing waiting."""
    return Streams({name: () for name in names}, max_age)


def grouped(credits: Sequence[Credit]) -> list[Group]:
    """Credits by (stream, peers), in order of first appearance."""
    found: dict[tuple[str, str], list[Credit]] = {}
    for credit in credits:
        found.setdefault((credit.stream, credit.peers), []).append(credit)
    return [tuple(group) for group in found.values()]


def is_live(group: Group) -> bool:
    """Do the rewards that count differ? If not, every advantage within the group is zero."""
    return len({credit.reward for credit in group if credit.weight > 0}) > 1


# --- as arrays and JSON: words and tokens in arrays, the rest as JSON rows that point into them ---


class _Index:
    """Distinct things in order of first appearance, and their numbers."""

    def __init__(self) -> None:
        self.things: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, thing: Any) -> int:
        """The thing's number; a new one if it was not seen before."""
        if thing not in self._numbers:
            self._numbers[thing] = len(self.things)
            self.things.append(thing)
        return self._numbers[thing]


def to_state(streams: Streams) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Everything, exactly. No arrays where nothing waits: empty ones are a burden to storage."""
    words, asks, rollouts = _Index(), _Index(), _Index()  # rollouts hash by identity
    queues: dict[str, list[Any]] = {}
    scores: list[tuple[float, float]] = []
    for stream, queue in streams.queues.items():
        queues[stream] = []
        for step, group in queue:
            rows = []
            for credit in group:
                under = credit.train_under
                rows.append([rollouts.number(credit.rollout), _speech(under, words)])
                scores.append((credit.reward, credit.weight))
            queues[stream].append([step, group[0].peers, rows])
    drawn = [_rollout_row(rollout, words, asks) for rollout in rollouts.things]
    asked = [
        [ask.role, _speech(ask.messages, words), ask.n, ask.answer, ask.judge, ask.max_tokens,
         ask.policy]
        for ask in asks.things
    ]  # fmt: skip
    table = {
        "format": FORMAT, "max_age": streams.max_age, "queues": queues,
        "rollouts": drawn, "asks": asked,
    }  # fmt: skip
    return _arrays(words.things, rollouts.things, scores), json.loads(json.dumps(table))


def _speech(messages: tuple[tuple[str, str], ...] | None, words: _Index) -> list[Any] | None:
    if messages is None:
        return None
    return [[speaker, words.number(text)] for speaker, text in messages]


def _rollout_row(rollout: Rollout, words: _Index, asks: _Index) -> dict[str, Any]:
    return {
        "ask": asks.number(rollout.ask),
        "name": asdict(rollout.name),
        "text": words.number(rollout.text),
        "length": len(rollout.tokens),
        "stop": rollout.stop,
        "verdict": None if rollout.verdict is None else str(rollout.verdict),
        "policy_step": rollout.policy_step,
        "routes": None if rollout.routes is None else list(rollout.routes.shape),
    }


def _arrays(
    words: list[str], rollouts: list[Rollout], scores: list[tuple[float, float]]
) -> dict[str, np.ndarray]:
    if not scores:
        return {}
    blobs = [text.encode("utf-8", "surrogatepass") for text in words]
    routes = [rollout.routes.reshape(-1) for rollout in rollouts if rollout.routes is not None]
    arrays: dict[str, np.ndarray] = {
        "words": np.frombuffer(b"".join(blobs), np.uint8),
        "word_bytes": np.array([len(blob) for blob in blobs], np.int64),
        "tokens": np.concatenate([rollout.tokens for rollout in rollouts]),
        "logprobs": np.concatenate([rollout.logprobs for rollout in rollouts]),
        "scores": np.array(scores, np.float64),  # reward, weight of every credit in order
    }
    if routes:
        arrays["routes"] = np.concatenate(routes)
    return {name: array for name, array in arrays.items() if array.size}


def from_state(arrays: Mapping[str, np.ndarray], table: Mapping[str, Any]) -> Streams:
    """What `to_state` wrote."""
    if table["format"] != FORMAT:
        raise CheckpointError(
            f"saved streams have format {table['format']}; this version reads {FORMAT}: resume with"
            " the version that saved them, or start another run from the weights (init_from)"
        )
    words = _words(arrays)
    asks = [
        Ask(role, _heard(messages, words), *rest) for role, messages, *rest in table["asks"]
    ]
    rollouts = _rollouts(arrays, table["rollouts"], asks, words)
    scores = iter(arrays["scores"].tolist() if "scores" in arrays else ())
    queues: dict[str, list[tuple[int, Group]]] = {}
    for stream, queue in table["queues"].items():
        queues[stream] = []
        for step, peers, rows in queue:
            group = []
            for number, speech in rows:
                reward, weight = next(scores)
                under = None if speech is None else _heard(speech, words)
                group.append(Credit(rollouts[number], stream, peers, reward, weight, under))
            queues[stream].append((step, tuple(group)))
    return Streams({name: tuple(held) for name, held in queues.items()}, table["max_age"])


def _words(arrays: Mapping[str, np.ndarray]) -> list[str]:
    if "word_bytes" not in arrays:
        return []
    blob = arrays["words"].tobytes() if "words" in arrays else b""
    ends = np.cumsum(arrays["word_bytes"]).tolist()
    starts = [0, *ends[:-1]]
    return [
        blob[start:end].decode("utf-8", "surrogatepass")
        for start, end in zip(starts, ends, strict=True)
    ]


def _heard(messages: list[Any], words: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((speaker, words[number]) for speaker, number in messages)


def _rollouts(
    arrays: Mapping[str, np.ndarray], rows: list[Any], asks: list[Ask], words: list[str]
) -> list[Rollout]:
    rollouts = []
    token = route = 0
    for row in rows:
        upto = token + row["length"]
        routes = None
        if row["routes"] is not None:
            size = int(np.prod(row["routes"]))
            routes = arrays["routes"][route : route + size].reshape(row["routes"])
            route += size
        rollouts.append(
            Rollout(
                ask=asks[row["ask"]],
                name=Name(**row["name"]),
                text=words[row["text"]],
                tokens=arrays["tokens"][token:upto],
                logprobs=arrays["logprobs"][token:upto],
                stop=row["stop"],
                verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
                policy_step=row["policy_step"],
                routes=routes,
            )
        )
        token = upto
    return rollouts
