"""launch/serve.py on a run and on its export, as a user and as eval/ start it."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from seirenes_jax import hints
from seirenes_jax.proof import read_run
from seirenes_jax.sampler import Sampler
from seirenes_jax.sampling import GREEDY
from seirenes_jax.tasks import world
from seirenes_jax.types import LIVE, REASONER, Ask, Name
from tests.eval.runner import responses, summary, timeless, write_rows
from tests.whole import mini

SERVE = (sys.executable, "launch/serve.py")
EVAL = (sys.executable, "-m", "eval.run")
PROBLEMS = 12
SAID = re.compile(r"serving (\S+) at (http://\S+)\n")


@contextmanager
def served(model: Path, cache: Path, *flags: str) -> Iterator[tuple[str, str, Any]]:
    """(name, url, process) of a server of its own."""
    process = mini.start(
        [f"--model={model}", "--port=0", f"--cache_dir={cache}", *flags], SERVE
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = SAID.fullmatch(line)
        assert found, line + process.communicate(timeout=60)[1]
        yield found[1], found[2], process
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"id": problem.id, "question": problem.question, "answer": problem.answer}
        for problem in world.problems("heldout", PROBLEMS, 1)
    ]
    return write_rows(tmp_path_factory.mktemp("problems") / "sums.jsonl", rows)


@pytest.fixture
def evaluated(problems: Path, cache: Path, tmp_path: Path) -> Callable[..., Path]:
    """python -m eval.run, as a user gives it; its folder."""

    def evaluate(*flags: str, name: str = "out") -> Path:
        out = tmp_path / name
        ended = subprocess.run(
            [*EVAL, f"--data={problems}", f"--out={out}", "--workers=1", *flags], cwd=mini.ROOT,
            env={**mini.environment(), "SEIRENES_CACHE": str(cache)}, capture_output=True,
            text=True,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return out

    return evaluate


def greedy(run: Path) -> list[str]:
    """What our sampler says to the problems."""
    settings, config, tokenizer, step, params = read_run(run, None)
    assert step == 6
    limit = settings.tokens.reasoner
    sampler = Sampler(
        config, tokenizer, settings.sampler, seed=0, prompt_tokens=settings.tokens.prompt,
        answer_tokens=limit,
    )  # fmt: skip
    sampler.load(LIVE, params, step)
    sampler.begin(0, GREEDY)
    asks = [
        (Name(problem.id, 0, "", 0, 0, 0),
         Ask(REASONER, hints.reasoner_messages(problem.question, None, settings.prompts), 1, None,
             None, limit))
        for problem in world.problems("heldout", PROBLEMS, 1)
    ]  # fmt: skip
    return [rollout.text for rollout in sampler.generate(asks)]


def test_a_run_and_its_export_are_evaluated_by_one_command(
    undisturbed: Path, evaluated: Callable[..., Path]
) -> None:
    by_run = evaluated(f"--checkpoint={undisturbed}", "--temperature=0", "--top_p=1", name="run")
    wanted = greedy(undisturbed)
    found = {row["problem_id"]: row for row in responses(by_run)}
    asked = [found[problem.id] for problem in world.problems("heldout", PROBLEMS, 1)]
    assert [row["text"] for row in asked] == wanted and len(set(wanted)) > PROBLEMS // 2
    told = summary(by_run)
    assert told["server"]["lies"] == {} and told["model"]["name"] == undisturbed.name
    assert told["sampling"]["max_tokens"] == 56  # as the run was trained
    assert told["datasets"]["sums"]["coverage"] == 1.0
    assert all(told["server"]["honours"][name] for name in ("n", "logprobs", "max_tokens", "model"))
    prompts = json.loads((undisturbed / "config.json").read_text())["prompts"]
    by_weights = evaluated(
        f"--hf={undisturbed / 'hf'}", "--temperature=0", "--top_p=1", "--max_tokens=56",
        f"--prompt={prompts['reasoner']}", "--model=mine", name="hf",
    )  # fmt: skip
    same = {row["problem_id"]: row["text"] for row in responses(by_weights)}
    assert same == {name: row["text"] for name, row in found.items()}
    assert summary(by_weights)["model"]["name"] == "mine"


def test_signals_end_it_and_mistakes_are_one_message(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    with served(undisturbed, cache) as (name, url, process):
        assert name == undisturbed.name and url.startswith("http://127.0.0.1:")
        assert httpx2.get(f"{url}/health", trust_env=False).json()["status"] == "ok"
        port = url.rpartition(":")[2]
        taken = mini.launch([f"--model={undisturbed}", f"--port={port}",
                             f"--cache_dir={cache}"], SERVE)  # fmt: skip
        assert taken.code == 2 and "choose another port" in taken.err
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
    for flags, says in (
        (["--model=/no/such"], "wanted a run folder"), ([f"--model={tmp_path}"], "a run folder"),
        ([f"--model={undisturbed}", "--slots=0"], "--slots"), (["--port=1"], "--model"),
        ([f"--model={undisturbed}", "--port=99999"], "--port"),
        ([f"--model={undisturbed}", "--api_key_env=NOT_SET_X"], "is not set"),
    ):  # fmt: skip
        ended = mini.launch(flags, SERVE)
        assert ended.code == 2 and says in ended.err, ended


@pytest.mark.long
def test_an_evaluation_killed_twenty_times_ends_as_if_undisturbed(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    count, kills, draw = 100, 20, random.Random(20)
    rows = [
        {"id": problem.id, "question": problem.question, "answer": problem.answer}
        for problem in world.problems("heldout", count, 1)
    ]
    data, out = write_rows(tmp_path / "sums.jsonl", rows), tmp_path / "out"
    file = out / "responses" / "sums.jsonl"

    def answered() -> int:
        return file.read_bytes().count(b"\n") if file.is_file() else 0

    with served(undisturbed, cache) as (name, url, _):
        argv = [
            *EVAL, f"--endpoint={url}", f"--model={name}", f"--data={data}", f"--out={out}",
            "--workers=1", "--n=4", "--per_request=3", "--concurrency=2", "--temperature=1",
            "--top_p=0.9", "--max_tokens=56",
        ]  # fmt: skip
        killed = 0
        while killed < kills:
            enough = answered() + draw.randrange(1, 4 * count // kills)
            child = subprocess.Popen(
                argv, cwd=mini.ROOT, env=mini.environment(), stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while child.poll() is None and answered() < enough:
                time.sleep(0.002)
            time.sleep(draw.random() * 0.05)
            assert child.poll() is None, "it was done before it was killed often enough"
            child.kill()
            child.wait()
            killed += 1

        def to_the_end() -> dict[str, Any]:
            ended = mini.launch(argv[3:], EVAL)
            assert ended.code == 0, ended
            return timeless(out)

        disturbed = to_the_end()
        out.rename(tmp_path / "disturbed")
        assert to_the_end() == disturbed
    keys = [row["key"] for row in responses(out)]
    assert len(keys) == len(set(keys)) == 4 * count and keys == sorted(keys)
