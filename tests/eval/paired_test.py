"""p-values: against all signs, against a table, and under the null."""

import itertools

import numpy as np
import pytest

from seirenes_jax.analysis import holm, sign_flip


def test_random_signs_come_near_all_signs() -> None:
    gaps = [0.5, -0.25, 0.75, 1.0, 0.25, -0.5, 0.5, 0.75]
    sums = [
        abs(sum(sign * gap for sign, gap in zip(signs, gaps, strict=True)))
        for signs in itertools.product((-1, 1), repeat=8)
    ]
    exact = sum(one >= abs(sum(gaps)) - 1e-9 for one in sums) / len(sums)
    assert sign_flip(gaps, [0.0] * 8) == pytest.approx(exact, abs=0.01)


def test_no_gap_is_no_evidence_and_the_order_of_the_two_does_not_matter() -> None:
    assert sign_flip([1, 0, 1], [1, 0, 1]) == 1.0
    a, b = [0.9, 0.8, 0.4, 0.7], [0.1, 0.8, 0.3, 0.2]
    assert sign_flip(a, b, seed=3) == sign_flip(b, a, seed=3)


def test_under_the_null_small_values_are_as_rare_as_they_say() -> None:
    random = np.random.default_rng(0)
    small = 0
    for trial in range(300):
        both = random.integers(0, 2, (2, 40)).astype(float)
        small += sign_flip(both[0].tolist(), both[1].tolist(), seed=trial, draws=400) <= 0.1
    assert small <= 45  # 10% of 300, three standard errors


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == [] and holm([0.2]) == [0.2]
