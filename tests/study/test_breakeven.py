from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micraframe.study.report.breakeven import Point, axis_floor, reach, staircase

CURVE = (Point("25", 1.0, 0.2), Point("100", 10.0, 0.6), Point("all", 100.0, 0.7))

hours = st.floats(0, 1e4, allow_subnormal=False)
quality = st.floats(0, 1)
points = st.lists(st.builds(Point, st.text(max_size=3), hours, quality), max_size=8)


def test_a_growing_budget_switches_to_whatever_is_better():
    cheap, worse, better, dear = Point("a", 0.1, 0.3), Point("b", 0.5, 0.2), Point("c", 1.0, 0.5), Point("d", 9.0, 0.5)
    assert staircase([dear, better, worse, cheap]) == (cheap, better)


def test_of_equally_cheap_ones_the_best_is_the_first_step_and_of_equals_the_first():
    assert staircase([Point("a", 0.0, 0.1), Point("b", 0.0, 0.4), Point("c", 0.0, 0.4)]) == (Point("b", 0.0, 0.4),)


def test_what_is_not_known_is_no_step():
    assert staircase([Point("a", 0.1, math.nan)]) == ()
    assert staircase([]) == ()


@given(points, hours)
def test_the_step_that_a_budget_affords_is_the_best_of_all_that_it_affords(found, budget):
    steps = staircase(found)
    affordable = [point.quality for point in found if point.hours <= budget]
    reached = [step.quality for step in steps if step.hours <= budget]
    assert (max(affordable) if affordable else None) == (reached[-1] if reached else None)
    assert list(steps) == sorted(steps, key=lambda step: step.hours)


def test_between_two_points_quality_is_linear_in_the_logarithm_of_hours():
    assert reach(CURVE, 0.4) == ("reached", pytest.approx(math.sqrt(10)))
    assert reach(CURVE, 0.65) == ("reached", pytest.approx(10 * math.sqrt(10)))


def test_a_curve_is_as_good_as_its_points_at_their_hours():
    assert reach(CURVE, 0.6) == ("reached", 10.0)
    assert reach(reversed(CURVE), 0.7) == ("reached", 100.0)


def test_a_quality_below_the_first_point_and_one_above_all():
    assert reach(CURVE, 0.2) == ("before", 1.0)
    assert reach(CURVE, 0.1) == ("before", 1.0)
    status, never = reach(CURVE, 0.71)
    assert status == "never"
    assert math.isnan(never)
    assert reach([], 0.5).status == "never"


def test_a_curve_that_falls_again_is_as_good_where_it_first_is():
    assert reach((*CURVE, Point("more", 1000.0, 0.3)), 0.4).hours == pytest.approx(math.sqrt(10))


def test_from_no_hours_on_quality_is_linear_in_hours():
    assert reach([Point("none", 0.0, 0.0), Point("all", 8.0, 1.0)], 0.25) == ("reached", 2.0)


def test_points_that_are_not_known_are_left_out():
    assert reach([CURVE[0], Point("x", 2.0, math.nan), CURVE[1]], 0.4).hours == pytest.approx(math.sqrt(10))


@given(points, quality)
def test_a_curve_is_reached_between_its_ends(curve, wanted):
    status, found = reach(curve, wanted)
    assert (status == "never") == all(point.quality < wanted for point in curve)
    if status != "never":
        # Within rounding of the logarithm.
        assert min(p.hours for p in curve) * (1 - 1e-9) <= found <= max(p.hours for p in curve) * (1 + 1e-9)


@given(points, st.floats(1e-3, 1e3), quality)
def test_costs_in_another_unit_give_hours_in_that_unit(curve, unit, wanted):
    scaled = [point._replace(hours=point.hours * unit) for point in curve]
    assert reach(scaled, wanted).hours == pytest.approx(reach(curve, wanted).hours * unit, nan_ok=True)


def test_an_axis_begins_left_of_the_least_hours_that_have_a_logarithm():
    assert axis_floor([0.0, 0.3, 6.0]) == pytest.approx(0.1)
    assert axis_floor([0.0, 0.0]) == 1.0
    assert axis_floor([]) == 1.0
