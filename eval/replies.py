"""What a server sends back -> a Reply: whole bodies and event streams, of chats and completions.

Pure parsing. A body that is not what the standard says is a Torn (worth another try); what is
merely odd stays as it is, for `witness.py` to judge.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OVERFLOW = re.compile(
    r"maximum (?:context|model|input|prompt|sequence)|"
    r"context[ _](?:length|window|size)|max_model_len|too many (?:input )?tokens"
    r"|(?:prompt|input|request)[^.]{0,40} (?:is )?too (?:long|large)"
    r"|exceeds?[^.]{0,60}(?:tokens|limit)|longer than the",
    re.IGNORECASE,
)

HALF = re.compile("[\ud800-\udfff]")


class Torn(Exception):
    """An answer that broke off or is no answer; another try may bring it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One completion as the server gave it."""

    text: str
    reasoning: str | None  # what servers with a reasoning parser keep apart
    finish: str | None  # stop | length | ...; None: the server did not say


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the server counts them, over all choices of a request."""

    prompt: int
    completion: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered request."""

    choices: tuple[Choice, ...]
    usage: Usage | None
    model: str | None
    logprobs: bool  # did any choice carry them


def from_body(body: bytes, api: str) -> Reply:
    """A whole JSON body."""
    data = _parsed(body)
    raw = data.get("choices")
    if not isinstance(raw, list) or not raw or not all(isinstance(one, Mapping) for one in raw):
        raise Torn(f"no choices in the answer: {_shown(body)}")
    indexed = sorted(enumerate(raw), key=lambda pair: _index(pair[1], pair[0]))
    choices = tuple(_choice(one, api) for _, one in indexed)
    logprobs = any(one.get("logprobs") for one in raw)
    return Reply(choices, usage_of(data.get("usage")), _words(data.get("model")), logprobs)


def _choice(one: Mapping[str, Any], api: str) -> Choice:
    finish = _words(one.get("finish_reason"))
    if api == "completions":
        return Choice(_words(one.get("text")) or "", None, finish)
    message = one.get("message")
    if not isinstance(message, Mapping):
        raise Torn(f"a choice without a message: {str(one)[:120]}")
    thought = _words(message.get("reasoning_content")) or _words(message.get("reasoning"))
    return Choice(_words(message.get("content")) or "", thought, finish)


@dataclass(slots=True)
class _Half:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    finish: str | None = None


class Stream:
    """Puts an event stream together, line by line; `finish` gives the reply or says it is torn."""

    def __init__(self, api: str) -> None:
        self._api = api
        self._halves: dict[int, _Half] = {}
        self._usage: Usage | None = None
        self._model: str | None = None
        self._logprobs = False

    def feed(self, line: str) -> None:
        """One line; those that carry no data are passed over."""
        if not line.startswith("data:"):
            return
        words = line[5:].strip()
        if words == "[DONE]":
            return
        data = _parsed(words.encode())
        if "error" in data:
            raise Torn(f"the stream brought an error: {words[:200]}")
        self._model = _words(data.get("model")) or self._model
        self._usage = usage_of(data.get("usage")) or self._usage
        choices = data.get("choices")
        for one in choices if isinstance(choices, list) else ():
            if not isinstance(one, Mapping):
                raise Torn(f"a choice that is none: {words[:200]}")
            self._add(one)

    def _add(self, one: Mapping[str, Any]) -> None:
        half = self._halves.setdefault(_index(one, 0), _Half())
        delta = one.get("delta")
        said = one if self._api == "completions" else delta if isinstance(delta, Mapping) else {}
        half.text.append(_words(said.get("text" if said is one else "content")) or "")
        thought = _words(said.get("reasoning_content")) or _words(said.get("reasoning"))
        half.reasoning.append(thought or "")
        half.finish = _words(one.get("finish_reason")) or half.finish
        self._logprobs = self._logprobs or bool(one.get("logprobs"))

    def finish(self) -> Reply:
        """The reply. A choice without its finish_reason is torn; some servers never say [DONE]."""
        if not self._halves or any(half.finish is None for half in self._halves.values()):
            raise Torn("the stream broke off before its end")
        choices = tuple(
            Choice("".join(half.text), "".join(half.reasoning) or None, half.finish)
            for _, half in sorted(self._halves.items())
        )
        return Reply(choices, self._usage, self._model, self._logprobs)


def usage_of(value: Any) -> Usage | None:
    """Token counts where the server gives any."""
    if not isinstance(value, Mapping):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    total = value.get("total_tokens")
    return Usage(prompt, completion, total if isinstance(total, int) else None)


def error_words(body: bytes) -> str:
    """The message of an error body, whatever shape it has."""
    try:
        data = json.loads(body)
    except ValueError:
        return _shown(body)
    for name in ("error", "message", "detail"):
        if isinstance(data, Mapping) and name in data:
            data = data[name]
            if isinstance(data, Mapping) and "message" in data:
                data = data["message"]
            break
    return str(data)[:400]


def is_overflow(status: int, body: bytes) -> bool:
    """Does a refusal say that the prompt does not fit the model's context?"""
    if status == 413:
        return True
    return status in (400, 422) and OVERFLOW.search(error_words(body)) is not None


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as error:
        raise Torn(f"not JSON ({error}): {_shown(body)}") from error
    if not isinstance(data, Mapping):
        raise Torn(f"no JSON object: {_shown(body)}")
    return data


def _index(one: Mapping[str, Any], otherwise: int) -> int:
    at = one.get("index")
    return at if isinstance(at, int) else otherwise


def _words(value: Any) -> str | None:
    """Text; half a surrogate pair, which no file can hold, becomes the sign for such."""
    return HALF.sub("\ufffd", value) if isinstance(value, str) else None


def _shown(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")
