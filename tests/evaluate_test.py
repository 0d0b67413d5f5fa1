"""Held-out evaluation of a scripted policy: what is asked, at which temperature, what counts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from seirenes_jax import knobs
from seirenes_jax.errors import Stopped
from seirenes_jax.evaluate import WRITES, Evaluator, accuracy, scores
from seirenes_jax.hints import FAMILIES
from seirenes_jax.hosts import players
from seirenes_jax.settings import load
from seirenes_jax.sharding import make_mesh
from seirenes_jax.signals import Stop
from seirenes_jax.types import Ask, Name, Problem, Rollout
from tests import scripted

ALONE = players(1, make_mesh(knobs.Mesh(data=1, fsdp=1, tensor=1, expert=1, sequence=1)))
PROBLEMS = [scripted.problem(f"p{i}") for i in range(4)]
SOUND = "<hint>a friend says that pears count twice</hint>"


class Policy:
    """Answers by script, all at once, and remembers what it was asked and how."""

    def __init__(self, say: Callable[[Name, Ask], str]) -> None:
        self.say, self.temperatures, self.asked = say, list[float](), list[tuple[Name, Ask]]()

    def load(self, policy: str, params: object, step: int) -> None:
        self.params, self.held = params, True

    def release(self) -> None:
        self.held = False

    def begin(self, step: int, temperature: float) -> None:
        self.temperatures.append(temperature)

    def generate(
        self, asks: list[tuple[Name, Ask]], on_chunk: Callable[[int], None]
    ) -> list[Rollout]:
        self.asked += asks
        on_chunk(sum(ask.n for _, ask in asks))
        return [
            scripted.rollout(name, ask, self.say(name, ask))
            for base, ask in asks
            for name in (replace(base, sample=i) for i in range(ask.n))
        ]


class Log:
    """A bar that remembers how far it should go and how far it went."""

    def __init__(self) -> None:
        self.total = self.done = 0

    @contextmanager
    def bar(self, name: str, total: int, unit: str) -> Iterator["Log"]:
        self.total, self.done = total, 0
        yield self

    def advance(self, n: int) -> None:
        self.done += n


def evaluator(say: Callable[[Name, Ask], str], *knobs: str) -> tuple[Evaluator, Policy]:
    settings, _ = load(str(scripted.CONFIG), ["hints.gates=tag", *knobs])

    def eval_hint(problem: Problem, name: str, draw: int) -> str:
        return f"{name} for {problem.id}"

    start: Any = SimpleNamespace(
        held_out=PROBLEMS, rare=("rare_one",), eval_hint=eval_hint,
        tokenizer=SimpleNamespace(
            count=lambda text: len(text.split()),
            render=lambda messages: [word for _, words in messages for word in words.split()],
        ),
    )  # fmt: skip
    policy: Any = Policy(say)
    judge: Any = scripted.Judge()
    log: Any = Log()
    return Evaluator(settings, start, policy, judge, hosts=ALONE, log=log, stop=Stop(1.0)), policy


def test_marks_are_greedy_in_the_order_of_problems_and_blank_where_nothing_was_measured() -> None:
    said = {"p0": "right", "p1": "garbage", "p2": "wrong", "p3": "endless"}
    measure, policy = evaluator(lambda name, ask: said[name.problem])
    assert measure.marks("weights", None, 4) == [1, None, 0, None]
    assert policy.temperatures == [0.0] and policy.params == "weights" and not policy.held
    assert measure.marks("weights", [None, "a", "b"], 3) == [None, None, 0]
    asked = policy.asked[4:]
    assert [name.problem for name, _ in asked] == ["p1", "p2"]
    for word, (_, ask) in zip("ab", asked, strict=True):
        assert word in ask.messages[-1][1].split()
    assert measure.spent() == 6 and measure.spent() == 0


def test_an_adversary_has_a_few_tries_for_one_sound_hint() -> None:
    def say(name: Name, ask: Ask) -> str:
        sound_at = {"p0": 0, "p1": 2, "p2": WRITES}[name.problem]
        if name.sample < sound_at:
            return "no tag"
        return SOUND.replace("friend", f"friend{name.sample}")

    measure, policy = evaluator(say)
    assert measure.written("weights", 3) == [
        "a friend0 says that pears count twice", "a friend2 says that pears count twice", None,
    ]  # fmt: skip
    assert policy.temperatures == [1.0]  # sampled: a greedy adversary would say one thing
    assert all(ask.role == "adversary" and ask.n == WRITES for _, ask in policy.asked)


def answers(name: Name, ask: Ask) -> str:
    """Misled by one family, by the rare attack and by its own hints."""
    if ask.role == "adversary":
        return SOUND
    words = ask.messages[-1][1]
    return "wrong" if any(w in words for w in (FAMILIES[0], "rare_one", "pears")) else "right"


def test_everything_that_the_summary_reports() -> None:
    measure, _ = evaluator(answers)
    before, hints = measure.everything("weights", None, 2)
    assert hints == ["a friend says that pears count twice"] * 2
    assert before["warmstart_adversary"] == before["own_adversary"] == [0, 0]
    row = scores(before, ("rare_one",))
    assert row["clean"] == 1.0 and row[FAMILIES[0]] == 0.0 and row[FAMILIES[1]] == 1.0
    assert row["hinted"] == pytest.approx(0.75)
    assert row["correct_hint"] == row["irrelevant_hint"] == 1.0
    assert row["rare"] == {"rare_one": 0.0}
    # Later the starting hints are used again, and the live adversary writes its own.
    after, own = measure.everything("weights", ["a friend", None], 2)
    assert own == hints and after["warmstart_adversary"] == [1, None]


def test_a_game_without_an_adversary_is_measured_under_the_starting_hints_alone() -> None:
    measure, policy = evaluator(answers, "game=rlvr")
    before, hints = measure.everything("weights", None, 2)
    assert hints != [] and "own_adversary" not in before
    policy.asked.clear()
    after, own = measure.everything("weights", hints, 2)
    assert own == [] and after["warmstart_adversary"] == [0, 0]
    assert {ask.role for _, ask in policy.asked} == {"reasoner"}
    assert scores(after, ("rare_one",))["own_adversary"] is None


def test_an_evaluation_shows_how_far_it_is_and_can_be_left() -> None:
    measure, policy = evaluator(answers)
    measure.written("weights", 3)
    shown: Any = measure.log
    assert shown.total == shown.done == 3 * WRITES

    measure.stop.asked = "SIGTERM"
    with pytest.raises(Stopped):
        measure.marks("weights", None, 2)


def test_accuracy_counts_what_was_measured() -> None:
    assert accuracy([1, None, 0, 1]) == pytest.approx(2 / 3)
    assert accuracy([None]) is None and accuracy([]) is None
