"""Sampler and trainer shake hands: within rounding on real answers, not where one of them lies."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from seirenes_jax.batch import Piece, Row, fill, pack
from seirenes_jax.errors import NumbersError
from seirenes_jax.handshake import difference, refuse, told
from seirenes_jax.knobs import Batch, Numbers
from seirenes_jax.step import score_step
from seirenes_jax.types import Credit, Messages
from tests.laws.small import CONFIG, Letters, params, rollouts

NUMBERS = Numbers(1e3, 1e3, 1e4, 100.0, 3, 2, 64.0, probe_max=1e-3, probe_mean=1e-4)
SIZE = Batch(row_tokens=64, rows=4)


def drawn(*, temperature: float = 1.0) -> list[Row]:
    """Real answers of the small decoder, packed as the probe packs them."""
    found: dict[Messages, list[Piece]] = {}
    for r in rollouts(temperature):
        credit = Credit(r, "clean", "g", 0.0, 1.0)
        piece = Piece(Letters().render(r.ask.messages), r.tokens, r.logprobs, 0.0, 1.0, 0, None,
                      credit)  # fmt: skip
        found.setdefault(r.ask.messages, []).append(piece)
    return pack(list(found.values()), SIZE.row_tokens)


def compared(rows: list[Row], *, scale: float = 1.0, temperature: float = 1.0) -> Any:
    micro = fill(rows, SIZE, temperature=temperature)
    logp_BT = np.asarray(score_step(params(), micro, config=CONFIG)) * np.float32(scale)
    return difference(rows, micro, logp_BT)


def test_they_agree_on_what_was_really_drawn() -> None:
    found = compared(drawn())
    assert 0 < found.mean < found.max < 1e-5
    assert found.tokens == sum(len(r.tokens) for r in rollouts()) and found.answers == 17
    refuse(found, NUMBERS)


def test_another_temperature_is_refused_with_the_numbers() -> None:
    found = compared(drawn(), temperature=0.9)
    assert found.max > 0.01
    with pytest.raises(NumbersError) as refused:
        refuse(found, NUMBERS)
    said = str(refused.value)
    for words in (f"max {found.max:.3g}", f"mean {found.mean:.3g}", "numbers.probe_max = 0.001",
                  f"problem {found.worst.problem!r}", "Look at: sampler.temperature",
                  "Nothing was learnt"):  # fmt: skip
        assert words in said, words


@pytest.mark.parametrize("lie", [0.5, np.nan, -np.inf])
def test_the_worst_answer_is_named(lie: float) -> None:
    rows = drawn()
    victim = rows[-1][-1][1][-1]
    logprobs = victim.logprobs.copy()
    logprobs[2] += np.float32(lie)
    rows[-1][-1][1][-1] = dataclasses.replace(victim, logprobs=logprobs)
    found = compared(rows)
    assert found.worst == victim.credit.rollout.name and found.at == 2
    assert found.max == (pytest.approx(0.5, abs=1e-3) if lie == 0.5 else np.inf)
    assert f"sample {found.worst.sample}, token 2:" in told(found)
    with pytest.raises(NumbersError):
        refuse(found, NUMBERS)


def test_a_mean_may_be_too_large_though_no_token_is() -> None:
    found = compared(drawn(), scale=1.0002)
    assert found.max < 1e-3 * 2 and found.mean > 1e-4
    with pytest.raises(NumbersError):
        refuse(found, dataclasses.replace(NUMBERS, probe_max=1.0))
