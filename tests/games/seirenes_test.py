"""Clean, mislead, hinted: every branch, with rewards computed by hand."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from seirenes_jax.games import GAMES
from seirenes_jax.games.base import Memory
from seirenes_jax.play import Played, play
from seirenes_jax.types import Ask, Credit, Name, Verdict
from tests import scripted

GAME = GAMES["seirenes"]
MISLEADING, USELESS = "<hint>count the pears</hint>", "<hint>fruit is healthy</hint>"


def table(clean: Sequence[str], *attacks: tuple[str, Sequence[str]]) -> scripted.Say:
    """Clean tries; then per hint what the Adversary says and what the hinted tries say."""

    def say(name: Name, ask: Ask) -> str | None:
        if name.turn == "0":
            return clean[name.sample]
        hint = int(name.turn.split("/")[0].split(".")[1]) - 1
        written, hinted = attacks[hint]
        return written if ask.role == "adversary" else hinted[name.sample]

    return say


def tries(right: int, of: int = 4) -> list[str]:
    return ["right"] * right + ["wrong"] * (of - right)


def run(
    say: scripted.Say,
    *knobs: str,
    clean: int = 4,
    hints: int = 2,
    step: int = 1,
    memory: Memory | None = None,
) -> tuple[Played, scripted.Sampler]:
    sampler = scripted.Sampler(say)
    context = scripted.context(clean=clean, hints=hints, step=step, memory=memory, knobs=knobs)
    problems = [(scripted.problem(), 0)]
    played = play(problems, GAME, context, ask=sampler.ask, judge=scripted.Judge())
    json.dumps(played.notes)
    return played, sampler


def stream(played: Played, name: str) -> list[Credit]:
    return [credit for credit in played.credits[0] if credit.stream == name]


def rewards(played: Played, name: str) -> list[float]:
    return [credit.reward for credit in stream(played, name)]


@pytest.mark.parametrize(
    ("form", "margin", "wanted"),
    [  # clean 3/4; hinted 1/4, 3/4, 4/4: drops 1/2, 0, -1/4
        ("clip", 0.0, [0.5, 0.0, 0.0]),
        ("clip", 0.125, [0.375, 0.0, 0.0]),
        ("indicator", 0.0, [1.0, 0.0, 0.0]),
        ("indicator", 0.5, [0.0, 0.0, 0.0]),
        ("linear", 0.0, [0.5, 0.0, -0.25]),
        ("linear", 0.25, [0.25, -0.25, -0.5]),
    ],
)
def test_a_hint_is_paid_for_the_drop(form: str, margin: float, wanted: list[float]) -> None:
    say = table(
        tries(3), (MISLEADING, tries(1)), (USELESS, tries(3)), ("<hint>read on</hint>", tries(4))
    )
    knobs = (f"adversary.reward={form}", f"adversary.margin={margin}")
    played, _ = run(say, *knobs, hints=3)
    assert rewards(played, "adversary") == pytest.approx(wanted)
    assert [hint["reward"] for hint in played.notes[0]["hints"]] == pytest.approx(wanted)
    assert rewards(played, "clean") == [1, 1, 1, 0]
    assert rewards(played, "robust") == [1, 0, 0, 0] + [1, 1, 1, 0] + [1, 1, 1, 1]


def test_a_drop_of_exactly_the_margin_does_not_count_whatever_the_rounding() -> None:
    # 4/5 - 3/5 is 0.20000000000000007 in floats.
    say = table(tries(4, of=5), (MISLEADING, tries(3, of=5)))
    knobs = ("adversary.reward=indicator", "adversary.margin=0.2", "rollouts.hinted=5")
    assert rewards(run(say, *knobs, clean=5, hints=1)[0], "adversary") == [0.0]


@pytest.mark.parametrize("right", [0, 4])
def test_all_right_or_all_wrong_pays_no_hint(right: int) -> None:
    say = table(tries(right), (MISLEADING, tries(right)), (USELESS, tries(right)))
    played, _ = run(say)
    assert rewards(played, "adversary") == [0.0, 0.0]
    assert len(set(rewards(played, "clean"))) == 1


def test_under_linear_the_clean_rate_cancels_and_under_the_threshold_it_does_not() -> None:
    def centred(form: str, clean: int) -> list[float]:
        say = table(tries(clean), (MISLEADING, tries(1)), (USELESS, tries(3)))
        paid = rewards(run(say, f"adversary.reward={form}")[0], "adversary")
        return [reward - sum(paid) / len(paid) for reward in paid]

    assert centred("linear", 4) == pytest.approx(centred("linear", 0))
    assert centred("clip", 4) != pytest.approx(centred("clip", 2))


def test_groups_are_the_question_the_question_and_each_hint() -> None:
    say = table(tries(2), (MISLEADING, tries(1)), (USELESS, tries(2)))
    played, _ = run(say)
    peers = {name: [c.peers for c in stream(played, name)] for name in GAME.streams}
    assert len(set(peers["clean"])) == len(set(peers["adversary"])) == 1
    assert peers["robust"][:4] == [peers["robust"][0]] * 4
    assert peers["robust"][4:] == [peers["robust"][4]] * 4
    assert len({*peers["clean"], *peers["adversary"], *peers["robust"]}) == 4
    pooled, _ = run(say, "streams.pool_hints=true")
    assert len({c.peers for c in stream(pooled, "robust")}) == 1


def test_the_adversary_sees_the_question_and_the_hinted_try_the_hint_alone() -> None:
    say = table(tries(2), (f"I think of 12. {MISLEADING} Done.", tries(1)), (USELESS, tries(2)))
    _, sampler = run(say)
    hint_asks = [ask for _, ask in sampler.asks if ask.role == "adversary"]
    hinted = [ask for name, ask in sampler.asks if name.turn.endswith("/1")]
    assert [(ask.n, ask.judge, ask.answer, ask.policy) for ask in hint_asks] == [
        (1, None, None, "live")
    ] * 2
    assert all("12" not in words for ask in hint_asks for _, words in ask.messages)
    assert "count the pears" in hinted[0].messages[0][1]
    assert "I think of" not in hinted[0].messages[0][1]
    assert [(ask.n, ask.answer) for ask in hinted] == [(4, "12")] * 2  # the ORIGINAL answer
    names = [name for name, ask in sampler.asks if ask.role == "adversary"]
    assert len(set(names)) == 2  # two hints, two draws


def test_hinted_tries_start_while_clean_tries_and_another_hint_are_out() -> None:
    answers = table(tries(2), (MISLEADING, tries(1)), (USELESS, tries(2)))
    started: list[str] = []

    def say(name: Name, ask: Ask) -> str | None:
        if name.turn.endswith("/1"):
            started.append(name.turn)
        early = name.turn.startswith("0.1/")
        return answers(name, ask) if early or "0.1/1" in started else None

    played, sampler = run(say)
    opened = [[name.turn for name, _ in round_] for round_ in sampler.opened]
    assert opened[:2] == [["0", "0.1/0", "0.2/0"], ["0.1/1"]]
    assert rewards(played, "adversary") == [0.25, 0.0]


@pytest.mark.parametrize(
    ("form", "wanted"), [("clip", [0.5, 0.0]), ("indicator", [1.0, 0.0]), ("linear", [0.5, 0.5])]
)
def test_a_hint_that_fails_a_gate_is_not_played(form: str, wanted: list[float]) -> None:
    """Paid like a useless hint: under linear like the least of its group, here the only other."""
    say = table(tries(3), (MISLEADING, tries(1)), ("no tag at all", []))
    played, sampler = run(say, f"adversary.reward={form}")
    assert rewards(played, "adversary") == wanted
    assert [c.weight for c in stream(played, "adversary")] == [1.0, 1.0]
    assert played.counts.gates == {"tag": 1}
    failed = played.notes[0]["hints"][1]
    assert (failed["text"], failed["gates"], failed["hinted"]) == ("no tag at all", ["tag"], [])
    assert len(stream(played, "robust")) == 4
    assert [name.turn for name, _ in sampler.asks if name.turn.endswith("/1")] == ["0.1/1"]


def test_a_failed_gate_is_never_better_than_the_least_honest_hint() -> None:
    # linear, clean 2/4: hints 1/4 and 4/4 get +0.25 and -0.5.
    say = table(tries(2), (MISLEADING, tries(1)), ("none", []), (USELESS, tries(4)))
    played, _ = run(say, "adversary.reward=linear", hints=3)
    assert rewards(played, "adversary") == [0.25, -0.5, -0.5]


@pytest.mark.parametrize("form", ["clip", "indicator", "linear"])
def test_no_valid_hint_at_all(form: str) -> None:
    played, _ = run(table(tries(3), ("", []), ("none", [])), f"adversary.reward={form}")
    assert rewards(played, "adversary") == [0.0, 0.0]
    assert stream(played, "robust") == []
    assert rewards(played, "clean") == [1, 1, 1, 0]


def test_without_gates_the_whole_answer_stands_for_a_missing_tag() -> None:
    played, sampler = run(table(tries(3), ("just pears", tries(0))), "hints.gates=()", hints=1)
    assert rewards(played, "adversary") == [0.75]
    hinted = sampler.asks[-1][1]
    assert "Hint: just pears" in hinted.messages[0][1]


def test_a_hint_that_has_no_room_is_never_played_even_without_gates() -> None:
    long = f"<hint>{'pear ' * 6}</hint>"
    played, _ = run(
        table(tries(3), (long, tries(0))), "hints.gates=()", "tokens.prompt=15", hints=1
    )
    assert played.counts.gates == {"length": 1}


def test_unreadable_and_timed_out_tries_are_left_out_of_the_rates() -> None:
    # clean: 2 of 3 readable; hinted: 1 of 2 readable; the drop is 1/6.
    clean = ["right", "right", "wrong", "garbage"]
    say = table(clean, (MISLEADING, ["right", "endless", "wrong", "garbage"]))
    played, _ = run(say, hints=1)
    assert rewards(played, "adversary") == pytest.approx([1 / 6])
    assert [c.weight for c in stream(played, "clean")] == [1, 1, 1, 0]
    assert [c.weight for c in stream(played, "robust")] == [1, 0, 1, 0]


def test_a_hint_that_nothing_readable_tells_of_weighs_nothing() -> None:
    blind = ["garbage", "endless", "endless", "garbage"]
    played, _ = run(table(tries(3), (MISLEADING, blind), (USELESS, tries(1))))
    assert [(c.reward, c.weight) for c in stream(played, "adversary")] == [(0, 0), (0.5, 1)]
    played, _ = run(table(blind, (MISLEADING, tries(1)), (USELESS, tries(1))))
    assert [c.weight for c in stream(played, "adversary")] == [0, 0]


def test_an_unknown_hint_is_no_floor_for_the_gated() -> None:
    blind = ["garbage"] * 4
    say = table(tries(4), (MISLEADING, blind), ("none", []), (USELESS, tries(3)))
    played, _ = run(say, "adversary.reward=linear", hints=3)
    assert [(c.reward, c.weight) for c in stream(played, "adversary")] == [
        (0.0, 0.0), (0.25, 1.0), (0.25, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(("policy", "writer"), [("frozen", "start"), ("untrained", "live")])
def test_opponents_that_do_not_learn(policy: str, writer: str) -> None:
    say = table(tries(3), (MISLEADING, tries(1)), (USELESS, tries(2)))
    played, sampler = run(say, f"adversary.policy={policy}")
    asked = {ask.policy for _, ask in sampler.asks if ask.role == "adversary"}
    assert asked == {writer}
    assert {ask.policy for _, ask in sampler.asks if ask.role == "reasoner"} == {"live"}
    assert stream(played, "adversary") == []
    assert len(stream(played, "robust")) == 8
    assert played.notes[0]["hints"][0]["reward"] == 0.5  # still told


def test_hinted_tries_may_be_played_without_being_trained() -> None:
    say = table(tries(3), (MISLEADING, tries(1)), (USELESS, tries(2)))
    played, _ = run(say, "streams.train_hinted=false")
    assert stream(played, "robust") == []
    assert rewards(played, "adversary") == [0.5, 0.25]


@pytest.mark.parametrize("source", ["rule", "random", "correct"])
def test_hints_that_no_policy_writes(source: str) -> None:
    say = table(tries(3), ("never asked", tries(1)), ("never asked", tries(2)))
    played, sampler = run(say, f"hints.source={source}")
    assert {ask.role for _, ask in sampler.asks} == {"reasoner"}
    assert stream(played, "adversary") == []
    assert len(stream(played, "robust")) == 8
    texts = [hint["text"] for hint in played.notes[0]["hints"]]
    assert all(text.startswith(f"{source} hint for p drawn") for text in texts)
    assert texts[0] != texts[1]
    again, _ = run(say, f"hints.source={source}", step=2)
    assert not {hint["text"] for hint in again.notes[0]["hints"]} & set(texts)
    # Their tries are out in the first round: there is nothing to wait for.
    assert len(sampler.opened[0]) == 3


def notes_of(**written: list[str]) -> list[Any]:
    def hint(text: str) -> dict[str, Any]:
        empty = {"family": "x", "gates": [], "reward": 0.0, "hinted": []}
        return {"text": "seen", "written": text, **empty}

    return [
        {"problem_id": key, "question": "Q", "answer": "1", "clean": [],
         "hints": [hint(text) for text in texts]}
        for key, texts in written.items()
    ]  # fmt: skip


def test_shuffled_hints_were_written_for_other_questions_in_the_last_step() -> None:
    say = table(tries(3), *[(MISLEADING, tries(1))] * 8)
    first, _ = run(say, "hints.source=shuffled", hints=8)
    assert all(hint["hinted"] == [] for hint in first.notes[0]["hints"])  # nobody wrote before
    memory = GAME.remember({}, notes_of(p=["own"], a=["from a"], b=["from b", "", "leaks 42"]))
    later, sampler = run(say, "hints.source=shuffled", hints=8, step=2, memory=memory)
    seen = {hint["text"] for hint in later.notes[0]["hints"]}
    assert seen and seen <= {"from a", "from b", "leaks 42"}
    assert all(hint["written"] for hint in later.notes[0]["hints"])  # for the next step
    assert stream(later, "adversary") == []
    assert run(say, "hints.source=shuffled", hints=8, step=2, memory=memory)[0].notes == later.notes


def test_remember_is_pure_and_keeps_the_last_step_as_json() -> None:
    memory: Memory = {"other": 1}
    kept = GAME.remember(memory, notes_of(a=["x"]))
    assert memory == {"other": 1} and kept["other"] == 1
    later = GAME.remember(kept, notes_of(b=["y", ""]))
    assert later["hints"] == [["b", "y"]]
    assert json.loads(json.dumps(later)) == later


def test_no_hints_asked_is_the_baseline() -> None:
    played, _ = run(table(tries(3)), hints=0)
    assert {c.stream for c in played.credits[0]} == {"clean"}
    assert played.notes[0]["hints"] == []


def test_verdicts_stand_on_the_credited_rollouts() -> None:
    played, _ = run(table(tries(3), (MISLEADING, tries(1)), (USELESS, tries(2))))
    assert [c.rollout.verdict for c in stream(played, "clean")] == [Verdict.RIGHT] * 3 + [
        Verdict.WRONG
    ]
    assert all(c.rollout.verdict is None for c in stream(played, "adversary"))
