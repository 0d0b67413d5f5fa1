"""Asks for every missing sample: so many requests at once, each reply on disk before the next.

Stops early, saying why, when the endpoint refuses, is gone, or the purse is empty; what is missing
then is told by the caller, and the same command asks for it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from eval.client import Client, GaveUp, Overflow
from eval.cost import Count, Purse, worst
from eval.replies import Reply
from eval.responses import CONTEXT, FAILED, Responses, Row
from eval.study import Job
from eval.witness import Witness, empty_rows

DEAD = 3  # requests in a row, with nothing answered between, after which the endpoint is gone

Heard = Callable[[list[Row], Job], None]


@dataclass(slots=True)
class Collector:
    """One run over one endpoint."""

    client: Client
    files: Mapping[str, Responses]
    witness: Witness
    purse: Purse
    count: Count
    heard: Heard  # told of every reply's rows: progress
    stopped: str = ""  # why it ended before its end
    _queue: deque[Job] = field(default_factory=deque)
    _lost: int = 0  # requests in a row without an answer
    _settled: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, jobs: Iterable[Job]) -> None:
        """Ask for all of it; raises what the endpoint refused with."""
        self._queue.extend(jobs)
        workers = min(self.client.endpoint.concurrency, max(1, len(self._queue)))
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        except BaseExceptionGroup as several:  # the first ended it; the others were only told to
            raise several.exceptions[0] from several

    async def _work(self) -> None:
        while self._queue and not self.stopped:
            job = self._queue.popleft()
            reserved = worst(job, self.purse, self.count, self.client.sampling.max_tokens)
            while not self.purse.reserve(reserved):
                if not self.purse.busy:
                    self.stopped = f"--max_cost_usd: ${self.purse.spent:,.4f} is spent"
                    return
                self._settled.clear()  # another request may cost less than was set aside for it
                await self._settled.wait()
            paid = 0.0
            try:
                paid = await self._one(job, reserved)
            finally:
                self.purse.settle(reserved, paid)
                self._settled.set()

    async def _one(self, job: Job, reserved: float) -> float:
        """One request, its rows written down; what it has cost."""
        sampling = self.client.sampling
        seed = job.seed(sampling.seed)
        body = self.client.body(job.question.messages, job.count, seed, limit=sampling.max_tokens)
        began, wall = time.monotonic(), time.time()
        paid = 0.0
        try:
            reply = await self.client.ask(body)
        except Overflow as error:
            rows = empty_rows(job, CONTEXT, str(error), seed)
        except GaveUp as error:
            rows = empty_rows(job, FAILED, str(error), seed)
            self._lost += 1
            if self._lost >= DEAD and not self.stopped:
                self.stopped = f"{DEAD} requests in a row were not answered, the last: {error}"
        else:
            self._lost = 0
            rows = self.witness.rows(job, reply, max_tokens=sampling.max_tokens, seed=seed)
            paid = self._price(reply, reserved)
            for at in range(len(rows), job.count):  # a server that ignores n: one by one
                self._queue.appendleft(Job(job.question, job.first + at, 1))
        clock = {"at": round(wall, 3), "seconds": round(time.monotonic() - began, 3)}
        for row in rows:
            row["time"] = clock
        self.files[job.question.dataset].append(rows)
        self.heard(rows, job)
        return paid

    def _price(self, reply: Reply, reserved: float) -> float:
        """By the server's counts; where it gives none, as if every answer were of full length."""
        if reply.usage is None:
            return reserved
        return self.purse.cost(reply.usage.prompt, reply.usage.completion)
