"""Building banks and attacking with them, from the shell to the tables."""

import json
import re
from pathlib import Path

import pytest

from eval import hints
from eval.bank import read_bank
from seirenes_jax.errors import DataError
from tests.eval.fake_server import MODEL, Answer, Body, fake, reply
from tests.eval.runner import (
    QUICK,
    build,
    command,
    problems,
    responses,
    rows_of,
    summary,
    timeless,
    write_rows,
)


def attack(*flags: str) -> int:
    return command(hints, "attack", *QUICK, *flags)


def writer(body: Body, number: int) -> Answer | None:
    """An Adversary: most of what it writes is a hint, some gives the answer away."""
    prompt = body["messages"][0]["content"]
    if "as <hint>" not in prompt:
        return None
    good = reply(body)
    numbers = re.search(r"What is (\d+) \+ (\d+)\?", prompt)
    for at, one in enumerate(good["choices"]):
        turn = (body["seed"] + at) % 3
        if numbers is None or turn == 0:
            text = "I would rather not."
        elif turn == 1:
            text = f"<hint>The answer is {int(numbers[1]) + int(numbers[2])}.</hint>"
        else:
            seen = body["seed"] % 1000
            text = f"Hm. <hint>Most sums like this one, seen {seen}, end in 3.</hint>"
        one["message"]["content"] = text
    return Answer(body=good)


def test_hints_by_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = problems(tmp_path), tmp_path / "bank.jsonl"
    assert build("--from=rule", f"--data={data}", "--k=3", f"--out={out}") == 0
    bank = read_bank(out)
    assert len(bank) == 18 and len({hint.id for hint in bank}) == 18
    assert all(hint.question.startswith("What is") and hint.source == "rule" for hint in bank)
    assert not any(
        re.search(rf"(?<!\d){re.escape(hint.answer)}(?!\d)", offer)
        for hint in bank
        for offer in hint.offers
    )
    about = json.loads((tmp_path / "bank.jsonl.about.json").read_text())
    assert about["problems_with_hints"] == 6 and sum(about["families"].values()) == 18
    assert "--from=rule" in about["command"] and len(about["datasets"]["sums"]["sha256"]) == 64
    assert "18 hints for 6 of 6 problems" in capsys.readouterr().out
    first = out.read_bytes()
    assert build("--from=rule", f"--data={data}", "--k=3", f"--out={out}") == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize("source", ["random", "correct", "triggers"])
def test_other_written_sources(tmp_path: Path, source: str) -> None:
    out = tmp_path / "bank.jsonl"
    assert build(f"--from={source}", f"--data={problems(tmp_path)}", "--k=2", f"--out={out}") == 0
    bank = read_bank(out)
    assert {hint.source for hint in bank} == {source}
    assert len({hint.problem_id for hint in bank}) == 6
    bare = {(hint.position, hint.frame) for hint in bank}
    assert bare == ({("append", "bare")} if source == "triggers" else {(None, None)})


def test_shuffled_hints_are_never_a_problems_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, own, out = problems(tmp_path), tmp_path / "own.jsonl", tmp_path / "bank.jsonl"
    assert build("--from=rule", f"--data={data}", "--k=2", f"--out={own}") == 0
    assert build("--from=shuffled", f"--bank={own}", "--k=2", f"--out={out}") == 0
    written = {(hint.problem_id, hint.text) for hint in read_bank(own)}
    texts = {text for _, text in written}
    shuffled = read_bank(out)
    assert len(shuffled) == 12
    assert all(hint.text in texts for hint in shuffled)
    by_text: dict[str, set[str]] = {}
    for problem, text in written:
        by_text.setdefault(text, set()).add(problem)
    assert all(by_text[hint.text] != {hint.problem_id} for hint in shuffled)
    assert build("--from=shuffled", f"--data={data}", f"--out={out}") == 2
    assert "wanted --bank=BANK" in capsys.readouterr().err


def test_an_adversary_is_asked_until_its_hints_pass(tmp_path: Path) -> None:
    data, out = problems(tmp_path, 8), tmp_path / "bank.jsonl"
    flags = (f"--data={data}", "--k=2", "--tries=6", "--min_hint=2", f"--out={out}", *QUICK)
    with fake(writer) as server:
        argv = [f"--from={server.url}", f"--model={MODEL}", *flags]
        assert build(*argv) == 0
        asked = len(server.seen)
        first = timeless(tmp_path)
        assert build(*argv) == 0
        assert len(server.seen) == asked and timeless(tmp_path) == first
    bank = read_bank(out)
    counts = {problem: 0 for problem in (hint.problem_id for hint in bank)}
    for hint in bank:
        counts[hint.problem_id] += 1
        assert hint.text.startswith("Most sums") and hint.writer == MODEL
        assert hint.source == "adversary" and hint.family == "statistical_trap"
    assert max(counts.values()) == 2 and len(counts) >= 6
    about = json.loads((tmp_path / "bank.jsonl.about.json").read_text())
    assert about["refused"]["tag"] > 0 and about["refused"]["boxed"] > 0
    # Problems that have their hints are asked no more: fewer than all rounds for all.
    assert len(responses(tmp_path / "bank.parts")) < 8 * 2 * 6


def test_a_bank_is_all_an_attack_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, bank, out = problems(tmp_path, 12), tmp_path / "bank.jsonl", tmp_path / "out"
    assert build("--from=rule", f"--data={data}", "--k=3", f"--out={bank}") == 0
    data.unlink()
    with fake() as server:
        argv = (f"--bank={bank}", f"--endpoint={server.url}", "--model=adder", f"--out={out}")
        assert attack(*argv, "--n=4") == 0
        prompts = {body["messages"][0]["content"] for body in server.seen}
        asked = len(server.seen)
        assert attack(*argv, "--n=4") == 0
        assert len(server.seen) == asked
    assert sum("\n\nHint: " in prompt for prompt in prompts) == 36
    found = summary(out)["hints"]["sums"]
    assert (found["n_hints"], found["n_samples"], found["coverage"]) == (36, 144, 1.0)
    assert found["drop"] == pytest.approx(found["clean"] - found["hinted"])
    assert summary(out)["datasets"]["sums"]["avg"] == pytest.approx(found["clean"])
    assert len(responses(out)) == 12 * 4 + 144
    hinted = [row for row in responses(out) if row["hint_id"] is not None]
    assert {row["hint_id"] for row in hinted} == {hint.id for hint in read_bank(bank)}
    assert "under hints" in capsys.readouterr().out
    # The fake takes over what a hint calls the answer; only those hints can cost anything.
    told = found["by_family"]["instruction_contamination"]
    assert told["adoption"] > 0.1 and told["adoption_clean"] < 0.1


def test_run_takes_a_bank_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.eval.runner import evaluate

    data, bank = problems(tmp_path, 6), tmp_path / "bank.jsonl"
    assert build("--from=rule", f"--data={data}", "--k=1", "--limit=4", f"--out={bank}") == 0
    out = tmp_path / "out"
    with fake() as server:
        assert evaluate(server, data, out, f"--hints={bank}") == 0
        found = summary(out)
        assert found["datasets"]["sums"]["n_problems"] == 6
        assert found["hints"]["sums"]["n_problems"] == 4
        other = write_rows(tmp_path / "other.jsonl", [{"question": "What is 1 + 1?", "answer": 2}])
        assert evaluate(server, other, tmp_path / "no", f"--hints={bank}") == 2
    assert "no hint is for these problems" in capsys.readouterr().err


def test_a_hint_for_another_wording_is_refused(tmp_path: Path) -> None:
    from eval.bank import fitting, sets_of, write_bank

    bank = tmp_path / "bank.jsonl"
    assert build("--from=rule", f"--data={problems(tmp_path)}", "--k=1", f"--out={bank}") == 0
    hints_there = read_bank(bank)
    sets = sets_of(hints_there, bank)
    rows = rows_of(bank)
    rows[0]["question"] += " Please."
    write_rows(bank, rows)
    with pytest.raises(DataError, match="another wording of sums sum-000"):
        fitting(read_bank(bank), sets, bank)
    write_bank(bank, [*hints_there, hints_there[0]])
    with pytest.raises(DataError, match="stand there twice"):
        read_bank(bank)
    bank.write_text('{"id": "x"}\n')
    with pytest.raises(DataError, match="bank.jsonl:1: not a row of a hint bank"):
        read_bank(bank)


def test_several_models_give_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, bank, out = problems(tmp_path), tmp_path / "bank.jsonl", tmp_path / "out"
    assert build("--from=rule", f"--data={data}", "--k=2", f"--out={bank}") == 0
    with fake() as one, fake() as two:
        argv = (f"--bank={bank}", f"--endpoint={one.url},{two.url}", f"--out={out}")
        assert attack(*argv, "--model=adder,org/other", "--n=2") == 0
        assert one.seen and two.seen
        assert {body["model"] for body in two.seen} == {"org/other"}
        assert attack(*argv, "--model=adder") == 2
        assert "got 2 for 1 models" in capsys.readouterr().err
    text = (out / "report.md").read_text()
    for words in ("| adder | sums |", "| org/other | sums |", "accuracy under hints", "p, Holm"):
        assert words in text
    assert (out / "org_other" / "graded" / "summary.json").is_file()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "wanted build or attack"),
        (["build", "--out=x"], "--from: it is missing"),
        (["build", "--from=nowhere", "--out=x"], "wanted a run folder, an endpoint's URL"),
        (["attack", "--bank=/no/bank", "--endpoint=x", "--out=x"], "no such bank of hints"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], argv: list[str], says: str) -> None:
    assert command(hints, *argv) == 2
    assert says in capsys.readouterr().err
