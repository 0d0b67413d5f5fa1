"""What is asked -> token ids, by the model's own tokenizer and chat template."""

import inspect
from dataclasses import dataclass

from jinja2 import TemplateError

from seirenes_jax.serve.asked import Asked, Refusal
from seirenes_jax.text import Tokenizer


@dataclass(frozen=True, slots=True)
class Prompts:
    """Of one model."""

    tokenizer: Tokenizer
    vocab: int  # rows of the model's embedding

    def of(self, asked: Asked) -> list[tuple[int, ...]]:
        """One prompt of a chat, one or more of a text completion."""
        if not asked.chat:
            return [self._plain(one) for one in asked.prompts]
        # Not its remembering form: prompts of strangers seldom come again, and would fill memory.
        render = inspect.unwrap(self.tokenizer.render)
        try:
            found: tuple[int, ...] = render(asked.messages)
        except TemplateError as error:
            raise Refusal(
                400, f"the model's chat template refuses these messages: {str(error)[:200]}",
                param="messages",
            ) from None  # fmt: skip
        return [_filled(found, "messages")]

    def _plain(self, prompt: str | tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return _filled(tuple(self.tokenizer.encode(prompt)), "prompt")
        strange = [token for token in prompt if token >= self.vocab]
        if strange:
            raise Refusal(
                400, f"prompt: token {strange[0]}; the model has {self.vocab}", param="prompt"
            )
        return prompt


def _filled(ids: tuple[int, ...], name: str) -> tuple[int, ...]:
    if not ids:
        raise Refusal(400, f"{name}: no token is left of it; wanted some text", param=name)
    return ids
