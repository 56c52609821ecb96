"""Every component keeps the promises of its kind. Add tests of what yours compute."""

from __future__ import annotations

from micraframe.testing import Conformance


class TestDataset(Conformance):
    kind = "dataset"
    name = "micraframe-example/discs"


class TestBackbone(Conformance):
    kind = "backbone"
    name = "micraframe-example/two-convolutions"


class TestCombiner(Conformance):
    kind = "combiner"
    name = "micraframe-example/stretched-mean"


class TestMetric(Conformance):
    kind = "metric"
    name = "micraframe-example/area-difference"
