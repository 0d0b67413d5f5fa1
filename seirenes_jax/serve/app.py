"""The HTTP side: routes, the key, bounds on bodies, whole answers and event streams.

Nothing of a failure but its kind goes to a client; the traceback goes to stderr.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from seirenes_jax.serve import asked as reading
from seirenes_jax.serve import bodies
from seirenes_jax.serve.asked import Asked, Refusal
from seirenes_jax.serve.engine import Down, Engine, Failed, Full, Job, News, Said
from seirenes_jax.serve.prompts import Prompts

BODY_S = 60.0  # a body must be here by then
RETRY_S = 1
OPEN_ROUTES = ("/health",)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Front:
    """What is served, and to whom."""

    model: str
    fingerprint: str
    context: int
    most_choices: int  # of one request
    most_bytes: int  # of one body
    key: str | None


class Service:
    """The handlers. `prompts` runs in a thread of its own: long texts take long to be read."""

    def __init__(self, front: Front, engine: Engine, prompts: Prompts) -> None:
        self.front, self.engine, self.prompts = front, engine, prompts
        self.started = int(time.time())
        self._reading = 0  # requests whose bodies are on their way
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="prompts")

    def app(self) -> web.Application:
        app = web.Application(
            middlewares=[self._errors, self._keyed], client_max_size=self.front.most_bytes
        )
        app.router.add_get("/health", self.health)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/v1/models/{name}", self.model)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_post("/v1/completions", self.completions)
        return app

    @web.middleware
    async def _errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            return refused(refusal)
        except web.HTTPException as error:  # of the library: no such route, body too large, ...
            large = f"; at most {self.front.most_bytes} bytes" if error.status == 413 else ""
            return refused(Refusal(error.status, f"{error.reason}{large}"))
        except ConnectionResetError:
            raise  # nobody is there to be told
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return refused(Refusal(500, "the server failed on this request"))

    @web.middleware
    async def _keyed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.front.key is not None and request.path not in OPEN_ROUTES:
            given = request.headers.get("authorization", "")
            if not same(given, f"Bearer {self.front.key}"):
                raise Refusal(401, "the API key is missing or wrong", code="invalid_api_key")
        return await handler(request)

    async def health(self, request: web.Request) -> web.Response:
        seated, waiting = self.engine.load()
        body = {"status": "down" if self.engine.down else "ok", "seated": seated,
                "waiting": waiting}  # fmt: skip
        return web.json_response(body, status=503 if self.engine.down else 200)

    async def models(self, request: web.Request) -> web.Response:
        front = self.front
        return web.json_response(bodies.models(front.model, self.started, front.context))

    async def model(self, request: web.Request) -> web.Response:
        front = self.front
        if request.match_info["name"] != front.model:
            raise Refusal(404, f"this server has {front.model!r}", code="model_not_found")
        return web.json_response(bodies.model(front.model, self.started, front.context))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        # The engine would take no more than these: their bodies need not be read.
        if self._reading >= self.engine.most_choices:
            raise full()
        self._reading += 1
        try:
            asked, job, news = await self._job(request, chat=chat)
        finally:
            self._reading -= 1
        head = bodies.Head(
            f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}", int(time.time()),
            self.front.model, chat, self.front.fingerprint,
        )  # fmt: skip
        self._submit(job)
        try:
            if asked.stream:
                return await self._stream(request, job, head, news)
            return await self._whole(job, head, news)
        finally:  # the client may be gone: its slots are for others
            self.engine.cancel(job)

    async def _job(
        self, request: web.Request, *, chat: bool
    ) -> tuple[Asked, Job, "asyncio.Queue[News]"]:
        """A request read, checked and turned into tokens."""
        asked = reading.read(
            await self._body(request), chat=chat, model=self.front.model,
            most_choices=self.front.most_choices,
        )  # fmt: skip
        loop = asyncio.get_running_loop()
        prompts = await loop.run_in_executor(self.pool, self.prompts.of, asked)
        limits = [
            reading.room(len(one), asked.max_tokens, self.front.context) for one in prompts
        ]
        news: asyncio.Queue[News] = asyncio.Queue()

        def deliver(said: News) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(news.put_nowait, said)

        return asked, Job(asked, prompts, limits, deliver), news

    async def _body(self, request: web.Request) -> bytes:
        if request.content_type != "application/json":
            # Also keeps pages of other origins out: a browser asks before it sends this type.
            raise Refusal(415, "content-type: wanted application/json")
        try:
            async with asyncio.timeout(BODY_S):
                return await request.read()
        except TimeoutError:
            raise Refusal(408, f"the body was not here within {BODY_S:g} s") from None

    def _submit(self, job: Job) -> None:
        try:
            self.engine.submit(job)
        except Full:
            raise full() from None
        except Down:
            raise Refusal(503, "the server is going down") from None

    async def _whole(
        self, job: Job, head: bodies.Head, news: "asyncio.Queue[News]"
    ) -> web.Response:
        """Wait for all choices, then answer at once."""
        ended: dict[int, Said] = {}
        while len(ended) < job.asked.choices:
            for said in _heard(await news.get()):
                if said.finish is not None:
                    ended[said.index] = said
        choices = [
            bodies.whole(
                index, said.text, str(said.finish), _shown(job.asked, said.tokens), chat=head.chat
            )
            for index, said in sorted(ended.items())
        ]
        count = sum(said.count for said in ended.values())
        used = bodies.usage(sum(map(len, job.prompts)), count)
        return web.json_response(head.body(choices, used))

    async def _stream(
        self, request: web.Request, job: Job, head: bodies.Head, news: "asyncio.Queue[News]"
    ) -> web.StreamResponse:
        """Pieces as they come."""
        headers = {"content-type": "text/event-stream", "cache-control": "no-cache"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)

        async def send(choices: list[bodies.Body], used: bodies.Body | None = None) -> None:
            body = head.body(choices, used, piece=True)
            await response.write(b"data: " + json.dumps(body).encode() + b"\n\n")

        asked, open_choices, count = job.asked, job.asked.choices, 0
        if head.chat:
            await send([bodies.first(index) for index in range(asked.choices)])
        try:
            while open_choices:
                for said in _heard(await news.get()):
                    tokens = _shown(asked, said.tokens)
                    await send([
                        bodies.piece(said.index, said.text, said.finish, tokens, chat=head.chat)
                    ])  # fmt: skip
                    open_choices -= said.finish is not None
                    count += said.count
        except Refusal as refusal:  # too late for a status
            await response.write(b"data: " + json.dumps(refusal.body()).encode() + b"\n\n")
            return response
        if asked.usage_at_end:
            await send([], bodies.usage(sum(map(len, job.prompts)), count))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _heard(news: News) -> Sequence[Said]:
    if isinstance(news, Failed):
        raise Refusal(500, "the server failed on this request")
    return news


def _shown(asked: Asked, tokens: Sequence[bodies.Token]) -> Sequence[bodies.Token] | None:
    return tokens if asked.logprobs else None


def full() -> Refusal:
    """Come again."""
    words = "too many requests wait already; try again"
    return Refusal(429, words, code="queue_full", wait_s=RETRY_S)


def refused(refusal: Refusal) -> web.Response:
    """An error in the standard shape."""
    headers = {} if refusal.wait_s is None else {"retry-after": str(refusal.wait_s)}
    if refusal.status == 401:
        headers["www-authenticate"] = "Bearer"
    return web.json_response(refusal.body(), status=refusal.status, headers=headers)


def same(given: str, wanted: str) -> bool:
    """Compared in a time that says nothing of where they differ, nor of their lengths."""
    digests: list[Any] = [
        hashlib.sha256(one.encode("utf-8", "surrogateescape")).digest() for one in (given, wanted)
    ]
    return hmac.compare_digest(*digests)
