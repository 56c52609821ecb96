from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.study.report.breakeven import QualityPoint, axis_floor, break_even, staircase

CURVE = (QualityPoint("25", 1.0, 0.2), QualityPoint("100", 10.0, 0.6), QualityPoint("all", 100.0, 0.7))

hours = st.floats(0, 1e4, allow_subnormal=False)
quality = st.floats(0, 1)
points = st.lists(st.builds(QualityPoint, st.text(max_size=3), hours, quality), max_size=8)


def test_a_growing_budget_switches_to_better_methods():
    cheap, worse, better, dear = (
        QualityPoint("a", 0.1, 0.3),
        QualityPoint("b", 0.5, 0.2),
        QualityPoint("c", 1.0, 0.5),
        QualityPoint("d", 9.0, 0.5),
    )
    assert staircase([dear, better, worse, cheap]) == (cheap, better)


def test_the_first_step_is_the_best_of_the_cheapest_and_the_first_of_equals():
    assert staircase([QualityPoint("a", 0.0, 0.1), QualityPoint("b", 0.0, 0.4), QualityPoint("c", 0.0, 0.4)]) == (
        QualityPoint("b", 0.0, 0.4),
    )


def test_unknown_quality_is_no_step():
    assert staircase([QualityPoint("a", 0.1, math.nan)]) == ()
    assert staircase([]) == ()


@given(points, hours)
def test_each_budget_gets_the_best_that_it_affords(found, budget):
    steps = staircase(found)
    affordable = [point.quality for point in found if point.hours <= budget]
    reached = [step.quality for step in steps if step.hours <= budget]
    assert (max(affordable) if affordable else None) == (reached[-1] if reached else None)
    assert list(steps) == sorted(steps, key=lambda step: step.hours)


def test_between_two_points_quality_is_linear_in_the_logarithm_of_hours():
    assert break_even(CURVE, 0.4) == ("reached", pytest.approx(math.sqrt(10)))
    assert break_even(CURVE, 0.65) == ("reached", pytest.approx(10 * math.sqrt(10)))


def test_a_curve_reaches_the_quality_of_its_points_at_their_hours():
    assert break_even(CURVE, 0.6) == ("reached", 10.0)
    assert break_even(reversed(CURVE), 0.7) == ("reached", 100.0)


def test_a_quality_below_the_first_point_or_above_all_points():
    assert break_even(CURVE, 0.2) == ("before", 1.0)
    assert break_even(CURVE, 0.1) == ("before", 1.0)
    status, never = break_even(CURVE, 0.71)
    assert status == "never"
    assert math.isnan(never)
    assert break_even([], 0.5).status == "never"


def test_a_curve_that_falls_again_counts_where_it_first_reaches_the_quality():
    assert break_even((*CURVE, QualityPoint("more", 1000.0, 0.3)), 0.4).hours == pytest.approx(math.sqrt(10))


def test_quality_is_linear_in_hours_from_zero_hours():
    assert break_even([QualityPoint("none", 0.0, 0.0), QualityPoint("all", 8.0, 1.0)], 0.25) == ("reached", 2.0)


def test_points_without_a_quality_are_left_out():
    assert break_even([CURVE[0], QualityPoint("x", 2.0, math.nan), CURVE[1]], 0.4).hours == pytest.approx(math.sqrt(10))


@given(points, quality)
def test_a_curve_is_reached_between_its_ends(curve, wanted):
    status, found = break_even(curve, wanted)
    assert (status == "never") == all(point.quality < wanted for point in curve)
    if status != "never":
        # Within rounding of the logarithm.
        assert min(p.hours for p in curve) * (1 - 1e-9) <= found <= max(p.hours for p in curve) * (1 + 1e-9)


@given(points, st.floats(1e-3, 1e3), quality)
def test_break_even_scales_with_the_unit_of_cost(curve, unit, wanted):
    scaled = [point._replace(hours=point.hours * unit) for point in curve]
    assert break_even(scaled, wanted).hours == pytest.approx(break_even(curve, wanted).hours * unit, nan_ok=True)


def test_an_axis_begins_left_of_the_smallest_positive_hours():
    assert axis_floor([0.0, 0.3, 6.0]) == pytest.approx(0.1)
    assert axis_floor([0.0, 0.0]) == 1.0
    assert axis_floor([]) == 1.0
