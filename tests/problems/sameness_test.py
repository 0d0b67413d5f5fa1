"""Two questions are the same but for their dress, or share thirteen words in a row."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from seirenes_jax.problems.sameness import Benchmarks, grams, normal, words

LONG = (
    "Jen enters a lottery by picking 4 distinct numbers from S, the set of the first ten positive "
    "integers; find the probability that she wins the grand prize, given that she won a prize."
)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("Find $x$ .", "find  \\(x\\)"),
        ("$\\dfrac{1}{2}$", "$\\frac{1}{2}$"),
        ("\\left( a, b \\right)", "(a,b)"),
        ("What\n is\tit?", "what is it"),
        ("Cafe\u0301", "café"),
    ],
)
def test_dress_does_not_count(one: str, two: str) -> None:
    assert normal(one) == normal(two)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x + 1 = 2", "x - 1 = 2"),
        ("x^2", "x_2"),
        ("x²", "x2"),
        ("\\leftarrow x", "x"),
        ("1.5", "15"),
        ("\\sqrt{2}", "2"),
    ],
)
def test_signs_do(one: str, two: str) -> None:
    assert normal(one) != normal(two)


@given(st.text(max_size=80))
def test_the_normal_form_is_settled(text: str) -> None:
    assert normal(normal(text).rstrip(".?!:")) == normal(text)


def test_words_of_every_script() -> None:
    assert words("Find $\\frac{1}{2}x_1$, Émile!") == ["find", "frac", "1", "2", "x", "1", "émile"]
    assert words("求x的值") == ["求", "x", "的", "值"]
    assert len(grams("一二三四五六七八九十百千万。")) == 1  # thirteen signs are thirteen words


def test_thirteen_words_in_a_row_are_an_overlap_twelve_are_not() -> None:
    benchmarks = Benchmarks([("aime", LONG)], overlap=0.0)
    said = LONG.split()
    for start in (0, 5, len(said) - 13):
        hit = benchmarks.meets("Today " + " ".join(said[start : start + 13]) + " it is.")
        assert hit is not None and (hit.benchmark, hit.question) == ("aime", LONG)
        assert 0 < hit.share < 0.5
        assert benchmarks.meets("Today " + " ".join(said[start : start + 12]) + " it is.") is None


def test_a_short_question_must_be_the_same_but_for_its_dress() -> None:
    benchmarks = Benchmarks([("math500", "Find $\\dfrac{1}{2}+x$.")], overlap=0.0)
    hit = benchmarks.meets("find \\(\\frac{1}{2} + x\\)")
    assert hit is not None and hit.share == 1.0
    assert benchmarks.meets("Find $\\frac{1}{2} - x$.") is None
    assert benchmarks.meets("Please find $\\frac{1}{2} + x$.") is None


def test_the_share_that_may_overlap() -> None:
    phrase = (
        "where m and n are relatively prime positive integers and the answer is m over n find m n"
    )
    asked = f"{LONG} It is {phrase}."
    other = f"A card is drawn and the chance of a heart is a fraction {phrase}."
    assert Benchmarks([("aime", asked)], overlap=0.0).meets(other) is not None
    assert Benchmarks([("aime", asked)], overlap=0.2).meets(other) is None
    changed = asked.replace("4 distinct", "5 distinct")
    assert Benchmarks([("aime", asked)], overlap=0.2).meets(changed) is not None


def test_the_closest_benchmark_is_named_and_of_equals_the_first() -> None:
    half = " ".join(LONG.split()[:16])
    benchmarks = Benchmarks([("far", half + " on a sunny day in May"), ("near", half),
                             ("later", half)], overlap=0.0)  # fmt: skip
    hit = benchmarks.meets("Yesterday " + half)
    assert hit is not None and (hit.benchmark, hit.share) == ("near", 1.0)
