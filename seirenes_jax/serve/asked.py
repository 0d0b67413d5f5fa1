"""A request's body -> what is asked, or a Refusal in the standard shape. Hostile input ends here.

Every field is honoured, known to change no answer, or refused by name: nothing is silently left
out. Sizes are bounded before anything is done with them.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seirenes_jax.types import Messages

MOST_STOPS, STOP_LETTERS = 16, 256
MOST_MESSAGES, MOST_PROMPTS = 1024, 64
HOTTEST, COLDEST = 10.0, 0.01  # below the coldest, logits overflow; 0 is greedy
DEFAULT_COMPLETION = 16  # max_tokens of a text completion that says none, by the standard
HALF = re.compile("[\ud800-\udfff]")
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}

BOTH = frozenset((
    "model", "n", "seed", "temperature", "top_p", "top_k", "stop", "max_tokens", "logprobs",
    "stream", "stream_options",
))  # fmt: skip
HONOURED = {
    True: BOTH | {"messages", "max_completion_tokens", "top_logprobs"}, False: BOTH | {"prompt"},
}  # fmt: skip
# No answer hangs on these.
INERT = frozenset((
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
))  # fmt: skip
# What cannot be done here is refused, unless it asks for nothing.
ONLY: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,), "presence_penalty": (0,), "repetition_penalty": (1,), "min_p": (0,),
    "logit_bias": ({},), "best_of": (1,), "echo": (False,), "suffix": ("",), "tools": ([],),
    "tool_choice": ("none", "auto"), "functions": ([],), "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},), "modalities": (["text"],),
}  # fmt: skip


class Refusal(Exception):
    """No answer, in the standard shape: `type`, `param` and `code` are for programs."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        wait_s: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.param, self.code, self.wait_s = status, param, code, wait_s

    def body(self) -> dict[str, Any]:
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": str(self), "type": kinds.get(self.status, kind), "param": self.param,
            "code": self.code,
        }  # fmt: skip
        return {"error": error}


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked. `max_tokens` None: as far as there is room."""

    chat: bool
    messages: Messages  # of a chat
    prompts: tuple[str | tuple[int, ...], ...]  # of a text completion
    n: int
    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    seed: int | None
    stop: tuple[str, ...]
    logprobs: bool
    stream: bool
    usage_at_end: bool  # of a stream

    @property
    def choices(self) -> int:
        return self.n * (1 if self.chat else len(self.prompts))


def read(raw: bytes, *, chat: bool, model: str, most_choices: int) -> Asked:
    """The request that a body holds."""
    body = _object(raw)
    _refuse_unknown(body, chat)
    _check_model(body.get("model"), model)
    stream = _truth(body, "stream")
    asked = Asked(
        chat=chat,
        messages=_messages(body) if chat else (),
        prompts=() if chat else _prompts(body.get("prompt")),
        n=_whole(body, "n", 1, 1, most_choices),
        max_tokens=_max_tokens(body, chat),
        temperature=_temperature(body),
        top_p=_number(body, "top_p", 1.0, 1e-9, 1.0),
        top_k=max(0, _whole(body, "top_k", 0, -1, 2**31 - 1)),
        seed=_seed(body),
        stop=_stops(body.get("stop")),
        logprobs=_logprobs(body, chat),
        stream=stream,
        usage_at_end=_usage_at_end(body.get("stream_options"), stream),
    )
    if asked.choices > most_choices:
        raise Refusal(
            400, f"n: {asked.choices} choices in one request; at most {most_choices}", param="n"
        )
    return asked


def _object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw, parse_constant=_no_constant)
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise Refusal(400, f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(body, dict):
        raise Refusal(400, f"the body is {type(body).__name__}; wanted a JSON object")
    return {name: value for name, value in body.items() if value is not None}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _refuse_unknown(body: Mapping[str, Any], chat: bool) -> None:
    for name, value in body.items():
        if name in HONOURED[chat] or name in INERT or value in ONLY.get(name, ()):
            continue
        words = "is not supported here" if name in ONLY else "is no field of this request"
        raise Refusal(400, f"{name[:80]}: it {words}", param=name[:80], code="unsupported")


def _check_model(asked: Any, model: str) -> None:
    if asked is None:
        raise Refusal(400, f"model: it is missing; this server has {model!r}", param="model")
    if asked != model:
        raise Refusal(
            404, f"model: got {str(asked)[:80]!r}; this server has {model!r}", param="model",
            code="model_not_found",
        )  # fmt: skip


def _bad(name: str, value: Any, wanted: str) -> Refusal:
    return Refusal(400, f"{name}: got {str(value)[:80]!r}; wanted {wanted}", param=name)


def _number(
    body: Mapping[str, Any], name: str, default: float, low: float, high: float
) -> float:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _bad(name, value, f"a number from {low:g} to {high:g}")
    return float(value)


def _whole(body: Mapping[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _bad(name, value, f"a whole number from {low} to {high}")
    return value


def _truth(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise _bad(name, value, "true or false")
    return value


def _temperature(body: Mapping[str, Any]) -> float:
    value = _number(body, "temperature", 1.0, 0.0, HOTTEST)
    if 0.0 < value < COLDEST:
        raise _bad("temperature", value, f"0 (greedy), or {COLDEST:g} to {HOTTEST:g}")
    return value


def _seed(body: Mapping[str, Any]) -> int | None:
    return _whole(body, "seed", 0, -(2**63), 2**63 - 1) if "seed" in body else None


def _max_tokens(body: Mapping[str, Any], chat: bool) -> int | None:
    names = [name for name in ("max_completion_tokens", "max_tokens") if name in body]
    values = {_whole(body, name, 1, 1, 2**31 - 1) for name in names}
    if len(values) > 1:
        raise Refusal(400, "max_tokens and max_completion_tokens differ", param="max_tokens")
    if values:
        return values.pop()
    return None if chat else DEFAULT_COMPLETION


def _logprobs(body: Mapping[str, Any], chat: bool) -> bool:
    """Of the tokens that were drawn. Those of other tokens are not kept."""
    if chat:
        if _whole(body, "top_logprobs", 0, 0, 20) > 0:
            raise Refusal(
                400, "top_logprobs: only the drawn tokens have logprobs here; wanted 0",
                param="top_logprobs", code="unsupported",
            )  # fmt: skip
        return _truth(body, "logprobs")
    if "logprobs" not in body:
        return False
    _whole(body, "logprobs", 0, 0, 1)
    return True


def _usage_at_end(options: Any, stream: bool) -> bool:
    if options is None:
        return False
    if not stream or not isinstance(options, dict) or set(options) - {"include_usage"}:
        raise _bad("stream_options", options, '{"include_usage": true}, with stream')
    return _truth(options, "include_usage")


def _stops(value: Any) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise _bad("stop", value, f"text, or a list of at most {MOST_STOPS}")
    for one in stops:
        if not isinstance(one, str) or not 0 < len(one) <= STOP_LETTERS:
            raise _bad("stop", one, f"text of 1 to {STOP_LETTERS} letters")
    return tuple(dict.fromkeys(stops))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _bad(name, value, "text")
    if HALF.search(value):
        raise Refusal(400, f"{name}: half a surrogate pair is no text", param=name)
    return value


def _messages(body: Mapping[str, Any]) -> Messages:
    given = body.get("messages")
    if not isinstance(given, list) or not 0 < len(given) <= MOST_MESSAGES:
        raise Refusal(
            400, f"messages: wanted a list of 1 to {MOST_MESSAGES} messages", param="messages"
        )
    return tuple(_message(one, f"messages[{at}]") for at, one in enumerate(given))


def _message(one: Any, name: str) -> tuple[str, str]:
    if not isinstance(one, dict) or set(one) - {"role", "content", "name"}:
        raise _bad(name, one, "an object with role and content")
    role, content = one.get("role"), one.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise _bad(f"{name}.role", role, f"one of {', '.join(ROLES)}")
    if isinstance(content, list):
        content = "".join(_part(part, f"{name}.content") for part in content)
    return ROLES[role], _text(content, f"{name}.content")


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or set(part) != {"type", "text"}:
        raise _bad(name, part, 'parts {"type": "text", "text": ...}')
    return _text(part["text"], name)


def _prompts(value: Any) -> tuple[str | tuple[int, ...], ...]:
    """Text, tokens, or a list of either."""
    if isinstance(value, str) or (isinstance(value, list) and value and _is_token(value[0])):
        value = [value]
    if not isinstance(value, list) or not 0 < len(value) <= MOST_PROMPTS:
        raise Refusal(
            400, f"prompt: wanted text, a list of token ids, or 1 to {MOST_PROMPTS} of these",
            param="prompt",
        )  # fmt: skip
    return tuple(_prompt(one) for one in value)


def _prompt(one: Any) -> str | tuple[int, ...]:
    if isinstance(one, list):
        if not one or not all(_is_token(token) for token in one):
            raise _bad("prompt", one, "token ids: whole numbers, at least one")
        return tuple(one)
    return _text(one, "prompt")


def _is_token(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def room(prompt_tokens: int, max_tokens: int | None, context: int) -> int:
    """Tokens an answer to this prompt may have; a Refusal where there is no room for them."""
    left = context - prompt_tokens
    if left < 1 or (max_tokens is not None and max_tokens > left):
        asked = "" if max_tokens is None else f" and max_tokens asks for {max_tokens} more"
        raise Refusal(
            400, f"the maximum context length is {context} tokens; the prompt has {prompt_tokens}"
            f"{asked}", param="max_tokens" if left > 0 else "messages",
            code="context_length_exceeded",
        )  # fmt: skip
    return left if max_tokens is None else max_tokens
