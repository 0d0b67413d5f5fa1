"""A line of metrics.jsonl, number by number, from made-up play and made-up totals."""

from dataclasses import dataclass

import pytest

from seirenes_jax.games.base import HintNote, Note, TryNote
from seirenes_jax.metrics import accuracies, by_role, learnt_row, played_row, rate
from seirenes_jax.play import Counts, Played
from seirenes_jax.streams import Fifo, Live
from seirenes_jax.types import Ask, Credit, Name
from tests import scripted


def tries(*verdicts: str) -> list[TryNote]:
    return [TryNote(text="", verdict=verdict) for verdict in verdicts]


def hint(reward: float, *verdicts: str) -> HintNote:
    return HintNote(text="", written="", family="irrelevant", gates=[], reward=reward,
                    hinted=tries(*verdicts))  # fmt: skip


def note(clean: list[TryNote], hints: list[HintNote]) -> Note:
    return Note(problem_id="p", question="", answer="", clean=clean, hints=hints)


def credit(role: str, reward: float, weight: float = 1.0) -> Credit:
    ask = Ask(role, (("user", "q"),), 1, None, None, 9)
    rollout = scripted.rollout(Name("p", 0, "0", 0, 0, 0), ask, "right")
    return Credit(rollout, "clean", "g", reward, weight)


def test_a_rate_counts_only_what_could_be_read() -> None:
    assert rate(["right", "wrong", "right", "unreadable", "timeout"]) == pytest.approx(2 / 3)
    assert rate(["unreadable", "timeout"]) is None and rate([]) is None


def test_accuracies_and_their_difference() -> None:
    notes = [
        note(tries("right", "right", "wrong", "right"), [hint(0.5, "wrong", "right"), hint(0.0)]),
        note(tries("wrong", "unreadable"), [hint(0.25, "wrong", "timeout")]),
    ]
    assert accuracies(notes) == pytest.approx(
        {"clean_acc": 3 / 5, "hinted_acc": 1 / 3, "drop": 3 / 5 - 1 / 3, "adv_reward": 0.25}
    )
    none = accuracies([note(tries("right"), [])])
    assert none == {"clean_acc": 1.0, "hinted_acc": None, "drop": None, "adv_reward": None}


def test_rewards_by_role_leave_out_what_has_no_weight() -> None:
    ghost = credit("reasoner", 9.0, weight=0.0)
    found = by_role([credit("reasoner", 1.0), credit("reasoner", 0.0), ghost])
    assert found == {"reasoner": 0.5, "adversary": None}


def test_several_rounds_of_play_add_up() -> None:
    def played(notes: int, **counts: dict[str, int]) -> Played:
        made = Counts(
            samples=counts["samples"], tokens=counts["tokens"], cut=counts["cut"],
            verdicts=counts["verdicts"], gates=counts["gates"], rounds=1,
        )  # fmt: skip
        one = note(tries("right"), [])
        return Played(tuple((credit("reasoner", 1.0),) for _ in range(notes)), (one,) * notes, made)

    row = played_row(
        [
            played(3, samples={"reasoner": 4, "adversary": 2}, cut={"reasoner": 1},
                   tokens={"reasoner": 40, "adversary": 30}, verdicts={"right": 3, "wrong": 1},
                   gates={"tag": 1}),
            played(2, samples={"reasoner": 4}, tokens={"reasoner": 10}, cut={},
                   verdicts={"wrong": 3, "timeout": 1}, gates={"leak": 2}),
        ],
        {"clean": Live(1, 4), "robust": Live(0, 0)}, {"clean": Fifo(2, 0.5, 1)},
    )  # fmt: skip
    assert row["live"] == {"clean": 0.25, "robust": None}
    assert row["gates"] == {"leak": 2, "tag": 1}
    assert row["length"] == {"reasoner": 50 / 8, "adversary": 15.0}
    assert row["stop_length"] == {"reasoner": 1 / 8, "adversary": 0.0}
    assert row["verdicts"] == {"right": 3, "wrong": 4, "unreadable": 0, "timeout": 1}
    assert row["fifo"] == {"clean": {"depth": 2, "age": 0.5, "evicted": 1}}
    assert row["tokens"] == 80 and row["resampled"] == 2
    assert row["reward"] == {"reasoner": 1.0, "adversary": None}


@dataclass(frozen=True)
class FakeTotal:
    """What `learnt_row` needs of a Total, without arrays."""

    sum: float
    count: float

    def value(self) -> float:
        return self.sum / self.count


def test_the_update_in_numbers_and_absent_where_nothing_was_learnt() -> None:
    streams = ("clean", "adversary", "robust")
    totals = {
        "loss/clean": FakeTotal(-0.5, 1.0), "loss/adversary": FakeTotal(0.0, 0.0),
        "loss/robust": FakeTotal(1.0, 2.0), "ratio_max": FakeTotal(1.5, 1.0),
        "clip_frac": FakeTotal(2.0, 8.0), "kl_behaviour": FakeTotal(0.0, 8.0),
        "entropy/clean": FakeTotal(6.0, 2.0), "entropy/robust": FakeTotal(2.0, 2.0),
        "entropy/adversary": FakeTotal(0.0, 0.0),
    }  # fmt: skip
    row = learnt_row(totals, streams)
    assert row["loss"] == {"clean": -0.5, "adversary": None, "robust": 0.5}
    # Of all the role's tokens together, not the mean of the streams' means.
    assert row["entropy"] == {"reasoner": 2.0, "adversary": None}
    assert (row["ratio_max"], row["clip_frac"], row["kl_behaviour"]) == (1.5, 0.25, 0.0)
    assert row["kl_ref"] is None  # no reference was asked for
    empty = learnt_row({}, streams)
    assert empty["ratio_max"] is None and set(empty["loss"].values()) == {None}
