"""Money: told before the first request, stopped at the cap, and remembered over resumes."""

from pathlib import Path

import pytest

from tests.eval.fake_server import Answer, Body, fake, reply
from tests.eval.runner import evaluate, problems, responses, summary

PRICES = ("--price_in=1", "--price_out=1000")  # 64 tokens of answer: 6.4 cents at most


def test_more_than_the_cap_is_refused_before_the_first_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake() as server:
        flags = (*PRICES, "--max_cost_usd=0.3", "--n=2")
        assert evaluate(server, problems(tmp_path, 10), tmp_path / "out", *flags) == 2
        assert server.seen == []
    said = capsys.readouterr().err
    assert "this would cost about $1.28" in said and "nothing was asked" in said
    assert "20 answers" in said and "of at most $0.30" in said


def test_who_knows_the_usual_length_may_say_it(tmp_path: Path) -> None:
    with fake() as server:
        flags = (*PRICES, "--max_cost_usd=0.3", "--expect_tokens=9", "--n=2")
        assert evaluate(server, problems(tmp_path, 10), tmp_path / "out", *flags) == 0
    assert summary(tmp_path / "out")["datasets"]["sums"]["coverage"] == 1.0


@pytest.mark.parametrize("honest", [True, False])
def test_the_cap_holds_whatever_was_expected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], honest: bool
) -> None:
    """Each answer costs 5 cents; without counts it is taken to cost all it may, 6.4."""
    paid = 0.0

    def dear(body: Body, number: int) -> Answer:
        nonlocal paid
        good = reply(body)
        if body["max_tokens"] == 64:
            paid += 0.05
        good["usage"]["completion_tokens"] = 50
        good["usage"]["total_tokens"] = 50 + good["usage"]["prompt_tokens"]
        if not honest:
            del good["usage"]
        return Answer(body=good)

    data, out = problems(tmp_path, 20), tmp_path / "out"
    flags = (*PRICES, "--expect_tokens=1", "--concurrency=3", "--max_cost_usd=0.4")
    with fake(dear) as server:
        assert evaluate(server, data, out, *flags) == 1
        assert 0.25 < paid <= 0.4
        first = len(responses(out))
        assert "--max_cost_usd" in capsys.readouterr().err
        if honest:  # what was spent counts on; nothing more can be asked
            assert evaluate(server, data, out, *flags) in (1, 2)
            assert len(responses(out)) == first and paid <= 0.4
            flags = (*flags[:-1], "--max_cost_usd=2")
            assert evaluate(server, data, out, *flags) == 0
            assert len(responses(out)) == 20
