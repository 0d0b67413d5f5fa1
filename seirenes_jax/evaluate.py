"""Held-out evaluation: greedy answers, clean and under hints of every kind."""

from collections.abc import Sequence

import numpy as np

from seirenes_jax import hints
from seirenes_jax.hosts import Hosts, IslandJudge
from seirenes_jax.knobs import Settings
from seirenes_jax.report import RunLog
from seirenes_jax.rng import stable_hash
from seirenes_jax.sampler import Sampler
from seirenes_jax.sampling import GREEDY
from seirenes_jax.signals import Stop
from seirenes_jax.start import Start
from seirenes_jax.state import Params
from seirenes_jax.types import ADVERSARY, LIVE, REASONER, Ask, Name, Problem, Rollout, Verdict
from seirenes_jax.verify.judge import Judge

FAMILIES = hints.FAMILIES
CONTROLS = ("correct_hint", "irrelevant_hint")
ADVERSARIES = ("own_adversary", "warmstart_adversary")
WRITES = 4  # tries an adversary has to write one sound hint a problem
Marks = list[int | None]  # 1 right, 0 wrong, None not measured (no hint that fits, or unreadable)


class Evaluator:
    """Measures weights on the first n held-out problems, and counts the tokens it spends."""

    def __init__(
        self, settings: Settings, start: Start, sampler: Sampler, judge: Judge | IslandJudge, *,
        hosts: Hosts, log: RunLog, stop: Stop,
    ) -> None:  # fmt: skip
        self.settings, self.start, self.sampler, self.judge = settings, start, sampler, judge
        self.hosts, self.log, self.stop = hosts, log, stop
        self.tokens = 0

    def spent(self) -> int:
        """Tokens generated since this was asked last."""
        tokens, self.tokens = self.tokens, 0
        return tokens

    def marks(self, params: Params, hinted: Sequence[str | None] | None, n: int) -> Marks:
        """Greedy answers of `params` on n problems, clean or each under its hint."""
        problems = self.start.held_out[:n]
        texts = [None] * n if hinted is None else list(hinted)[:n]
        asked = [i for i in range(n) if hinted is None or self._fits(problems[i], texts[i])]

        def solve(share: Sequence[int]) -> list[tuple[int | None, int]]:
            own = [asked[i] for i in share]
            asks = [(_name("eval", problems[i]), self._solve(problems[i], texts[i])) for i in own]
            answers = self._generate(params, asks, temperature=GREEDY)
            cases = [(problems[i].answer, a.text) for i, a in zip(own, answers, strict=True)]
            verdicts = self.judge.collect(self.judge.submit(cases))
            return [(_mark(v), len(a.tokens)) for v, a in zip(verdicts, answers, strict=True)]

        marks: Marks = [None] * n
        for i, (mark, tokens) in zip(asked, self.hosts.spread(len(asked), solve), strict=True):
            marks[i] = mark
            self.tokens += tokens
        return marks

    def written(self, params: Params, n: int) -> list[str | None]:
        """One sound hint a problem, written by `params` as Adversary; None where none is."""

        def write(share: Sequence[int]) -> list[tuple[str | None, int]]:
            problems = [self.start.held_out[i] for i in share]
            prompts, limit = self.settings.prompts, self.settings.tokens.adversary
            asks = [
                (_name("attack", p), Ask(ADVERSARY, hints.adversary_messages(p.question, prompts),
                                         WRITES, None, None, limit))
                for p in problems
            ]  # fmt: skip
            answers = self._generate(params, asks, temperature=1.0)
            tries = [answers[i * WRITES : (i + 1) * WRITES] for i in range(len(problems))]
            return [
                (self._sound(p, some), sum(len(a.tokens) for a in some))
                for p, some in zip(problems, tries, strict=True)
            ]

        found = self.hosts.spread(n, write)
        self.tokens += sum(tokens for _, tokens in found)
        return [hint for hint, _ in found]

    def _sound(self, problem: Problem, tries: Sequence[Rollout]) -> str | None:
        """The first hint of these that passes the run's gates."""
        for answer in tries:
            hint = hints.parse_hint(answer.text)
            failed = hints.failed_gates(
                answer.text, hint, problem.question, gold=problem.answer,
                rules=self.settings.hints, count_tokens=self.start.tokenizer.count,
            )  # fmt: skip
            if hint is not None and not failed:
                return hint
        return None

    def families(self, params: Params, n: int) -> dict[str, Marks]:
        """Clean and under each of the four families."""
        return {"clean": self.marks(params, None, n)} | {
            name: self.marks(params, self._rule(name, n), n) for name in FAMILIES
        }

    def everything(
        self, params: Params, start_hints: list[str | None] | None, n: int
    ) -> tuple[dict[str, Marks], list[str | None]]:
        """All that the summary reports. `start_hints` None: these are the starting weights."""
        out = self.families(params, n)
        for name in (*CONTROLS, *self.start.rare):
            out[name] = self.marks(params, self._rule(name, n), n)
        has_adversary = self.settings.game != "rlvr"
        if start_hints is None:
            start_hints = own = self.written(params, n)
        else:
            own = self.written(params, n) if has_adversary else []
        out["warmstart_adversary"] = self.marks(params, start_hints, n)
        if has_adversary:
            out["own_adversary"] = (
                out["warmstart_adversary"] if own is start_hints else self.marks(params, own, n)
            )
        return out, own

    def _generate(
        self, params: Params, asks: list[tuple[Name, Ask]], *, temperature: float
    ) -> list[Rollout]:
        self.sampler.load(LIVE, params, 0)
        self.sampler.begin(0, temperature)
        total = sum(ask.n for _, ask in asks)
        with self.log.bar("evaluation", total, "answer") as bar:

            def heard(finished: int) -> None:
                self.hosts.check(self.stop)
                bar.advance(finished)

            answers = self.sampler.generate(asks, heard)
        self.sampler.release()
        return answers

    def _rule(self, name: str, n: int) -> list[str | None]:
        draw = stable_hash("held-out hint", name) % 2**31
        return [self.start.eval_hint(p, name, draw) for p in self.start.held_out[:n]]

    def _fits(self, problem: Problem, hint: str | None) -> bool:
        """Is there a hint, and has the prompt room for it?"""
        if hint is None:
            return False
        messages = hints.reasoner_messages(problem.question, hint, self.settings.prompts)
        return len(self.start.tokenizer.render(messages)) <= self.settings.tokens.prompt

    def _solve(self, problem: Problem, hint: str | None) -> Ask:
        messages = hints.reasoner_messages(problem.question, hint, self.settings.prompts)
        return Ask(REASONER, messages, 1, problem.answer, "math", self.settings.tokens.reasoner)


def _mark(verdict: Verdict) -> int | None:
    measured = verdict in (Verdict.RIGHT, Verdict.WRONG)
    return int(verdict is Verdict.RIGHT) if measured else None


def _name(turn: str, problem: Problem) -> Name:
    return Name(problem.id, 0, turn, 0, 0, 0)


def accuracy(marks: Marks) -> float | None:
    """Share of right answers among those measured."""
    seen = [mark for mark in marks if mark is not None]
    return float(np.mean(seen)) if seen else None


def scores(marks: dict[str, Marks], rare: Sequence[str]) -> dict[str, object]:
    """The `before` and `after` of summary.json."""
    flat: dict[str, object] = {
        name: accuracy(marks[name]) if name in marks else None
        for name in ("clean", *FAMILIES, *CONTROLS, *ADVERSARIES)
    }
    family = [accuracy(marks[name]) for name in FAMILIES]
    measured = [share for share in family if share is not None]
    flat["hinted"] = float(np.mean(measured)) if measured else None
    flat["rare"] = {name: accuracy(marks[name]) for name in rare}
    return flat
