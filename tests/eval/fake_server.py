"""An OpenAI-compatible server made up for tests: it adds two numbers, mostly, and misbehaves on
demand.

What it says depends on prompt, seed and choice alone. A behaviour is a function that may answer a
request in its own way; `None` from it means: answer well.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "adder"
Body = dict[str, Any]


def draw(*parts: object) -> float:
    """A number in [0, 1) that hangs on names."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def said(prompt: str, seed: int, at: int) -> str:
    """Right in 6 of 10; under a hint that offers an answer it often takes that one."""
    numbers = re.search(r"What is (-?\d+) \+ (-?\d+)\?", prompt)
    if numbers is None:
        return f"one two three four five {seed} {at} " * 2
    right = int(numbers[1]) + int(numbers[2])
    offered = re.search(r"answer is (-?\d+)", prompt)
    chance = draw(prompt, seed, at)
    if offered and chance < 0.5:
        answer = int(offered[1])
    else:
        answer = right if chance < 0.6 else right + 1 + int(chance * 10)
    return f"I add {numbers[1]} and {numbers[2]}, try {seed}/{at}: \\boxed{{{answer}}}"


def reply(body: Body) -> Body:
    """A good answer."""
    chat = "messages" in body
    prompt = body["messages"][-1]["content"] if chat else body["prompt"]
    choices = []
    for at in range(body.get("n", 1)):
        seed = body.get("seed", 0) if body.get("temperature", 1) else 0
        words = said(prompt, seed, at if body.get("temperature", 1) else 0).split(" ")
        limit = body.get("max_tokens", body.get("max_completion_tokens"))
        text = " ".join(words[:limit])
        one: Body = {"index": at, "finish_reason": "length" if len(words) > limit else "stop"}
        one |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        if body.get("logprobs"):
            one["logprobs"] = {"content": [{"token": "x", "logprob": -1.0}]}
        choices.append(one)
    texts = [c["message"]["content"] if chat else c["text"] for c in choices]
    used = sum(len(text.split(" ")) for text in texts)
    asked = len(prompt.split(" "))
    usage = {"prompt_tokens": asked, "completion_tokens": used, "total_tokens": asked + used}
    return {"id": "x", "model": body["model"], "choices": choices, "usage": usage}


@dataclass
class Answer:
    """What goes over the wire: a status with a body; `cut` bytes of it, then the line drops."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    wait: float = 0.0


Behaviour = Callable[[Body, int], Answer | None]


class Fake(ThreadingHTTPServer):
    """`behave` sees every request with its number; `seen` keeps the bodies."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, behave: Behaviour | None = None, models: list[str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.models = behave, [MODEL] if models is None else models
        self.seen: list[Body] = []
        self.keys: list[str | None] = []
        self.lock = threading.Lock()
        self.busy = self.most_busy = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is nothing to print."""


class Handler(BaseHTTPRequestHandler):
    server: Fake
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models") and self.server.models:
            self._send(Answer(body={"data": [{"id": name} for name in self.server.models]}))
        else:
            self._send(Answer(200 if self.path == "/health" else 500, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append(body)
            self.server.keys.append(self.headers.get("authorization"))
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        try:
            answer = self.server.behave(body, number) if self.server.behave else None
            if answer is None and body.get("stream"):
                self._stream(reply(body))
            else:
                self._send(answer or Answer(body=reply(body)))
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def _send(self, answer: Answer) -> None:
        if answer.wait:
            self.server_wait(answer.wait)
        raw = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        if "content-type" not in answer.headers:
            self.send_header("content-type", "application/json")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw if answer.cut is None else raw[: answer.cut])
        if answer.cut is not None:
            self.close_connection = True

    def server_wait(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def _stream(self, whole: Body) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for event in events(whole):
            self.wfile.write(f"data: {event}\n\n".encode())


def events(whole: Body) -> Iterator[str]:
    """A reply as a stream of pieces."""
    for one in whole["choices"]:
        text = one["message"]["content"]
        for piece in re.findall(r"\S+\s*", text):
            delta = {"index": one["index"], "delta": {"content": piece}, "finish_reason": None}
            yield json.dumps({"model": whole["model"], "choices": [delta]})
        last = {"index": one["index"], "delta": {}, "finish_reason": one["finish_reason"]}
        yield json.dumps({"model": whole["model"], "choices": [last]})
    yield json.dumps({"model": whole["model"], "choices": [], "usage": whole["usage"]})
    yield "[DONE]"


@contextmanager
def fake(behave: Behaviour | None = None, models: list[str] | None = None) -> Iterator[Fake]:
    """A server for as long as it is needed."""
    server = Fake(behave, models)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def sums(count: int) -> list[Body]:
    """Problems it can solve."""
    return [
        {"id": f"sum-{i:03d}", "question": f"What is {i} + {7 * i + 1}?", "answer": 8 * i + 1,
         "kind": "even" if i % 2 else "odd"}
        for i in range(count)
    ]  # fmt: skip
