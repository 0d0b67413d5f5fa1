"""What is kept of a step with bad numbers: all of it, readable, and not too much."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seirenes_jax import evidence
from seirenes_jax.batch import fill, pack
from seirenes_jax.errors import ConfigError
from seirenes_jax.evidence import Evidence
from seirenes_jax.knobs import Batch
from seirenes_jax.types import REASONER, Ask, Credit, Name, Rollout, Verdict
from tests.laws.small import STREAMS, groups

SIZE = Batch(row_tokens=24, rows=2)


def credited() -> list[list[Any]]:
    """The made-up groups, every piece with a credit that names it."""
    from dataclasses import replace

    def credit(group: int, index: int, piece: Any) -> Credit:
        ask = Ask(REASONER, (("user", "?"),), 4, "1", "math", 20)
        name = Name(f"p{group}", 3, "0", 1, 0, index)
        rollout = Rollout(ask, name, f"text {group} {index}", piece.tokens, piece.logprobs, "eos",
                          Verdict.RIGHT, 6)  # fmt: skip
        return Credit(rollout, "clean", f"clean:p{group}#3", 0.5, 1.0)

    return [
        [replace(piece, credit=credit(g, i, piece)) for i, piece in enumerate(group)]
        for g, group in enumerate(groups())
    ]


def read_ids(answers: Any) -> list[str]:
    return [" ".join(map(str, ids)) for ids in answers]


def made(step: int = 7) -> tuple[Evidence, list[Any]]:
    rows = pack(credited(), SIZE.row_tokens)
    batches = [fill(rows[i : i + 2], SIZE, temperature=1.0) for i in range(0, len(rows), 2)]
    batches[0].adv_BT[0, 5] = np.nan
    told = evidence.completions(rows, 2, range(len(batches)), read=read_ids, streams=STREAMS)
    parts = tuple({"ratio_max": 1.5 + i, "loss/clean": float("nan")} for i in range(len(batches)))
    seen = {"grad_norm": float("inf"), "ratio_max": float(np.float32(1.1))}
    return Evidence(
        step, 6, ("ratio",), seen, parts, tuple(range(len(batches))), tuple(batches), tuple(told)
    ), rows


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    it, _ = made()
    folder = evidence.write(tmp_path, it)
    assert folder == tmp_path / "bad" / "step-7" == evidence.place(tmp_path, 7)
    back = evidence.read(folder)
    assert (back.step, back.checkpoint, back.complaints, back.kept) == (7, 6, ("ratio",), it.kept)
    assert back.seen == it.seen and str(back.parts) == str(it.parts)
    for one, other in zip(back.batches, it.batches, strict=True):
        for name in evidence.FIELDS:
            ours, theirs = getattr(one, name), getattr(other, name)
            assert (ours is None) == (theirs is None), name
            if theirs is not None:
                np.testing.assert_array_equal(ours, theirs)
                assert ours.dtype == np.asarray(theirs).dtype
    told = json.loads((folder / "evidence.json").read_text())
    assert told["command"] == f"python launch/replay.py {folder}"
    assert told["seen"]["grad_norm"] == "inf" and len(told["completions"]) == 9
    assert not list((tmp_path / "bad").glob(".*"))


def test_every_completion_is_where_it_is_said_to_be() -> None:
    it, rows = made()
    assert len(rows) > 2, "one micro-batch would not show a wrong number"
    for one in it.completions:
        batch = it.batches[one["micro_batch"]]
        here = (batch.segments_BT[one["row"]] == one["segment"]) & batch.train_BT[one["row"]]
        assert read_ids([batch.targets_BT[one["row"]][here].tolist()]) == [one["completion"]]
        assert np.all(batch.weight_BT[one["row"]][here] == np.float32(one["weight"]))
        assert one["name"]["problem"].startswith("p") and one["reward"] == 0.5
        assert one["verdict"] == "right" and one["policy_step"] == 6


def test_the_bad_ones_come_first_and_no_more_than_fits() -> None:
    mib = evidence.MIB
    assert evidence.chosen([], [mib] * 4, 8.0) == (0, 1, 2, 3)
    assert evidence.chosen([3], [mib] * 4, 2.0) == (0, 3)
    assert evidence.chosen([2, 3], [mib] * 4, 2.5) == (2, 3)
    assert evidence.chosen([1], [9 * mib] * 4, 2.0) == (1,)  # one always is


def test_others_are_let_go_of(tmp_path: Path) -> None:
    for step in (3, 4, 5):
        evidence.write(tmp_path, made(step)[0])
    (tmp_path / "bad" / ".step-6.part").mkdir()
    evidence.keep_only(tmp_path, [4, 5])
    assert sorted(x.name for x in (tmp_path / "bad").iterdir()) == ["step-4", "step-5"]
    evidence.keep_only(tmp_path / "none", [])


@pytest.mark.parametrize("text", [None, "{"])
def test_what_is_no_such_folder_is_a_mistake(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(ConfigError, match="RUN/bad/step-N"):
        evidence.read(tmp_path)
