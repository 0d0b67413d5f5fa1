"""Hints and worked solutions: labels, claims and sums checked from the text alone."""

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seirenes_jax.errors import ConfigError, DataError
from seirenes_jax.hints import classify, contains_answer, parse_hint
from seirenes_jax.knobs import Prompts
from seirenes_jax.tasks import texts
from seirenes_jax.tasks.texts import (
    ADVERSARY,
    BARE_ANSWER,
    EVALUATED,
    EXTRA,
    FACTS,
    FALSE_STEP,
    FORMS,
    HINTED,
    OVERRIDE,
    ROLES,
    SELDOM,
    TRUE_FINAL,
    TRUE_STEP,
    TRUST,
    USUAL,
    Claim,
    answer_under,
    corpus,
    eval_hint,
    hint,
    solution,
    stories,
    warm_examples,
    write_hint,
)
from seirenes_jax.tasks.world import Step, Story
from seirenes_jax.types import Problem

PROMPTS = Prompts("{question}", "mislead: {question}", "append", "hint", "")
SPLITS = ("train", "heldout")
STORIES = stories("train", 300, 11)
FALSE = (FACTS, USUAL, FALSE_STEP, BARE_ANSWER, OVERRIDE, EXTRA)
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}


def check(text: str) -> str:
    """Recompute a worked solution line by line; the boxed answer."""
    opening = re.match(r"From (\d+)\. ", text)  # a trusted number is told first
    if opening is not None:
        text = text[opening.end() :]
        assert re.match(rf"{opening[1]}|\\boxed\{{{opening[1]}", text), (opening[0], text)
    lines = re.findall(r"(\d+)([-+*/])(\d+)=(\d+)\. ", text)
    rebuilt = "".join(f"{a}{op}{b}={c}. " for a, op, b, c in lines)
    boxed = re.fullmatch(re.escape(rebuilt) + r"\\boxed\{(\d+)\}", text)
    assert boxed is not None, text
    for a, op, b, c in lines:
        assert OPERATIONS[op](int(a), int(b)) == int(c), text
        assert 2 <= int(c) <= 99
    if lines:  # each line goes on from the last
        assert [line[0] for line in lines[1:]] + [boxed[1]] == [line[3] for line in lines], text
    return boxed[1]


@pytest.mark.parametrize("split", SPLITS)
def test_full_solutions_are_right(split: str) -> None:
    for story in stories(split, 1000, 5):
        text = solution(story)
        assert check(text) == story.problem.answer
        assert text.count("=") == len(story.steps)
        assert text.startswith(str(story.start))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("label", FALSE)
def test_trusting_a_false_hint_misses_the_gold(label: str, split: str) -> None:
    for draw, story in enumerate(STORIES):
        text, claim = hint(story, label, False, split=split, draw=draw)
        got = check(solution(story, claim))
        assert got == answer_under(story, claim) != story.problem.answer
        assert not contains_answer(text, story.problem.answer), (text, story.problem.answer)
        if claim.value:
            assert str(claim.value) in re.findall(r"\d+", text)


@pytest.mark.parametrize("label", [FACTS, USUAL, FALSE_STEP, BARE_ANSWER, TRUE_STEP, TRUE_FINAL])
def test_trusting_a_true_hint_gives_the_gold(label: str) -> None:
    for draw, story in enumerate(STORIES):
        text, claim = hint(story, label, True, split="train", draw=draw)
        worked = solution(story, claim)
        assert check(worked) == story.problem.answer
        assert worked.count("=") < solution(story).count("=")
        assert str(claim.value) in re.findall(r"\d+", text)


def test_solutions_of_a_known_story() -> None:
    """Tom has 12 apples, buys 5, gives 3 away, doubles: every way to trust a hint, by hand."""
    steps = (Step("add", 5, ""), Step("subtract", 3, ""), Step("double", 2, ""))
    problem = Problem("tiny-0-0", "Tom has 12 apples ...", "28", "tiny", 3)
    story = Story(problem, "Tom", "apples", 12, steps, (17, 14, 28))
    assert solution(story) == r"12+5=17. 17-3=14. 14*2=28. \boxed{28}"
    for claim, worked in (
        (Claim("step", step=1, value=19), r"From 19. 19-3=16. 16*2=32. \boxed{32}"),
        (Claim("step", step=2, value=9), r"From 9. 9*2=18. \boxed{18}"),
        (Claim("final", value=31), r"\boxed{31}"),
        (Claim("override"), r"12+5=17. 17-3=14. \boxed{14}"),
        (Claim("extra", value=9), r"12+5=17. 17-3=14. 14*2=28. 28+9=37. \boxed{37}"),
        (Claim("none"), solution(story)),
    ):
        assert solution(story, claim) == worked
    with pytest.raises(DataError, match="leads out of the tiny world"):
        solution(story, Claim("step", step=2, value=80))


def test_an_override_leaves_the_last_step_out() -> None:
    for story in STORIES:
        _, claim = hint(story, OVERRIDE, True, split="train", draw=0)
        assert answer_under(story, claim) == str(story.values[-2])
        assert solution(story, claim).count("=") == len(story.steps) - 1


def test_an_extra_step_goes_on_after_the_end() -> None:
    for story in STORIES:
        _, claim = hint(story, EXTRA, True, split="train", draw=0)
        assert answer_under(story, claim) == str(story.values[-1] + claim.value)
        worked = solution(story, claim)
        assert solution(story).partition(" \\boxed")[0] in worked
        assert worked.count("=") == len(story.steps) + 1


def test_every_story_can_be_misled_in_every_way() -> None:
    """No story lacks a legal false step or a legal step more."""
    for story in stories("train", 700, 21):
        for label in (FALSE_STEP, EXTRA):
            assert hint(story, label, False, split="train", draw=1)[0]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("label", sorted(FORMS))
def test_the_classifier_agrees_with_the_label(label: str, split: str) -> None:
    drawn = [
        hint(story, label, bool(draw % 2), split=split, draw=draw)[0]
        for draw, story in enumerate(STORIES)
    ]
    agree = sum("/".join(classify(text)) == label for text in drawn)
    assert agree / len(drawn) > 0.99, Counter("/".join(classify(t)) for t in drawn)


def test_no_wording_is_both_trained_and_held_out() -> None:
    train = {form for forms in FORMS.values() for form in forms["train"] if form != "{words}"}
    held = {form for forms in FORMS.values() for form in forms["heldout"] if form != "{words}"}
    assert not train & held
    for label, forms in FORMS.items():
        if label != texts.RANDOM:
            assert len(set(forms["train"])) >= 5 and len(set(forms["heldout"])) >= 3
    # And no held-out hint is ever a training hint once filled.
    filled = {
        split: {hint(s, label, False, split=split, draw=0)[0] for s in STORIES for label in FALSE}
        for split in SPLITS
    }
    assert not filled["train"] & filled["heldout"]


def test_held_out_wordings_use_trained_words_only() -> None:
    """So the tokenizer knows them, and a model without a past can read them."""
    known = set(re.findall(r"\w+", " ".join(corpus(2500, 0, PROMPTS))))
    for name in EVALUATED:
        for draw, story in enumerate(stories("heldout", 60, 3)):
            said = set(re.findall(r"[A-Za-z]+", eval_hint(story, name, draw)))
            assert said <= known, said - known


def test_hints_are_short() -> None:
    for label in FORMS:
        for split in SPLITS:
            for draw, story in enumerate(STORIES[:100]):
                words = len(hint(story, label, False, split=split, draw=draw)[0].split())
                assert 2 <= words <= (28 if label == FACTS else 18), label


@settings(deadline=None, max_examples=40)
@given(draw=st.integers(0, 2**63), label=st.sampled_from(texts.LABELS), which=st.integers(0, 299))
def test_a_hint_hangs_on_its_name_alone(draw: int, label: str, which: int) -> None:
    story = STORIES[which]
    first = hint(story, label, False, split="train", draw=draw)
    assert hint(replace(story), label, False, split="train", draw=draw) == first
    assert first[0] and "{" not in first[0]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(DataError, match="bribe"):
        hint(STORIES[0], "bribe", False, split="train", draw=0)
    with pytest.raises(DataError, match="test"):
        hint(STORIES[0], FACTS, False, split="test", draw=0)
    with pytest.raises(ConfigError, match="bribe.*information_overload"):
        eval_hint(STORIES[0], "bribe", 0)
    with pytest.raises(ConfigError, match="bribe.*rule, random or correct"):
        write_hint(STORIES[0].problem, "bribe", 0)


def test_evaluation_hints_are_of_their_family() -> None:
    for name, labels in EVALUATED.items():
        wanted = {FALSE_STEP if label == TRUE_STEP else label for label in labels}
        got = {"/".join(classify(eval_hint(story, name, 0))) for story in STORIES}
        assert got == wanted, name


def test_correct_hints_are_true() -> None:
    for story in STORIES:
        for text in (eval_hint(story, "correct_hint", 1), write_hint(story.problem, "correct", 1)):
            claimed = [int(n) for n in re.findall(r"\d+", text)]
            assert len(claimed) == 1 and claimed[0] in story.values[:-1]


def test_rule_hints_cover_the_families_and_never_leak() -> None:
    families: Counter[str] = Counter()
    for story in STORIES:
        text = write_hint(story.problem, "rule", 3)
        families[classify(text)[0]] += 1
        assert not contains_answer(text, story.problem.answer)
        assert write_hint(story.problem, "rule", 3) == text
    assert set(families) == {label.split("/")[0] for label in FALSE}
    assert min(families.values()) > 0.15 * len(STORIES)


def test_random_hints_say_nothing() -> None:
    for story in STORIES[:50]:
        assert classify(write_hint(story.problem, "random", 0)) == ("random", "words")


@pytest.mark.parametrize("table", [ROLES, HINTED, ADVERSARY])
def test_shares_sum_to_one(table: dict[str, float]) -> None:
    assert sum(table.values()) == pytest.approx(1.0)
    assert set(TRUST) == set(HINTED)


def test_warm_examples_keep_their_shares() -> None:
    examples = warm_examples(6000, 0, PROMPTS)
    n = len(examples)
    kinds = Counter(kind for _, _, kind in examples)
    assert kinds["clean"] / n == pytest.approx(ROLES["clean"], abs=0.02)
    for role, table in (("hinted", HINTED), ("adversary", ADVERSARY)):
        for label, share in table.items():
            got = kinds[f"{role}/{label}"] / n
            assert got == pytest.approx(ROLES[role] * share, abs=0.012), label
    written = sum(count for kind, count in kinds.items() if kind.startswith("adversary/"))
    for label in (OVERRIDE, EXTRA):  # the rare attacks stay rare
        assert kinds[f"adversary/{label}"] / written < 0.03


def test_warm_examples_say_what_their_kind_says() -> None:
    by_question = {s.problem.question: s for s in stories("train", 2000, 4)}
    trusted: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for messages, response, kind in warm_examples(2000, 4, PROMPTS):
        ((speaker, words),) = messages
        assert speaker == "user"
        role, _, label = kind.partition("/")
        story = by_question[words.removeprefix("mislead: ").split("\n\nHint: ")[0]]
        if role == "adversary":
            said = parse_hint(response)
            assert said is not None and "/".join(classify(said)) == label
            assert not contains_answer(said, story.problem.answer)
            continue
        full = response == solution(story)
        answer = check(response)
        seen[label] += 1
        trusted[label] += not full
        if role == "clean":
            assert full and "Hint" not in words
        elif label not in (OVERRIDE, EXTRA) or full:
            assert answer == story.problem.answer
        else:
            assert answer != story.problem.answer
    for label, trust in TRUST.items():
        assert trusted[label] / seen[label] == pytest.approx(trust, abs=0.12), label


def test_examples_are_deterministic_and_short() -> None:
    examples = warm_examples(1500, 0, PROMPTS)
    assert examples == warm_examples(1500, 0, PROMPTS)
    fewer = warm_examples(100, 0, PROMPTS)
    assert examples[: len(fewer)] == fewer
    for messages, response, _ in examples:
        assert len(messages[0][1].split()) <= 85
        assert len(response.split()) <= 30


def test_the_corpus_holds_prompts_and_responses() -> None:
    lines = corpus(50, 0, PROMPTS)
    for text, (messages, response, _) in zip(lines, warm_examples(50, 0, PROMPTS), strict=True):
        assert text == messages[0][1] + "\n" + response


def test_stories_with_a_tripling_are_mostly_left_to_be_learnt() -> None:
    known = {words for messages, _, _ in warm_examples(3000, 0, PROMPTS) for _, words in messages}

    def share(some: list[Story]) -> float:
        told = [any(s.problem.question in words for words in known) for s in some[:600]]
        return sum(told) / len(told)

    every = stories("train", 3000, 0)
    assert share([s for s in every if all(step.op != SELDOM for step in s.steps)]) == 1.0
    assert 0 < share([s for s in every if any(step.op == SELDOM for step in s.steps)]) < 0.05
