"""Servers that do not do what they are asked: it is said, and never averaged."""

from pathlib import Path

import pytest

from tests.eval.fake_server import MODEL, Answer, Behaviour, Body, fake, reply
from tests.eval.runner import evaluate, problems, responses, summary


def lying(change: "object", when: int = 0) -> Behaviour:
    """Good answers, changed: change(reply, body)."""

    def behave(body: Body, number: int) -> Answer | None:
        if number < when:
            return None
        good = reply(body)
        change(good, body)  # type: ignore[operator]
        return Answer(body=good)

    return behave


def measured(out: Path) -> tuple[Body, Body]:
    found = summary(out)
    return found["datasets"]["sums"], found["server"]


def test_an_honest_server_is_found_honest(tmp_path: Path) -> None:
    with fake() as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out", "--n=4") == 0
    _, seen = measured(tmp_path / "out")
    assert seen["lies"] == {} and seen["models"] == [MODEL]
    assert seen["honours"] == {
        "logprobs": True, "max_tokens": True, "model": True, "n": True, "seed": True,
        "temperature": True,
    }  # fmt: skip


@pytest.mark.parametrize("probed", [True, False])
def test_one_that_ignores_n_is_asked_again(tmp_path: Path, probed: bool) -> None:
    """Every sample is there, from requests of their own."""

    def one_choice(body: Body, number: int) -> Answer:
        return Answer(body=reply({**body, "n": 1}))

    flags = ["--n=5"] if probed else ["--n=5", "--skip_probe"]
    data, out = problems(tmp_path), tmp_path / "out"
    with fake(one_choice) as server:
        assert evaluate(server, data, out, *flags) == 0
        asked = [body.get("n", 1) for body in server.seen]
    one, seen = measured(out)
    assert one["coverage"] == 1.0 and len(responses(out)) == 30
    assert len({row["seed"] for row in responses(out)}) == 30
    assert "asked for" in seen["lies"]["n"]["example"]
    if probed:
        assert seen["honours"]["n"] is False and asked == [2, 2, 2] + [1] * 30
    else:
        assert asked.count(5) == 6 and asked.count(1) == 24


def test_more_choices_than_asked_for_are_not_taken(tmp_path: Path) -> None:
    def more(good: Body, body: Body) -> None:
        good["choices"] = reply({**body, "n": body.get("n", 1) + 2})["choices"]

    with fake(lying(more)) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out", "--n=2") == 0
    one, seen = measured(tmp_path / "out")
    assert len(responses(tmp_path / "out")) == 12 and "n" in seen["lies"]


def test_another_model_ends_it_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(good: Body, body: Body) -> None:
        good["model"] = "cheaper"

    data, out = problems(tmp_path), tmp_path / "out"
    with fake(lying(other)) as server:
        assert evaluate(server, data, out) == 1
        assert len(server.seen) == 3
        one, seen = measured(out)
        assert one["avg"] is None and one["coverage"] == 0.0 and one["missing"] == 6
        assert seen["lies"]["model"]["example"] == "asked for adder, answered by cheaper"
        assert "--served_as" in capsys.readouterr().err
        assert evaluate(server, data, out, "--served_as=cheaper") == 0
    assert measured(out)[1]["lies"] == {}


def test_another_model_now_and_then_is_not_averaged(tmp_path: Path) -> None:
    """Wrong on purpose where it is the other one: it must not be seen in the average."""

    def other(good: Body, body: Body) -> None:
        if "What is 4 +" in body["messages"][0]["content"]:
            good["model"] = "cheaper"
            good["choices"][0]["message"]["content"] = "\\boxed{0}"

    data, out = problems(tmp_path), tmp_path / "out"
    with fake(lying(other)) as server:
        assert evaluate(server, data, out, "--n=1") == 1
    one, seen = measured(out)
    assert one["distrusted"] == 1 and one["coverage"] == pytest.approx(5 / 6)
    with fake() as server:
        other_out = tmp_path / "without"
        data.write_text("".join(
            line for line in data.read_text().splitlines(True) if "What is 4 +" not in line
        ))  # fmt: skip
        assert evaluate(server, data, other_out, "--n=1") == 0
    assert one["avg"] == measured(other_out)[0]["avg"]


@pytest.mark.parametrize("name", ["adder-2026-01-31", "org/adder", "adder@main", "/w/adder"])
def test_dates_folders_and_revisions_are_no_other_model(tmp_path: Path, name: str) -> None:
    def dated(good: Body, body: Body) -> None:
        good["model"] = name

    with fake(lying(dated)) as server:
        assert evaluate(server, problems(tmp_path, 2), tmp_path / "out") == 0


@pytest.mark.parametrize("counted", [True, False])
def test_answers_longer_than_allowed_are_not_averaged(tmp_path: Path, counted: bool) -> None:
    def long(good: Body, body: Body) -> None:
        if "What is 1 +" in body["messages"][0]["content"]:
            good["choices"][0]["message"]["content"] += " so on" * 2000
            if counted:
                good["usage"]["completion_tokens"] = 4000
                good["usage"]["total_tokens"] = 4000 + good["usage"]["prompt_tokens"]

    with fake(lying(long)) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out") == 1
    one, seen = measured(tmp_path / "out")
    assert one["distrusted"] == 1 and one["n_samples"] == 5
    assert "asked for 64 tokens" in seen["lies"]["max_tokens"]["example"]


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 5, "completion_tokens": 0, "total_tokens": 5},
        {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 11},
        {"prompt_tokens": -1, "completion_tokens": 9, "total_tokens": 8},
        {"prompt_tokens": "many"},
        None,
    ],
)
def test_token_counts_that_cannot_be_are_not_averaged(tmp_path: Path, usage: Body | None) -> None:
    def wrong(good: Body, body: Body) -> None:
        good["usage"] = usage

    with fake(lying(wrong)) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out") == 0
    one, seen = measured(tmp_path / "out")
    assert one["tokens_server"] is None and seen["lies"]["usage"]["count"] >= 6
    assert one["avg"] is not None  # the answers themselves are good


def test_token_counts_far_from_ours_are_not_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval import evaluation

    monkeypatch.setattr(evaluation, "token_count", lambda path: lambda text: len(text.split(" ")))
    flags = ("--tokenizer=folder",)
    with fake() as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "good", *flags) == 0
    one, seen = measured(tmp_path / "good")
    assert one["tokens_ours"] == one["tokens_server"] and seen["lies"] == {}

    def doubled(good: Body, body: Body) -> None:
        good["usage"]["completion_tokens"] *= 2
        good["usage"]["total_tokens"] += good["usage"]["completion_tokens"] // 2

    with fake(lying(doubled)) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "bad", *flags) == 0
    one, seen = measured(tmp_path / "bad")
    assert one["tokens_server"] is None and "by our tokenizer" in seen["lies"]["usage"]["example"]


def test_one_that_never_draws_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ignores seed and temperature: eight copies are one sample."""

    def greedy(body: Body, number: int) -> Answer:
        return Answer(body=reply({**body, "temperature": 0}))

    data, out = problems(tmp_path), tmp_path / "out"
    with fake(greedy) as server:
        assert evaluate(server, data, out, "--n=8") == 1
        assert evaluate(server, data, tmp_path / "one", "--n=1") == 0
        assert evaluate(server, data, tmp_path / "greedy", "--n=2", "--temperature=0") == 0
    one, seen = measured(out)
    assert one["distrusted"] == 42 and one["coverage"] == pytest.approx(1 / 8)
    assert one["avg"] == measured(tmp_path / "one")[0]["avg"]
    assert one["pass"]["8"] is None and one["maj"] is None
    assert "repeat another word for word" in seen["lies"]["copies"]["example"]
    assert seen["honours"]["temperature"] is None
    assert measured(tmp_path / "greedy")[0]["distrusted"] == 0  # asked for greedy: copies are due


def test_one_that_ignores_the_seed_is_told(tmp_path: Path) -> None:
    def restless(body: Body, number: int) -> Answer:
        return Answer(body=reply({**body, "seed": number}))

    with fake(restless) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out", "--n=2") == 0
    _, seen = measured(tmp_path / "out")
    assert seen["honours"]["seed"] is False and seen["honours"]["temperature"] is True


def test_fields_it_refuses_are_told(tmp_path: Path) -> None:
    def strict(body: Body, number: int) -> Answer | None:
        if "logprobs" in body:
            return Answer(422, {"detail": "unexpected field logprobs"})
        return None

    with fake(strict) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out") == 0
    assert measured(tmp_path / "out")[1]["honours"]["logprobs"] is False


def test_a_prompt_sent_back_is_no_answer(tmp_path: Path) -> None:
    def echo(good: Body, body: Body) -> None:
        for one in good["choices"]:
            said = "<|user|>" + body["messages"][0]["content"] + "<|assistant|>no idea"
            one["message"]["content"] = said

    out = tmp_path / "out"
    flags = ("--prompt={question} The answer is in \\boxed{{1}}.", "--max_tokens=500")
    with fake(lying(echo)) as server:
        assert evaluate(server, problems(tmp_path, 1), out, *flags) == 0
    one, seen = measured(out)
    assert one["avg"] == 0.0 and one["no_answer"] == 1.0 and "echo" in seen["lies"]
    assert responses(out)[0]["text"] == "<|assistant|>no idea"


def test_no_finish_reason_is_told(tmp_path: Path) -> None:
    def silent(good: Body, body: Body) -> None:
        for one in good["choices"]:
            del one["finish_reason"]

    with fake(lying(silent)) as server:
        assert evaluate(server, problems(tmp_path), tmp_path / "out") == 0
    assert measured(tmp_path / "out")[1]["lies"]["finish_reason"]["count"] == 6
