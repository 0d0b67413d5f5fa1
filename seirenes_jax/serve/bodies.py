"""Answers in the standard shape: whole bodies, and the pieces of a stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an answer, as far as the wire shows it."""

    id: int
    piece: str  # the letters it brought
    logprob: float
    offset: int  # letters before it


@dataclass(frozen=True, slots=True)
class Head:
    """What every body of one answer says of itself."""

    id: str
    created: int
    model: str
    chat: bool
    fingerprint: str  # of the weights: the same seed says the same under the same one

    def body(self, choices: list[Body], usage: Body | None, *, piece: bool = False) -> Body:
        kind = "text_completion"
        if self.chat:
            kind = "chat.completion.chunk" if piece else "chat.completion"
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "system_fingerprint": self.fingerprint, "choices": choices, "usage": usage,
        }  # fmt: skip


def usage(prompt: int, completion: int) -> Body:
    """Tokens: of the prompts once each, of all answers with their stop tokens."""
    return {
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }  # fmt: skip


def whole(
    index: int, text: str, finish: str, tokens: Sequence[Token] | None, *, chat: bool
) -> Body:
    """One choice of a whole answer; `tokens` None: without logprobs."""
    said: Body = {"text": text}
    if chat:
        said = {"message": {"role": "assistant", "content": text, "refusal": None}}
    return {"index": index, **said, "finish_reason": finish, "logprobs": _logprobs(tokens, chat)}


def first(index: int) -> Body:
    """Of a chat's stream: who speaks."""
    delta = {"role": "assistant", "content": ""}
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}


def piece(
    index: int, text: str, finish: str | None, tokens: Sequence[Token] | None, *, chat: bool
) -> Body:
    """A piece of a stream. The last one of a choice has its finish_reason."""
    said: Body = {"text": text}
    if chat:
        said = {"delta": {"content": text} if text or finish is None else {}}
    return {"index": index, **said, "finish_reason": finish, "logprobs": _logprobs(tokens, chat)}


def _logprobs(tokens: Sequence[Token] | None, chat: bool) -> Body | None:
    if tokens is None:
        return None
    if chat:
        content = [
            {"token": one.piece, "logprob": one.logprob, "bytes": list(one.piece.encode()),
             "top_logprobs": [], "token_id": one.id}
            for one in tokens
        ]  # fmt: skip
        return {"content": content, "refusal": None}
    return {
        "tokens": [one.piece for one in tokens],
        "token_logprobs": [one.logprob for one in tokens],
        "top_logprobs": None,
        "text_offset": [one.offset for one in tokens],
        "token_ids": [one.id for one in tokens],
    }


def models(name: str, created: int, context: int) -> Body:
    """/v1/models."""
    return {"object": "list", "data": [model(name, created, context)]}


def model(name: str, created: int, context: int) -> Body:
    return {
        "id": name, "object": "model", "created": created, "owned_by": "seirenes_jax",
        "max_model_len": context,
    }  # fmt: skip
