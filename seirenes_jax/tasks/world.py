"""The embedded tiny world: seeded arithmetic stories with every value on the way known.

Train and held-out never meet: the chain of numbers and operations itself decides to which of the
two a story belongs, whatever words it is told in. A story's id names its draw, so it can be told
again from the id alone.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from seirenes_jax.errors import DataError
from seirenes_jax.rng import stable_hash
from seirenes_jax.tasks.stories import PEOPLE, TEMPLATES, Template
from seirenes_jax.types import Problem

SOURCE = "tiny"
SPLITS = ("train", "heldout")
LOW, HIGH = 2, 80  # every value on the way; from 2, so that plurals always fit
MOST_START, MOST_CHANGE = 20, 10
LEVELS = (2, 3, 4, 5)  # number of steps
HELD_OUT_ONE_IN = 8

WEIGHTS = {"add": 0.385, "subtract": 0.385, "double": 0.13, "triple": 0.02, "halve": 0.08}
OPS, UP_TO = tuple(WEIGHTS), tuple(accumulate(WEIGHTS.values()))
SIGNS = {"add": "+", "subtract": "-", "double": "*", "triple": "*", "halve": "/"}
FACTORS = {"double": 2, "triple": 3, "halve": 2}  # said in words, never as a digit


@dataclass(frozen=True, slots=True)
class Step:
    """One change: its kind, its number, the sentence that tells it."""

    op: str
    operand: int
    text: str

    def after(self, value: int) -> int | None:
        """The value after this change; None where it is not a whole number of the world."""
        if self.op == "halve":
            new = value // 2 if value % 2 == 0 else 0
        elif self.op == "add":
            new = value + self.operand
        elif self.op == "subtract":
            new = value - self.operand
        else:
            new = value * self.operand
        return new if LOW <= new <= HIGH else None

    def line(self, value: int, new: int) -> str:
        """Its line in a worked solution."""
        return f"{value}{SIGNS[self.op]}{self.operand}={new}."


@dataclass(frozen=True, slots=True)
class Story:
    """A problem and all that is known of it."""

    problem: Problem
    who: str
    what: str
    start: int
    steps: tuple[Step, ...]
    values: tuple[int, ...]  # after every step; the last is the answer

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers that stand in the question."""
        return (self.start, *(s.operand for s in self.steps if s.op not in FACTORS))


def values_from(start: int, steps: Sequence[Step]) -> tuple[int, ...] | None:
    """The value after every step, or None where one of them is outside the world."""
    values: list[int] = []
    value = start
    for step in steps:
        new = step.after(value)
        if new is None:
            return None
        values.append(new)
        value = new
    return tuple(values)


def stories(split: str, n: int, seed: int) -> list[Story]:
    """The first n distinct stories of a split under a seed; more begin with the same."""
    if split not in SPLITS:
        raise DataError(f"tiny world: got split {split!r}; wanted one of {', '.join(SPLITS)}")
    found: dict[str, Story] = {}
    index = 0
    while len(found) < n:
        draw, start, steps, values = _chain(seed, index)
        if _split_of(start, steps) == split:
            story = _tell(draw, f"{SOURCE}-{seed}-{index}", start=start, steps=steps, values=values)
            found.setdefault(story.problem.question, story)
        index += 1
    return list(found.values())


def problems(split: str, n: int, seed: int) -> list[Problem]:
    """`stories` without what only the generator knows."""
    return [story.problem for story in stories(split, n, seed)]


def story_of(problem: Problem) -> Story:
    """The story behind a problem of this world, told again from its id."""
    parts = problem.id.split("-")
    if len(parts) == 3 and parts[0] == SOURCE and parts[1].isdigit() and parts[2].isdigit():
        draw, start, steps, values = _chain(int(parts[1]), int(parts[2]))
        story = _tell(draw, problem.id, start=start, steps=steps, values=values)
        if story.problem.question == problem.question:
            return story
    raise DataError(
        f"problem {problem.id!r} is not of the tiny world as it is now; wanted an id like "
        "tiny-0-17 with the question this seed and index give; draw the problems again"
    )


Chain = tuple[random.Random, int, tuple[Step, ...], tuple[int, ...]]


def _chain(seed: int, index: int) -> Chain:
    """Start, changes without words, values; and the generator to go on with.

    No number stands twice in a question ("read the 5 as 8" is clear), nor does the answer stand in
    it (a hint that repeats a number of the question never gives the answer away).
    """
    draw = random.Random(stable_hash(SOURCE, seed, index))
    level = draw.choice(LEVELS)  # drawn once: redraws must not favour short stories
    while True:
        start = draw.randint(LOW + 1, MOST_START)
        steps, values = _walk(draw, start, level)
        numbers = (start, *(step.operand for step in steps if step.op not in FACTORS))
        told_once = len(set((*numbers, values[-1]))) == len(numbers) + 1
        if told_once and values[-1] + MOST_CHANGE <= HIGH:  # room for one change more
            return draw, start, steps, values


Walk = tuple[tuple[Step, ...], tuple[int, ...]]


def _walk(draw: random.Random, start: int, level: int) -> Walk:
    """Random changes that stay inside the world and never come back to a value: none is idle."""
    steps: list[Step] = []
    values = [start]
    while len(steps) < level:
        op = draw.choices(OPS, cum_weights=UP_TO)[0]
        step = Step(op, FACTORS[op] if op in FACTORS else draw.randint(LOW, MOST_CHANGE), "")
        new = step.after(values[-1])
        if new is not None and new not in values:
            steps.append(step)
            values.append(new)
    return tuple(steps), tuple(values[1:])


def _split_of(start: int, steps: Sequence[Step]) -> str:
    chain = " ".join([str(start), *(f"{step.op} {step.operand}" for step in steps)])
    return "heldout" if stable_hash("split", chain) % HELD_OUT_ONE_IN == 0 else "train"


def _tell(
    draw: random.Random,
    name: str,
    *,
    start: int,
    steps: Sequence[Step],
    values: tuple[int, ...],
) -> Story:
    """Put a chain into words."""
    template = draw.choice(TEMPLATES)
    who, he, him = draw.choice(template.who)
    what = draw.choice(template.what)
    other = draw.choice([person for person, _, _ in PEOPLE if person != who])
    slots = {"who": who, "Who": _capital(who), "he": he, "He": _capital(he), "him": him}
    slots |= {"other": other, "what": what}
    told: list[Step] = []
    opening = draw.choice(template.opening).format(n=start, **slots)
    for step in steps:
        text = draw.choice(_forms(template, step.op)).format(n=step.operand, **slots)
        told.append(Step(step.op, step.operand, text))
    question = draw.choice(template.question).format(**slots)
    text = " ".join([opening, *(step.text for step in told), question])
    problem = Problem(name, text, str(values[-1]), SOURCE, len(told))
    return Story(problem, who, what, start, tuple(told), values)


def _forms(template: Template, op: str) -> tuple[str, ...]:
    return {
        "add": template.add,
        "subtract": template.subtract,
        "double": template.double,
        "triple": template.triple,
        "halve": template.halve,
    }[op]


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]
