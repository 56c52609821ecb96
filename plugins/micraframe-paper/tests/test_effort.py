from __future__ import annotations

import math

import pytest
from micraframe_paper.effort import FIGURE_1F, as_markdown


def test_hours_follow_from_the_published_counts() -> None:
    found = {(each.dataset, each.supervision): each for each in FIGURE_1F}
    assert len(found) == len(FIGURE_1F) == 10
    assert found["F-actin", "image-level"].decisions == 5119
    assert found["F-actin", "image-level"].hours == pytest.approx(2.84, abs=0.005)
    assert found["Cell Tracking Challenge", "image-level"].hours == pytest.approx(108.4, abs=0.05)
    assert found["P. vivax", "outline"].hours == pytest.approx(40.2, abs=0.05)
    assert found["EM axons", "outline"].hours == pytest.approx(78 + 537 * 14 / 3600)
    for each in FIGURE_1F:
        assert math.isnan(each.hours) == each.basis.startswith("not published")


def test_the_table_says_what_is_unknown() -> None:
    lines = as_markdown().splitlines()
    assert len(lines) == 2 + len(FIGURE_1F)
    assert lines[4] == "| F-actin | image-level | 5,119 | 2.8 | 3832 training and 1287 validation crops, 2 s each |"
    assert "| F-actin | outline | - | - | not published: " in lines[5]
