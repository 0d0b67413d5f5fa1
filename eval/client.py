"""One OpenAI-compatible endpoint: a request out, a Reply in, with retries, back-off and pacing.

Owns the wire. 429 and 5xx wait (as long as Retry-After says) and try again, all workers together;
another 4xx ends the run at once; a prompt that does not fit is an Overflow. The key of a paid
endpoint is known only here, and cut out of every text that leaves.
"""

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx2

from eval.replies import Choice, Reply, Stream, Torn, error_words, from_body, is_overflow
from seirenes_jax.errors import MISTAKE, ConfigError, SeirenesError
from seirenes_jax.types import Messages

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)
LONGEST_WAIT_S = 120.0
LARGEST = 1 << 26  # bytes of one answer: a server that does not stop is torn off
HIDDEN = "[key]"


class Overflow(Exception):
    """The prompt does not fit the model's context; asking again would not help."""


class GaveUp(Exception):
    """No answer after all tries."""


class Refused(SeirenesError):
    """The endpoint says no, and would say it again."""

    exit_code = MISTAKE


@dataclass(frozen=True, slots=True)
class Sampling:
    """What every request asks for. All of it is part of a response's key."""

    temperature: float
    top_p: float
    top_k: int  # 0 = not sent
    max_tokens: int
    seed: int
    api: str  # chat | completions
    tokens_key: str  # max_tokens | max_completion_tokens
    extra: str  # a JSON object, merged into every request


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to ask and how patiently. No part of a response's key."""

    url: str
    model: str
    key: str | None
    timeout_s: float
    retries: int
    backoff_s: float
    rpm: float  # requests a minute; 0 = as fast as they come
    stream: bool
    concurrency: int


def base_url(url: str) -> str:
    """http://host:8000 -> http://host:8000/v1; a path that is given is kept."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError(f"--endpoint: got {url!r}; wanted http://HOST:PORT or https://HOST/v1")
    path = parts.path.rstrip("/")
    for tail in ("/chat/completions", "/completions"):
        path = path.removesuffix(tail)
    return urlunsplit((parts.scheme, parts.netloc, path or "/v1", parts.query, ""))


def public_url(url: str) -> str:
    """Without user, password and query: what may be written down."""
    parts = urlsplit(base_url(url))
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def _is_local(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


class Client:
    """Use as an async context manager; `ask` may run many times at once."""

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        self.endpoint, self.sampling = endpoint, sampling
        self.tries = 0  # requests sent, for the record
        base, _, query = base_url(endpoint.url).partition("?")
        self._base, self._query = base, f"?{query}" if query else ""
        headers = {"authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(endpoint.timeout_s, connect=min(30.0, endpoint.timeout_s)),
            limits=httpx2.Limits(max_connections=endpoint.concurrency + 2),
            trust_env=not _is_local(endpoint.url),  # no proxy stands before this machine
        )
        self._not_before = 0.0  # nobody sends before this moment
        self._next_slot = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    def body(
        self, messages: Messages, n: int, seed: int, *, limit: int, logprobs: bool = False
    ) -> dict[str, Any]:
        """The JSON of one request; what has its usual value is not sent."""
        sampling = self.sampling
        body: dict[str, Any] = {
            "model": self.endpoint.model, "temperature": sampling.temperature,
            "top_p": sampling.top_p, sampling.tokens_key: limit, "seed": seed,
        }  # fmt: skip
        if sampling.api == "completions":
            body["prompt"] = "\n\n".join(words for _, words in messages)
        else:
            body["messages"] = [{"role": role, "content": words} for role, words in messages]
        if n > 1:
            body["n"] = n
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if logprobs:
            body["logprobs"] = 1 if sampling.api == "completions" else True
        if self.endpoint.stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        extra: dict[str, Any] = json.loads(sampling.extra)
        return body | extra

    async def ask(self, body: Mapping[str, Any]) -> Reply:
        """Send until it is answered, refused, or tried too often."""
        path = "/completions" if self.sampling.api == "completions" else "/chat/completions"
        url = self._base + path + self._query
        said = ""
        for attempt in range(1 + self.endpoint.retries):
            await self._turn(attempt)
            self.tries += 1
            try:
                async with asyncio.timeout(self.endpoint.timeout_s):
                    return await self._send(url, body)
            except _Again as again:
                said = str(again)
                self._not_before = max(self._not_before, time.monotonic() + again.wait_s)
            except TimeoutError:
                said = f"no answer within {self.endpoint.timeout_s:g} s"
            except (Torn, httpx2.RequestError) as error:
                said = f"{type(error).__name__}: {error}"
        raise GaveUp(self.scrub(f"{said} ({1 + self.endpoint.retries} tries)"))

    async def models(self) -> list[str] | None:
        """Names that /v1/models gives; None where it gives none."""
        try:
            answer = await self._http.get(self._base + "/models" + self._query, timeout=10.0)
            data = answer.raise_for_status().json()
            return [str(one["id"]) for one in data["data"]]
        except (httpx2.HTTPError, ValueError, KeyError, TypeError):
            return None  # some servers have no such page; nothing is lost by it

    def scrub(self, text: str) -> str:
        """The text without the key: servers like to repeat it in their complaints."""
        return text.replace(self.endpoint.key, HIDDEN) if self.endpoint.key else text

    async def _turn(self, attempt: int) -> None:
        """Wait for this try's turn: its own back-off, everyone's Retry-After, the pace."""
        if attempt:
            longest = min(LONGEST_WAIT_S, self.endpoint.backoff_s * 2 ** (attempt - 1))
            await asyncio.sleep(longest * random.uniform(0.5, 1.0))
        while (wait := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self.endpoint.rpm:
            now = time.monotonic()
            slot = max(now, self._next_slot)
            self._next_slot = slot + 60.0 / self.endpoint.rpm
            await asyncio.sleep(slot - now)

    async def _send(self, url: str, body: Mapping[str, Any]) -> Reply:
        async with self._http.stream("POST", url, json=body) as answer:
            if answer.status_code != 200:
                self._refuse(answer.status_code, answer.headers, await _all(answer))
            kind = answer.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                return self._scrubbed(from_body(await _all(answer), self.sampling.api))
            stream = Stream(self.sampling.api)
            size = 0
            async for line in answer.aiter_lines():
                size += len(line)
                if size > LARGEST:
                    raise Torn(f"more than {LARGEST} bytes in one answer")
                stream.feed(line)
            return self._scrubbed(stream.finish())

    def _scrubbed(self, reply: Reply) -> Reply:
        """No answer carries the key, even where the server repeats it."""
        if not self.endpoint.key:
            return reply

        def cut(words: str | None) -> str | None:
            return None if words is None else self.scrub(words)

        choices = tuple(
            Choice(self.scrub(one.text), cut(one.reasoning), cut(one.finish))
            for one in reply.choices
        )
        return replace(reply, choices=choices, model=cut(reply.model))

    def _refuse(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if status in AGAIN:
            raise _Again(f"HTTP {status}: {error_words(body)}", retry_after(headers))
        if is_overflow(status, body):
            raise Overflow(self.scrub(error_words(body)))
        words = self.scrub(error_words(body))
        raise Refused(
            f"{public_url(self.endpoint.url)} refuses: HTTP {status}: {words}. Correct the request "
            "(model name, key, flags); what was answered before is kept"
        )


class _Again(Exception):
    """A status that passes; how long the server wants everyone to wait."""

    def __init__(self, said: str, wait_s: float) -> None:
        super().__init__(said)
        self.wait_s = wait_s


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds from Retry-After (a number or a date); 0 where it says nothing usable."""
    words = headers.get("retry-after", "").strip()
    try:
        wait = float(words)
    except ValueError:
        try:
            wait = parsedate_to_datetime(words).timestamp() - time.time()
        except (ValueError, TypeError):
            return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT_S)


async def _all(answer: httpx2.Response) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > LARGEST:
            raise Torn(f"more than {LARGEST} bytes in one answer")
    return b"".join(parts)
