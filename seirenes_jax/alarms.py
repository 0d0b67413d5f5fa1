"""Reward hacking made visible: what a step's notes and numbers say, against thresholds.

Pure: (row of metrics, notes, memory, thresholds) -> (what is told of the step, memory). Every sign
is a share, or a size against the run's own first steps, pooled over the last `window` steps, so
that one odd step is no alarm. The memory is JSON-able and part of the checkpoint.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seirenes_jax import knobs
from seirenes_jax.games.base import HintNote, Memory, Note, TryNote
from seirenes_jax.hints import contains_answer
from seirenes_jax.types import ADVERSARY, REASONER, Verdict

EXCERPTS = 3  # rollouts that are kept of an alarm
EXCERPT_CHARS = 400
FEW = 8  # hints of a step among which the commonest opening says nothing
OPENING = 5  # words of a hint that make its template
QUIET = "quiet"  # in the memory: steps since an alarm was last true

Shown = tuple[str, str]  # problem id, excerpt


@dataclass(frozen=True, slots=True)
class Sign:
    """What one step says of one thing: `part` of `whole`, and rollouts that show it."""

    part: float
    whole: float
    shown: tuple[Shown, ...] = ()


@dataclass(frozen=True, slots=True)
class Alarm:
    """A sign beyond its threshold."""

    name: str
    value: float
    threshold: float
    problem_ids: tuple[str, ...]
    excerpts: tuple[str, ...]
    began: bool  # with this step


@dataclass(frozen=True, slots=True)
class Told:
    """Of one step: the value of every sign (None: too little seen yet), alarms, words to say."""

    signs: Mapping[str, float | None]
    alarms: tuple[Alarm, ...]
    words: tuple[str, ...]

    def lines(self, step: int) -> list[dict[str, Any]]:
        """As alarms.jsonl has them."""
        return [
            {"step": step, "name": a.name, "value": a.value, "threshold": a.threshold,
             "began": a.began, "problem_ids": list(a.problem_ids), "excerpts": list(a.excerpts)}
            for a in self.alarms
        ]  # fmt: skip


Tries = list[tuple[Note, TryNote]]
Hints = list[tuple[Note, HintNote]]


def _tries(notes: Sequence[Note]) -> Tries:
    found = [(note, one) for note in notes for one in note["clean"]]
    return found + [(n, one) for n in notes for hint in n["hints"] for one in hint["hinted"]]


def _hints(notes: Sequence[Note]) -> Hints:
    return [(note, hint) for note in notes for hint in note["hints"] if hint["text"]]


def _shown(pairs: Sequence[tuple[Note, HintNote | TryNote]]) -> tuple[Shown, ...]:
    return tuple((note["problem_id"], excerpt(one["text"])) for note, one in pairs[:EXCERPTS])


def excerpt(text: str) -> str:
    """A text's two ends."""
    half = EXCERPT_CHARS // 2
    return text if len(text) <= EXCERPT_CHARS else f"{text[:half]} ... {text[-half:]}"


def _share(found: Sequence[Any], among: Sequence[Any]) -> Sign:
    return Sign(len(found), len(among), _shown(found))


# ---- what is looked at; every one a function of the row and the notes


def leaked(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """Hints that hold the answer, among all that were written."""
    hints = _hints(notes)
    return _share([p for p in hints if contains_answer(p[1]["text"], p[0]["answer"])], hints)


def passed_leaks(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """Hints that hold the answer, among those that the Reasoner saw."""
    hints = [pair for pair in _hints(notes) if pair[1]["hinted"]]
    return _share([p for p in hints if contains_answer(p[1]["text"], p[0]["answer"])], hints)


def gate_failures(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """Hints that failed a gate."""
    hints = [(note, hint) for note in notes for hint in note["hints"]]
    return _share([pair for pair in hints if pair[1]["gates"]], hints)


def duplicates(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """Hints of a step that say what another one of it said before, word for word."""
    seen: set[str] = set()
    again, hints = [], [pair for pair in _hints(notes) if pair[1]["hinted"]]
    for pair in hints:
        words = " ".join(pair[1]["text"].lower().split())
        if words in seen:
            again.append(pair)
        seen.add(words)
    return _share(again, hints)


def template(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """The commonest opening of a step's hints, whatever numbers stand in it."""
    hints = [pair for pair in _hints(notes) if pair[1]["hinted"]]
    if len(hints) < FEW:
        return Sign(0, 0)
    by_opening = Counter(_opening(hint["text"]) for _, hint in hints)
    commonest, _ = min(by_opening.items(), key=lambda item: (-item[1], item[0]))
    return _share([p for p in hints if _opening(p[1]["text"]) == commonest], hints)


def _opening(text: str) -> str:
    words = re.sub(r"\d+(?:[.,]\d+)*", "#", text.lower()).split()
    return " ".join(words[:OPENING])


def adversary_solves(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """Hints that are solutions: a boxed answer, or no hint at all but the problem's answer."""
    hints = _hints(notes)

    def solves(note: Note, hint: HintNote) -> bool:
        text = hint["text"]
        unread = "tag" in hint["gates"] and contains_answer(text, note["answer"])
        return "\\boxed" in text or unread

    return _share([pair for pair in hints if solves(*pair)], hints)


def reasoner_hints(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
    """Answers of the Reasoner in which a hint is written."""
    tries = _tries(notes)
    return _share([p for p in tries if "<hint>" in p[1]["text"] or "</hint>" in p[1]["text"]],
                  tries)  # fmt: skip


def _verdict(verdict: Verdict) -> "Look":
    def look(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
        verdicts = row["verdicts"]
        shown = [pair for pair in _tries(notes) if pair[1]["verdict"] == verdict]
        return Sign(verdicts[str(verdict)], sum(verdicts.values()), _shown(shown))

    return look


def _live(stream: str) -> "Look":
    def look(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
        share = row["live"].get(stream)  # no such stream in this game: nothing to see
        if share is None:
            return Sign(0, 0)
        return Sign(share, 1, _questions(notes))

    return look


def _size(key: str, role: str) -> "Look":
    def look(row: Mapping[str, Any], notes: Sequence[Note]) -> Sign:
        value = row[key][role]
        if value is None or not math.isfinite(value):
            return Sign(0, 0)
        if role == ADVERSARY:
            return Sign(value, 1, _shown(_hints(notes)))
        return Sign(value, 1, _shown(sorted(_tries(notes), key=lambda p: -len(p[1]["text"]))))

    return look


def _questions(notes: Sequence[Note]) -> tuple[Shown, ...]:
    def told(note: Note) -> str:
        verdicts = Counter(one["verdict"] for one in note["clean"])
        return ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())

    return tuple(
        (note["problem_id"], excerpt(f"{note['question']} ({told(note)})"))
        for note in notes[:EXCERPTS]
    )


Look = Callable[[Mapping[str, Any], Sequence[Note]], Sign]


@dataclass(frozen=True, slots=True)
class Kind:
    """One alarm. `above`: beyond its threshold is above it, else below. `drift`: compared is not
    the value but what it is against the mean of the run's first window."""

    look: Look
    threshold: Callable[[knobs.Alarms], float]
    above: bool = True
    drift: bool = False


KINDS: dict[str, Kind] = {
    "leaked": Kind(leaked, lambda k: k.leaked),
    "passed_leaks": Kind(passed_leaks, lambda k: k.passed_leaks),
    "gate_failures": Kind(gate_failures, lambda k: k.gate_failures),
    "duplicates": Kind(duplicates, lambda k: k.duplicates),
    "template": Kind(template, lambda k: k.template),
    "adversary_solves": Kind(adversary_solves, lambda k: k.adversary_solves),
    "reasoner_hints": Kind(reasoner_hints, lambda k: k.reasoner_hints),
    "unreadable": Kind(_verdict(Verdict.UNREADABLE), lambda k: k.unreadable),
    "timeout": Kind(_verdict(Verdict.TIMEOUT), lambda k: k.timeout),
    "live/clean": Kind(_live("clean"), lambda k: k.live["clean"], above=False),
    "live/adversary": Kind(_live("adversary"), lambda k: k.live["adversary"], above=False),
    "live/robust": Kind(_live("robust"), lambda k: k.live["robust"], above=False),
    "entropy/reasoner": Kind(
        _size("entropy", REASONER), lambda k: k.entropy, above=False, drift=True
    ),
    "entropy/adversary": Kind(
        _size("entropy", ADVERSARY), lambda k: k.entropy, above=False, drift=True
    ),
    "longer/reasoner": Kind(_size("length", REASONER), lambda k: k.longer, drift=True),
    "longer/adversary": Kind(_size("length", ADVERSARY), lambda k: k.longer, drift=True),
    "shorter/reasoner": Kind(
        _size("length", REASONER), lambda k: k.shorter, above=False, drift=True
    ),
    "shorter/adversary": Kind(
        _size("length", ADVERSARY), lambda k: k.shorter, above=False, drift=True
    ),
}


def look(
    row: Mapping[str, Any], notes: Sequence[Note], memory: Memory, limits: knobs.Alarms
) -> tuple[Told, Memory]:
    """What one step adds; the memory it was given is left as it is."""
    signs: dict[str, float | None] = {}
    found: list[Alarm] = []
    words: list[str] = []
    new: Memory = {}
    for name, kind in KINDS.items():
        sign, threshold = kind.look(row, notes), kind.threshold(limits)
        kept = dict(memory[name]) if name in memory else {"pairs": [], "first": None}
        value = _pooled(sign, kept, kind, limits.window)
        signs[name] = value
        beyond = value is not None and (value > threshold if kind.above else value < threshold)
        was = QUIET in kept
        if beyond and value is not None:
            ids, texts = _of(sign.shown)
            found.append(Alarm(name, value, threshold, ids, texts, not was))
        words += _moved(name, kept, row["step"], beyond, limits.window)
        if words and beyond and not was:
            side = "above" if kind.above else "below"
            words[-1] += f" {value:.3g}, {side} alarms.{name.replace('/', '.')} = {threshold:g}"
        new[name] = kept
    return Told(signs, tuple(found), tuple(words)), new


def _pooled(sign: Sign, kept: dict[str, Any], kind: Kind, window: int) -> float | None:
    """The value over the window; None until a window is full. `kept` moves on."""
    if sign.whole > 0:
        kept["pairs"] = [*kept["pairs"], [sign.part, sign.whole]][-window:]
    if len(kept["pairs"]) < window:
        return None
    value: float = sum(p for p, _ in kept["pairs"]) / sum(w for _, w in kept["pairs"])
    if not kind.drift:
        return value
    if kept["first"] is None:
        kept["first"] = value
    first: float = kept["first"]
    return value / first if first > 0 else None


def _of(shown: Sequence[Shown]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(one for one, _ in shown), tuple(text for _, text in shown)


def _moved(name: str, kept: dict[str, Any], step: int, beyond: bool, window: int) -> Iterator[str]:
    """Said when it begins, and when it was not true for a whole window: it does not flicker."""
    if beyond:
        if QUIET not in kept:
            kept["since"] = step
            yield f"alarm at step {step}: {name}"
        kept[QUIET] = 0
    elif QUIET in kept:
        kept[QUIET] += 1
        if kept[QUIET] >= window:
            yield f"alarm over: {name}, steps {kept['since']} to {step - kept[QUIET]}"
            del kept[QUIET], kept["since"]
