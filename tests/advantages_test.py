"""Advantages: every formula against plain loops; peers never leak; weight 0 does nothing."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seirenes_jax.advantages import ADVANTAGES, is_live
from seirenes_jax.knobs import CHOICES, Advantage

EPS, DECAY = 1e-6, 0.9
CENTRED_BY_GROUP = ("group", "mean", "loo", "hybrid")


def plain(kind: str, rows: list[dict[str, Any]], state: dict[str, float]) -> list[float]:
    """The formulas, one number at a time, from the list of (reward, group, role, weight)."""

    def over(key: str, row: dict[str, Any]) -> list[float]:
        return [o["r"] for o in rows if o["w"] > 0 and o[key] == row[key]]

    def mean(x: list[float]) -> float:
        return sum(x) / len(x)

    def std(x: list[float]) -> float:
        return math.sqrt(sum((v - mean(x)) ** 2 for v in x) / len(x)) if len(set(x)) > 1 else 0.0

    out = []
    for row in rows:
        if row["w"] == 0:
            out.append(0.0)
            continue
        r, peers, role = row["r"], over("g", row), over("role", row)
        if kind == "group":
            out.append((r - mean(peers)) / (std(peers) + EPS))
        elif kind == "mean":
            out.append(r - mean(peers))
        elif kind == "loo":
            n = len(peers)
            out.append(r - (sum(peers) - r) / (n - 1) if n > 1 else 0.0)
        elif kind == "whiten":
            out.append((r - mean(role)) / (std(role) + EPS))
        elif kind == "hybrid":
            first = {o["g"]: o for o in rows if o["w"] > 0 and o["role"] == row["role"]}
            spreads = [s for o in first.values() if (s := std(over("g", o))) > 0]
            typical = mean(spreads) if spreads else 0.0
            out.append((r - mean(peers)) / (std(peers) + typical + EPS))
        else:
            out.append(r - state.get(str(row["role"]), 0.0))
    return out


def run(
    kind: str, rows: list[dict[str, Any]], state: dict[str, float] | None = None
) -> tuple[np.ndarray, dict[str, float]]:
    return ADVANTAGES[kind](
        np.array([o["r"] for o in rows], np.float64),
        np.array([o["g"] for o in rows], np.int64),
        np.array([o["role"] for o in rows], np.int64),
        np.array([o["w"] for o in rows], np.float64),
        settings=Advantage(kind=kind, eps=EPS, ema_decay=DECAY),
        state=state or {},
    )


@st.composite
def steps(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Ragged groups of eighths, each of one role, shuffled, some kept out."""
    rows = []
    for g in range(draw(st.integers(1, 5))):
        role = draw(st.integers(0, 1))
        for r, w in draw(
            st.lists(st.tuples(st.integers(0, 8), st.sampled_from([0, 1, 1])), max_size=6)
        ):
            rows.append({"r": r / 8, "g": g, "role": role, "w": w})
    return draw(st.permutations(rows))


def test_every_choice_of_the_config_is_there() -> None:
    assert set(ADVANTAGES) == set(CHOICES["advantage.kind"])


@pytest.mark.parametrize("kind", ADVANTAGES)
@given(rows=steps())
def test_formula(kind: str, rows: list[dict[str, Any]]) -> None:
    state = {"0": 0.3}
    got, _ = run(kind, rows, state)
    np.testing.assert_allclose(got, plain(kind, rows, state), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", CENTRED_BY_GROUP)
@given(rows=steps())
def test_a_group_sums_to_zero(kind: str, rows: list[dict[str, Any]]) -> None:
    got, _ = run(kind, rows)
    for g in {o["g"] for o in rows}:
        assert abs(sum(a for a, o in zip(got, rows, strict=True) if o["g"] == g)) < 1e-9


@pytest.mark.parametrize("kind", ["group", "mean", "loo"])
@given(rows=steps())
def test_peers_never_leak_between_groups(kind: str, rows: list[dict[str, Any]]) -> None:
    before, _ = run(kind, rows)
    after, _ = run(kind, [{**o, "r": o["r"] * 7 - 3} if o["g"] else o for o in rows])
    for a, b, o in zip(before, after, rows, strict=True):
        assert o["g"] != 0 or a == b


@pytest.mark.parametrize("kind", ["whiten", "hybrid", "ema"])
@given(rows=steps())
def test_roles_never_leak_into_each_other(kind: str, rows: list[dict[str, Any]]) -> None:
    before, state = run(kind, rows)
    after, other = run(kind, [{**o, "r": o["r"] * 7 - 3} if o["role"] else o for o in rows])
    for a, b, o in zip(before, after, rows, strict=True):
        assert o["role"] != 0 or a == b
    assert state.get("0") == other.get("0")


@pytest.mark.parametrize("kind", ADVANTAGES)
@pytest.mark.parametrize("reward", [np.nan, 1e9])
def test_weight_zero_keeps_a_rollout_out_of_everything(kind: str, reward: float) -> None:
    rows = [{"r": r, "g": 0, "role": 0, "w": 1} for r in (0.0, 1.0, 1.0)]
    alone, state = run(kind, rows)
    joined, joined_state = run(kind, [*rows, {"r": reward, "g": 0, "role": 0, "w": 0}])
    assert joined[3] == 0.0
    np.testing.assert_array_equal(joined[:3], alone)
    assert joined_state == state


@pytest.mark.parametrize("kind", ["group", "mean", "loo", "whiten", "hybrid"])
@pytest.mark.parametrize("rewards", [[0.7], [0.1, 0.1, 0.1], []])
def test_what_does_not_vary_gives_exactly_nothing(kind: str, rewards: list[float]) -> None:
    got, _ = run(kind, [{"r": r, "g": 0, "role": 0, "w": 1} for r in rewards])
    assert got.tolist() == [0.0] * len(rewards)


def test_rounding_is_no_spread() -> None:
    # The mean of three times 0.1 is not 0.1: such a group must not count as varying.
    dead = [{"r": 0.1, "g": 0, "role": 0, "w": 1}] * 3
    live = [{"r": r, "g": 1, "role": 0, "w": 1} for r in (0.0, 1.0)]
    np.testing.assert_allclose(run("hybrid", dead + live)[0], [0, 0, 0, -0.5, 0.5], atol=1e-5)


def test_hybrid_holds_a_nearly_settled_group_down() -> None:
    quiet = [{"r": r, "g": 0, "role": 0, "w": 1} for r in (0.50, 0.51)]
    loud = [{"r": r, "g": 1, "role": 0, "w": 1} for r in (0.0, 1.0)]
    assert run("group", quiet + loud)[0][1] == pytest.approx(1.0, abs=1e-3)
    assert run("hybrid", quiet + loud)[0][1] < 0.02


def test_ema_reads_before_it_writes() -> None:
    rows = [{"r": 1.0, "g": 0, "role": 1, "w": 1}, {"r": 0.0, "g": 0, "role": 1, "w": 1}]
    given_state = {"0": 0.25, "1": 0.8}
    adv, after = run("ema", rows, given_state)
    np.testing.assert_allclose(adv, [0.2, -0.8])
    assert after == pytest.approx({"0": 0.25, "1": 0.9 * 0.8 + 0.1 * 0.5})
    assert given_state == {"0": 0.25, "1": 0.8}
    assert run("ema", rows)[0].tolist() == [1.0, 0.0]  # an unmet role starts at 0


@given(rewards=st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 1.0])), max_size=5))
def test_live_is_where_the_group_advantage_is_not_zero(rewards: list[tuple[int, float]]) -> None:
    rows = [{"r": r / 2, "g": 0, "role": 0, "w": w} for r, w in rewards]
    live = is_live([o["r"] for o in rows], [o["w"] for o in rows])
    assert live == bool(np.any(run("group", rows)[0] != 0))
