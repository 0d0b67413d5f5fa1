"""Words to token ids and back: a thin wrapper over a Hugging Face tokenizer.

Owns the chat template, the stop set, and the rule that only the template writes control tokens:
what a speaker says (a hint may say anything) can never open or close a turn.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from seirenes_jax.errors import ConfigError
from seirenes_jax.types import Messages

Ids = Sequence[int] | np.ndarray

_PROMPTS_KEPT = 4096  # rendered prompts remembered: a step asks each of its prompts many times


@dataclass(frozen=True, slots=True, eq=False)
class Tokenizer:
    """A vocabulary, its chat template and its stop set. Made by `load_tokenizer`."""

    vocab_size: int  # highest id + 1; a model's embedding may have more rows
    stop_ids: tuple[int, ...]  # an answer ends with any of these
    pad_id: int  # fills arrays only; lengths are explicit everywhere
    render: Callable[[Messages], tuple[int, ...]]
    """Prompt ids of a conversation, up to where the answer begins. Remembered by messages."""
    _fast: Any  # tokenizers.Tokenizer: decoding through it alone is some 20 times faster
    _hf: Any  # transformers' tokenizer: knows the template and how to save itself
    _generation: Mapping[str, Any]  # generation_config.json as it was found

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; nothing is put before or after it."""
        ids: list[int] = self._fast.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Ids) -> str:
        """The text of an answer, without its stop token and other control tokens."""
        return self.decode_many([ids])[0]

    def decode_many(self, answers: Sequence[Ids]) -> list[str]:
        """`decode` of each, in one call."""
        plain = [ids.tolist() if isinstance(ids, np.ndarray) else list(ids) for ids in answers]
        kept = [ids[:-1] if ids and ids[-1] in self.stop_ids else ids for ids in plain]
        texts: list[str] = self._fast.decode_batch(kept, skip_special_tokens=True)
        return texts

    def count(self, text: str) -> int:
        """How many tokens a text is."""
        return len(self.encode(text))

    def save(self, folder: str | Path) -> None:
        """Tokenizer files, chat template and generation_config.json, for AutoTokenizer."""
        self._hf.save_pretrained(str(folder))
        stop: int | list[int] = self.stop_ids[0] if len(self.stop_ids) == 1 else list(self.stop_ids)
        generation = {**self._generation, "eos_token_id": stop, "pad_token_id": self.pad_id}
        text = json.dumps(generation, indent=2, sort_keys=True) + "\n"
        (Path(folder) / "generation_config.json").write_text(text)


def load_tokenizer(path: str | Path, enable_thinking: str = "") -> Tokenizer:
    """The tokenizer of a Hugging Face folder (or hub id, where there is network).

    `enable_thinking` as prompts.enable_thinking: "true", "false", or "" = as the template has it.
    """
    # Imported here: it takes seconds, and games and graders read this file without a tokenizer.
    from transformers import AutoTokenizer

    try:
        hf = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no tokenizer could be read: got {str(path)!r}; wanted a folder with tokenizer.json "
            f"and tokenizer_config.json, or a hub id where there is network.\n{error}"
        ) from error
    fast = getattr(hf, "backend_tokenizer", None)
    if fast is None:
        raise ConfigError(
            f"{path}: the tokenizer has no fast form (tokenizer.json); got {type(hf).__name__}. "
            "Convert it with transformers' save_pretrained first."
        )
    if not hf.chat_template:
        raise ConfigError(
            f"{path}: the tokenizer has no chat template; wanted chat_template.jinja or the key "
            "chat_template in tokenizer_config.json. Use the instruction-tuned variant or add one."
        )
    thinking = _thinking(hf, enable_thinking, path)
    generation = _read_generation(Path(path))
    stop_ids = _stop_ids(generation, hf.eos_token_id, path)
    pad_id = hf.pad_token_id
    return Tokenizer(
        vocab_size=1 + max(fast.get_vocab(with_added_tokens=True).values()),
        stop_ids=stop_ids,
        pad_id=stop_ids[0] if pad_id is None else pad_id,
        render=lru_cache(maxsize=_PROMPTS_KEPT)(_renderer(hf, fast, thinking)),
        _fast=fast,
        _hf=hf,
        _generation=generation,
    )


def _thinking(hf: Any, wanted: str, path: str | Path) -> dict[str, bool]:
    """What the chat template is told of thinking; refused where it makes no difference to it."""
    if wanted == "":
        return {}
    said = [
        hf.apply_chat_template(
            [{"role": "user", "content": "1 + 1?"}], tokenize=False, add_generation_prompt=True,
            enable_thinking=thinks,
        )
        for thinks in (True, False)
    ]  # fmt: skip
    if said[0] == said[1]:
        raise ConfigError(
            f"prompts.enable_thinking: got {wanted!r}; the chat template of {path} says the same "
            'with and without: leave the knob empty (""), or use a model that thinks on demand'
        )
    return {"enable_thinking": wanted == "true"}


def _renderer(
    hf: Any, fast: Any, thinking: Mapping[str, bool]
) -> Callable[[Messages], tuple[int, ...]]:
    controls = [t.content for t in fast.get_added_tokens_decoder().values() if t.special]
    longest_first = sorted(controls, key=len, reverse=True)
    control = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def said(words: str) -> str:
        # Again until none is left: taking one out may join the halves of another.
        while control.search(words):
            words = control.sub("", words)
        return words

    def render(messages: Messages) -> tuple[int, ...]:
        turns = [{"role": speaker, "content": said(words)} for speaker, words in messages]
        text = hf.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=True, **thinking
        )
        return tuple(fast.encode(text, add_special_tokens=False).ids)

    return render


def _read_generation(folder: Path) -> dict[str, Any]:
    file = folder / "generation_config.json"
    if not file.is_file():
        return {}
    try:
        generation = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"{file}: wanted a JSON object; {error}") from error
    if not isinstance(generation, dict):
        raise ConfigError(f"{file}: got {type(generation).__name__}; wanted a JSON object")
    return generation


def _stop_ids(
    generation: Mapping[str, Any], own: int | None, path: str | Path
) -> tuple[int, ...]:
    """Those of generation_config.json, else the tokenizer's own end-of-sequence."""
    stored = generation.get("eos_token_id")
    eos = own if stored is None else stored
    if isinstance(eos, int):
        return (eos,)
    if isinstance(eos, list) and eos and all(isinstance(one, int) for one in eos):
        return tuple(eos)
    raise ConfigError(
        f"{path}: nothing says where an answer ends: got {eos!r}; wanted eos_token_id in "
        "generation_config.json or an eos_token in tokenizer_config.json"
    )
