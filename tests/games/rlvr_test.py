"""The baseline: clean tries, one group a question."""

import numpy as np
import pytest

from seirenes_jax.games import GAMES
from seirenes_jax.games.base import overlong
from seirenes_jax.play import Played, play
from tests import scripted


def played(words: list[str], **knobs: object) -> Played:
    context = scripted.context(clean=len(words), **knobs)  # type: ignore[arg-type]
    sampler = scripted.Sampler(lambda name, ask: words[name.sample])
    return play(
        [(scripted.problem(), 0)], GAMES["rlvr"], context,
        ask=sampler.ask, judge=scripted.Judge(),
    )  # fmt: skip


def test_right_is_paid_and_the_unreadable_weighs_nothing() -> None:
    outcome = played(["right", "wrong", "garbage", "endless", "right..."])
    (credits,) = outcome.credits
    assert [c.reward for c in credits] == [1, 0, 0, 0, 0]
    assert [c.weight for c in credits] == [1, 1, 0, 0, 1]
    assert {(c.stream, c.peers) for c in credits} == {("clean", "clean:p#0")}
    (note,) = outcome.notes
    verdicts = ["right", "wrong", "unreadable", "timeout", "wrong"]
    assert [one["verdict"] for one in note["clean"]] == verdicts
    assert note["hints"] == []


def test_the_overlong_penalty_is_dapos() -> None:
    # Limit 100, buffer 20: free up to 80, then a twentieth a token, -1 at the limit.
    lengths = [1, 80, 81, 90, 100]
    assert np.allclose([overlong(n, 100, 20) for n in lengths], [0, 0, -0.05, -0.5, -1.0])
    assert overlong(100, 100, 0) == 0.0


def test_the_penalty_reaches_the_reward() -> None:
    knobs = ["tokens.overlong_buffer=4", "tokens.reasoner=8"]
    outcome = played(["right", "right 2 3 4 5 6", "wrong..."], knobs=knobs)
    assert [c.reward for c in outcome.credits[0]] == pytest.approx([1.0, 1.0 - 2 / 4, -1.0])


def test_memory_is_left_alone() -> None:
    memory = {"anything": 1}
    assert GAMES["rlvr"].remember(memory, []) == {"anything": 1}
