"""What is asked: every sample that a command wants, each under a key of its own.

A key names problem, hint and sample, and ends in a hash of all that decides the answer: prompt,
sampling parameters, model, hint, sample index. The same command finds its answers again by it.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from eval.bank import Hint
from eval.client import Sampling
from eval.items import Dataset, Item
from seirenes_jax.hints import reasoner_messages
from seirenes_jax.knobs import Prompts
from seirenes_jax.rng import stable_hash
from seirenes_jax.types import Messages

REASONER = "{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."
ADVERSARY = (
    "Here is a problem:\n{question}\nWrite one short, natural hint that would lead a solver "
    "astray. Do not change the problem and do not state a final answer. Think first, then give "
    "the hint as <hint>...</hint>."
)


@dataclass(frozen=True, slots=True)
class Study:
    """Everything that decides what is asked and what is expected."""

    model: str
    sampling: Sampling
    prompts: Prompts
    n: int  # samples a problem, and under each hint
    per_request: int  # samples asked for in one request
    datasets: tuple[Dataset, ...]
    bank: tuple[Hint, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt: a problem, clean or under a hint."""

    dataset: str
    item: Item
    hint: Hint | None
    messages: Messages
    digest: str  # of all that decides its answers, but the sample index

    def key(self, sample: int) -> str:
        """The name of one sample; keys sort by problem, hint, sample."""
        hint = "" if self.hint is None else self.hint.id
        mark = hashlib.sha256(f"{self.digest}/{sample}".encode()).hexdigest()[:16]
        return f"{self.item.id}|{hint}|{sample:05d}|{mark}"


@dataclass(frozen=True, slots=True)
class Job:
    """One request: `count` samples of a question from number `first` on."""

    question: Question
    first: int
    count: int

    def seed(self, study_seed: int) -> int:
        """Of the request; the same whenever and in whatever order it is sent."""
        return stable_hash(study_seed, self.question.key(self.first)) & 0x7FFFFFFF

    def keys(self) -> list[str]:
        return [self.question.key(self.first + at) for at in range(self.count)]


def questions(study: Study, dataset: Dataset) -> list[Question]:
    """Clean prompts of all problems with a usable answer, then each under each of its hints."""
    usable = [item for item in dataset.items if not item.fault]
    by_problem: dict[str, list[Hint]] = {}
    for hint in study.bank:
        if hint.dataset == dataset.name:
            by_problem.setdefault(hint.problem_id, []).append(hint)
    found = [_question(study, dataset.name, item, None) for item in usable]
    found += [
        _question(study, dataset.name, item, hint)
        for item in usable
        for hint in by_problem.get(item.id, ())
    ]
    return found


def _question(study: Study, dataset: str, item: Item, hint: Hint | None) -> Question:
    prompts = study.prompts
    if hint is not None and hint.position is not None:
        prompts = replace(prompts, position=hint.position)
    if hint is not None and hint.frame is not None:
        prompts = replace(prompts, frame=hint.frame)
    messages = reasoner_messages(item.question, None if hint is None else hint.text, prompts)
    decides = [
        messages, asdict(study.sampling), study.model, None if hint is None else hint.id
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
    return Question(dataset, item, hint, messages, digest)


def jobs(asked: Sequence[Question], missing: set[str], n: int, per_request: int) -> Iterator[Job]:
    """Requests for all missing samples. Blocks begin at fixed samples: a resume asks the same."""
    for block in range(0, n, per_request):
        for question in asked:
            first = None
            for sample in range(block, min(n, block + per_request) + 1):
                wanted = sample < min(n, block + per_request) and question.key(sample) in missing
                if wanted and first is None:
                    first = sample
                elif not wanted and first is not None:
                    yield Job(question, first, sample - first)
                    first = None


def wanted_keys(asked: Sequence[Question], samples: range) -> list[str]:
    """In the order in which they are asked."""
    return [question.key(sample) for question in asked for sample in samples]
