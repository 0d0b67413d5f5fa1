"""Bodies from anywhere: what is honoured is read, everything else is refused in words."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seirenes_jax.serve.app import same
from seirenes_jax.serve.asked import Asked, Refusal, read, room

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
TEXT = {"model": "m", "prompt": "Hi"}


def asked(body: Any, chat: bool = True) -> Asked:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read(raw, chat=chat, model="m", most_choices=8)


def test_what_is_not_said_has_its_usual_value() -> None:
    one = asked(CHAT)
    assert (one.n, one.max_tokens, one.temperature, one.top_p, one.top_k) == (1, None, 1.0, 1.0, 0)
    assert (one.seed, one.stop, one.logprobs, one.stream) == (None, (), False, False)
    assert one.messages == (("user", "Hi"),)
    assert asked(TEXT, False).max_tokens == 16
    assert asked({**CHAT, **dict.fromkeys(("n", "seed", "stop", "stream", "tools"))}) == one


def test_what_is_said_is_read() -> None:
    one = asked({
        **CHAT, "n": 2, "seed": -5, "temperature": 0, "top_p": 0.5, "top_k": -1, "stop": "\n",
        "max_completion_tokens": 7, "logprobs": True, "stream": True, "user": "me",
        "stream_options": {"include_usage": True}, "frequency_penalty": 0, "tools": [],
        "messages": [
            {"role": "developer", "content": "Be"}, {"role": "assistant", "content": ""},
            {"role": "user", "content": [{"type": "text", "text": "a"},
                                         {"type": "text", "text": "b"}]},
        ],
    })  # fmt: skip
    assert one == Asked(
        True, (("system", "Be"), ("assistant", ""), ("user", "ab")), (), 2, 7, 0.0, 0.5, 0, -5,
        ("\n",), True, True, True,
    )  # fmt: skip
    assert asked({**TEXT, "prompt": [1, 2]}, False).prompts == ((1, 2),)
    assert asked({**TEXT, "prompt": ["a", [3]], "n": 4}, False).choices == 8


REFUSED = [
    (b"", 400, "no JSON"), (b"\xff", 400, "no JSON"), (b"[1]", 400, "list"), (b"{", 400, "no JSON"),
    (b"[" * 50_000, 400, "nested too deeply"), (b'{"a":' * 50_000, 400, "nested too deeply"),
    (b'{"n": ' + b"9" * 5_000 + b"}", 400, "no JSON"),
    (b'{"temperature": NaN}', 400, "NaN"), (b'{"temperature": 1e999}', 400, "model"),
    ({}, 400, "model"), ({**CHAT, "model": "x"}, 404, "this server has"),
    ({**CHAT, "model": ["m"]}, 404, "this server has"),
    *(({**CHAT, name: value}, 400, name) for name, value in [
        ("n", 0), ("n", 9), ("n", True), ("n", "2"), ("n", 1.5), ("n", 10**30),
        ("seed", 2**63), ("seed", "x"), ("seed", 1.0), ("temperature", -0.1), ("temperature", 11),
        ("temperature", 1e-9), ("temperature", "1"), ("temperature", True),
        ("top_p", 0), ("top_p", 1.1), ("top_k", -2), ("top_k", 2**31), ("max_tokens", 0),
        ("max_tokens", 2.5), ("max_completion_tokens", -1), ("stop", 1), ("stop", [""]),
        ("stop", ["x" * 257]), ("stop", ["a"] * 17), ("stop", [[]]), ("logprobs", 1),
        ("top_logprobs", 2), ("stream", "yes"), ("stream_options", {"include_usage": True}),
        ("tools", [{}]), ("logit_bias", {"1": 5}), ("frequency_penalty", 0.1), ("frobnicate", 1),
        ("response_format", {"type": "json_object"}), ("messages", []), ("messages", "Hi"),
        ("messages", [{"role": "user", "content": "x"}] * 1025), ("messages", [1]),
        ("messages", [{"role": "god", "content": "x"}]),
        ("messages", [{"role": [], "content": ""}]),
        ("messages", [{"role": "user"}]), ("messages", [{"role": "user", "content": "\ud800"}]),
        ("messages", [{"role": "user", "content": [{"type": "image_url"}]}]),
        ("messages", [{"role": "user", "content": "x", "tool_calls": []}]),
    ]),
    ({**CHAT, "max_tokens": 3, "max_completion_tokens": 4}, 400, "differ"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "says"), REFUSED)
def test_what_cannot_be_done_is_refused(body: Any, status: int, says: str) -> None:
    with pytest.raises(Refusal) as refusal:
        asked(body)
    assert refusal.value.status == status and says in str(refusal.value)
    error = refusal.value.body()["error"]
    assert set(error) == {"message", "type", "param", "code"} and len(error["message"]) < 400


@pytest.mark.parametrize(
    "prompt", [None, "", [], [[]], [True], [-1], [2**31], [1, "a"], ["a"] * 65, 3, ["\udc00"], {}]
)
def test_a_prompt_that_is_none_is_refused(prompt: Any) -> None:
    if prompt == "":  # read, and refused once it is known that no token comes of it
        assert asked({**TEXT, "prompt": ""}, False).prompts == ("",)
        return
    with pytest.raises(Refusal, match="prompt"):
        asked({**TEXT, "prompt": prompt}, False)


def test_more_prompts_than_choices_are_refused() -> None:
    with pytest.raises(Refusal, match="9 choices"):
        asked({**TEXT, "prompt": ["a"] * 3, "n": 3}, False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
fields = st.sampled_from([
    "n", "seed", "temperature", "top_p", "top_k", "stop", "max_tokens", "logprobs", "stream",
    "messages", "prompt", "model", "tools", "stream_options", "other",
])  # fmt: skip


@settings(max_examples=300)
@given(body=st.dictionaries(fields, json_values), chat=st.booleans())
def test_whatever_comes_is_read_or_refused(body: dict[str, Any], chat: bool) -> None:
    try:
        one = asked({**(CHAT if chat else TEXT), **body}, chat)
    except Refusal as refusal:
        json.dumps(refusal.body())
    else:
        assert 1 <= one.choices <= 8 and 0 <= one.temperature <= 10 and 0 < one.top_p <= 1


@given(raw=st.binary(max_size=60))
def test_bytes_are_read_or_refused(raw: bytes) -> None:
    with pytest.raises(Refusal):
        asked(raw)


def test_there_is_room_or_a_number_that_says_why_not() -> None:
    assert room(10, None, 96) == 86 and room(10, 86, 96) == 86
    for prompt, most in ((96, None), (97, 1), (10, 87)):
        with pytest.raises(Refusal, match="maximum context length is 96") as refusal:
            room(prompt, most, 96)
        assert refusal.value.code == "context_length_exceeded"


def test_keys_are_compared_whole() -> None:
    assert same("Bearer x", "Bearer x")
    assert not any(same(other, "Bearer x") for other in ("", "Bearer ", "Bearer xx", "\udcff"))
