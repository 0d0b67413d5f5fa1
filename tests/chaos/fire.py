"""Which kills are drawn, and how a run goes through them."""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos import lives
from tests.chaos.lives import ALONE, JOURNAL, PAIR, Layout, Life, Strike

# (place, calls of it in a step or so, seconds that it may take a little longer) by phase. With the
# random delay a kill may fall into what comes next: the table says where it did.
PLACES: dict[str, tuple[tuple[str, int, float], ...]] = {
    "warm start": (("seirenes_jax.warm:imitate_step", 150, 0.02),
                   ("seirenes_jax.tasks.tokenizer:train_tokenizer", 1, 0.3)),
    "play": (("seirenes_jax.play:_call", 30, 0.05), ("seirenes_jax.decode:run_chunk", 40, 0.02)),
    "judging": (("seirenes_jax.verify.judge:Judge.submit", 20, 0.02),
                ("seirenes_jax.verify.judge:Judge.collect", 20, 0.02)),
    "packing": (("seirenes_jax.train:queue_groups", 2, 0.02),
                ("seirenes_jax.train:micro_batches", 2, 0.05)),
    "update": (("seirenes_jax.learn:add_gradient", 20, 0.05),
               ("seirenes_jax.learn:apply_gradient", 2, 0.05)),
    "save": (("seirenes_jax.checkpoint:Checkpoints.save", 2, 0.3),
             ("seirenes_jax.stored:check", 2, 0.05),
             ("seirenes_jax.checkpoint:Checkpoints._delete", 1, 0.05),
             ("seirenes_jax.report:_append", 4, 0.0)),
    "export": (("seirenes_jax.hf.writer:_write_shard", 1, 0.05),
               ("seirenes_jax.hf.writer:export", 2, 0.1),
               ("seirenes_jax.finish:write_json", 2, 0.02)),
}  # fmt: skip
MIDDLE = ("play", "judging", "packing", "update", "save")
A_RUN = 7  # kills that one run goes through
PLANS = {  # for every eight kills
    ALONE: 6, PAIR: 1, JOURNAL: 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hit:
    """One line of the table."""

    layout: str
    aimed: str
    hit: str
    how: str
    step: int  # the last one whose line was written
    codes: tuple[int, ...]
    back_s: float | None  # of the next life, until it stood there again


def shares(kills: int) -> dict[Layout, int]:
    """How many of them fall on each layout."""
    if kills < 8:
        return {ALONE: kills}
    found = {layout: kills * n // 8 for layout, n in PLANS.items()}
    found[ALONE] += kills - sum(found.values())
    return found


def aims(layout: Layout, kills: int, draw: random.Random) -> list[tuple[str, ...]]:
    """The phases of one run's kills, life by life, in an order in which they can come."""
    if layout is not ALONE:
        return [(draw.choice(MIDDLE) if layout is PAIR else "play",) for _ in range(kills)]
    if kills < 3:
        return [(draw.choice(MIDDLE),) for _ in range(kills)]
    middle = list(MIDDLE)
    draw.shuffle(middle)
    rest = [(middle[i % len(middle)],) for i in range(kills - 3)]
    return [("warm start",), *rest, ("worker", "export")]  # a lost worker ends no life


def strike(aim: str, layout: Layout, note: Path, draw: random.Random) -> Strike:
    """A random point of a phase."""
    how = "ONE" if layout.processes > 1 else "SIGKILL"
    if aim == "worker":
        place, many, late = PLACES["judging"][0]
        how = "WORKER"
    else:
        place, many, late = draw.choice(PLACES[aim])
    return Strike(aim, place, draw.randint(1, many), draw.uniform(0, late), how, str(note))


class Fire:
    """One series of kills; everything lies under `work`, undisturbed runs are kept for the next."""

    def __init__(self, work: Path, cache: Path, draw: random.Random, say: Callable[[str], None]):
        self.work, self.cache, self.draw, self.say = work, cache, draw, say
        self.hits: list[Hit] = []
        self.wrong: list[str] = []
        self.runs = 0

    def reference(self, layout: Layout) -> Path:
        """The undisturbed run of a layout."""
        run = self.work / f"undisturbed-{layout.name.replace(' ', '-')}"
        if not (run / "report.html").is_file():
            ended = lives.live(run, self.cache, layout, [], until=0)
            assert set(ended.codes) == {0}, ended
        return run

    def through(self, layout: Layout, kills: int, reference: Path) -> None:
        """Runs that are killed again and again until so many have hit; each is compared."""
        left = kills
        while left > 0:
            self.runs += 1
            run = self.work / f"run-{self.runs}"
            shutil.rmtree(run, ignore_errors=True)
            left -= self._one(run, layout, min(left, A_RUN))
            found = lives.differences(run, reference, bits=not layout.journal)
            self.wrong += [f"{run.name} ({layout.name}): {one}" for one in found]
            self.say(f"{run.name} ({layout.name}): {'DIFFERS' if found else 'equal'}")

    def _one(self, run: Path, layout: Layout, kills: int) -> int:
        """One run to its end; how many kills have hit."""
        planned = aims(layout, kills, self.draw)
        cache, hits, at, waiting = self.cache, 0, 0, -1
        if ("warm start",) in planned:
            cache = lives.fresh_cache(self.cache, self.work / f"cache-{self.runs}")
        while True:
            strikes = []
            for i, aim in enumerate(planned.pop(0) if planned else ()):
                note = self.work / f"note-{i}.json"
                note.unlink(missing_ok=True)
                strikes.append(strike(aim, layout, note, self.draw))
            life = lives.live(run, cache, layout, strikes, until=at)
            if 0 <= waiting < len(self.hits):
                self.hits[waiting] = replace(self.hits[waiting], back_s=life.back_s)
            waiting, at = -1, lives.last_step(run / "metrics.jsonl")
            for one in strikes:
                if Path(one.note).is_file():
                    hits += 1
                    waiting = len(self.hits) if one.how != "WORKER" else waiting
                    self._note(json.loads(Path(one.note).read_text()), one, layout, at, life)
            if set(life.codes) == {0}:
                return hits
            if not set(life.codes) <= {-9, 137, 75}:
                raise AssertionError(f"a life ended with {life.codes}:\n{life.said}")

    def _note(
        self, told: dict[str, Any], one: Strike, layout: Layout, at: int, life: Life
    ) -> None:
        hit = Hit(layout.name, one.phase, told["hit"], one.how, at, life.codes, None)
        self.hits.append(hit)
        self.say(row(len(self.hits), hit))


HEAD = ("kill", "layout", "aimed at", "hit in", "how", "after step", "exit", "back after s")


def row(number: int, hit: Hit) -> str:
    """A line of the table."""
    back = "-" if hit.back_s is None else f"{hit.back_s:.1f}"
    cells = (number, hit.layout, hit.aimed, hit.hit, hit.how, hit.step,
             "/".join(map(str, hit.codes)), back)  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def table(hits: list[Hit]) -> str:
    """All of them, as Markdown."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    return "\n".join(lines + [row(i, hit) for i, hit in enumerate(hits, 1)])
