"""The simulation of coverage is one of what it says: its truth is the mean of what it draws."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage.__main__ import KINDS, MEASURES, Condition, draw, judge


@pytest.mark.parametrize("kind", KINDS)
def test_values_have_the_mean_that_is_called_the_truth(kind):
    random = np.random.default_rng(0)
    trials = [draw(random, Condition(kind, 3, 11, 0.12)) for _ in range(1500)]
    n, d = np.sum([[each.sums()[0].sum(), each.sums()[1].sum()] for each in trials], axis=0)
    assert n / d == pytest.approx(trials[0].truth, abs=0.01)
    single = [draw(random, Condition(kind, 1, 30, 0.12)) for _ in range(300)]
    residuals = [each.values[0].mean() - each.truth for each in single]
    assert abs(np.mean(residuals)) < 0.01
    assert np.std(residuals) < 0.06  # what models vary by is part of the truth


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_is_judged_by_old_and_new(kind):
    random = np.random.default_rng(1)
    weights, exchanged = random.multinomial(30, [1 / 30] * 30, 50) * 1.0, random.random((50, 30)) < 0.5
    exchanged[0] = False
    judged = judge(draw(random, Condition(kind, 3, 30, 0.03)), weights, exchanged)
    assert len(judged) == len(MEASURES)
    assert np.isfinite(judged).all()
