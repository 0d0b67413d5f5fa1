"""The server as the official client sees it: token for token the sampler, whatever the company."""

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from seirenes_jax.text import Tokenizer
from seirenes_jax.types import Ask, Name, Rollout
from tests.serve.conftest import CHUNK, CONTEXT, MODEL, SLOTS, Running, make_sampler, running

openai = pytest.importorskip("openai")
QUESTION = "There are 11 frogs in the tank. 4 leave. How many frogs are there?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]


def client(server: Running, key: str = "none") -> Any:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=600)


@pytest.fixture(scope="module")
def ai(server: Running) -> Any:
    with client(server) as found:
        yield found


def by_the_sampler(
    tokenizer: Tokenizer, question: str, *, n: int, seed: int, most: int, **how: Any
) -> list[Rollout]:
    """As training samples: other slots, other chunks, no company."""
    sampler = make_sampler(
        tokenizer, slots=3, chunk=5, seed=seed, prompt_tokens=CONTEXT - most, answer_tokens=most,
        **how,
    )
    ask = Ask("reasoner", (("user", question),), n, None, None, most)
    return sampler.generate([(Name("", 0, "", 0, 0, 0), ask)])


@pytest.mark.parametrize(
    "how",
    [{"temperature": 1.0}, {"temperature": 0.0}, {"temperature": 0.7, "top_p": 0.8},
     {"temperature": 1.3, "top_k": 5}],
    ids=str,
)  # fmt: skip
def test_it_says_token_for_token_what_the_sampler_says(
    ai: Any, tokenizer: Tokenizer, how: dict[str, Any]
) -> None:
    wanted = by_the_sampler(tokenizer, QUESTION, n=3, seed=11, most=20, **how)
    plain = {name: value for name, value in how.items() if name != "top_k"}
    extra = {name: value for name, value in how.items() if name == "top_k"}
    answer = ai.chat.completions.create(
        model=MODEL, messages=MESSAGES, n=3, seed=11, max_tokens=20, logprobs=True,
        extra_body=extra, **plain,
    )  # fmt: skip
    for choice, rollout in zip(answer.choices, wanted, strict=True):
        tokens = choice.logprobs.content
        assert [token.token_id for token in tokens] == rollout.tokens.tolist()
        np.testing.assert_allclose([t.logprob for t in tokens], rollout.logprobs, atol=1e-5)
        assert choice.message.content == rollout.text == "".join(t.token for t in tokens)
        assert choice.finish_reason == {"eos": "stop", "length": "length"}[rollout.stop]
    assert answer.usage.completion_tokens == sum(len(rollout.tokens) for rollout in wanted)
    assert answer.usage.total_tokens == (
        answer.usage.completion_tokens + len(tokenizer.render((("user", QUESTION),)))
    )


def asked(ai: Any, at: int) -> list[str]:
    """One of many different requests."""
    answer = ai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": f"{QUESTION} {at}"}], n=1 + at % 3,
        seed=at, max_tokens=6 + at % 13, temperature=(0.0, 0.7, 1.0)[at % 3],
        extra_body={"top_k": 7} if at % 4 == 0 else {},
    )  # fmt: skip
    assert len(answer.choices) == 1 + at % 3
    return [choice.message.content for choice in answer.choices]


def test_company_changes_nothing_and_no_answer_is_crossed(ai: Any, server: Running) -> None:
    alone = [asked(ai, at) for at in range(16)]
    assert len({str(texts) for texts in alone}) > 12
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda at: asked(ai, at), reversed(range(16))))
    assert together[::-1] == alone
    assert server.engine.load() == (0, 0)


def streamed(ai: Any, request: dict[str, Any]) -> tuple[list[Any], Any, int]:
    """Text, tokens and finish of each choice; usage; in how many pieces they came."""
    texts, tokens, finish, usage, pieces = ["", ""], [[], []], [None, None], None, 0
    for piece in ai.chat.completions.create(
        **request, stream=True, stream_options={"include_usage": True}
    ):
        for one in piece.choices:
            texts[one.index] += one.delta.content or ""
            tokens[one.index] += [t.token for t in one.logprobs.content] if one.logprobs else []
            finish[one.index] = one.finish_reason or finish[one.index]
            pieces += 1
        usage = piece.usage or usage
    return list(zip(texts, tokens, finish, strict=True)), usage, pieces


def test_a_stream_says_what_the_whole_answer_says(ai: Any) -> None:
    came = 0
    for seed in range(4):
        request = dict(
            model=MODEL, messages=MESSAGES, n=2, seed=seed, max_tokens=24, logprobs=True,
            stop=["is", "9"],
        )  # fmt: skip
        whole = ai.chat.completions.create(**request)
        found, usage, pieces = streamed(ai, request)
        assert found == [
            (one.message.content, [t.token for t in one.logprobs.content], one.finish_reason)
            for one in whole.choices
        ]
        assert usage == whole.usage
        came += pieces
    assert came > 3 * 8  # who speaks, something, and its end, on average


def test_an_answer_ends_before_its_stop(ai: Any) -> None:
    def said(seed: int, **more: Any) -> Any:
        answer = ai.completions.create(
            model=MODEL, prompt=QUESTION, seed=seed, max_tokens=30, temperature=1, **more
        )
        return answer.choices[0], answer.usage

    seed = next(seed for seed in range(50) if said(seed)[1].completion_tokens == 30)
    whole, used = said(seed)
    middle = whole.text[len(whole.text) // 2 :][:3]
    cut, less = said(seed, stop=middle)
    assert cut.text == whole.text[: whole.text.index(middle)] and cut.finish_reason == "stop"
    assert 0 < less.completion_tokens < used.completion_tokens
    with_logprobs = said(seed, stop=["never said", middle], logprobs=1)[0]
    assert "".join(with_logprobs.logprobs.tokens) == cut.text
    assert len(with_logprobs.logprobs.token_logprobs) == less.completion_tokens


def test_text_completions_take_text_tokens_and_many_prompts(
    ai: Any, tokenizer: Tokenizer
) -> None:
    def texts(prompt: Any, n: int = 1) -> list[str]:
        answer = ai.completions.create(model=MODEL, prompt=prompt, n=n, seed=9, max_tokens=9)
        assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
        return [choice.text for choice in answer.choices]

    ids = tokenizer.encode(QUESTION)
    assert texts(QUESTION) == texts(ids) == texts([ids])
    assert texts([QUESTION, "Another."], n=2) == texts(QUESTION, 2) + texts("Another.", 2)


def test_without_a_seed_answers_differ(ai: Any) -> None:
    answers = [
        ai.completions.create(model=MODEL, prompt="Say", max_tokens=12).choices[0].text
        for _ in range(3)
    ]
    assert len(set(answers)) > 1


def test_models_and_health(ai: Any, server: Running) -> None:
    (model,) = ai.models.list().data
    assert (model.id, model.max_model_len) == (MODEL, CONTEXT)
    assert ai.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        ai.models.retrieve("other")
    assert fetched(server, "GET", "/health")[::2] == (200, {
        "status": "ok", "seated": 0, "waiting": 0
    })  # fmt: skip


def fetched(
    server: Running, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], Any]:
    """A request as it is: status, headers, JSON."""
    where = urlsplit(server.url)
    line = http.client.HTTPConnection(str(where.hostname), where.port or 80, timeout=300)
    try:
        line.request(method, path, body, headers)
        answer = line.getresponse()
        raw = answer.read()
    finally:
        line.close()
    found = {name.lower(): value for name, value in answer.getheaders()}
    return answer.status, found, json.loads(raw) if raw else None


CHATS = "/v1/chat/completions"
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/nowhere", None, {}, 404), ("GET", CHATS, None, {}, 405),
        ("OPTIONS", CHATS, None, {}, 405), ("POST", CHATS, b"{}", {}, 415),
        ("POST", CHATS, b"{}", {"content-type": "text/plain"}, 415),
        ("POST", CHATS, b"{}", JSON, 400), ("POST", CHATS, b"[" * 60_000, JSON, 400),
        ("POST", CHATS, b" " * 70_000, JSON, 413),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_the_standard_shape(
    server: Running, method: str, path: str, body: bytes | None, headers: dict[str, str],
    status: int,
) -> None:  # fmt: skip
    found, _, told = fetched(server, method, path, body, **headers)
    assert found == status
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in json.dumps(told)


def test_the_clients_own_errors(ai: Any) -> None:
    def create(**more: Any) -> Any:
        return ai.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, **more})

    with pytest.raises(openai.NotFoundError, match="this server has 'small'"):
        create(model="gpt")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 96") as error:
        create(max_tokens=CONTEXT)
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        create(messages=[{"role": "user", "content": "frogs " * 200}])
    with pytest.raises(openai.BadRequestError, match="token 600"):
        ai.completions.create(model=MODEL, prompt=[600])
    with pytest.raises(openai.BadRequestError, match="no token is left"):
        ai.completions.create(model=MODEL, prompt="")


def test_the_key_is_wanted_and_health_is_open(
    tokenizer: Tokenizer, server: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    with running(server.sampler, key="sesame") as locked:
        for wrong in ("none", "sesam", "sesamee"):
            with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
                client(locked, wrong).models.list()
        assert client(locked, "sesame").models.list().data
        assert fetched(locked, "GET", "/health")[0] == 200
        status, headers, _ = fetched(locked, "GET", "/v1/models")
        assert status == 401 and headers["www-authenticate"] == "Bearer"


def long_request(server: Running, n: int = SLOTS, stream: bool = True) -> socket.socket:
    """A client of its own that asks for long answers and waits for the first piece."""
    where = urlsplit(server.url)
    line = socket.create_connection((str(where.hostname), where.port or 80), timeout=300)
    body = json.dumps({
        "model": MODEL, "prompt": "Say", "n": n, "max_tokens": 80, "stream": stream, "seed": 1
    }).encode()  # fmt: skip
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    line.sendall(head.encode() + body)
    return line


def until(met: Any, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def endless(tokenizer: Tokenizer) -> Any:
    """A server whose answers never end by themselves, and take their time."""
    import dataclasses

    made = make_sampler(dataclasses.replace(tokenizer, stop_ids=(0,)))
    ask = made.ask

    def slowly(opened: Any) -> Any:
        time.sleep(0.1)
        return ask(opened)

    made.ask = slowly  # type: ignore[method-assign]
    with running(made, max_queue=3) as found:
        yield found


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_slots(endless: Running, stream: bool) -> None:
    line = long_request(endless, stream=stream)
    until(lambda: endless.sampler.use.chunks > 0)
    line.close()
    until(lambda: endless.engine.load() == (0, 0) and not endless.sampler.busy)
    assert endless.sampler.use.chunks < 80 / CHUNK


def test_a_full_queue_says_429_and_answers_go_on(endless: Running) -> None:
    lines = [long_request(endless), long_request(endless, n=3)]
    until(lambda: endless.engine.load() == (SLOTS, 3))
    with pytest.raises(openai.RateLimitError, match="try again") as error:
        client(endless).completions.create(model=MODEL, prompt="Say", max_tokens=1)
    assert error.value.response.headers["retry-after"] == "1"
    assert error.value.code == "queue_full"
    for line in lines:
        line.close()
    until(lambda: endless.engine.load() == (0, 0))
    assert client(endless).completions.create(model=MODEL, prompt="Say", max_tokens=1).choices


def test_bodies_that_do_not_come_are_bounded_too(endless: Running) -> None:
    where = urlsplit(endless.url)
    most = endless.engine.most_choices
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    lines = [
        socket.create_connection((str(where.hostname), where.port or 80), timeout=300)
        for _ in range(most + 1)
    ]
    for line in lines:
        line.sendall(head + b"content-length: 100\r\n\r\n{")
    for line in lines:
        line.settimeout(0.05)
    refused: list[bytes] = []

    def one_was_refused() -> bool:
        for line in lines:
            with suppress(TimeoutError):
                refused.append(line.recv(12))
        return bool(refused)

    until(one_was_refused)
    for line in lines:
        line.close()
    assert refused == [b"HTTP/1.1 429"]
    until(lambda: client(endless).models.list().data)


def test_a_sampler_that_fails_ends_everything_with_words(
    endless: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    line = long_request(endless, stream=False)
    until(lambda: endless.engine.load()[0] == SLOTS)

    def fail(opened: Any) -> Any:
        raise MemoryError("secret path")

    endless.sampler.ask = fail  # type: ignore[method-assign]
    told = line.recv(4096).decode()
    assert told.startswith("HTTP/1.1 500") and "the server failed on this request" in told
    assert "secret" not in told and "secret path" in capsys.readouterr().err
    assert fetched(endless, "GET", "/health")[0] == 503
    with pytest.raises(openai.InternalServerError):
        client(endless).completions.create(model=MODEL, prompt="Say")
    line.close()
