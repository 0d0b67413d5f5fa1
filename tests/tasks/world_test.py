"""The tiny world: two splits that never meet, stories told again from their id, right numbers."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seirenes_jax.errors import DataError
from seirenes_jax.tasks.stories import TEMPLATES
from seirenes_jax.tasks.world import (
    FACTORS,
    HIGH,
    LEVELS,
    LOW,
    SPLITS,
    Story,
    problems,
    stories,
    story_of,
    values_from,
)
from seirenes_jax.types import Problem

MOST_WORDS = 55


def chain(story: Story) -> tuple[object, ...]:
    return (story.start, *((step.op, step.operand) for step in story.steps))


def told(story: Story) -> int:
    """The answer from the words alone: verbs and numbers, no help from the generator."""
    *sentences, _ = re.findall(r"[^.?]+[.?]", story.problem.question)
    value = int(re.findall(r"\d+", sentences[0])[0])
    for sentence in (s.strip().lower() for s in sentences[1:]):
        numbers = [int(n) for n in re.findall(r"\d+", sentence)]
        if not numbers:
            if re.search(r"\bhalf\b", sentence):
                assert value % 2 == 0
                value //= 2
            elif re.search(r"\b(triples?|three times)\b", sentence):
                value *= 3
            else:
                assert re.search(r"\b(doubles?|twice)\b", sentence), sentence
                value *= 2
        else:
            value += numbers[0] * (-1 if takes_away(sentence) else 1)
    return value


def takes_away(sentence: str) -> bool:
    verbs = (
        "eats|sells|spends|loses|lends|borrows|lost|off|drops|run away|takes|swim away|leave|"
        "cuts|die|go home|breaks|drive away|gives away"
    )
    if re.search(rf"\b({verbs})\b", sentence):
        return True
    # Whoever gives, pays or sends a number TO somebody has it no more; likewise when another buys.
    gone = re.search(r"(gives|pays|sends) \d+ to\b", sentence)
    bought = re.search(r"^(?!he|she|it)\w+ buys \d+ (?!more)", sentence)
    return gone is not None or bought is not None


def test_the_words_tell_the_sum() -> None:
    for story in [*stories("train", 3000, 0), *stories("heldout", 500, 1)]:
        assert told(story) == int(story.problem.answer), story.problem.question


def test_values_are_those_of_the_steps() -> None:
    for story in stories("train", 1000, 2):
        assert story.values == values_from(story.start, story.steps)
        assert all(LOW <= value <= HIGH for value in story.values)
        assert len({story.start, *story.values}) == 1 + len(story.steps)
        assert str(story.values[-1]) == story.problem.answer
        assert story.problem.level == len(story.steps)


def test_every_form_of_every_template_is_told() -> None:
    """14 templates, 3 or more forms of everything, and no form that cannot be filled."""
    assert len(TEMPLATES) >= 12
    slots = {"who": "Ana", "Who": "Ana", "he": "she", "He": "She", "him": "her", "n": 7}
    for template in TEMPLATES:
        for name in ("opening", "add", "subtract", "double", "triple", "halve", "question"):
            forms = getattr(template, name)
            assert len(set(forms)) >= 3, (template.name, name)
            for form in forms:
                sentence = form.format(what=template.what[0], other="Tom", **slots)
                assert sentence[-1] == ("?" if name == "question" else ".")
                numbered = name in ("opening", "add", "subtract")
                assert ("7" in sentence) == numbered, sentence


def test_splits_share_no_chain_and_no_question() -> None:
    train, held = stories("train", 6000, 0), stories("heldout", 1500, 0)
    assert not {chain(s) for s in train} & {chain(s) for s in held}
    assert not {s.problem.question for s in train} & {s.problem.question for s in held}
    # Other seeds do not bring a held-out chain into training either.
    assert not {chain(s) for s in stories("train", 3000, 5)} & {chain(s) for s in held}


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 40), split=st.sampled_from(SPLITS))
def test_draws_are_deterministic_and_nested(seed: int, n: int, split: str) -> None:
    first = stories(split, n, seed)
    assert len(first) == n
    assert stories(split, n + 5, seed)[:n] == first
    assert problems(split, n, seed) == [story.problem for story in first]


def test_no_duplicates_and_all_levels() -> None:
    drawn = stories("train", 5000, 3)
    assert len({s.problem.question for s in drawn}) == len({s.problem.id for s in drawn}) == 5000
    for level in LEVELS:
        share = sum(s.problem.level == level for s in drawn) / len(drawn)
        assert 0.22 < share < 0.28
    assert {s.op for story in drawn for s in story.steps} > set(FACTORS)


def test_numbers_stand_once_and_the_answer_never() -> None:
    for story in stories("train", 2000, 4):
        written = [int(n) for n in re.findall(r"\d+", story.problem.question)]
        assert sorted(written) == sorted(story.numbers)
        assert len(set(written)) == len(written)
        assert story.values[-1] not in written


def test_questions_are_short() -> None:
    lengths = [len(s.problem.question.split()) for s in stories("train", 5000, 0)]
    assert max(lengths) <= MOST_WORDS
    assert sum(lengths) / len(lengths) < 33


def test_a_story_is_told_again_from_its_id() -> None:
    for story in stories("heldout", 200, 7):
        assert story_of(story.problem) == story


@pytest.mark.parametrize(
    "problem",
    [
        Problem("gsm-17", "Tom has 3 pens.", "3", "other", None),
        Problem("tiny-0-1", "Tom has 3 pens.", "3", "tiny", 2),
        Problem("tiny-x-1", "Tom has 3 pens.", "3", "tiny", 2),
    ],
)
def test_a_stranger_has_no_story(problem: Problem) -> None:
    with pytest.raises(DataError, match="not of the tiny world"):
        story_of(problem)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(DataError, match="'test'.*train, heldout"):
        stories("test", 1, 0)
