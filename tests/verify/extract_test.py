"""Where an answer may stand."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax.verify.extract import final_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"so $\boxed{5}$.", "5"),
        (r"\[\boxed{ 5 }\]", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed5", "5"),
        (r"\boxed 5", "5"),
        (r"\fbox{5}", "5"),
        (r"\\boxed{5}", "5"),
        (r"x \\\boxed{5}", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\left\{1\right\}}", r"\left\{1\right\}"),
        (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        # the last one wins
        (r"\boxed{3} no, \boxed{5}", "5"),
        (r"\boxed{3} Hint says \boxed{4}. I disagree: \boxed{5}", "5"),
        (r"\boxed{5}\boxed{5}", "5"),
        (r"\boxed{1}\boxed{2}\boxed{3}", "3"),
        (r"\boxed{3 and then \boxed{5}", "5"),
        # nested
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{{5}}", "5"),
        (r"\boxed{x = \boxed{5}}", "x = {5}"),
        # none
        ("the answer is 5", None),
        ("#### 5", None),
        ("", None),
        (r"\boxed{}", None),
        (r"\boxed{ \, }", None),
        (r"\boxed{\text{}}", None),
        (r"\boxed{$$}", None),
        (r"\boxed{5", None),
        (r"\boxed{3} but \boxed{5", None),
        (r"\boxed{3}\boxed{}", None),
        (r"\boxed", None),
        # thoughts
        (r"<think>\boxed{3}</think>\boxed{5}", "5"),
        (r"<think>\boxed{3}</think> five", None),
        (r"<think>\boxed{3}", None),
        (r"\boxed{5}<think>or", None),
        (r"\boxed{5}<think>\boxed{6}</think>", "5"),
        (r"so \boxed{3}</think> and \boxed{5}", "5"),
        (r"so \boxed{3}</think>", None),
        (r"<THINK>\boxed{3}</THINK>\boxed{5}", "5"),
        (r"<think>a <think> b</think>\boxed{5}", "5"),
    ],
)
def test_boxes(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 5.", "5"),
        ("The answer is 3.14. Done", "3.14"),
        ("answer: 5\nthanks", "5"),
        ("So the final answer is: **12**", "12"),
        (r"The answer is $\frac12$.", r"\frac12"),
        (r"The answer is \(x+1\), as said", "x+1"),
        ("#### 1,234", "1,234"),
        ("#### 3\n#### 5", "5"),
        ("The answer is 3. No: the answer is 5.", "5"),
        (r"The answer is 3. \boxed{5}", "5"),
        (r"The answer is 3. \boxed{5", None),
        ("<think>the answer is 3</think> hm", None),
        ("####", None),
        ("five", None),
    ],
)
def test_prose_counts_only_when_asked_for(text: str, answer: str | None) -> None:
    assert final_answer(text, fallback=True) == answer
    if "boxed" not in text:
        assert final_answer(text) is None


@given(st.text(alphabet="ab {}5$\n", max_size=60), st.integers(0, 10**9))
def test_nothing_before_the_last_box_can_change_it(before: str, number: int) -> None:
    last = rf"\boxed{{{number}}}"
    assert final_answer(f"{before} {last}") == str(number)
    assert final_answer(rf"\boxed{{7}} {before} {last} {before.replace('{', '')}") == str(number)


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{1}" * 20_000,
        r"\boxed{" * 20_000 + "5" + "}" * 20_000,
        "x" * 1_000_000 + r"\boxed{5}",
        r"\boxed{" + "{" * 1_000_000,
        r"\boxed{" + "\\" * 1_000_000,
        "<think>" * 100_000 + "</think>" * 100_000,
        r"\boxed" + " " * 1_000_000,
        "the answer is " * 100_000,
        "####" * 250_000,
        "the answer is $" + "a " * 400_000,
    ],
)
def test_a_megabyte_is_read_in_time(text: str) -> None:
    begun = time.thread_time()
    final_answer(text)
    final_answer(text, fallback=True)
    assert time.thread_time() - begun < 2.0
