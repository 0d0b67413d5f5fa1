"""Responses -> verdicts -> summary.json. Asks nothing: a finished folder can be graded again.

The judge's workers may be killed and say so; what could not be read or took too long is counted
apart, never silently wrong.
"""

import hashlib
import json
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import IO, Any

from eval.attack import offered_pairs, under_attack
from eval.items import Dataset
from eval.measures import COPY, LONG, Scored, by_problem, copies, measure, usage_gap
from eval.responses import OK, Responses, Row
from eval.study import Question, Study, questions
from eval.votes import ballots, pairs_of, same
from seirenes_jax.report import saving
from seirenes_jax.types import Verdict
from seirenes_jax.verify import extract
from seirenes_jax.verify.extract import final_answer
from seirenes_jax.verify.judge import Judge, Ruling, Ticket

WINDOW, WINDOWS = 256, 8  # rows at the judge together, and how many such windows
PACKAGES = ("httpx2", "numpy", "mpmath", "scipy")
Count = Callable[[str], int] | None


def grade_dataset(
    study: Study, dataset: Dataset, folder: Path, *, judge: Judge, count: Count
) -> tuple[dict[str, Any], dict[str, Any] | None, dict[str, str]]:
    """(clean measures, measures under hints or None, lies seen); writes graded/<dataset>.jsonl."""
    asked = questions(study, dataset)
    by_key = {question.key(at): question for question in asked for at in range(study.n)}
    with Responses(folder / "responses" / f"{dataset.name}.jsonl") as responses:
        keys = sorted(by_key)
        repeated = _copies(responses.rows(keys), study)
        graded = folder / "graded" / f"{dataset.name}.jsonl"
        with _whole(graded) as file:
            rows = _judged(responses.rows(keys), by_key, judge)
            scored = [_write(file, row, ruling, by_key, repeated, count) for row, ruling in rows]
    clean = [one for one in scored if one.hint_id is None]
    items = [question.item for question in asked if question.hint is None]
    summary = {
        **measure(clean, items, study.n, _votes(clean, judge)),
        "data_sha256": dataset.sha256, "data_rows": dataset.rows, "data_from": dataset.origin,
        "data_state": dataset.state, "published": dataset.published, "license": dataset.license,
        "excluded": {item.id: item.fault for item in dataset.items if item.fault},
    }  # fmt: skip
    lies = {}
    if repeated:
        lies["copies"] = f"{dataset.name}: {len(repeated)} answers repeat another word for word"
    gap = usage_gap(scored)
    if gap:
        lies["usage"] = f"{dataset.name}: {gap}"
        summary["tokens_server"] = None
    bank = [hint for hint in study.bank if hint.dataset == dataset.name]
    told = None
    if bank:
        hints = {question.hint.id for question in asked if question.hint is not None}
        bank = [hint for hint in bank if hint.id in hints]
        told = under_attack(scored, bank, same(offered_pairs(bank, scored), judge), study.n)
    return summary, told, lies


def _copies(rows: Iterable[Row], study: Study) -> set[str]:
    texts: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if row["status"] == OK:
            said = row["text"] + (row["reasoning"] or "")
            if len(said) >= LONG:  # a hash is as long; the texts of all would not fit in memory
                said = hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()
            question = f"{row['problem_id']}/{row['hint_id']}"
            texts.setdefault(question, []).append((row["key"], said))
    return copies(texts, drawn=study.sampling.temperature > 0)


def _judged(
    rows: Iterator[Row], by_key: Mapping[str, Question], judge: Judge
) -> Iterator[tuple[Row, Ruling | None]]:
    """Every row with its ruling, the judge a few windows ahead; what failed is not judged."""
    waiting: deque[tuple[list[Row], Ticket]] = deque()
    ended = False
    while waiting or not ended:
        window = list(islice(rows, WINDOW))
        ended = len(window) < WINDOW
        if window:
            items = [by_key[row["key"]].item for row in window if row["status"] == OK]
            texts = [row["text"] for row in window if row["status"] == OK]
            cases = [(item.answer, text) for item, text in zip(items, texts, strict=True)]
            waiting.append((window, judge.submit(cases, [item.tolerance for item in items])))
        if waiting and (ended or len(waiting) == WINDOWS):
            first, ticket = waiting.popleft()
            rulings = iter(judge.rulings(ticket))
            for row in first:
                ruled = row["status"] == OK
                yield row, _read(row, next(rulings), judge.fallback) if ruled else None


def _read(row: Row, ruling: Ruling, fallback: bool) -> Ruling:
    """A worker that was ended took the answer it had read with it."""
    if ruling.extracted is None and ruling.verdict is not Verdict.WRONG:
        return replace(ruling, extracted=final_answer(row["text"], fallback))
    return ruling


@contextmanager
def _whole(path: Path) -> Iterator[IO[str]]:
    """A file that appears under its name only once it is whole."""
    part = path.with_name(path.name + ".part")
    with saving(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="ascii") as file:
            yield file
        part.replace(path)


def _write(
    file: IO[str], row: Row, ruling: Ruling | None, by_key: Mapping[str, Question],
    repeated: set[str], count: Count,
) -> Scored:  # fmt: skip
    said = row["text"] + (row["reasoning"] or "")
    question = by_key[row["key"]]
    one = Scored(
        problem_id=question.item.id,
        hint_id=row["hint_id"],
        sample=row["sample"],
        status=COPY if row["key"] in repeated else row["status"],
        verdict=None if ruling is None else ruling.verdict.value,
        extracted=None if ruling is None else ruling.extracted,
        finish=row["finish"],
        letters=len(said),
        tokens_ours=None if count is None or row["status"] != OK else count(said),
        tokens_server=row["tokens_server"],
    )
    graded = {"key": row["key"], "dataset": row["dataset"], **asdict(one)}
    graded["gold"] = question.item.answer
    file.write(json.dumps(graded, ensure_ascii=True) + "\n")
    return one


def _votes(scored: Sequence[Scored], judge: Judge) -> dict[str, list[int]]:
    """Ballots of every problem. Where all are right or none is, nothing need be compared."""
    answers = {
        name: [(one.right, one.extracted) for one in samples if one.counts]
        for name, samples in by_problem(scored).items()
    }
    mixed = {
        name: [said for right, said in one if not right and said is not None]
        for name, one in answers.items()
        if any(right for right, _ in one)
    }
    known = same((pair for wrong in mixed.values() for pair in pairs_of(wrong)), judge)
    return {
        name: ballots(one, known) if name in mixed else [1] * len(one)
        for name, one in answers.items()
    }


def check_golds(dataset: Dataset, judge: Judge) -> Dataset:
    """Items whose answer does not even equal itself get a fault: nothing can be measured there."""
    cases = [(item.answer, rf"\boxed{{{item.answer}}}") for item in dataset.items]
    verdicts = judge.collect(judge.submit(cases, [item.tolerance for item in dataset.items]))
    items = [
        item
        if item.fault or verdict is Verdict.RIGHT
        else replace(item, fault=f"the judge finds its answer {verdict} against itself")
        for item, verdict in zip(dataset.items, verdicts, strict=True)
    ]
    return replace(dataset, items=tuple(items))


def versions() -> dict[str, str]:
    """What graded: packages, and a hash of the verifier's own sources."""
    digest = hashlib.sha256()
    for source in sorted(Path(extract.__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    found = {"python": platform.python_version(), "verifier": digest.hexdigest()[:16]}
    return found | {name: version(name) for name in PACKAGES}
