"""What goes wrong between a client and a server, and what becomes of the answers."""

import asyncio
import threading
import time
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from eval.client import Client, Endpoint, Overflow, Sampling, base_url, public_url, retry_after
from eval.replies import Reply
from seirenes_jax.errors import ConfigError
from tests.eval.fake_server import MODEL, Answer, Body, events, fake, reply
from tests.eval.runner import evaluate, problems, responses, summary

SAMPLING = Sampling(
    temperature=0.6, top_p=0.95, top_k=0, max_tokens=64, seed=0, api="chat",
    tokens_key="max_tokens", extra="{}",
)  # fmt: skip
ENDPOINT = Endpoint(
    url="", model=MODEL, key=None, timeout_s=5.0, retries=3, backoff_s=0.001, rpm=0.0,
    stream=False, concurrency=4,
)  # fmt: skip
SUM = (("user", "What is 2 + 3?"),)


def ask(endpoint: Endpoint, *, n: int = 1) -> Reply:
    async def once() -> Reply:
        async with Client(endpoint, SAMPLING) as client:
            return await client.ask(client.body(SUM, n, 7, limit=64))

    return asyncio.run(once())


BAD: dict[str, Any] = {
    "429": Answer(429, {"error": {"message": "slow down"}}, {"retry-after": "0.05"}),
    "500": Answer(500, {"error": "oh"}),
    "503 in prose": Answer(503, b"<html>busy</html>"),
    "torn": Answer(200, {"choices": [], "x": "y" * 500}, cut=40),
    "nothing": Answer(200, b""),
    "no JSON": Answer(200, b"hello"),
    "no object": Answer(200, [1]),
    "no choices": Answer(200, {"model": MODEL}),
    "no message": Answer(200, {"choices": [{"index": 0}]}),
    "empty choices": Answer(200, {"choices": []}),
    "an error inside": Answer(200, {"error": {"message": "later"}}),
}


@pytest.mark.parametrize("name", BAD)
def test_what_passes_is_tried_again(name: str) -> None:
    def behave(body: Body, number: int) -> Answer | None:
        return BAD[name] if number < 2 else None

    with fake(behave) as server:
        found = ask(replace(ENDPOINT, url=server.url))
        assert len(server.seen) == 3 and server.seen[0] == server.seen[2]
    assert "boxed" in found.choices[0].text


def test_a_slow_answer_is_given_up_and_asked_again() -> None:
    def behave(body: Body, number: int) -> Answer | None:
        return Answer(body=reply(body), wait=1.0) if number == 0 else None

    with fake(behave) as server:
        began = time.monotonic()
        ask(replace(ENDPOINT, url=server.url, timeout_s=0.2))
        assert len(server.seen) == 2 and time.monotonic() - began < 1.0


def test_everyone_waits_as_long_as_the_server_says() -> None:
    told: list[float] = []

    def behave(body: Body, number: int) -> Answer | None:
        told.append(time.monotonic())
        if number == 0:
            return Answer(429, {}, {"retry-after": "0.6"})
        return None

    async def several(endpoint: Endpoint) -> None:
        async with Client(endpoint, SAMPLING) as client:
            first = asyncio.create_task(client.ask(client.body(SUM, 1, 1, limit=64)))
            await asyncio.sleep(0.3)  # the first has been told to wait
            others = [client.ask(client.body(SUM, 1, seed, limit=64)) for seed in (2, 3)]
            await asyncio.gather(first, *others)

    with fake(behave) as server:
        asyncio.run(several(replace(ENDPOINT, url=server.url)))
    assert len(told) == 4
    assert min(told[1:]) - told[0] >= 0.55


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after({"retry-after": "2"}) == 2.0
    assert 8 < retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) <= 10
    assert retry_after({}) == retry_after({"retry-after": "soon"}) == 0.0
    assert retry_after({"retry-after": "-5"}) == 0.0
    assert retry_after({"retry-after": "1e9"}) <= 120.0


def test_the_pace_is_kept() -> None:
    async def several(endpoint: Endpoint) -> None:
        async with Client(endpoint, SAMPLING) as client:
            await asyncio.gather(
                *(client.ask(client.body(SUM, 1, seed, limit=64)) for seed in range(5))
            )

    with fake() as server:
        began = time.monotonic()
        asyncio.run(several(replace(ENDPOINT, url=server.url, rpm=600)))
    assert time.monotonic() - began >= 0.39


def test_a_stream_is_put_together() -> None:
    with fake() as server:
        whole = ask(replace(ENDPOINT, url=server.url), n=3)
        streamed = ask(replace(ENDPOINT, url=server.url, stream=True), n=3)
        assert server.seen[1]["stream"] is True
    assert streamed == whole


@pytest.mark.parametrize("kept", [0, 3, 8])
def test_a_torn_stream_is_asked_again(kept: int) -> None:
    def behave(body: Body, number: int) -> Answer | None:
        if number == 2:
            return None
        lines = list(events(reply(body)))[:kept]
        text = "".join(f"data: {line}\n\n" for line in lines)
        return Answer(200, text.encode(), {"content-type": "text/event-stream"})

    with fake(behave) as server:
        found = ask(replace(ENDPOINT, url=server.url, stream=True))
        assert len(server.seen) == 3
    assert found.choices[0].text.endswith("}")


def test_a_refusal_ends_the_run_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(body: Body, number: int) -> Answer | None:
        return Answer(404, {"error": {"message": "no such model"}}) if number > 6 else None

    with fake(behave) as server:
        out = tmp_path / "out"
        assert evaluate(server, problems(tmp_path, 30), out, "--concurrency=1") == 2
        assert len(server.seen) == 8
    assert "HTTP 404: no such model" in capsys.readouterr().err
    assert len(responses(out)) == 7 - 3  # what was answered before is kept


def test_a_prompt_too_long_is_counted_apart(tmp_path: Path) -> None:
    def behave(body: Body, number: int) -> Answer | None:
        if "What is 2 +" in body["messages"][0]["content"]:
            said = "This model's maximum context length is 40 tokens. However, you requested 99."
            return Answer(400, {"error": {"message": said, "code": 400}})
        return None

    with fake(behave) as server:
        out = tmp_path / "out"
        assert evaluate(server, problems(tmp_path, 4), out, "--n=2") == 0
        asked = len(server.seen)
        assert evaluate(server, problems(tmp_path, 4), out, "--n=2") == 0
        assert len(server.seen) == asked  # asking again would not help
    one = summary(out)["datasets"]["sums"]
    assert one["context"] == 2 and one["missing"] == 0 and one["coverage"] == 0.75
    with pytest.raises(Overflow):
        with fake(lambda *_: Answer(413, {})) as server:
            ask(replace(ENDPOINT, url=server.url))


def test_what_never_comes_is_missing_and_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = threading.Event()
    broken.set()

    def behave(body: Body, number: int) -> Answer | None:
        sick = "What is 3 +" in body["messages"][0]["content"] and broken.is_set()
        return Answer(500, {"error": "no"}) if sick else None

    data, out = problems(tmp_path), tmp_path / "out"
    with fake(behave) as server:
        assert evaluate(server, data, out, "--n=2", "--retries=1") == 1
        one = summary(out)["datasets"]["sums"]
        assert one["missing"] == 2 and one["coverage"] == pytest.approx(10 / 12)
        assert one["n_samples"] == 10
        rows = [row for row in responses(out) if row["problem_id"] == "sum-003"]
        assert [row["status"] for row in rows] == ["failed", "failed"]
        assert "HTTP 500" in rows[0]["error"]
        assert "missing: 2 of 12 have no score" in capsys.readouterr().out
        broken.clear()
        assert evaluate(server, data, out, "--n=2", "--retries=1") == 0
    assert summary(out)["datasets"]["sums"]["coverage"] == 1.0
    assert len(responses(out)) == 12


def test_an_endpoint_that_is_gone_ends_the_run_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(body: Body, number: int) -> Answer | None:
        return Answer(503, {}) if number > 6 else None

    data, out = problems(tmp_path, 60), tmp_path / "out"
    with fake(behave) as server:
        assert evaluate(server, data, out, "--concurrency=2", "--retries=1") == 1
        assert len(server.seen) < 25
    said = capsys.readouterr()
    assert "requests in a row were not answered" in said.err
    assert "missing: 56 of 60" in said.out
    with fake() as server:
        url = server.url
    from eval import run
    from tests.eval.runner import QUICK, command

    argv = [f"--endpoint={url}", "--model=x", f"--data={data}", f"--out={tmp_path / 'none'}"]
    assert command(run, *argv, *QUICK) == 1
    assert "the endpoint does not answer" in capsys.readouterr().err


def test_no_more_requests_at_once_than_allowed(tmp_path: Path) -> None:
    def behave(body: Body, number: int) -> None:
        time.sleep(0.02)

    with fake(behave) as server:
        flags = ("--concurrency=3", "--n=2", "--per_request=1", "--skip_probe")
        assert evaluate(server, problems(tmp_path, 12), tmp_path / "out", *flags) == 0
        assert server.most_busy == 3


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://host/v1/", "http://host/v1"),
        ("https://host/v1/chat/completions", "https://host/v1"),
        ("https://host/v1beta/openai/", "https://host/v1beta/openai"),
        ("https://host/v1?api-version=3", "https://host/v1?api-version=3"),
    ],
)
def test_an_endpoint_may_be_written_in_many_ways(given: str, wanted: str) -> None:
    assert base_url(given) == wanted


def test_what_is_written_down_has_no_password() -> None:
    assert public_url("https://me:secret@host:1/v1?key=secret") == "https://host:1/v1"
    with pytest.raises(ConfigError):
        base_url("file:///etc/passwd")


def test_a_proxy_never_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with fake() as server:
        assert ask(replace(ENDPOINT, url=server.url)).choices


def test_the_only_model_of_an_endpoint_need_not_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from eval import run
    from tests.eval.runner import QUICK, command

    data = problems(tmp_path, 2)
    with fake() as server:
        argv = [f"--endpoint={server.url}", f"--data={data}", *QUICK]
        assert command(run, *argv, f"--out={tmp_path / 'out'}") == 0
        server.models.append("another")
        assert command(run, *argv, f"--out={tmp_path / 'two'}") == 2
    assert summary(tmp_path / "out")["model"]["name"] == MODEL
    assert "the endpoint has adder, another" in capsys.readouterr().err
