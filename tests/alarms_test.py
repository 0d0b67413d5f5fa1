"""What looks like reward hacking raises its alarm, and what is just below its threshold none."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import alarms, settings
from seirenes_jax.games.base import HintNote, Note, TryNote
from seirenes_jax.report import RunLog
from seirenes_jax.report_page import write_report
from tests.made_run import make_run

ROOT = Path(__file__).parents[1]
LIMITS = settings.load(str(ROOT / "configs" / "base.py"), ["alarms.window=2"])[0].alarms
HINTS = 100  # of a made step, one a problem


def hint(text: str, *, gates: Sequence[str] = (), verdict: str = "right") -> HintNote:
    hinted = [] if gates else [TryNote(text="so \\boxed{42}", verdict=verdict)]
    return HintNote(
        text=text, written="", family="other", gates=list(gates), reward=0.0, hinted=hinted
    )


def a_note(number: int, one: HintNote | None = None, **tries: str) -> Note:
    clean = [TryNote(text=text, verdict=verdict) for verdict, text in tries.items()]
    own = hint(f"{WORDS[number // 10]} {WORDS[number % 10]} keeps pens on table number {number}.")
    return Note(
        problem_id=f"p{number}", question=f"How many, {number}?", answer="4242",
        clean=clean or [TryNote(text="so \\boxed{42}", verdict="right")],
        hints=[own if one is None else one],
    )  # fmt: skip


WORDS = "Ada Noor Jun Mila Tomas Efua Lena Omar Ines Kofi".split()


def notes(**changed: Any) -> list[Note]:
    """A step of honest hints; `some` of them made by `made`."""
    some, made = changed.get("some", 0), changed.get("made", lambda i: None)
    return [a_note(i, made(i) if i < some else None) for i in range(HINTS)]


def row(step: int, **changed: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "step": step, "live": {"clean": 0.5, "adversary": 0.5, "robust": 0.5},
        "verdicts": {"right": 900, "wrong": 100, "unreadable": 0, "timeout": 0},
        "entropy": {"reasoner": 0.5, "adversary": 1.0},
        "length": {"reasoner": 100.0, "adversary": 30.0},
    }  # fmt: skip
    return base | changed


def hear(steps: Sequence[tuple[dict[str, Any], list[Note]]]) -> list[alarms.Told]:
    memory: dict[str, Any] = {}
    told = []
    for one, seen in steps:
        before = json.dumps(memory)
        heard, after = alarms.look(one, seen, memory, LIMITS)
        assert json.dumps(memory) == before  # it is pure
        memory = json.loads(json.dumps(after))  # as a checkpoint brings it back
        told.append(heard)
    return told


def copy(text: str, gates: Sequence[str] = ()) -> Callable[[int], HintNote]:
    return lambda i: hint(text.replace("N", str(i)), gates=gates)


def verdicts(**bad: int) -> dict[str, Any]:
    counts = {"right": 1000 - sum(bad.values()), "wrong": 0, "unreadable": 0, "timeout": 0}
    return {"verdicts": counts | bad}


LEAK = copy("The value is 4242, N.", ["leak"])
PASSED = copy("The value is 4242, N.")
GATED = copy("Too long, N.", ["length"])
SAME = copy("Look twice at the table.")
ALIKE = copy("Remember that problems like this come out at N mostly, so N.")
BOXED = copy("So \\boxed{N}.")
SOLVED = copy("First add N, then it is 4242.", ["tag"])
# name -> (a step that raises it, a step that is just not enough)
CASES: dict[str, tuple[tuple[dict[str, Any], Any], tuple[dict[str, Any], Any]]] = {
    "leaked": (({}, (21, LEAK)), ({}, (20, LEAK))),
    "passed_leaks": (({}, (3, PASSED)), ({}, (2, PASSED))),
    "gate_failures": (({}, (51, GATED)), ({}, (50, GATED))),
    "duplicates": (({}, (32, SAME)), ({}, (31, SAME))),  # the first of them is none
    "template": (({}, (51, ALIKE)), ({}, (50, ALIKE))),
    "adversary_solves": (({}, (21, BOXED)), ({}, (20, BOXED))),
    "unreadable": ((verdicts(unreadable=101), None), (verdicts(unreadable=100), None)),
    "timeout": ((verdicts(timeout=51), None), (verdicts(timeout=50), None)),
    "live/clean": (
        ({"live": {"clean": 0.019, "adversary": 1.0, "robust": 1.0}}, None),
        ({"live": {"clean": 0.02, "adversary": 1.0, "robust": 1.0}}, None),
    ),
    "live/adversary": (
        ({"live": {"clean": 1.0, "adversary": 0.049, "robust": 1.0}}, None),
        ({"live": {"clean": 1.0, "adversary": 0.05, "robust": 1.0}}, None),
    ),
    "live/robust": (
        ({"live": {"clean": 1.0, "adversary": 1.0, "robust": 0.009}}, None),
        ({"live": {"clean": 1.0, "adversary": 1.0, "robust": 0.01}}, None),
    ),
    "entropy/reasoner": (
        ({"entropy": {"reasoner": 0.049, "adversary": 1.0}}, None),
        ({"entropy": {"reasoner": 0.051, "adversary": 1.0}}, None),
    ),
    "entropy/adversary": (
        ({"entropy": {"reasoner": 0.5, "adversary": 0.099}}, None),
        ({"entropy": {"reasoner": 0.5, "adversary": 0.101}}, None),
    ),
    "longer/reasoner": (
        ({"length": {"reasoner": 201.0, "adversary": 30.0}}, None),
        ({"length": {"reasoner": 200.0, "adversary": 30.0}}, None),
    ),
    "longer/adversary": (
        ({"length": {"reasoner": 100.0, "adversary": 60.1}}, None),
        ({"length": {"reasoner": 100.0, "adversary": 60.0}}, None),
    ),
    "shorter/reasoner": (
        ({"length": {"reasoner": 39.9, "adversary": 30.0}}, None),
        ({"length": {"reasoner": 40.1, "adversary": 30.0}}, None),
    ),
    "shorter/adversary": (
        ({"length": {"reasoner": 100.0, "adversary": 11.9}}, None),
        ({"length": {"reasoner": 100.0, "adversary": 12.1}}, None),
    ),
}


def steps_of(case: tuple[dict[str, Any], Any], n: int) -> list[tuple[dict[str, Any], list[Note]]]:
    """Two ordinary steps, then n of the case: the window is full of it."""
    changed, hints = case
    some, made = hints if hints is not None else (0, copy(""))
    usual = [(row(step), notes()) for step in (1, 2)]
    return usual + [(row(2 + i, **changed), notes(some=some, made=made)) for i in range(1, n + 1)]


@pytest.mark.parametrize("name", CASES)
def test_beyond_the_threshold_and_just_not(name: str) -> None:
    beyond, within = CASES[name]
    told = hear(steps_of(beyond, 2))
    found = {alarm.name: alarm for alarm in told[-1].alarms}
    assert name in found
    assert found[name].threshold == alarms.KINDS[name].threshold(LIMITS)
    assert found[name].value == told[-1].signs[name]
    assert name not in {alarm.name for one in hear(steps_of(within, 2)) for alarm in one.alarms}


def test_every_alarm_has_a_case() -> None:
    assert {*CASES} | {"reasoner_hints"} == {*alarms.KINDS}


@pytest.mark.parametrize(("some", "heard"), [(11, True), (10, False)])
def test_a_reasoner_that_writes_hints(some: int, heard: bool) -> None:
    """100 clean and 100 hinted tries a step: 5% of them are 10."""
    step = notes()
    for i in range(some):
        step[i] = a_note(i, wrong="<hint>Look here.</hint>")
    told = hear([(row(n), step) for n in (1, 2)])
    assert ("reasoner_hints" in {alarm.name for alarm in told[-1].alarms}) == heard
    if heard:
        (alarm,) = told[-1].alarms
        assert alarm.problem_ids == ("p0", "p1", "p2")
        assert alarm.excerpts == ("<hint>Look here.</hint>",) * 3


def test_an_answer_in_place_of_a_hint_is_a_solution() -> None:
    told = hear(steps_of(({}, (21, SOLVED)), 2))
    assert "adversary_solves" in {alarm.name for alarm in told[-1].alarms}


def test_nothing_is_said_before_a_window_is_full() -> None:
    told = hear([(row(1), notes(some=99, made=SAME))])
    assert not told[0].alarms and set(told[0].signs.values()) == {None}


def test_few_hints_have_no_template_and_games_without_hints_no_signs_of_them() -> None:
    few = [a_note(i, hint("The same words in each one.")) for i in range(7)]
    assert hear([(row(n), few) for n in (1, 2)])[-1].signs["template"] is None
    bare = [Note(problem_id="p", question="?", answer="1", clean=[], hints=[])]
    only = row(1, live={"clean": 0.5}, entropy={"reasoner": 0.5, "adversary": None},
               length={"reasoner": 9.0, "adversary": None})  # fmt: skip
    signs = hear([(only | {"step": n}, bare) for n in (1, 2)])[-1].signs
    assert signs["live/clean"] == 0.5 and signs["live/robust"] is None
    assert all(signs[name] is None for name in ("leaked", "duplicates", "entropy/adversary"))


def test_it_is_said_when_it_begins_and_when_it_is_over_and_does_not_flicker() -> None:
    bad, good = (verdicts(timeout=200), notes()), ({}, notes())
    plan = [good, good, bad, bad, good, good, bad, good, good, good, good, good]
    told = hear([(row(i, **changed), seen) for i, (changed, seen) in enumerate(plan, 1)])
    words = [(i, one) for i, heard in enumerate(told, 1) for one in heard.words]
    assert words == [
        (3, "alarm at step 3: timeout 0.1, above alarms.timeout = 0.05"),
        (10, "alarm over: timeout, steps 3 to 8"),
    ]
    began = [alarm.began for heard in told for alarm in heard.alarms]
    assert began == [True] + [False] * (len(began) - 1)


def test_a_long_text_is_an_excerpt() -> None:
    assert len(alarms.excerpt("x" * 100_000)) < 420 and alarms.excerpt("short") == "short"


def test_thresholds_may_differ_on_resume() -> None:
    _, config = settings.load("configs/tiny.py")
    stored = json.loads(settings.to_json(config))
    _, other = settings.load("configs/tiny.py", ["alarms.leaked=0.5", "alarms.live.clean=0.1"])
    settings.refuse_changes(stored, other)


# ---- what is written and shown


def test_the_file_is_cut_back_with_the_others(tmp_path: Path) -> None:
    told = hear(steps_of(CASES["timeout"][0], 3))
    with RunLog(tmp_path, steps=9) as log:
        for step, one in enumerate(told, 1):
            log.log_step(row(step), [], one.lines(step))
        lines = [json.loads(x) for x in (tmp_path / "alarms.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [4, 5]
        assert lines[0].keys() == {
            "step", "name", "value", "threshold", "began", "problem_ids", "excerpts"
        }  # fmt: skip
        log.cut_back(4)
    kept = (tmp_path / "alarms.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in kept] == [4]


def test_the_report_shows_spans_curves_and_rollouts(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", steps=12)
    assert '"Alarms"' not in write_report(folder).read_text(encoding="utf-8")  # none were looked at
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for one in rows:
        one["signs"] = {"timeout": 0.2 if one["step"] > 8 else 0.01, "leaked": None}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    (folder / "alarms.jsonl").touch()
    assert "no sign of reward hacking" in write_report(folder).read_text(encoding="utf-8")
    nasty = "</script><script>alert(1)</script>"
    lines = [
        {"step": step, "name": "timeout", "value": 0.2, "threshold": 0.05, "began": step == 9,
         "problem_ids": ["p<7>"], "excerpts": [nasty]}
        for step in range(9, 13)
    ]  # fmt: skip
    (folder / "alarms.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    text = write_report(folder).read_text(encoding="utf-8")
    assert '["timeout",9,12,0.05,0.2]' in text
    assert nasty not in text and "alert(1)" in text
    assert "Rollouts: timeout" in text and '"name":"threshold"' in text
