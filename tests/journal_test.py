"""What was answered before a kill is not decoded again, and nothing is taken for what it is not."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seirenes_jax import journal as module
from seirenes_jax.journal import Journal
from seirenes_jax.models import ModelConfig
from seirenes_jax.sampler import Sampler
from seirenes_jax.types import Name, Rollout
from tests.laws.small import CONFIG, MOE, asks, make_sampler, rollouts

WHOLE = sum(ask.n for _, ask in asks())


def life(
    folder: Path, calls: int = 99, *, policy: str = "these", step: int = 2,
    sampler: Sampler | None = None, config: ModelConfig = CONFIG,
) -> tuple[dict[Name, Rollout], Journal, int]:  # fmt: skip
    """Ask until all is answered, or (a kill) so many times: answers, journal, tokens drawn."""
    drawing = make_sampler(slots=4, chunk=5, config=config) if sampler is None else sampler
    journal = Journal(folder / "journal", process=0, writer=True)
    journal.begin(step, policy)
    found = {one.name: one for one in journal.ask(drawing, asks())}
    while len(found) < WHOLE and calls > 1:
        found |= {one.name: one for one in journal.ask(drawing, ())}
        calls -= 1
    journal._flush()  # not closed: it was killed
    return found, journal, drawing.use.drawn


def written(folder: Path) -> list[Path]:
    return sorted((folder / "journal").iterdir())


def refuse_other_answers(found: dict[Name, Rollout], config: ModelConfig = CONFIG) -> None:
    assert found.keys() == {one.name for one in rollouts(config=config)}
    for one in rollouts(config=config):
        twin = found[one.name]
        np.testing.assert_array_equal(one.tokens, twin.tokens)
        np.testing.assert_allclose(one.logprobs, twin.logprobs, atol=1e-5)
        assert (one.text, one.stop, one.ask) == (twin.text, twin.stop, twin.ask)
        assert (one.policy_step, twin.verdict) == (twin.policy_step, None)


@pytest.mark.parametrize("config", [CONFIG, MOE], ids=["dense", "experts"])
def test_no_token_of_a_finished_answer_is_drawn_twice(tmp_path: Path, config: ModelConfig) -> None:
    total = sum(len(one.tokens) for one in rollouts(config=config))
    first, _, _ = life(tmp_path, 4, config=config)
    second, journal, _ = life(tmp_path, 5, config=config)
    assert 0 < len(first) < len(second) < WHOLE
    last, journal, drawn = life(tmp_path, config=config)
    saved = sum(len(one.tokens) for one in (first | second).values())
    assert journal.tokens == saved > 0 and journal.answered == len(first | second)
    assert drawn == total - saved  # the rest, and nothing else
    refuse_other_answers(last, config)
    if config is MOE:
        for one in rollouts(config=MOE):
            assert one.routes is not None and last[one.name].routes is not None
            assert last[one.name].routes.shape == one.routes.shape
    # A whole step costs nothing at all.
    again, journal, drawn = life(tmp_path, config=config)
    assert (journal.tokens, drawn) == (total, 0)
    refuse_other_answers(again, config)


@pytest.mark.parametrize(
    "other", ["policy", "step", "temperature", "seed", "weights loaded as another step"]
)
def test_answers_of_another_policy_step_or_draw_do_not_count(tmp_path: Path, other: str) -> None:
    life(tmp_path)
    sampler = make_sampler(slots=4, chunk=5, temperature=0.5 if other == "temperature" else 1.0)
    sampler.seed += other == "seed"
    policy = "those" if other == "policy" else "these"
    _, journal, drawn = life(tmp_path, policy=policy, step=2 + (other == "step"), sampler=sampler)
    taken = other.startswith("weights")  # the digest says that they are the same
    assert (journal.answered == WHOLE) is taken and (drawn == 0) is taken


def tear(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 3)


def tear_a_length(file: Path) -> None:
    with file.open("ab") as out:
        out.write(b"\x05\x00\x00")


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "lost"), [(tear, 1), (tear_a_length, 0), (flip, None)]
)
def test_a_damaged_tail_is_drawn_again(
    tmp_path: Path, damage: Callable[[Path], None], lost: int | None
) -> None:
    life(tmp_path)
    damage(written(tmp_path)[0])
    found, journal, _ = life(tmp_path)
    missing = WHOLE - journal.answered
    assert missing == lost if lost is not None else 0 < missing < WHOLE
    refuse_other_answers(found)


def test_what_led_to_a_good_checkpoint_goes(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        life(tmp_path, step=step)
    _, journal, _ = life(tmp_path, step=4)
    journal.drop(None)
    assert len(written(tmp_path)) == 4
    journal.drop(2)
    assert [file.name[:8] for file in written(tmp_path)] == ["00000003", "00000004"]


def test_in_a_bucket_answers_go_in_whole_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "journal").mkdir()
    monkeypatch.setattr(module, "is_remote", lambda _: True)
    monkeypatch.setattr(module, "SEND_S", -1.0)
    life(tmp_path, 8)
    objects = len(written(tmp_path))
    found, journal, _ = life(tmp_path)
    assert 1 < objects < len(written(tmp_path)) and journal.answered > 0
    refuse_other_answers(found)
