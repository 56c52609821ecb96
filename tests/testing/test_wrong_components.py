"""Every wrong component is caught by the check that is meant for it, and by no other."""

from __future__ import annotations

import re

import conformance_page
import pytest
from wrong_components import RIGHT, ROWS, Wrong

from micraframe.plugin import KINDS, Component
from micraframe.testing import TRIALS, Report, examine
from micraframe.testing.report import Trial

UNREACHED = {
    ("method", "maps-have-a-scale"): "a head that ignores its threshold fails as a head",
}
"""Checks without a wrong component of their kind, and why."""


@pytest.fixture
def examined(install):
    def examine_class(kind: str, name: str, class_name: str) -> Report:
        install("wrong", [Component(kind, name, f"wrong_components:{class_name}", "Wrong on purpose")])
        return examine(kind, f"wrong/{name}")

    return examine_class


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_passes(examined, kind):
    report = examined(kind, "right", RIGHT[kind].__name__)
    assert report.failures == ()
    assert len(report.results) == len(TRIALS[kind].checks())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.kind}-{row.name}")
def test_what_is_wrong_is_caught_by_the_check_that_is_meant_for_it(examined, row: Wrong):
    report = examined(row.kind, row.name, row.class_name)
    (failure,) = report.failures
    assert failure.check == row.check
    assert re.search(row.message, failure.reason)
    assert re.search(r"expected .+ got |expected .+, not |expected .+; |there is no .+", failure.reason)


def test_every_check_catches_something():
    caught = {(row.kind, row.check) for row in ROWS}
    shared = {each.name for each in Trial.checks()}
    for kind in KINDS:
        checks = {(kind, each.name) for each in TRIALS[kind].checks() if each.name not in shared}
        assert checks - caught == {each for each in UNREACHED if each[0] == kind}
    assert shared <= {check for _, check in caught}


def test_the_page_lists_the_checks_and_the_wrong_components():
    text = conformance_page.PAGE.read_text(encoding="utf-8")
    assert conformance_page.render(text) == text
    assert all(f"| {row.what} | `{row.check}` |" in text for row in ROWS)
