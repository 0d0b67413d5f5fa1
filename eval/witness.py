"""Does the server do what it was asked? What it does otherwise is counted, shown, never averaged.

Turns a reply into rows of the responses file. A row that cannot be trusted gets a status of its
own and no score. `honours` is what a few short requests before the run have shown.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.client import Client, Refused
from eval.replies import Choice, Reply, Usage
from eval.responses import CONTEXT, FAILED, OK, OTHER_MODEL, OVER_LIMIT, Row
from eval.study import Job
from seirenes_jax.analysis import read_object
from seirenes_jax.report import write_json
from seirenes_jax.types import Messages

PROBE_TOKENS = 16
ECHO = 64  # letters of a chat template that may stand before a prompt sent back
LETTERS_A_TOKEN = 24  # more letters a token than any tokenizer makes on average
PROBE: Messages = (("user", "Say something that nobody would expect, at length."),)


@dataclass(slots=True)
class Witness:
    """What was seen of one server. Kept in the run folder, so that a resume forgets nothing."""

    path: Path
    asked: str  # the model as it is asked for
    served_as: str | None  # a name under which it may answer, too
    lies: dict[str, dict[str, Any]]  # name -> {"count", "example"}
    honours: dict[str, bool | None]  # what the probe has shown; None: could not be seen
    models: list[str]  # names under which answers came

    def save(self) -> None:
        kept = {"lies": self.lies, "honours": self.honours, "models": sorted(self.models)}
        write_json(self.path, kept)

    def caught(self, name: str, example: str) -> None:
        """One more of these."""
        entry = self.lies.setdefault(name, {"count": 0, "example": example[:300]})
        entry["count"] += 1
        if entry["count"].bit_count() == 1:  # 1, 2, 4, ...: a lie in every answer is written rarely
            self.save()

    def is_asked(self, model: str | None) -> bool:
        """Is this name the model's? Dates, revisions and folders around it do not matter."""
        if model is None or model in (self.asked, self.served_as):
            return True
        plain = re.sub(r"@[\w.-]+$|-\d{4}-?\d{2}-?\d{2}$", "", model)
        return plain == self.asked or Path(plain).name == Path(self.asked).name

    def heard(self, model: str | None) -> None:
        if model is not None and model not in self.models:
            self.models.append(model)
            self.save()

    def rows(self, job: Job, reply: Reply, *, max_tokens: int, seed: int) -> list[Row]:
        """The rows of a reply, as many as samples came; a lie is noted as it is met."""
        self.heard(reply.model)
        if len(reply.choices) != job.count:
            self.caught("n", f"asked for {job.count} choices, got {len(reply.choices)}")
        status = OK
        if not self.is_asked(reply.model):
            self.caught("model", f"asked for {self.asked}, answered by {reply.model}")
            status = OTHER_MODEL
        usage = self._usage(reply, max_tokens)
        over = usage is not None and usage.completion > max_tokens * len(reply.choices)
        found = []
        kept = reply.choices[: job.count]
        for at, choice in enumerate(kept):
            text = self._own_words(job, choice.text)
            letters = len(choice.text) + len(choice.reasoning or "")
            long = over or letters > LETTERS_A_TOKEN * max_tokens + 200
            if long:
                self.caught("max_tokens", f"asked for {max_tokens} tokens, got {letters} letters")
            if choice.finish is None:
                self.caught("finish_reason", "no finish_reason: cut answers cannot be counted")
            found.append({
                **_head(job, at, len(kept)),
                "status": OVER_LIMIT if long and status == OK else status,
                "text": text, "reasoning": choice.reasoning, "finish": choice.finish,
                "model": reply.model, "seed": seed,
                "tokens_server": None if usage is None else usage.completion / len(reply.choices),
                "tokens_prompt": None if usage is None else usage.prompt,
            })  # fmt: skip
        return found

    def _own_words(self, job: Job, text: str) -> str:
        """Without the prompt: some servers send it back before the answer."""
        asked = job.question.messages[-1][1]
        start = text.find(asked)
        if not 0 <= start <= ECHO:
            return text
        self.caught("echo", f"the answer begins with the prompt: {text[: start + 80]!r}")
        return text[start + len(asked) :]

    def _usage(self, reply: Reply, max_tokens: int) -> Usage | None:
        """The server's counts, where they can be true."""
        usage = reply.usage
        if usage is None:
            self.caught("usage", "no token counts came with the answer")
            return None
        spoken = sum(bool(choice.text or choice.reasoning) for choice in reply.choices)
        sums = usage.total is None or usage.total == usage.prompt + usage.completion
        if usage.prompt < 1 or usage.completion < spoken or not sums:
            self.caught("usage", f"{usage} with {spoken} spoken answers")
            return None
        return usage


def open_witness(path: Path, asked: str, served_as: str | None) -> Witness:
    """What earlier commands saw of this server goes on counting."""
    kept = read_object(path) or {"lies": {}, "honours": {}, "models": []}
    return Witness(path, asked, served_as, kept["lies"], kept["honours"], kept["models"])


def empty_rows(job: Job, status: str, said: str, seed: int) -> list[Row]:
    """Rows of a request that brought no answer: they have a status and no score."""
    assert status in (CONTEXT, FAILED)
    return [
        {**_head(job, at, job.count), "status": status, "error": said, "text": "",
         "reasoning": None, "finish": None, "model": None, "seed": seed, "tokens_server": None,
         "tokens_prompt": None}
        for at in range(job.count)
    ]  # fmt: skip


def _head(job: Job, at: int, count: int) -> Row:
    question = job.question
    return {
        "key": question.key(job.first + at), "dataset": question.dataset,
        "problem_id": question.item.id,
        "hint_id": None if question.hint is None else question.hint.id,
        "sample": job.first + at, "request": [at, count],
    }  # fmt: skip


async def probe(client: Client, witness: Witness) -> None:
    """A few short requests: does the server honour n, seed, max_tokens, logprobs?"""

    async def two(seed: int, logprobs: bool = False) -> Reply:
        body = client.body(PROBE, 2, seed, limit=PROBE_TOKENS, logprobs=logprobs)
        return await client.ask(body)

    try:
        first = await two(1, logprobs=True)
        witness.honours["logprobs"] = first.logprobs
    except Refused:  # some servers refuse a field they do not know; or it is a plain no, told below
        witness.honours["logprobs"] = False
        first = await two(1)
    again, other = await two(1), await two(2)
    same = _texts(again) == _texts(first)
    varies = len({*_texts(first), *_texts(other)}) > 1
    drawn = client.sampling.temperature > 0
    witness.honours["n"] = len(first.choices) == 2
    witness.honours["max_tokens"] = all(_short(one) for one in first.choices)
    # A sure model may say the same twice; that a server never draws, its answers show later.
    witness.honours["temperature"] = (True if varies else None) if drawn else same
    witness.honours["seed"] = same if drawn and varies else None
    witness.honours["model"] = witness.is_asked(first.model)
    witness.heard(first.model)
    if len(first.choices) != 2:
        witness.caught("n", f"asked for 2 choices, got {len(first.choices)}")
    if not witness.is_asked(first.model):
        witness.caught("model", f"asked for {witness.asked}, answered by {first.model}")
    elif all(map(witness.is_asked, witness.models)):
        witness.lies.pop("model", None)  # its other name has been told since
    witness.save()


def _texts(reply: Reply) -> list[str]:
    return [(choice.reasoning or "") + choice.text for choice in reply.choices]


def _short(choice: Choice) -> bool:
    return len(choice.text) + len(choice.reasoning or "") <= LETTERS_A_TOKEN * PROBE_TOKENS


def note_of(honours: Mapping[str, bool | None]) -> str:
    """One line for the console."""
    words = {True: "yes", False: "NO", None: "not seen"}
    return ", ".join(f"{name} {words[seen]}" for name, seen in sorted(honours.items()))
