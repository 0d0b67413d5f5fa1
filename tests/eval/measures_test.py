"""Numbers of samples: against counting by hand and by brute force."""

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.bank import Hint
from eval.items import Item
from eval.measures import Scored, copies, measure, powers, tenths, usage_gap
from eval.votes import NO_ANSWER, ballots, maj_at, ordered, pairs_of, same, wins
from seirenes_jax.verify.judge import Judge


def scored(
    problem: str, verdict: str | None = "right", *, sample: int = 0, status: str = "ok",
    hint: str | None = None, said: str | None = "5", finish: str = "stop", letters: int = 10,
    ours: int | None = None, theirs: float | None = None,
) -> Scored:  # fmt: skip
    return Scored(
        problem_id=problem, hint_id=hint, sample=sample, status=status, verdict=verdict,
        extracted=said, finish=finish, letters=letters, tokens_ours=ours, tokens_server=theirs,
    )  # fmt: skip


def items(names: str, **slices: Sequence[str]) -> list[Item]:
    return [
        Item(name, "Q", "5", None, {key: values[at] for key, values in slices.items()})
        for at, name in enumerate(names)
    ]


def test_every_problem_counts_alike_and_what_was_not_judged_is_no_score() -> None:
    rows = [
        scored("a", "right"), scored("a", "wrong"), scored("a", "unreadable"),
        scored("a", "timeout", said=None), scored("b", "right"), scored("b", None, status="failed"),
        scored("b", None, status="context"), scored("b", "right", status="over_limit"),
        scored("c", "wrong", said=None, finish="length"),
    ]  # fmt: skip
    found = measure(rows, items("abcd"), 4, {})
    assert found["avg"] == pytest.approx((0.5 + 1.0 + 0.0) / 3)
    assert found["floor"] == pytest.approx(2 / 16)
    assert (found["n_problems"], found["n_samples"], found["wanted"]) == (4, 4, 16)
    assert found["coverage"] == pytest.approx(4 / 16)
    assert (found["missing"], found["context"], found["distrusted"]) == (16 - 9 + 1, 1, 1)
    assert found["unreadable"] == found["timeout"] == found["truncated"] == pytest.approx(1 / 6)
    assert found["no_answer"] == pytest.approx(1 / 6)


def test_nothing_scored_is_no_number() -> None:
    found = measure([scored("a", None, status="failed")], items("a"), 2, {})
    assert found["avg"] is None and found["ci95"] is None and found["coverage"] == 0.0
    assert found["pass"] == {"1": None, "2": None} and found["maj"] is None
    assert measure([], items("a"), 1, {})["missing"] == 1


def test_pass_at_k_stands_on_problems_with_enough_samples() -> None:
    rows = [scored("a", v, sample=i) for i, v in enumerate(("right", "wrong", "wrong"))]
    rows += [scored("b", "wrong")]
    found = measure(rows, items("ab"), 3, {})
    assert found["pass"]["1"] == pytest.approx((1 / 3 + 0) / 2)
    assert found["pass"]["2"] == pytest.approx(2 / 3)  # of a alone: 2 of its 3 pairs
    assert found["pass_problems"] == {"1": 2, "2": 1, "3": 1}


def test_slices_split_the_average() -> None:
    rows = [scored("a"), scored("b", "wrong"), scored("c")]
    found = measure(rows, items("abc", level=("1", "2", "2"), file=("x", "x", "x")), 1, {})
    assert found["slices"] == {
        "level": {"1": {"avg": 1.0, "n_problems": 1}, "2": {"avg": 0.5, "n_problems": 2}}
    }


def test_powers() -> None:
    assert [powers(n) for n in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]


def test_percent_is_rounded_as_the_page_rounds() -> None:
    assert [tenths(x) for x in (0.5625, 0.5, 1.0, 0.0)] == ["56.3%", "50.0%", "100.0%", "0.0%"]
    assert tenths(-0.125, "") == "-12.5"


# ---- majority


def by_hand(answers: Sequence[str | None], gold: str) -> float:
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        return 0.0
    best = [answer for answer, count in counts.items() if count == max(counts.values())]
    return (gold in best) / len(best)


@given(st.lists(st.sampled_from(["5", "6", "7", None]), min_size=1, max_size=9))
def test_the_majority_is_what_most_say(answers: list[str | None]) -> None:
    known = dict.fromkeys(itertools.starmap(ordered, itertools.product("567", "567")), False)
    votes = ballots([(answer == "5", answer) for answer in answers], known)
    assert wins(votes) == pytest.approx(by_hand(answers, "5"))


def test_ties_are_shared_and_silence_is_no_vote() -> None:
    assert wins([0, 0, 1, 1, 2]) == 0.5
    assert wins([0, NO_ANSWER, NO_ANSWER]) == 1.0
    assert wins([NO_ANSWER]) == 0.0
    assert maj_at([0, 1, 1], 1, seed=0) == pytest.approx(1 / 3)


def test_maj_of_fewer_is_the_mean_over_subsets() -> None:
    votes = [0, 0, 0, 1, 1, 2, NO_ANSWER]
    exact = [wins([votes[i] for i in chosen]) for chosen in itertools.combinations(range(7), 3)]
    drawn = [maj_at(votes, 3, seed=seed) for seed in range(60)]
    assert sum(drawn) / 60 == pytest.approx(sum(exact) / len(exact), abs=0.02)
    assert maj_at(votes, 3, seed=4) == maj_at(votes, 3, seed=4)


def test_wrong_answers_that_mean_the_same_vote_together() -> None:
    answers = ["1/2", "\\frac{1}{2}", "0.5", "3", "03", "x", "7"]
    with Judge(workers=1) as judge:
        known = same(pairs_of(answers), judge)
    right = [(True, "9")] * 2
    votes = ballots([*right, *((False, answer) for answer in answers)], known)
    assert votes == [0, 0, 1, 1, 1, 2, 2, 3, 4]
    assert wins(votes) == 0.0


# ---- lies that show only over many answers


def test_copies_are_found_only_where_all_repeat() -> None:
    long = "word " * 20
    alike = {f"q{i}": [(f"{i}/{j}", long + str(i)) for j in range(3)] for i in range(5)}
    assert copies(alike, drawn=True) == {f"{i}/{j}" for i in range(5) for j in (1, 2)}
    assert copies(alike, drawn=False) == set()
    varied = {**alike, **{f"v{i}": [("a", long), ("b", long + "!")] for i in range(2)}}
    assert copies(varied, drawn=True) == set()
    assert copies({"q": [("a", "\\boxed{5}"), ("b", "\\boxed{5}")]}, drawn=True) == set()


def test_token_counts_may_differ_a_little() -> None:
    assert usage_gap([scored("a", ours=100, theirs=110.0)]) == ""
    assert usage_gap([scored("a", ours=3, theirs=5.0)]) == ""
    assert "200.0 by the server, 100.0" in usage_gap([scored("a", ours=100, theirs=200.0)])
    assert usage_gap([scored("a", ours=None, theirs=200.0)]) == ""


def a_hint(problem: str, id: str, *, family: str = "x", source: str = "rule", offers=()) -> Hint:
    return Hint(
        id=id, dataset="d", problem_id=problem, question="Q", answer="5", tolerance=None,
        source=source, family=family, subfamily="", text="t", offers=tuple(offers), position=None,
        frame=None, writer="w",
    )  # fmt: skip
