"""The conformance kit: checks of what each kind of component promises, for the tests of a plugin.

    from micraframe.testing import Conformance, check

    class TestEdges(Conformance):             # one test for each check
        kind = "combiner"
        name = "my-plugin/edges"

    def test_edges():
        check("combiner", "my-plugin/edges", sigma=2)   # all checks in one test

`micraframe conformance PLUGIN` does the same for all components of a plugin. Inputs are small, made here, and the same
in every run.
"""

from __future__ import annotations

from micraframe.testing.conformance import TRIALS, Conformance, check, examine
from micraframe.testing.inputs import SIZES, full_samples, small_classifier
from micraframe.testing.report import Report, Result

__all__ = [
    "SIZES",
    "TRIALS",
    "Conformance",
    "Report",
    "Result",
    "check",
    "examine",
    "full_samples",
    "small_classifier",
]
