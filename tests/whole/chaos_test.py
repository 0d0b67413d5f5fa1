"""Five kills at random points, and answers that outlive one (`python -m tests.chaos`: fifty)."""

import importlib
import random
import shutil
from pathlib import Path

import numpy as np

from tests.chaos import lives, struck
from tests.chaos.fire import PLACES, Fire, aims, shares, table
from tests.chaos.lives import ALONE, JOURNAL, PAIR
from tests.whole import mini
from tests.whole.resume_test import strike


def test_five_kills_change_nothing(undisturbed: Path, cache: Path, tmp_path: Path) -> None:
    fire = Fire(tmp_path, cache, random.Random(1), print)
    fire.through(ALONE, 5, undisturbed)
    assert fire.wrong == [] and len(fire.hits) == 5
    assert {hit.how for hit in fire.hits} == {"SIGKILL", "WORKER"}
    assert table(fire.hits).count("\n") == 6


def test_a_difference_is_seen(undisturbed: Path, tmp_path: Path) -> None:
    """Every file that is compared, changed by a little."""
    assert lives.differences(undisturbed, undisturbed, bits=True) == []
    for name, words in (
        ("metrics.jsonl", "clean_acc"), ("rollouts.jsonl", "rollouts.jsonl: other bytes"),
        ("hf/model.safetensors", "hf/model.safetensors: other bytes"),
        ("checkpoints", "the last checkpoint"),
    ):  # fmt: skip
        run = tmp_path / name.replace("/", "-")
        shutil.copytree(undisturbed, run)
        file = run / name
        if name == "checkpoints":
            newest = max(file.glob("[0-9]*"), key=lambda f: int(f.name))
            file = max((newest / "state").rglob("*"), key=lambda f: f.stat().st_size)
        data = bytearray(file.read_bytes())
        at = data.index(b'"clean_acc": ') + 13 if name == "metrics.jsonl" else len(data) // 2
        data[at] ^= 1  # of a digit another digit
        file.write_bytes(data)
        assert any(words in one for one in lives.differences(run, undisturbed, bits=True)), name


def test_kills_are_shared_out_over_layouts_and_phases() -> None:
    assert shares(5) == {ALONE: 5} and shares(50) == {ALONE: 38, PAIR: 6, JOURNAL: 6}
    planned = aims(ALONE, 5, random.Random(0))
    assert planned[0] == ("warm start",) and planned[-1] == ("worker", "export")
    assert sum(map(len, planned)) == 5


def test_every_place_is_there() -> None:
    aimed = [place for some in PLACES.values() for place, _, _ in some]
    for place in [*aimed, *(one for some in struck.PHASES.values() for one in some)]:
        module, _, path = place.partition(":")
        found = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
        assert callable(found), place


def test_answers_of_a_stopped_step_are_not_generated_twice(
    undisturbed: Path, cache: Path, tmp_path: Path
) -> None:
    """SIGTERM in the middle of a step: the next life asks for the same keys and draws the rest."""
    arguments = mini.flags(tmp_path / "run", cache, checkpoint__journal="true")
    stopped = strike("SIGTERM", ("seirenes_jax.play:_call", "after", 9), arguments)
    assert stopped.code == 75 and "The same command goes on" in stopped.err, stopped
    at = lives.last_step(tmp_path / "run" / "metrics.jsonl") + 1
    before = lives.answers(tmp_path / "run")
    saved = sum(len(tokens) for (step, _), ((tokens, _),) in before.items() if step == at)
    assert saved > 0
    ended = mini.launch(arguments)
    assert ended.code == 0, ended
    rows = mini.lines(tmp_path / "run" / "metrics.jsonl")
    wanted = mini.lines(undisturbed / "metrics.jsonl")
    taken = [row["time"]["journal_tokens"] for row in rows]
    assert taken == [saved if row["step"] == at else 0 for row in rows]
    assert f"answers of {saved} tokens come from the journal" in (
        tmp_path / "run" / "events.log"
    ).read_text()
    # The same keys and tokens: all that is counted from words is the same.
    for key in ("tokens", "verdicts", "gates", "stop_length", "length", "families"):
        assert rows[at - 1][key] == wanted[at - 1][key], key
    assert np.isclose(rows[at - 1]["grad_norm"], wanted[at - 1]["grad_norm"], rtol=1e-4)
    assert list((tmp_path / "run" / "journal").iterdir()) == []  # a good checkpoint has it all
