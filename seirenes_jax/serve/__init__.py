"""The OpenAI-compatible endpoint over the sampler: `launch/serve.py` calls `main`.

asked: a body -> what is asked, or a refusal. prompts: -> tokens. engine: the thread that owns the
sampler. spoken: tokens -> text. bodies: the shapes of answers. app: HTTP. loading: weights.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seirenes_jax.cli import need, whole_number
from seirenes_jax.errors import DONE, FAILED, ConfigError

if TYPE_CHECKING:
    from seirenes_jax.knobs import Settings

FLAGS: Mapping[str, str | None] = {
    "model": None, "host": "127.0.0.1", "port": "8000", "api_key_env": None, "name": None,
    "slots": None, "max_queue": "1024", "max_context": None, "cache_dir": "",
}  # fmt: skip
LOCAL = ("127.0.0.1", "localhost", "::1")
MOST_CHOICES = 128  # of one request
LEAST_BYTES, BYTES_A_TOKEN = 65_536, 32  # a body may have so many, and more with the context


@dataclass(frozen=True, slots=True)
class Options:
    """The flags, read and checked before anything is loaded."""

    model: str
    host: str
    port: int
    key: str | None
    name: str | None
    slots: int | None
    max_queue: int
    max_context: int | None
    cache_dir: str


def options(flags: Mapping[str, str | None]) -> Options:
    port, slots, queue, context = (
        whole_number(flags, name) for name in ("port", "slots", "max_queue", "max_context")
    )
    assert port is not None and queue is not None
    if port > 65_535:
        raise ConfigError(f"--port: got {port}; wanted 0 (any that is free) to 65535")
    if slots == 0:
        raise ConfigError("--slots: got 0; wanted at least 1")
    return Options(
        need(flags, "model"), need(flags, "host"), port, _key(flags["api_key_env"]),
        flags["name"], slots, queue, context, flags["cache_dir"] or "",
    )  # fmt: skip


def _key(variable: str | None) -> str | None:
    """The key is never a flag: every user of a machine can read those."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"--api_key_env={variable}: that variable is not set, or empty")
    return key


def main(chosen: Options, usual: "Settings") -> int:
    """Serve until a signal; 1 where the sampler failed."""
    # Imported here: a mistake in the flags is told before jax is loaded.
    import asyncio

    from seirenes_jax import folder, machine
    from seirenes_jax.serve.app import Front, Service
    from seirenes_jax.serve.engine import Engine
    from seirenes_jax.serve.listening import listen, warm_up
    from seirenes_jax.serve.loading import Wanted, load
    from seirenes_jax.serve.prompts import Prompts

    machine.set_up_compile_cache(folder.cache_dir(chosen.cache_dir))
    loaded = load(Wanted(chosen.model, chosen.slots, chosen.max_context), usual)
    sampler, context = loaded.sampler, loaded.context
    warm_up(sampler)
    engine = Engine(sampler, chosen.max_queue)
    front = Front(
        model=loaded.name if chosen.name is None else chosen.name, fingerprint=loaded.version,
        context=context, most_choices=min(MOST_CHOICES, engine.most_choices),
        most_bytes=max(LEAST_BYTES, BYTES_A_TOKEN * context), key=chosen.key,
    )  # fmt: skip
    service = Service(front, engine, Prompts(sampler.tokenizer, sampler.config.vocab))
    asyncio.run(listen(service, chosen.host, chosen.port, open_door=chosen.host not in LOCAL))
    failed = engine.down
    engine.close()
    return FAILED if failed else DONE
