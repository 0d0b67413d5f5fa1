"""One model, one folder: ask for what is missing, grade it, write the summary and the report."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from eval import cost, folder, grade, study
from eval.bank import Hint
from eval.client import Client, Endpoint, GaveUp, Sampling, public_url
from eval.collect import Collector
from eval.cost import Purse
from eval.flags import Where
from eval.items import Dataset
from eval.load import describe
from eval.measures import ends, tenths
from eval.ours import serving
from eval.progress import Running
from eval.report import write_report
from eval.responses import Responses
from eval.study import Question, Study, questions, wanted_keys
from eval.witness import Witness, note_of, open_witness, probe
from seirenes_jax.console import say
from seirenes_jax.errors import DONE, FAILED, ConfigError, SeirenesError
from seirenes_jax.knobs import Prompts
from seirenes_jax.report import write_json
from seirenes_jax.text import load_tokenizer
from seirenes_jax.verify.judge import Judge


@dataclass(frozen=True, slots=True)
class Options:
    """Everything of a command but the data sets and the hints."""

    out: Path
    where: Where
    served_as: str | None
    model_date: str | None
    sampling: Sampling
    prompts: Prompts
    n: int
    per_request: int
    endpoint: Endpoint  # url and model are put in once they are known
    max_context: int | None  # of our own server; None: as it thinks best
    purse: Purse
    expect_tokens: int | None
    workers: int
    deadline_s: float
    fallback: bool
    skip_probe: bool
    command: str


def evaluate(options: Options, datasets: Sequence[Dataset], bank: Sequence[Hint]) -> int:
    """Exit code: 0 where every sample was answered by the model that was asked for."""
    with ExitStack() as stack:
        stack.enter_context(folder.held(options.out))
        endpoint = stack.enter_context(answering(options))
        judge = stack.enter_context(
            Judge(options.workers, options.deadline_s, fallback=options.fallback)
        )
        checked = [grade.check_golds(dataset, judge) for dataset in datasets]
        for dataset in checked:
            say(describe(dataset), sys.stderr)
        asked = Study(
            endpoint.model, options.sampling, options.prompts, options.n, options.per_request,
            tuple(checked), tuple(bank),
        )  # fmt: skip
        folder.keep(options.out, asked, about(options, endpoint))
        stopped = collect(options, asked, endpoint, judge=judge, rounds=(range(asked.n),))
        return _graded(options.out, asked, about(options, endpoint), judge, stopped=stopped)


def about(options: Options, endpoint: Endpoint) -> folder.About:
    """What is written down besides the study."""
    return folder.About(
        public_url(endpoint.url) if options.where.folder is None else "launch/serve.py",
        options.model_date, options.where.tokenizer, options.fallback,
        options.purse.price_in, options.purse.price_out, options.command,
    )  # fmt: skip


@contextmanager
def answering(options: Options) -> Iterator[Endpoint]:
    """The endpoint that was given, or our own server for as long as it is needed."""
    where, empty = options.where, options.endpoint
    if where.folder is not None:
        log = options.out / "server.log"
        with serving(
            where.folder, log, name=where.model, max_context=options.max_context
        ) as (model, url):
            say(f"serving {model} at {url}", sys.stderr)
            yield replace(empty, url=url, model=model)
        return
    assert where.url is not None
    given = replace(empty, url=where.url, model=where.model or "")
    if not given.model:
        there = asyncio.run(_listed(given, options.sampling))
        if there is None or len(there) != 1:
            names = ", ".join(there or ()) or "no list of models"
            raise ConfigError(f"--model: it is missing, and the endpoint has {names}")
        given = replace(given, model=there[0])
    yield given


async def _listed(endpoint: Endpoint, sampling: Sampling) -> list[str] | None:
    async with Client(endpoint, sampling) as client:
        return await client.models()


Enough = Callable[[str, Responses, list[Question]], list[Question]]


def collect(
    options: Options, asked: Study, endpoint: Endpoint, *, judge: Judge | None,
    rounds: Sequence[range], enough: Enough | None = None,
) -> str:  # fmt: skip
    """Ask for the samples of each round that are missing; why it stopped early, or nothing.

    `enough` takes the questions out that need no further round.
    """
    witness = open_witness(options.out / "server.json", endpoint.model, options.served_as)
    count = cost.rough if options.where.tokenizer is None else token_count(options.where.tokenizer)
    stopped = ""
    with ExitStack() as stack:
        files = {
            one.name: stack.enter_context(
                Responses(options.out / "responses" / f"{one.name}.jsonl")
            )
            for one in asked.datasets
        }
        prompts = {one.name: questions(asked, one) for one in asked.datasets}
        _count_spent(options.purse, files, prompts, asked.n)
        for samples in rounds:
            if enough is not None:
                prompts = {name: enough(name, files[name], its) for name, its in prompts.items()}
            missing = {
                name: files[name].missing(wanted_keys(its, samples))
                for name, its in prompts.items()
            }
            total = sum(map(len, missing.values()))
            if total and not stopped:
                _announce(options, asked, prompts, missing, count)
                progress = Running(total, judge)
                session = Session(files, witness, count, progress)
                try:
                    stopped = asyncio.run(_ask(options, asked, endpoint, prompts, missing, session))
                finally:
                    progress.close()
        for file in files.values():
            file.sort()
    return stopped


def _count_spent(
    purse: Purse, files: Mapping[str, Responses], prompts: Mapping[str, list[Question]], n: int
) -> None:
    """What earlier commands in this folder have cost counts towards the cap."""
    if purse.price_in or purse.price_out:
        for name, its in prompts.items():
            purse.spent += spent(files[name].rows(wanted_keys(its, range(n))), purse)


@dataclass(frozen=True, slots=True)
class Session:
    """What asking writes to."""

    files: Mapping[str, Responses]
    witness: Witness
    count: cost.Count
    progress: Running


async def _ask(
    options: Options, asked: Study, endpoint: Endpoint, prompts: Mapping[str, list[Question]],
    missing: Mapping[str, set[str]], session: Session,
) -> str:  # fmt: skip
    witness = session.witness
    async with Client(endpoint, asked.sampling) as client:
        if not options.skip_probe and not witness.honours.get("model"):
            try:
                await probe(client, witness)
            except GaveUp as error:
                raise SeirenesError(
                    f"the endpoint does not answer: {error}. Start it, or correct --endpoint"
                ) from error
            say(f"the server honours: {note_of(witness.honours)}", sys.stderr)
            if not witness.honours["model"]:
                return (
                    f"another model answers ({witness.lies['model']['example']}); if that is the "
                    "same model under another name, give --served_as=NAME"
                )
        size = asked.per_request if witness.honours.get("n", True) else 1
        collector = Collector(
            client, session.files, witness, options.purse, session.count, session.progress.heard
        )
        try:
            await collector.run(chain.from_iterable(
                study.jobs(its, missing[name], asked.n, size) for name, its in prompts.items()
            ))  # fmt: skip
        finally:
            witness.save()
        return collector.stopped


def _announce(
    options: Options, asked: Study, prompts: Mapping[str, list[Question]],
    missing: Mapping[str, set[str]], count: cost.Count,
) -> None:  # fmt: skip
    """What it will cost; refuses where that is more than it may."""
    todo = []
    for name, its in prompts.items():
        for question in its:
            left = sum(question.key(at) in missing[name] for at in range(asked.n))
            if left:
                todo.append((question, left))
    dollars, words = cost.estimate(
        todo, options.purse, count=count, requests=asked.per_request,
        expect=options.expect_tokens or asked.sampling.max_tokens,
    )  # fmt: skip
    say(words, sys.stderr)
    cost.check(dollars, options.purse)


def spent(rows: Iterator[Mapping[str, Any]], purse: Purse) -> float:
    """Dollars that these answers have cost, by the server's counts."""
    paid = 0.0
    for row in rows:
        prompt = row["tokens_prompt"] or 0 if row["request"][0] == 0 else 0
        paid += purse.cost(prompt, row["tokens_server"] or 0)
    return paid


def token_count(path: str) -> Callable[[str], int]:
    return load_tokenizer(path).count


def regrade(
    out: Path, workers: int, deadline_s: float, *, fallback: bool, tokenizer: str | None
) -> int:
    """Grade what a folder holds, without requests.

    Prose answers and a tokenizer may be asked for later than the answers themselves.
    """
    asked, kept = folder.read(out)
    kept = replace(kept, fallback=fallback or kept.fallback, tokenizer=tokenizer or kept.tokenizer)
    with Judge(workers, deadline_s, fallback=kept.fallback) as judge:
        return _graded(out, asked, kept, judge)


def _graded(
    out: Path, asked: Study, kept: folder.About, judge: Judge, *, stopped: str = ""
) -> int:
    """Write graded/, summary.json and the report; the exit code."""
    count = None if kept.tokenizer is None else token_count(kept.tokenizer)
    witness = open_witness(out / "server.json", asked.model, None)
    lies = {name: dict(entry) for name, entry in witness.lies.items()}
    datasets: dict[str, Any] = {}
    hinted: dict[str, Any] = {}
    for dataset in asked.datasets:
        clean, told, seen = grade.grade_dataset(asked, dataset, out, judge=judge, count=count)
        datasets[dataset.name] = clean
        if told is not None:
            hinted[dataset.name] = told
        for name, words in seen.items():
            lies.setdefault(name, {"count": 1, "example": words})
    summary = {
        "model": {"name": asked.model, "date": kept.model_date},
        "datasets": datasets,
        "hints": hinted,
        "sampling": {**asdict(asked.sampling), "n": asked.n, "per_request": asked.per_request},
        "prompts": {k: v for k, v in asdict(asked.prompts).items() if k != "adversary"},
        "server": {
            "endpoint": kept.endpoint, "models": sorted(witness.models),
            "honours": dict(sorted(witness.honours.items())), "lies": dict(sorted(lies.items())),
        },
        "grading": {"fallback": judge.fallback, "deadline_s": judge.deadline_s},
        "versions": grade.versions(),
        "command": kept.command,
    }  # fmt: skip
    write_json(out / "graded" / "summary.json", summary)
    write_report([out], out / "report.html")
    return _told(summary, out, stopped)


def _told(summary: Mapping[str, Any], out: Path, stopped: str) -> int:
    """The result on the console; the exit code."""
    lost = 0
    for name, one in summary["datasets"].items():
        words = "nothing scored" if one["avg"] is None else (
            f"avg@{one['n']} {tenths(one['avg'])} {ends(one['ci95'])}"
        )  # fmt: skip
        hint = summary["hints"].get(name)
        if hint is not None and hint["drop"] is not None:
            words += f"; under hints {tenths(hint['hinted'])}, drop {tenths(hint['drop'], '')}"
        print(f"{name}: {words}; coverage {tenths(one['coverage'] or 0)} of {one['wanted']:,}")
        for part, where in ((one, ""), (hint or {}, " under hints")):
            for key in ("missing", "context", "distrusted"):
                if part.get(key):
                    print(f"  {key}: {part[key]:,} of {part['wanted']:,}{where} have no score")
            lost += part.get("missing", 0) + part.get("distrusted", 0)
    for name, lie in summary["server"]["lies"].items():
        print(f"  the server ({name}, {lie['count']} times): {lie['example']}")
    print(f"{out / 'report.html'}")
    if stopped:
        print(f"stopped: {stopped}. The same command asks for the rest", file=sys.stderr)
    return FAILED if lost or stopped else DONE
