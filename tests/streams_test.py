"""Waiting groups: nothing lost, nothing doubled, nothing too old, and an exact round trip."""

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seirenes_jax.errors import CheckpointError, ConfigError
from seirenes_jax.streams import Streams, empty, from_state, grouped, is_live, to_state
from seirenes_jax.types import Ask, Credit, Group, Name, Rollout, Verdict

NAMES = ("clean", "adversary", "robust")
ALL = {name: 0 for name in NAMES}


def rollout(key: str = "p", sample: int = 0, **changes: Any) -> Rollout:
    ask = Ask("reasoner", (("user", f"Question {key}"),), 4, "12", "math", 64)
    values: dict[str, Any] = {
        "ask": ask, "name": Name(key, 0, "0", 0, 0, sample), "text": f"answer {sample}",
        "tokens": np.array([3, 1, 2], np.int32),
        "logprobs": np.array([-0.1, -0.2, -0.3], np.float32),
        "stop": "eos", "verdict": Verdict.RIGHT, "policy_step": 1,
    }  # fmt: skip
    return Rollout(**{**values, **changes})


def group(stream: str, key: str, rewards: tuple[float, ...] = (0.0, 1.0)) -> Group:
    return tuple(
        Credit(rollout(key, i), stream, f"{stream}:{key}", reward, 1.0)
        for i, reward in enumerate(rewards)
    )


def keys(groups: tuple[Group, ...]) -> list[str]:
    return [group[0].peers for group in groups]


def test_credits_are_grouped_by_stream_and_peers_in_order() -> None:
    a, b = group("clean", "a"), group("robust", "a")
    mixed = [a[0], b[0], a[1], b[1]]
    assert grouped(mixed) == [a, b]


@pytest.mark.parametrize(
    ("rewards", "weights", "live"),
    [
        ((0, 1), (1, 1), True),
        ((1, 1), (1, 1), False),
        ((0, 1), (1, 0), False),  # the unreadable one is no evidence
        ((0, 1, 1), (0, 1, 1), False),
        ((1,), (1,), False),
        ((0, 1), (0, 0), False),
    ],
)
def test_a_group_lives_where_the_rewards_that_count_differ(
    rewards: tuple[float, ...], weights: tuple[float, ...], live: bool
) -> None:
    credits = tuple(
        Credit(rollout(), "clean", "g", reward, weight)
        for reward, weight in zip(rewards, weights, strict=True)
    )
    assert is_live(credits) is live


def test_dead_groups_are_dropped_and_counted() -> None:
    dead, alive = group("clean", "a", (1.0, 1.0)), group("clean", "b")
    streams, live = empty(NAMES, 2).push(1, [dead, alive])
    assert (live["clean"].live, live["clean"].groups) == (1, 2)
    assert (live["robust"].live, live["robust"].groups) == (0, 0)
    assert keys(streams.pop(1, ALL)[1]["clean"]) == ["clean:b"]
    kept, live = empty(NAMES, 2).push(1, [dead, alive], drop_dead=False)
    assert live["clean"].live == 1
    assert keys(kept.pop(1, ALL)[1]["clean"]) == ["clean:a", "clean:b"]


def test_a_group_without_any_weight_is_never_kept() -> None:
    blind = (Credit(rollout(), "clean", "g", 0.0, 0.0),)
    streams, _ = empty(NAMES, 2).push(1, [blind], drop_dead=False)
    assert streams.pop(1, ALL)[1]["clean"] == ()


def test_oldest_first_and_what_is_left_waits() -> None:
    streams, _ = empty(NAMES, 2).push(1, [group("clean", key) for key in "abc"])
    streams, taken, fifo = streams.pop(1, {**ALL, "clean": 2})
    assert keys(taken["clean"]) == ["clean:a", "clean:b"]
    assert (fifo["clean"].depth, fifo["clean"].age) == (1, 0.0)
    streams, _ = streams.push(2, [group("clean", "d")])
    _, taken, fifo = streams.pop(2, {**ALL, "clean": 2})
    assert keys(taken["clean"]) == ["clean:c", "clean:d"]
    assert (fifo["clean"].depth, fifo["clean"].age, fifo["clean"].evicted) == (0, 0.5, 0)


@pytest.mark.parametrize(("max_age", "step", "left"), [(2, 3, 1), (2, 4, 0), (0, 1, 1), (0, 2, 0)])
def test_what_waited_too_long_is_evicted(max_age: int, step: int, left: int) -> None:
    streams, _ = empty(NAMES, max_age).push(1, [group("robust", "a")])
    _, taken, fifo = streams.pop(step, ALL)
    assert len(taken["robust"]) == left
    assert fifo["robust"].evicted == 1 - left


def test_a_stream_that_the_game_does_not_have_is_told() -> None:
    with pytest.raises(ConfigError, match="'rubust'.*clean, adversary, robust"):
        empty(NAMES, 2).push(1, [group("rubust", "a")])


STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from(NAMES), st.booleans()), max_size=5),
        st.integers(0, 3),
    ),
    max_size=8,
)


@settings(max_examples=80, deadline=None)
@given(steps=STEPS, max_age=st.integers(0, 4), through_storage=st.booleans())
def test_nothing_is_lost_doubled_or_too_old(
    steps: list[Any], max_age: int, through_storage: bool
) -> None:
    streams = empty(NAMES, max_age)
    pushed: dict[str, int] = {}
    taken: list[str] = []
    evicted = dead = 0
    for step, (brought, wanted) in enumerate(steps, start=1):
        groups = []
        for i, (stream, alive) in enumerate(brought):
            groups.append(group(stream, f"{step}.{i}", (0.0, 1.0) if alive else (1.0, 1.0)))
            dead += not alive
            pushed[groups[-1][0].peers] = step
        streams, _ = streams.push(step, groups)
        streams, popped, fifo = streams.pop(step, {name: wanted for name in NAMES})
        if through_storage:
            streams = from_state(*to_state(streams))
        for name in NAMES:
            taken += keys(popped[name])
            evicted += fifo[name].evicted
            ages = [step - pushed[key] for key in keys(popped[name])]
            assert all(age <= max_age for age in ages)
            assert ages == sorted(ages, reverse=True)
            assert wanted == 0 or len(ages) <= wanted
    waiting = sum(len(queue) for queue in streams.queues.values())
    assert len(taken) == len(set(taken))
    assert len(taken) + evicted + waiting + dead == len(pushed)


def same(a: Any, b: Any) -> None:
    """Equal to the last bit and the last type."""
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    elif isinstance(a, (Credit, Rollout)):
        for field in fields(a):
            same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            same(left, right)
    else:
        assert a == b


def same_streams(a: Streams, b: Streams) -> None:
    assert a.max_age == b.max_age and list(a.queues) == list(b.queues)
    for name in a.queues:
        same(a.queues[name], b.queues[name])


WORDS = st.text(max_size=12)
FLOATS = st.floats(allow_nan=False, width=64)


@st.composite
def credits(draw: Any, stream: str, peers: str) -> Credit:
    length = draw(st.integers(1, 4))
    routes = None
    if draw(st.booleans()):
        numbers = draw(st.lists(st.integers(0, 255), min_size=2 * length, max_size=2 * length))
        routes = np.array(numbers, np.uint8).reshape(length, 2, 1)
    ask = Ask(
        draw(WORDS), (("system", draw(WORDS)), ("user", draw(WORDS))), draw(st.integers(1, 9)),
        draw(st.none() | WORDS), draw(st.none() | WORDS), draw(st.integers(1, 99)), draw(WORDS),
    )  # fmt: skip
    logprobs = draw(st.lists(st.floats(width=32), min_size=length, max_size=length))
    told = Rollout(
        ask=ask,
        name=Name(draw(WORDS), draw(st.integers(0, 9)), draw(WORDS), 0, 0, 1),
        text=draw(WORDS) + "\ud800",  # a lone surrogate cannot be plain UTF-8
        tokens=np.array(draw(st.lists(st.integers(0, 2**31 - 1), min_size=length,
                                      max_size=length)), np.int32),
        logprobs=np.array(logprobs, np.float32),
        stop=draw(st.sampled_from(["eos", "length"])),
        verdict=draw(st.none() | st.sampled_from(list(Verdict))),
        policy_step=draw(st.integers(0, 9)),
        routes=routes,
    )  # fmt: skip
    under = draw(st.none() | st.just((("user", "another prompt"),)))
    return Credit(told, stream, peers, draw(FLOATS), draw(FLOATS), under)


@st.composite
def held(draw: Any) -> Streams:
    queues: dict[str, Any] = {}
    for name in NAMES:
        queues[name] = tuple(
            (draw(st.integers(1, 9)), tuple(draw(st.lists(credits(name, f"{name}{i}"),
                                                          min_size=1, max_size=2))))
            for i in range(draw(st.integers(0, 2)))
        )  # fmt: skip
    return Streams(queues, draw(st.integers(0, 4)))


@settings(max_examples=40, deadline=None)
@given(held())
def test_the_round_trip_is_exact(streams: Streams) -> None:
    arrays, table = to_state(streams)
    assert all(array.size for array in arrays.values())
    same_streams(from_state(arrays, json.loads(json.dumps(table))), streams)


def test_empty_streams_need_no_arrays() -> None:
    arrays, table = to_state(empty(NAMES, 3))
    assert arrays == {}
    same_streams(from_state(arrays, table), empty(NAMES, 3))


def test_texts_and_tokens_are_arrays_and_shared_prompts_are_stored_once() -> None:
    text = "a long answer " * 50
    many = tuple(
        Credit(rollout("p", i, text=text), "clean", "g", float(i), 1.0) for i in range(8)
    )
    streams, _ = empty(NAMES, 2).push(1, [many])
    arrays, table = to_state(streams)
    assert "long answer" not in json.dumps(table)
    assert len(table["asks"]) == 1
    assert arrays["words"].size < 2 * len(text)


def test_another_format_is_refused() -> None:
    arrays, table = to_state(empty(NAMES, 2))
    with pytest.raises(CheckpointError, match="format 99"):
        from_state(arrays, {**table, "format": 99})
