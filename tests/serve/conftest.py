"""A server in this process, on a small model made up at random, with a real tokenizer."""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from seirenes_jax import knobs
from seirenes_jax.sampler import Sampler
from seirenes_jax.serve.app import Front, Service
from seirenes_jax.serve.engine import Engine
from seirenes_jax.serve.listening import opened, warm_up
from seirenes_jax.serve.prompts import Prompts
from seirenes_jax.tasks import texts
from seirenes_jax.tasks.tokenizer import train_tokenizer
from seirenes_jax.text import Tokenizer, load_tokenizer
from seirenes_jax.types import LIVE
from tests.laws.small import CONFIG, params

MODEL, CONTEXT, SLOTS, CHUNK = "small", 96, 4, 4
VOCAB = 512


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One token in 32 ends an answer, so that answers at random have ends."""
    from configs.base import get_config
    from seirenes_jax.settings import build

    folder = tmp_path_factory.mktemp("tokenizer")
    prompts = build(get_config()).prompts
    train_tokenizer(texts.corpus(300, 0, prompts), VOCAB, folder)
    found = load_tokenizer(folder)
    ends = (*found.stop_ids, *range(300, VOCAB, 32))
    return dataclasses.replace(found, stop_ids=ends)


def make_sampler(
    tokenizer: Tokenizer, *, slots: int = SLOTS, chunk: int = CHUNK, seed: int = 0,
    temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0,
    prompt_tokens: int = CONTEXT - 1, answer_tokens: int = 1,
) -> Sampler:  # fmt: skip
    """Of the weights the server has; slots, chunks and settings as a test wants them."""
    config = dataclasses.replace(CONFIG, vocab=VOCAB, max_positions=512)
    made = Sampler(
        config, tokenizer,
        knobs.Sampler(slots=slots, chunk=chunk, temperature=temperature, top_k=top_k, top_p=top_p),
        seed=seed, prompt_tokens=prompt_tokens, answer_tokens=answer_tokens, prefill_rows=2,
        prefill_tokens=(32,),
    )  # fmt: skip
    made.load(LIVE, params(config=config), 0)
    made.begin(0, temperature)
    return made


@dataclasses.dataclass
class Running:
    """A server for a test: where it is, and its engine to look at."""

    url: str
    engine: Engine
    sampler: Sampler


Start = Callable[..., Any]


@contextmanager
def running(
    sampler: Sampler, *, max_queue: int = 64, key: str | None = None
) -> Iterator[Running]:
    warm_up(sampler)
    engine = Engine(sampler, max_queue)
    front = Front(MODEL, "weights", CONTEXT, 16, 65_536, key)
    service = Service(front, engine, Prompts(sampler.tokenizer, VOCAB))
    ready: list[str] = []
    up, ending = threading.Event(), threading.Event()

    async def serve() -> None:
        async with opened(service, "127.0.0.1", 0) as url:
            ready.append(url)
            up.set()
            while not ending.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert up.wait(300)
        yield Running(ready[0], engine, sampler)
    finally:
        ending.set()
        thread.join(30)
        engine.close()


@pytest.fixture(scope="session")
def server(tokenizer: Tokenizer) -> Iterator[Running]:
    with running(make_sampler(tokenizer)) as found:
        yield found
