"""Reading runs and saying how sure one is: against brute force, known tables and simulation."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from seirenes_jax import analysis
from seirenes_jax.errors import DataError
from tests.made_run import make_run


def test_a_torn_last_line_is_no_row_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in analysis.read_metrics(tmp_path)] == [1, 2]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2"):
        analysis.read_metrics(tmp_path)


def test_what_is_missing_is_missing(tmp_path: Path) -> None:
    assert analysis.read_rollouts(tmp_path) == []
    assert analysis.read_summary(tmp_path) is None
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        analysis.read_summary(tmp_path)


def test_curve_leaves_out_what_is_null() -> None:
    cells = ({"b": 2}, None, {"b": 4.0}, {})
    rows = [{"step": step, "a": cell} for step, cell in enumerate(cells, 1)]
    assert analysis.curve(rows, "a.b") == ([1, 3], [2.0, 4.0])


@pytest.mark.parametrize(("n", "right"), [(5, 0), (5, 2), (6, 3), (4, 4)])
def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_one(n: int, right: int) -> None:
    tries = [i < right for i in range(n)]
    for k in range(1, n + 1):
        subsets = list(itertools.combinations(tries, k))
        wanted = sum(any(s) for s in subsets) / len(subsets)
        assert analysis.pass_at_k(n, right, k) == pytest.approx(wanted)
    with pytest.raises(DataError):
        analysis.pass_at_k(n, right, n + 1)


def test_the_t_interval_of_a_textbook() -> None:
    # gaps 1, 2, 3, 4: mean 2.5, s = 1.29099, t(.975, 3) = 3.18245
    interval, p = analysis.paired_t([2, 4, 6, 8], [1, 2, 3, 4])
    reach = 3.18245 * 1.29099 / 2
    assert interval.mean == pytest.approx(2.5)
    assert (interval.low, interval.high) == pytest.approx((2.5 - reach, 2.5 + reach), abs=1e-4)
    assert p == pytest.approx(0.03047, abs=1e-4)


def test_one_seed_says_nothing() -> None:
    interval, p = analysis.paired_t([0.9], [0.1])
    assert (interval.mean, interval.low, interval.high) == (pytest.approx(0.8), -math.inf, math.inf)
    assert p == 1.0


def test_pairs_must_pair() -> None:
    with pytest.raises(DataError, match="2 and 1"):
        analysis.paired_t([1, 2], [1])


def test_the_bootstrap_covers_what_it_promises() -> None:
    random = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        interval = analysis.bootstrap(random.random(80).tolist(), seed=trial, draws=400)
        hits += interval.low <= 0.5 <= interval.high
    assert 180 <= hits <= 199  # 95% of 200, four standard errors
    again = [analysis.bootstrap([0.0, 1.0, 1.0], seed=3) for _ in range(2)]
    assert again[0] == again[1]


def test_pairing_narrows_the_interval() -> None:
    random = np.random.default_rng(1)
    before = random.random(200)
    after = before + 0.1 + random.normal(0, 0.02, 200)
    paired = analysis.paired_bootstrap(after.tolist(), before.tolist())
    alone = analysis.bootstrap(after.tolist())
    assert paired.low > 0.09 and paired.high < 0.11
    assert paired.high - paired.low < (alone.high - alone.low) / 5


def test_distinct_n() -> None:
    assert analysis.distinct_n(["a b a b"], 1) == 0.5
    assert analysis.distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)
    assert analysis.distinct_n(["a"], 2) is None


def test_unread_answers_are_left_out_of_a_share() -> None:
    verdicts = ("right", "wrong", "unreadable", "timeout")
    assert analysis.share_right([{"verdict": v} for v in verdicts]) == 0.5
    assert analysis.share_right([{"verdict": "timeout"}]) is None


def test_family_shares_sum_to_one_and_follow_the_hints(tmp_path: Path) -> None:
    def row(step: int, families: str) -> dict:
        return {"step": step, "hints": [{"family": name} for name in families]}

    steps, shares = analysis.family_shares([row(1, "aaab"), row(2, "ab"), row(3, ""), row(4, "b")])
    assert steps == [1.0, 2.0, 4.0]
    assert shares == {"a": [0.75, 0.5, 0.0], "b": [0.25, 0.5, 1.0]}
    rollouts = analysis.read_rollouts(make_run(tmp_path / "run", steps=90))
    steps, shares = analysis.family_shares(rollouts, windows=10)
    assert len(steps) == 10
    assert np.allclose(sum(np.array(v) for v in shares.values()), 1.0)


def test_hint_statistics() -> None:
    def hint(text: str, gates: list, verdicts: str) -> dict:
        names = {"r": "right", "w": "wrong"}
        return {"text": text, "gates": gates, "hinted": [{"verdict": names[v]} for v in verdicts]}

    clean = [{"verdict": "right"}] * 2
    row = {"step": 3, "clean": clean, "hints": [hint("a b", [], "rw"), hint("a b", ["leak"], "")]}
    (found,) = analysis.hint_statistics([row])
    assert found["drop"] == 0.5 and found["gated"] == 0.5 and found["repeated"] == 0.5
    assert found["words"] == 2.0 and found["distinct_1"] == 0.5


def test_pictures_come_as_png_and_pdf_the_same_each_time(tmp_path: Path) -> None:
    ours = [([1, 2], [0.1, 0.2]), ([1, 2], [0.2, 0.4])]
    panels = {"clean": {"ours": ours, "GRPO": [([1], [0.1])]}}
    accuracy = np.array([[0.9, 0.1], [np.nan, 0.8]])
    for name in ("a", "b"):
        analysis.plot_curves(panels, tmp_path / f"{name}.png")
        analysis.plot_crossplay(
            accuracy, tmp_path / f"x{name}.png", adversaries=["0", "9"], reasoners=["0", "9"]
        )
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
        assert (tmp_path / f"xa.{kind}").read_bytes() == (tmp_path / f"xb.{kind}").read_bytes()
    with pytest.raises(DataError, match="matrix"):
        analysis.plot_crossplay(accuracy, tmp_path / "x.png", adversaries=["0"], reasoners=["0"])
