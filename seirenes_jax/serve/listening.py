"""From a loaded model to an open port, and back when a signal comes."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from seirenes_jax.console import say
from seirenes_jax.errors import ConfigError
from seirenes_jax.rng import draw_key
from seirenes_jax.sampler import Draw, Sampler, Seat
from seirenes_jax.sampling import GREEDY
from seirenes_jax.serve.app import Service
from seirenes_jax.types import LIVE, REASONER, Ask, Name

GRACE_S = 1.0  # for answers under way, once a signal came
LOOK_S = 0.2  # between two looks at the sampler's thread


def warm_up(sampler: Sampler) -> None:
    """Compile what the first request would wait for: plain draws, and those that filter."""
    for top_k in (0, 1):
        name = Name("warm up", 0, "", top_k, 0, 0)
        draw = Draw(draw_key(0, 0, name), GREEDY, top_k, 1.0)
        ask = Ask(REASONER, (), 1, None, None, 1, LIVE)
        sampler.put([Seat(name, ask, (sampler.tokenizer.stop_ids[0],), draw)])
        while sampler.busy:
            sampler.ask(())


async def listen(service: Service, host: str, port: int, *, open_door: bool) -> None:
    """Serve until SIGTERM or Ctrl-C, or until the sampler has failed."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with opened(service, host, port) as url:
        if open_door and service.front.key is None:
            say("anybody who reaches this host may ask: no --api_key_env", sys.stderr)
        print(f"serving {service.front.model} at {url}", flush=True)
        while not ending.is_set() and not service.engine.down:
            try:
                await asyncio.wait_for(ending.wait(), LOOK_S)
            except TimeoutError:
                pass  # look again


@asynccontextmanager
async def opened(service: Service, host: str, port: int) -> AsyncIterator[str]:
    """The port, open as long as inside; its url."""
    # A client that hangs up ends its handler, which frees its slots.
    runner = web.AppRunner(
        service.app(), handler_cancellation=True, access_log=None, shutdown_timeout=GRACE_S
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"--host={host} --port={port}: cannot listen there ({error.strerror or error}); "
                "choose another port, or 0 for any that is free"
            ) from error
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
        service.pool.shutdown(wait=False, cancel_futures=True)
