"""python -m eval.run: asks, goes on where it stopped, grades, and mixes nothing."""

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval import run
from seirenes_jax.analysis import pass_at_k
from tests.eval.fake_server import MODEL, fake
from tests.eval.runner import (
    QUICK,
    command,
    evaluate,
    problems,
    responses,
    rows_of,
    summary,
    timeless,
    write_rows,
)


def test_one_command_asks_grades_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = problems(tmp_path), tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out, "--n=5", "--per_request=2", "--model_date=2026-01") == 0
    rows = responses(out)
    assert len(rows) == 30 and all(row["status"] == "ok" for row in rows)
    assert [row["key"] for row in rows] == sorted({row["key"] for row in rows})
    graded = rows_of(out / "graded" / "sums.jsonl")
    assert [row["key"] for row in graded] == [row["key"] for row in rows]
    rights = {row["problem_id"]: 0 for row in graded}
    for row, answer in zip(graded, rows, strict=True):
        boxed = answer["text"].split("boxed{")[1].rstrip("}")
        assert (row["verdict"] == "right") == (boxed == row["gold"]) and row["extracted"] == boxed
        rights[row["problem_id"]] += row["verdict"] == "right"
    one = summary(out)["datasets"]["sums"]
    assert one["avg"] == pytest.approx(sum(rights.values()) / 30)
    assert one["pass"]["2"] == pytest.approx(sum(pass_at_k(5, r, 2) for r in rights.values()) / 6)
    assert set(one["pass"]) == {"1", "2", "4", "5"}
    assert one["ci95"][0] <= one["avg"] <= one["ci95"][1]
    assert (one["n_problems"], one["n_samples"], one["coverage"]) == (6, 30, 1.0)
    assert one["truncated"] == one["unreadable"] == one["timeout"] == 0.0
    assert one["tokens_ours"] is None and 7 < one["tokens_server"] < 9
    assert len(one["data_sha256"]) == 64 and one["data_rows"] == 6
    assert set(one["slices"]["kind"]) == {"odd", "even"}
    assert summary(out)["model"] == {"name": MODEL, "date": "2026-01"}
    assert summary(out)["sampling"]["temperature"] == 0.6
    assert "verifier" in summary(out)["versions"]
    assert (out / "report.html").is_file() and (out / "report.md").is_file()
    assert "sums: avg@5" in capsys.readouterr().out


def test_the_same_command_again_asks_nothing(tmp_path: Path) -> None:
    data, out = problems(tmp_path), tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out) == 0
        before, asked = timeless(out), len(server.seen)
        assert evaluate(server, data, out) == 0
        assert len(server.seen) == asked
        assert timeless(out) == before
        assert command(run, "--regrade", f"--out={out}", "--workers=1") == 0
        assert len(server.seen) == asked
    assert timeless(out) == before


def test_more_samples_ask_only_for_the_new_ones(tmp_path: Path) -> None:
    data, out = problems(tmp_path), tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out, "--n=2", "--per_request=2", "--skip_probe") == 0
        assert evaluate(server, data, out, "--n=4", "--per_request=2", "--skip_probe") == 0
        assert len(server.seen) == 12 and all(body["n"] == 2 for body in server.seen)
        other = tmp_path / "other"
        assert evaluate(server, data, other, "--n=4", "--per_request=2", "--skip_probe") == 0
    assert timeless(out)["responses/sums.jsonl"] == timeless(other)["responses/sums.jsonl"]


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("--temperature=0.7", "sampling.temperature = 0.6, this one has 0.7"),
        ("--seed=1", "sampling.seed = 0"),
        ("--max_tokens=65", "sampling.max_tokens = 64"),
        ("--prompt=Now: {question}", "prompts.reasoner"),
        ('--extra={"min_p": 0.1}', "sampling.extra"),
        ("--model=other", "model = 'adder'"),
    ],
)
def test_another_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str, says: str
) -> None:
    data, out = problems(tmp_path, 2), tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out) == 0
        before, asked = timeless(out), len(server.seen)
        assert evaluate(server, data, out, flag) == 2
        assert len(server.seen) == asked
    assert says in capsys.readouterr().err
    assert timeless(out) == before


def test_another_data_set_of_the_same_name_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = problems(tmp_path), tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out) == 0
        problems(tmp_path, 5)
        assert evaluate(server, data, out) == 2
    assert "was asked another sums" in capsys.readouterr().err


def test_a_file_torn_anywhere_is_mended(tmp_path: Path) -> None:
    data, out = problems(tmp_path, 3), tmp_path / "out"
    flags = ("--n=4", "--per_request=4")
    with fake() as server:
        assert evaluate(server, data, out, *flags) == 0
        whole = timeless(out)
        file = out / "responses" / "sums.jsonl"
        text = file.read_bytes()
        draw = random.Random(0)
        lines = [at + 1 for at, sign in enumerate(text) if sign == 10]
        for cut in (0, lines[5], lines[5] + 9, *draw.sample(range(len(text)), 2)):
            file.write_bytes(text[:cut])
            assert evaluate(server, data, out, *flags) == 0
            assert timeless(out) == whole


def test_damage_inside_the_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = problems(tmp_path, 2), tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out) == 0
        file = out / "responses" / "sums.jsonl"
        file.write_text("{broken\n" + file.read_text())
        assert evaluate(server, data, out) == 2
    assert "sums.jsonl:1" in capsys.readouterr().err


def test_two_commands_cannot_share_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval.folder import held

    with fake() as server, held(tmp_path / "out"):
        assert evaluate(server, problems(tmp_path), tmp_path / "out") == 2
    assert "another process works in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kills", "count"), [(3, 30), pytest.param(20, 200, marks=pytest.mark.long)]
)
def test_killed_and_resumed_it_ends_as_if_undisturbed(
    tmp_path: Path, kills: int, count: int
) -> None:
    """Killed at random moments, resumed, and equal to a run that nobody disturbed."""
    data, out = problems(tmp_path, count), tmp_path / "out"
    flags = ("--n=4", "--per_request=3", "--concurrency=4")
    moments = random.Random(kills)

    def behave(body: dict, number: int) -> None:
        time.sleep(0.01)

    with fake(behave) as server:
        argv = [
            sys.executable, "-m", "eval.run", f"--endpoint={server.url}", f"--model={MODEL}",
            f"--data={data}", f"--out={out}", *QUICK, *flags,
        ]  # fmt: skip
        killed = 0
        while killed < kills:
            asked = len(server.seen)
            child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            deadline = time.monotonic() + 60
            enough = asked + moments.randrange(1, 2 + 2 * count // max(1, kills // 2))
            while child.poll() is None and len(server.seen) < enough:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            time.sleep(moments.random() * 0.03)
            if child.poll() is not None:
                break
            child.kill()
            child.wait()
            killed += 1
        assert killed >= min(kills, 2)
        argv.remove(f"--out={out}")
        assert subprocess.run([*argv, f"--out={out}"], capture_output=True).returncode == 0
        # The same folder name, so that the command written down is the same, too.
        disturbed = timeless(out)
        out.rename(tmp_path / "disturbed")
        assert subprocess.run([*argv, f"--out={out}"], capture_output=True).returncode == 0
    assert timeless(out) == disturbed
    keys = [(row["problem_id"], row["sample"]) for row in responses(out)]
    assert len(keys) == len(set(keys)) == 4 * count


def test_sigterm_ends_with_75_and_keeps_what_came(tmp_path: Path) -> None:
    data, out = problems(tmp_path, 40), tmp_path / "out"

    def behave(body: dict, number: int) -> None:
        time.sleep(0.05)

    with fake(behave) as server:
        argv = [
            sys.executable, "-m", "eval.run", f"--endpoint={server.url}", f"--model={MODEL}",
            f"--data={data}", f"--out={out}", *QUICK, "--concurrency=1",
        ]  # fmt: skip
        child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while len(server.seen) < 12 and child.poll() is None:
            time.sleep(0.01)
        child.terminate()
        _, said = child.communicate(timeout=30)
    assert child.returncode == 75, said
    assert b"same command again" in said and b"Traceback" not in said
    assert 5 <= len(responses(out)) < 40


def test_slices_and_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = problems(tmp_path, 10)
    with fake() as server:
        out = tmp_path / "even"
        assert evaluate(server, data, out, "--slice=kind=even", "--limit=3") == 0
        assert [row["problem_id"] for row in responses(out)] == ["sum-001", "sum-003", "sum-005"]
        assert summary(out)["datasets"]["sums"]["data_rows"] == 10
        assert evaluate(server, data, tmp_path / "no", "--slice=colour=red") == 2
        assert "sums has no 'colour'; it has kind" in capsys.readouterr().err
        assert evaluate(server, data, tmp_path / "no", "--slice=kind=red") == 2
        assert "there are even, odd" in capsys.readouterr().err


def test_text_completions_and_other_names_of_the_limit(tmp_path: Path) -> None:
    data = problems(tmp_path, 2)
    with fake() as server:
        flags = ("--api=completions", "--tokens_key=max_completion_tokens", "--top_k=5")
        assert evaluate(server, data, tmp_path / "out", *flags, "--extra={\"min_p\": 0.1}") == 0
        body = server.seen[-1]
    assert body["prompt"].startswith("What is") and "messages" not in body
    assert body["max_completion_tokens"] == 64 and "max_tokens" not in body
    assert body["top_k"] == 5 and body["min_p"] == 0.1


def test_reasoning_kept_apart_is_kept_and_not_graded(tmp_path: Path) -> None:
    from tests.eval.fake_server import Answer, reply

    def behave(body: dict, number: int) -> Answer:
        good = reply(body)
        for one in good["choices"]:
            words = one["message"]["content"]
            one["message"] = {"content": "I do not know.", "reasoning_content": words}
        return Answer(body=good)

    with fake(behave) as server:
        assert evaluate(server, problems(tmp_path, 2), tmp_path / "out") == 0
    assert all("boxed" in row["reasoning"] for row in responses(tmp_path / "out"))
    one = summary(tmp_path / "out")["datasets"]["sums"]
    assert one["avg"] == 0.0 and one["no_answer"] == 1.0


def test_an_answer_cut_at_the_limit_is_counted(tmp_path: Path) -> None:
    with fake() as server:
        out = tmp_path / "out"
        assert evaluate(server, problems(tmp_path, 4), out, "--max_tokens=6") == 0
    one = summary(out)["datasets"]["sums"]
    assert one["truncated"] == 1.0 and one["no_answer"] == 1.0 and one["avg"] == 0.0


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--out=x"], "one of --endpoint=URL, --checkpoint=RUN, --hf=DIR"),
        (["--endpoint=ftp://x", "--out=x"], "--endpoint: got 'ftp://x'"),
        (["--endpoint=http://127.0.0.1:1", "--n=0", "--out=x"], "--n: got '0'"),
        (["--endpoint=http://127.0.0.1:1", "--n=1.5", "--out=x"], "a whole number"),
        (["--endpoint=http://127.0.0.1:1", "--top_p=2", "--out=x"], "between 1e-09 and 1"),
        (["--endpoint=http://127.0.0.1:1", "--extra={\"n\": 2}", "--out=x"], "'n' has a flag"),
        (["--endpoint=http://127.0.0.1:1", "--extra=[", "--out=x"], "wanted a JSON object"),
        (["--endpoint=http://127.0.0.1:1", "--out=x"], "nothing to evaluate on"),
        (["--endpoint=http://127.0.0.1:1", "--datasets=aime99", "--out=x"], "some of aime24"),
        (["--endpoint=http://127.0.0.1:1", "--prompt=solve", "--out=x"], "wanted {question}"),
        (["--endpoint=http://127.0.0.1:1", "--slice=level", "--out=x"], "KEY=VALUE"),
        (["--endpoint=http://127.0.0.1:1", "--max_cost_usd=1", "--out=x"], "nothing has a price"),
        (["--checkpoint=/no/such", "--out=x"], "no such folder"),
        (["--endpoint=http://127.0.0.1:1", "--api_key_env=NOT_SET_X", "--out=x"], "is not set"),
        (["--tempereature=1"], "Did you mean --temperature"),
    ],
)
def test_mistakes_are_one_message(
    capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    assert command(run, *flags) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


def test_a_folder_of_weights_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(run, f"--checkpoint={tmp_path}", "--out=x") == 2
    assert "--hf" in capsys.readouterr().err


def test_a_run_is_asked_as_it_was_trained(tmp_path: Path) -> None:
    from eval.flags import HOW, WHERE, prompts

    (tmp_path / "config.json").write_text(
        '{"prompts": {"reasoner": "{question} Solve.", "adversary": "A", "position": "prepend",'
        ' "frame": "bare", "enable_thinking": ""}}'
    )
    found = prompts({**WHERE, **HOW, "checkpoint": str(tmp_path)})
    assert (found.reasoner, found.position, found.frame) == ("{question} Solve.", "prepend", "bare")
    told = prompts({**WHERE, **HOW, "checkpoint": str(tmp_path), "prompt": "{question}!"})
    assert told.reasoner == "{question}!"


def test_answers_may_be_as_long_as_the_role_was_trained_on(tmp_path: Path) -> None:
    from eval.flags import HOW, WHERE, max_context, sampling

    (tmp_path / "config.json").write_text(
        '{"tokens": {"prompt": 100, "reasoner": 56, "adversary": 40}}'
    )
    run = {**WHERE, **HOW, "checkpoint": str(tmp_path)}
    assert [sampling(run, role).max_tokens for role in ("reasoner", "adversary")] == [56, 40]
    assert max_context(run, 56) is None  # the server knows the run as well
    assert sampling({**run, "max_tokens": "7"}, "reasoner").max_tokens == 7
    assert max_context({**run, "max_tokens": "700"}, 700) == 800
    weights = {**WHERE, **HOW, "hf": str(tmp_path)}
    assert sampling(weights, "adversary").max_tokens == 2048
    assert max_context(weights, 2048) == 4096


def test_the_usual_prompts_are_those_of_training() -> None:
    from configs.base import get_config
    from eval.study import ADVERSARY, REASONER

    assert get_config().prompts.reasoner == REASONER
    assert get_config().prompts.adversary == ADVERSARY


def test_prose_answers_count_only_when_asked_for(tmp_path: Path) -> None:
    from tests.eval.fake_server import Answer, reply

    def behave(body: dict, number: int) -> Answer:
        good = reply(body)
        for one in good["choices"]:
            one["message"]["content"] = "#### 1"
        return Answer(body=good)

    data = write_rows(tmp_path / "one.jsonl", [{"question": "What is 0 + 1?", "answer": 1}])
    with fake(behave) as server:
        assert evaluate(server, data, tmp_path / "strict") == 0
        assert evaluate(server, data, tmp_path / "kind", "--fallback") == 0
    later = tmp_path / "later"
    shutil.copytree(tmp_path / "strict", later)
    assert command(run, "--regrade", "--fallback", f"--out={later}", "--workers=1") == 0
    assert summary(later)["datasets"]["one"]["avg"] == 1.0
    assert summary(tmp_path / "strict")["datasets"]["one"]["avg"] == 0.0
    assert summary(tmp_path / "kind")["datasets"]["one"]["avg"] == 1.0
