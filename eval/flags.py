"""Flags of the evaluation commands: what each may be, its default, read into frozen options."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval import pins
from eval.client import Sampling, base_url
from eval.load import Wanted
from eval.study import ADVERSARY, REASONER
from seirenes_jax.analysis import read_config
from seirenes_jax.errors import ConfigError
from seirenes_jax.hints import FRAMES
from seirenes_jax.knobs import Prompts
from seirenes_jax.types import ADVERSARY as ADVERSARY_ROLE
from seirenes_jax.types import REASONER as REASONER_ROLE

Flags = Mapping[str, str | None]

WHERE: Flags = {
    "endpoint": None, "checkpoint": None, "hf": None, "model": None, "served_as": None,
    "model_date": None, "api_key_env": None, "tokenizer": None,
}  # fmt: skip
WHAT: Flags = {
    "datasets": None, "data": None, "question_column": None, "answer_column": None,
    "id_column": None, "slice": None, "limit": "0", "lock": None,
}  # fmt: skip
HOW: Flags = {
    "n": "1", "per_request": "8", "temperature": "0.6", "top_p": "0.95", "top_k": "0",
    "max_tokens": None, "seed": "0", "api": "chat", "tokens_key": "max_tokens", "extra": "{}",
    "prompt": None, "position": None, "frame": None,
}  # fmt: skip
PACE: Flags = {
    "concurrency": "16", "timeout": "1800", "retries": "6", "backoff": "1", "rpm": "0",
    "max_cost_usd": None, "price_in": "0", "price_out": "0", "expect_tokens": None,
    "workers": None, "deadline": "1",
}  # fmt: skip
RESERVED = ("model", "messages", "prompt", "n", "seed", "stream", "stream_options")
ABSOLUTE_LIMIT = 1e15
USUAL_TOKENS = {REASONER_ROLE: 8192, ADVERSARY_ROLE: 2048}
PROMPT_TOKENS = 2048  # room for a prompt where nothing says how long they are


def number(flags: Flags, name: str, low: float, high: float = ABSOLUTE_LIMIT) -> float:
    """A number between two ends."""
    text = flags[name]
    try:
        value = float(str(text))
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        ends = f"at least {low:g}" if high == ABSOLUTE_LIMIT else f"between {low:g} and {high:g}"
        raise ConfigError(f"--{name}: got {text!r}; wanted a number {ends}")
    return value


def whole(flags: Flags, name: str, low: int, high: float = ABSOLUTE_LIMIT) -> int:
    """A whole number."""
    value = number(flags, name, low, high)
    if value != int(value):
        raise ConfigError(f"--{name}: got {flags[name]!r}; wanted a whole number")
    return int(value)


def maybe(flags: Flags, name: str, low: float) -> float | None:
    return None if flags[name] is None else number(flags, name, low)


def names(flags: Flags, name: str) -> list[str]:
    """A comma list; none where the flag is not given."""
    return [part.strip() for part in (flags[name] or "").split(",") if part.strip()]


def one_of(flags: Flags, name: str, allowed: tuple[str, ...]) -> str:
    value = flags[name]
    if value not in allowed:
        raise ConfigError(f"--{name}: got {value!r}; wanted {' or '.join(allowed)}")
    return str(value)


def max_tokens(flags: Flags, role: str) -> int:
    """As told; else as this role had in training; else the usual."""
    if flags["max_tokens"] is not None:
        return whole(flags, "max_tokens", 1)
    stored = _stored(flags)
    return USUAL_TOKENS[role] if stored is None else int(stored["tokens"][role])


def max_context(flags: Flags, tokens: int) -> int | None:
    """Room our own server needs for prompts and answers; None where it knows best."""
    if flags["hf"] is not None:
        return PROMPT_TOKENS + tokens
    stored = _stored(flags)
    if stored is None or flags["max_tokens"] is None:
        return None
    return int(stored["tokens"]["prompt"]) + tokens


def _stored(flags: Flags) -> Mapping[str, Any] | None:
    """The config of the run that is evaluated."""
    if flags["checkpoint"] is None:
        return None
    config = read_config(Path(flags["checkpoint"]))
    if config is None:
        raise ConfigError(
            f"--checkpoint: got {flags['checkpoint']!r}; wanted a run folder (it has "
            "config.json). A folder of weights goes with --hf"
        )
    return config


def sampling(flags: Flags, role: str) -> Sampling:
    """What every request asks for."""
    text = flags["extra"] or "{}"
    try:
        extra = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra: got {text!r}; wanted a JSON object ({error})") from error
    if not isinstance(extra, dict):
        raise ConfigError(f'--extra: got {text!r}; wanted a JSON object, as {{"min_p": 0.1}}')
    taken = sorted(set(extra) & set(RESERVED))
    if taken:
        raise ConfigError(f"--extra: {taken[0]!r} has a flag of its own or is not free")
    return Sampling(
        temperature=number(flags, "temperature", 0, 10),
        top_p=number(flags, "top_p", 1e-9, 1),
        top_k=whole(flags, "top_k", 0),
        max_tokens=max_tokens(flags, role),
        seed=whole(flags, "seed", 0),
        api=one_of(flags, "api", ("chat", "completions")),
        tokens_key=one_of(flags, "tokens_key", ("max_tokens", "max_completion_tokens")),
        extra=json.dumps(extra, sort_keys=True),
    )


def wanted(flags: Flags) -> Wanted:
    """Which data sets, which part of them."""
    slices: dict[str, str] = {}
    for part in names(flags, "slice"):
        key, given, value = part.partition("=")
        if not given or not value:
            raise ConfigError(f"--slice: got {part!r}; wanted KEY=VALUE, as category=Algebra")
        slices[key] = value
    lock = flags["lock"]
    return Wanted(
        names(flags, "datasets"), names(flags, "data"), flags["question_column"],
        flags["answer_column"], flags["id_column"], slices, whole(flags, "limit", 0),
        pins.cache_folder() / "benchmarks.lock.json" if lock is None else Path(lock),
    )  # fmt: skip


def prompts(flags: Flags) -> Prompts:
    """As told; else as the run was trained; else the usual ones."""
    config = _stored(flags)
    stored: Mapping[str, str] = {} if config is None else config["prompts"]
    usual = {"prompt": REASONER, "position": "append", "frame": "hint"}
    keys = {"prompt": "reasoner", "position": "position", "frame": "frame"}
    chosen = {
        name: stored.get(keys[name], usual[name]) if flags[name] is None else str(flags[name])
        for name in usual
    }
    if chosen["prompt"].startswith("@"):
        file = Path(chosen["prompt"][1:])
        if not file.is_file():
            raise ConfigError(f"--prompt: no such file: {file}")
        chosen["prompt"] = file.read_text(encoding="utf-8")
    found = Prompts(
        reasoner=chosen["prompt"],
        adversary=stored.get("adversary", ADVERSARY),
        position=chosen["position"],
        frame=chosen["frame"],
        enable_thinking=stored.get("enable_thinking", ""),  # the server's matter: see --extra
    )
    if "{question}" not in found.reasoner:
        raise ConfigError(f"--prompt: got {found.reasoner!r}; wanted {{question}} in it")
    if found.position not in ("append", "prepend", "system") or found.frame not in FRAMES:
        raise ConfigError(
            f"--position, --frame: got {found.position!r}, {found.frame!r}; wanted append, prepend "
            f"or system, and one of {', '.join(FRAMES)}"
        )
    return found


@dataclass(frozen=True, slots=True)
class Where:
    """What answers: an endpoint, or a folder that our own server is started on."""

    url: str | None
    folder: str | None
    model: str | None
    key: str | None
    tokenizer: str | None


def where(flags: Flags) -> Where:
    """Exactly one of endpoint, checkpoint and hf; the key comes from the environment only."""
    given = [name for name in ("endpoint", "checkpoint", "hf") if flags[name] is not None]
    if len(given) != 1:
        raise ConfigError(
            f"got {' and '.join('--' + name for name in given) or 'nothing to evaluate'}; wanted "
            "one of --endpoint=URL, --checkpoint=RUN, --hf=DIR"
        )
    folder = flags["checkpoint"] or flags["hf"]
    if folder is not None and not Path(folder).is_dir():
        raise ConfigError(f"--{given[0]}: no such folder: {folder!r}")
    if flags["endpoint"] is not None:
        base_url(flags["endpoint"])  # a mistake is told at once
    return Where(
        flags["endpoint"], folder, flags["model"], api_key(flags["api_key_env"]),
        flags["tokenizer"] or _own_tokenizer(folder),
    )  # fmt: skip


def api_key(name: str | None) -> str | None:
    """The key in an environment variable; it is never a flag, so no shell remembers it."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"--api_key_env={name}: that variable is not set, or empty")
    return key


def _own_tokenizer(folder: str | None) -> str | None:
    """Of the weights themselves: a run keeps it in model/."""
    if folder is None:
        return None
    for place in (Path(folder), Path(folder) / "model", Path(folder) / "hf"):
        if (place / "tokenizer.json").is_file():
            return str(place)
    return None
