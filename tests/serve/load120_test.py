"""Many clients for a long time: no answer lost, none crossed, and the memory stays as it is."""

import asyncio
import dataclasses
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from seirenes_jax import hf
from seirenes_jax.text import Tokenizer
from tests.laws.small import CONFIG, params
from tests.serve.conftest import VOCAB
from tests.whole.mini import ROOT, environment

openai = pytest.importorskip("openai")
CLIENTS, SECONDS = 64, 120
REQUESTS = 96  # different ones
HANG_UP = 0.05  # share of streams whose client leaves after the first piece
ROOM_MIB = 16  # memory may move by so much between the second and the last minute


@pytest.fixture
def address(tokenizer: Tokenizer, tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A server process on made-up weights: its url and its process id."""
    config = dataclasses.replace(CONFIG, vocab=VOCAB, max_positions=512)
    made = tmp_path / "made"
    hf.export(params(config=config), config, made, tokenizer=tokenizer, dtype="float32")
    process = subprocess.Popen(
        [sys.executable, "launch/serve.py", f"--model={made}", "--port=0",
         "--slots=16", "--max_context=160", f"--cache_dir={tmp_path / 'cache'}"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        found = re.search(r"at (http://\S+)", process.stdout.readline())
        assert found is not None
        yield found[1], process.pid
        assert process.poll() is None
    finally:
        process.terminate()
        assert process.wait(60) == 0
        process.stdout.close()


def request(at: int) -> dict[str, Any]:
    """One of many, all different."""
    draw = random.Random(at)
    words = " ".join(draw.choice(("frogs", "tank", "add", "seven", "then")) for _ in range(at % 30))
    return {
        "model": "made", "messages": [{"role": "user", "content": f"{at}: {words}"}], "seed": at,
        "n": 1 + at % 3, "max_tokens": 1 + draw.randrange(48),
        "temperature": draw.choice((0.0, 0.7, 1.0)), "top_p": draw.choice((1.0, 0.9)),
        "stop": ["ing"] if at % 5 == 0 else None,
    }  # fmt: skip


async def whole(ai: Any, at: int) -> list[str]:
    answer = await ai.chat.completions.create(**request(at))
    return [choice.message.content for choice in answer.choices]


async def streamed(ai: Any, at: int, hangs_up: bool) -> list[str] | None:
    """None where this client left."""
    texts = [""] * request(at)["n"]
    async with await ai.chat.completions.create(**request(at), stream=True) as pieces:
        async for piece in pieces:
            for choice in piece.choices:
                texts[choice.index] += choice.delta.content or ""
            if hangs_up:
                return None
    return texts


def resident_mib(process: int) -> float:
    words = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", words)
    assert found is not None
    return int(found[1]) / 1024


async def under_load(url: str, process: int, seconds: float) -> tuple[int, list[float]]:
    """Answers that came, all of them as they must be; memory a second."""
    ai = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)
    wanted = {at: await whole(ai, at) for at in range(REQUESTS)}
    assert len({str(texts) for texts in wanted.values()}) > REQUESTS * 0.9
    came, memory, end = 0, [], time.monotonic() + seconds

    async def client(number: int) -> None:
        nonlocal came
        draw = random.Random(number)
        while time.monotonic() < end:
            at = draw.randrange(REQUESTS)
            if draw.random() < 0.5:
                found = await streamed(ai, at, draw.random() < HANG_UP)
            else:
                found = await whole(ai, at)
            assert found is None or found == wanted[at], (at, found, wanted[at])
            came += 1

    async def watch() -> None:
        while time.monotonic() < end:
            memory.append(resident_mib(process))
            await asyncio.sleep(1)

    async with ai, asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(client(number))
        group.create_task(watch())
    return came, memory


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_sixty_four_clients_for_five_minutes(address: tuple[str, int]) -> None:
    came, memory = asyncio.run(under_load(*address, SECONDS))
    part = len(memory) // 5
    early, late = (statistics.median(memory[cut]) for cut in (slice(part, 2 * part),
                                                              slice(-part, None)))  # fmt: skip
    print(f"{came} requests answered; {early:.1f} MiB in the second minute, {late:.1f} in the last")
    assert came > CLIENTS and late - early < ROOM_MIB
