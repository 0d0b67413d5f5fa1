"""The driver of games: order, overlap, names, and what it says of games and samplers that err."""

from collections.abc import Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seirenes_jax.errors import PlayError
from seirenes_jax.games import GAMES
from seirenes_jax.games.base import Game, Note
from seirenes_jax.play import Played, play
from seirenes_jax.rng import stable_hash
from seirenes_jax.types import Ask, Name, Rollout, Verdict
from tests import scripted

MESSAGES = (("user", "?"),)
TOLD = Note(problem_id="", question="", answer="", clean=[], hints=[])


def question(n: int = 1, *, judged: bool = False, limit: int = 8) -> Ask:
    gold, judge = ("12", "math") if judged else (None, None)
    return Ask("reasoner", MESSAGES, n, gold, judge, limit)


def game(moves: Any) -> Game:
    return Game(lambda problem, context: moves(problem), lambda memory, notes: memory, ("clean",))


def run(moves: Any, say: scripted.Say, *, problems: int = 1, turn: int = 1) -> Any:
    sampler, judge = scripted.Sampler(say, turn), scripted.Judge()
    played = play(
        [(scripted.problem(f"p{i}"), 0) for i in range(problems)],
        game(moves), scripted.context(), ask=sampler.ask, judge=judge,
    )  # fmt: skip
    return played, sampler, judge


def at_once(text: str) -> scripted.Say:
    return lambda name, ask: text


def key(rollout: Rollout) -> tuple[Any, ...]:
    return rollout.name, rollout.text, rollout.verdict


def facts(played: Played) -> Any:
    """All that a play decides, comparable."""
    return [
        [(key(c.rollout), c.stream, c.peers, c.reward, c.weight) for c in credits]
        for credits in played.credits
    ], played.notes


def test_answers_come_back_by_sample_and_item_whatever_finished_first() -> None:
    heard: list[Any] = []

    def moves(problem: Any) -> Generator[Any, Any, Any]:
        heard.append((yield [question(3), question(2, judged=True)]))
        return [], TOLD

    run(moves, lambda name, ask: f"right {name.ask}.{name.sample}", turn=-1)
    (answers,) = heard
    texts = [[rollout.text for rollout in group] for group in answers]
    assert texts == [["right 0.0", "right 0.1", "right 0.2"], ["right 1.0", "right 1.1"]]
    assert [rollout.verdict for rollout in answers[1]] == [Verdict.RIGHT] * 2
    assert all(rollout.verdict is None for rollout in answers[0])


def test_names_spell_the_path_of_the_asker() -> None:
    def child() -> Generator[Any, Any, str]:
        yield [question()]
        yield [question(), grandchild()]
        return "child"

    def grandchild() -> Generator[Any, Any, str]:
        yield [question()]
        return "grandchild"

    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [question(), question(), child()]
        yield [question()]
        return [], TOLD

    _, sampler, _ = run(moves, at_once("x"))
    names = [(name.turn, name.ask) for name, _ in sampler.asks]
    assert names == [("0", 0), ("0", 1), ("0.2/0", 0), ("0.2/1", 0), ("0.2/1.1/0", 0), ("1", 0)]
    assert len({stable_hash(name.turn, name.ask) for name, _ in sampler.asks}) == 6


def test_verdicts_enter_exactly_one_round_after_the_answer() -> None:
    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [question(judged=problem.id == "p0")]
        yield [question()]
        return [], TOLD

    # A third problem keeps the sampler busy, so that every round calls it.
    rounds = iter(range(100))
    slow = lambda name, ask: "right" if name.problem != "p2" or next(rounds) > 3 else None  # noqa: E731
    _, sampler, _ = run(moves, slow, problems=3)
    opened = [[(n.problem, n.turn) for n, _ in round_] for round_ in sampler.opened]
    assert opened[0] == [("p0", "0"), ("p1", "0"), ("p2", "0")]
    assert opened[1] == [("p1", "1")]  # unjudged: went on at once
    assert opened[2] == [("p0", "1")]  # judged: one round later


def test_new_asks_are_opened_in_the_order_of_problems_whatever_finished_first() -> None:
    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [child(), child()]
        return [], TOLD

    def child() -> Generator[Any, Any, None]:
        yield [question()]
        yield [question()]

    _, straight, _ = run(moves, at_once("x"), problems=12)
    _, reversed_, _ = run(moves, at_once("x"), problems=12, turn=-1)
    assert straight.opened == reversed_.opened
    second = [(name.problem, name.turn) for name, _ in straight.opened[1]]
    assert second == [(f"p{i}", f"0.{k}/1") for i in range(12) for k in range(2)]


def test_a_child_does_not_wait_for_its_siblings() -> None:
    def child() -> Generator[Any, Any, None]:
        yield [question()]
        yield [question()]

    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [question(), child()]
        return [], TOLD

    stuck: list[bool] = [True]

    def say(name: Name, ask: Ask) -> str | None:
        if name.turn == "0.1/1":
            stuck[0] = False
        return None if name.turn == "0" and stuck[0] else "x"

    _, sampler, _ = run(moves, say)
    assert [name.turn for name, _ in sampler.opened[1]] == ["0.1/1"]  # "0" was still out


def test_an_answer_cut_at_its_limit_is_wrong_and_never_judged() -> None:
    heard: list[Any] = []

    def moves(problem: Any) -> Generator[Any, Any, Any]:
        heard.append((yield [question(2, judged=True)]))
        return [], TOLD

    played, _, judge = run(moves, lambda name, ask: "right..." if name.sample else "right")
    assert [rollout.verdict for rollout in heard[0][0]] == [Verdict.RIGHT, Verdict.WRONG]
    assert judge.cases == [("12", "right")]
    assert played.counts.cut == {"reasoner": 1}
    assert played.counts.verdicts == {"right": 1, "wrong": 1}
    assert played.counts.tokens == {"reasoner": 1 + 8}


def test_children_that_end_at_once_and_empty_turns_are_fine() -> None:
    def nothing(k: int) -> Generator[Any, Any, int]:
        return k
        yield

    heard: list[Any] = []

    def moves(problem: Any) -> Generator[Any, Any, Any]:
        heard.append((yield [nothing(0), question(), nothing(2)]))
        heard.append((yield [nothing(5)]))
        heard.append((yield []))
        return [], TOLD

    run(moves, at_once("x"))
    first, second, third = heard
    assert (first[0], first[1][0].text, first[2]) == (0, "x", 2)
    assert (second, third) == ([5], [])


def test_no_problem_no_call() -> None:
    played, sampler, _ = run(lambda problem: iter(()), at_once("x"), problems=0)
    assert played.credits == () and sampler.opened == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_credits_do_not_depend_on_the_schedule(salt: int, problems: int) -> None:
    """Who finishes when is drawn at random; what comes of it is the same."""

    def text(name: Name) -> str:
        draw = stable_hash(name.problem, name.turn, name.ask, name.sample)
        if name.turn in ("0.1/0", "0.2/0"):
            return f"<hint>look {draw % 5}</hint>" if draw % 4 else "no tag here"
        return ("right", "wrong", "wrong", "garbage", "endless")[draw % 5]

    def late(name: Name, ask: Ask) -> str | None:
        if stable_hash(salt, str(name), len(calls)) % 3:
            calls.append(0)
            return None
        calls.append(0)
        return text(name)

    def once(say: scripted.Say, turn: int) -> Any:
        sampler = scripted.Sampler(say, turn)
        played = play(
            [(scripted.problem(f"p{i}"), 0) for i in range(problems)],
            GAMES["seirenes"], scripted.context(), ask=sampler.ask, judge=scripted.Judge(),
        )  # fmt: skip
        return facts(played), {name for name, _ in sampler.asks}

    calls: list[int] = []
    straight = once(lambda name, ask: text(name), 1)
    assert once(lambda name, ask: text(name), -1) == straight
    assert once(late, 1) == straight


def test_an_error_inside_a_game_names_the_problem() -> None:
    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [question()]
        raise ZeroDivisionError("by the game")

    with pytest.raises(ZeroDivisionError) as caught:
        run(moves, at_once("x"))
    assert caught.value.__notes__ == ["raised by the game of problem 'p0', turn 0"]


@pytest.mark.parametrize(
    ("yielded", "words"),
    [
        (["a text"], "item 0 is 'a text'"),
        ("abc", "wanted a list"),
        ([question(0)], "asked for 0 answers"),
        ([Ask("reasoner", MESSAGES, 1, None, "math", 8)], "no answer to judge by"),
    ],
)
def test_a_game_that_breaks_the_agreement_is_named(yielded: Any, words: str) -> None:
    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield yielded
        return [], TOLD

    with pytest.raises(PlayError, match=f"'p0', turn 0.*{words}"):
        run(moves, at_once("x"))


def test_a_game_must_return_credits_and_note() -> None:
    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [question()]

    with pytest.raises(PlayError, match="'p0'.*returned None"):
        run(moves, at_once("x"))


def test_a_sampler_that_breaks_the_agreement_is_told() -> None:
    def moves(problem: Any) -> Generator[Any, Any, Any]:
        yield [question(2)]
        return [], TOLD

    def with_ask(answer: Any) -> Any:
        problems = [(scripted.problem("p0"), 0)]
        return play(
            problems, game(moves), scripted.context(), ask=answer, judge=scripted.Judge()
        )

    def give(**changes: Any) -> Any:
        def answer(opened: Any) -> Any:
            name, ask = opened[0]
            return [scripted.rollout(replace(name, **changes), ask, "x")]

        return answer

    with pytest.raises(PlayError, match="'other'.*nobody asked"):
        with_ask(give(problem="other"))
    with pytest.raises(PlayError, match="'p0'.*beyond the 2"):
        with_ask(give(sample=2))
    with pytest.raises(PlayError, match="'p0'.*twice"):
        with_ask(lambda opened: give()(opened) * 2)
    with pytest.raises(PlayError, match="came back .* times with nothing.*'p0'"):
        with_ask(lambda opened: [])


def test_twins_would_draw_the_same_and_are_refused() -> None:
    twins = [(scripted.problem("p"), 3)] * 2
    with pytest.raises(PlayError, match="'p' is played 2 times as visit 3"):
        play(
            twins, GAMES["rlvr"], scripted.context(),
            ask=scripted.Sampler(at_once("right")).ask, judge=scripted.Judge(),
        )  # fmt: skip


def test_another_visit_is_another_draw_and_another_group() -> None:
    visits = [(scripted.problem("p"), 0), (scripted.problem("p"), 1)]
    sampler = scripted.Sampler(at_once("right"))
    played = play(
        visits, GAMES["rlvr"], scripted.context(), ask=sampler.ask, judge=scripted.Judge()
    )
    assert [name.visit for name, _ in sampler.asks] == [0, 1]
    first, second = ({c.peers for c in credits} for credits in played.credits)
    assert not first & second
    assert np.sum([c.reward for credits in played.credits for c in credits]) == 8
