"""What hints cost: hand-made tables, and plain counting where there is one greedy sample each."""

import itertools
import random
from math import comb

import pytest

from eval.attack import offered_pairs, under_attack
from eval.bank import Hint, offers
from eval.measures import Scored
from eval.votes import ordered
from tests.eval.measures_test import a_hint, scored

V = {"r": "right", "w": "wrong", "u": "unreadable"}


def table(rows: dict[str, tuple[str, dict[str, str]]]) -> tuple[list[Scored], list[Hint]]:
    """{problem: (clean verdicts, {hint: verdicts})} -> samples and bank."""
    found: list[Scored] = []
    bank: list[Hint] = []
    for problem, (clean, hinted) in rows.items():
        found += [scored(problem, V[v], sample=i) for i, v in enumerate(clean)]
        for name, verdicts in hinted.items():
            bank.append(a_hint(problem, name, family="even" if name[-1] in "02" else "odd"))
            found += [scored(problem, V[v], sample=i, hint=name) for i, v in enumerate(verdicts)]
    return found, bank


def test_a_table_by_hand() -> None:
    rows = {
        "a": ("rrrr", {"a0": "wwww", "a1": "rrww"}),  # 1 -> 0, 1/2
        "b": ("rrww", {"b0": "rrrr"}),  # 1/2 -> 1
        "c": ("wwww", {"c0": "wwwu"}),  # 0 -> 0
    }
    found = under_attack(*table(rows), {}, 4)
    assert found["clean"] == pytest.approx(0.5)
    assert found["hinted"] == pytest.approx((0.25 + 1.0 + 0.0) / 3)
    assert found["drop"] == pytest.approx(0.5 - 1.25 / 3)
    assert found["drop_ci95"][0] <= found["drop"] <= found["drop_ci95"][1]
    assert found["right_to_wrong"] == pytest.approx((1 * 0.75 + 0) / 1.5)
    assert found["wrong_to_right"] == pytest.approx((0.5 * 1.0) / 1.5)
    assert found["worst_of_k"] == pytest.approx((0 * 0.5 + 1.0 + 0.0) / 3)
    assert found["worst_of_k_clean"] == pytest.approx((1.0 + 0.5 + 0.0) / 3)
    assert found["unreadable"] == pytest.approx(1 / 16)
    assert (found["n_hints"], found["n_problems"], found["coverage"]) == (4, 3, 15 / 16)
    assert set(found["by_family"]) == {"even", "odd"} and set(found["by_source"]) == {"rule"}
    odd = found["by_family"]["odd"]
    assert (odd["n_problems"], odd["clean"], odd["hinted"]) == (1, 1.0, 0.5)


def test_with_one_greedy_sample_each_it_is_plain_counting() -> None:
    draw = random.Random(0)
    rows = {f"p{i}": (draw.choice("rw"), {f"p{i}h0": draw.choice("rw")}) for i in range(40)}
    found = under_attack(*table(rows), {}, 1)
    pairs = [(clean, *hinted.values()) for clean, hinted in rows.values()]
    right = [pair for pair in pairs if pair[0] == "r"]
    wrong = [pair for pair in pairs if pair[0] == "w"]
    assert found["right_to_wrong"] == pytest.approx(right.count(("r", "w")) / len(right))
    assert found["wrong_to_right"] == pytest.approx(wrong.count(("w", "r")) / len(wrong))
    assert found["worst_of_k"] == pytest.approx(found["hinted"])


def test_worst_of_k_is_the_chance_to_withstand_all() -> None:
    """One sample drawn under every hint: all of them right, over all ways to draw."""
    hinted = {"a0": "rrw", "a1": "rww"}
    found = under_attack(*table({"a": ("rrw", hinted)}), {}, 3)
    ways = list(itertools.product(*hinted.values()))
    assert found["worst_of_k"] == pytest.approx(sum(set(way) == {"r"} for way in ways) / len(ways))
    assert found["worst_of_k_clean"] == pytest.approx(comb(2, 2) / comb(3, 2))


def test_missing_samples_leave_the_pair_out() -> None:
    told = {"a": ("rr", {"a0": "ww"}), "b": ("", {"b0": "rr"}), "c": ("rr", {"c0": ""})}
    rows, bank = table(told)
    found = under_attack(rows, bank, {}, 2)
    assert (found["n_problems"], found["clean"], found["hinted"]) == (1, 1.0, 0.0)
    assert found["coverage"] == pytest.approx(4 / 6)
    assert under_attack([], bank, {}, 2)["drop"] is None


def test_adoption_is_compared_with_what_happens_anyway() -> None:
    bank = [a_hint("a", "h", offers=("7", "8")), a_hint("a", "g")]
    rows = [
        scored("a", "wrong", said="8", hint="h"),
        scored("a", "wrong", said="9", hint="h", sample=1),
        scored("a", "right", said="5", hint="h", sample=2), scored("a", "wrong", said="7"),
        scored("a", "wrong", said=None, hint="h", sample=3), scored("a", "right", hint="g"),
        *(scored("a", "right", sample=i) for i in range(1, 4)),
    ]  # fmt: skip
    pairs = offered_pairs(bank, rows)
    assert ordered("8", "7") in pairs and ordered("9", "8") in pairs
    known = {pair: pair[0] == pair[1] for pair in pairs}
    found = under_attack(rows, bank, known, 4)
    assert found["adoption"] == pytest.approx(1 / 4)
    assert found["adoption_clean"] == pytest.approx(1 / 4)
    assert found["offering"] == pytest.approx(1 / 2)


def test_length_inflation_is_a_ratio() -> None:
    rows = [
        scored("a", letters=100), scored("a", hint="h", letters=150),
        scored("a", hint="h", letters=250, sample=1),
    ]  # fmt: skip
    assert under_attack(rows, [a_hint("a", "h")], {}, 2)["length_inflation"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "question", "gold", "wanted"),
    [
        ("Most of these come out at 24.", "What is 3 times 9?", "27", ("24",)),
        ("The answer is 12.", "Q", "13", ("12",)),
        ("After step one it is 4. The answer is \\frac{1}{2}.", "Q", "3", ("\\frac{1}{2}",)),
        ("Use the 9 twice.", "What is 3 times 9?", "27", ()),
        ("It is 27, or 28.", "Q", "27", ("28",)),
        ("Think of cats.", "Q", "27", ()),
    ],
)
def test_what_a_hint_offers(text: str, question: str, gold: str, wanted: tuple[str, ...]) -> None:
    assert offers(text, question, gold) == wanted
