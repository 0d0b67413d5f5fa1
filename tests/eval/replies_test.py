"""Bodies and streams of any shape: a reply, or told to be torn; never anything else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.replies import Reply, Stream, Torn, error_words, from_body, is_overflow, usage_of

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=8)
KEYS = st.sampled_from(
    ["choices", "message", "content", "text", "index", "usage", "model", "delta", "finish_reason",
     "prompt_tokens", "completion_tokens", "logprobs", "reasoning", "error"]
)  # fmt: skip
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
CHOICE = st.fixed_dictionaries(
    {}, optional={name: JSON for name in ("index", "message", "delta", "text", "finish_reason")}
)
BODY = JSON | st.fixed_dictionaries(
    {"choices": JSON | st.lists(CHOICE | JSON, max_size=3)}, optional={"usage": JSON, "model": JSON}
)


@given(BODY, st.sampled_from(["chat", "completions"]))
def test_any_body_is_a_reply_or_torn(value: Any, api: str) -> None:
    try:
        found = from_body(json.dumps(value).encode(), api)
    except Torn:
        return
    assert isinstance(found, Reply) and found.choices


@given(st.binary(max_size=60))
def test_any_bytes_are_a_reply_or_torn(body: bytes) -> None:
    with pytest.raises(Torn):
        from_body(body, "chat")
    assert isinstance(error_words(body), str)


@given(st.lists(BODY, max_size=4), st.sampled_from(["chat", "completions"]))
def test_any_stream_is_a_reply_or_torn(values: list[Any], api: str) -> None:
    stream = Stream(api)
    try:
        for value in values:
            stream.feed(f"data: {json.dumps(value)}")
        assert stream.finish().choices
    except Torn:
        pass


def test_choices_stand_in_the_order_of_their_index() -> None:
    choices = [{"index": at, "message": {"content": str(at)}} for at in (2, 0, 1)]
    found = from_body(json.dumps({"choices": choices}).encode(), "chat")
    assert [choice.text for choice in found.choices] == ["0", "1", "2"]
    assert all(choice.finish is None for choice in found.choices)


def test_a_stream_mixes_choices_and_brings_its_usage_last() -> None:
    stream = Stream("chat")
    pieces = ((1, "b", None), (0, "a", None), (1, "B", "stop"), (0, "A", "length"))
    for index, words, finish in pieces:
        one = {"index": index, "delta": {"content": words}, "finish_reason": finish}
        stream.feed("data: " + json.dumps({"choices": [one]}))
        stream.feed(": a comment")
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    stream.feed("data: " + json.dumps({"choices": [], "usage": usage}))
    stream.feed("data: [DONE]")
    found = stream.finish()
    assert [(c.text, c.finish) for c in found.choices] == [("aA", "length"), ("bB", "stop")]
    assert found.usage == usage_of(usage)


@pytest.mark.parametrize(
    ("status", "words", "wanted"),
    [
        (400, "This model's maximum context length is 4096 tokens. However, you requested", True),
        (400, "Input is too long for requested model", True),
        (400, "the prompt has 300 tokens, which exceeds the limit of 256 tokens", True),
        (422, "prompt too long: 9000 > max_model_len 8192", True),
        (413, "", True),
        (400, "temperature must be between 0 and 2", False),
        (401, "maximum context length", False),
        (404, "The model does not exist", False),
    ],
)
def test_which_refusals_are_of_length(status: int, words: str, wanted: bool) -> None:
    assert is_overflow(status, json.dumps({"error": {"message": words}}).encode()) is wanted


def test_the_words_of_an_error_whatever_its_shape() -> None:
    shapes = ({"error": {"message": "no"}}, {"error": "no"}, {"detail": "no"}, {"message": "no"})
    for body in shapes:
        assert error_words(json.dumps(body).encode()) == "no"
    assert "busy" in error_words(b"<html>busy</html>")
