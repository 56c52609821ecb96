"""The ways to run the kit, its reports, and how a check is opted out of."""

from __future__ import annotations

import gzip
import pickle
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wrong_components import RIGHT

from micraframe.errors import ConfigError, MissingDependency
from micraframe.plugin import Component
from micraframe.testing import TRIALS, Conformance, check, examine
from micraframe.testing.pickles import holds_pickle

RIGHT_COMBINER = Component("combiner", "right", f"wrong_components:{RIGHT['combiner'].__name__}", "Right")
RANDOM_COMBINER = Component("combiner", "random", "wrong_components:combiner_adds_random_numbers", "Wrong")
REASON = {"same-bytes": "dithering is random"}


class TestPca(Conformance):
    kind = "combiner"
    name = "micraframe/pca"


class TestViews(Conformance):
    kind = "extractor"
    name = "views"


class TestViewsOfTheImageAlone(Conformance):
    kind = "extractor"
    name = "views"
    params: ClassVar = {"flips": False}


class TestSharpenedMean(Conformance):
    kind = "combiner"
    name = "guided"
    params: ClassVar = {"combiner": {"name": "select", "params": {"join": "mean"}}}
    opt_out: ClassVar = {"negative-maps": "an example of an opt-out"}


def test_there_is_a_test_for_each_check(request):
    names = {item.callspec.params["conformance_check"] for item in request.session.items if item.cls is TestPca}
    assert not names or names == {each.name for each in TRIALS["combiner"].checks()}


def test_a_report_says_what_was_checked_and_why_something_was_not(install):
    report = check("head", "classification")
    assert report.summary == f"{len(report.results) - 1} checks run, 1 not applicable: it has no mask threshold"
    install("made", [RANDOM_COMBINER])
    report = examine("combiner", "random")
    assert report.summary.startswith("4 checks run, 1 failed, ")
    assert report.summary.endswith("not applicable: same-bytes failed")
    assert (report.kind, report.name) == ("combiner", "made/random")
    with pytest.raises(AssertionError, match=r"^combiner random: expected combine .* \(check same-bytes\)$"):
        check("combiner", "random")


def test_opting_out_takes_a_reason_and_a_check_that_exists(install):
    install("made", [RANDOM_COMBINER])
    report = examine("combiner", "random", opt_out=REASON)
    assert report.failures == ()
    assert [each.reason for each in report.of("opted out")] == ["dithering is random"]
    (failure,) = examine("combiner", "random", opt_out={"same-bytes": " "}).failures
    assert "expected a reason for opting out of same-bytes, got none" in failure.reason
    with pytest.raises(ConfigError, match="expected checks of a combiner, got same-byte; there are: "):
        examine("combiner", "random", opt_out={"same-byte": "typing error"})


def test_the_example_of_a_record_and_its_opt_outs_hold_unless_parameters_are_given(install):
    record = Component("combiner", "some", "micraframe.combiners.select:Select", "", example={"layers": ["lost"]})
    random = Component("combiner", "random", RANDOM_COMBINER.target, "", opt_out=REASON)
    install("made", [record, random])
    assert examine("combiner", "made/random").failures == ()
    assert [each.check for each in examine("combiner", "made/random", {}).failures] == ["same-bytes"]
    with pytest.raises(AssertionError, match="lost"):
        check("combiner", "made/some")
    check("combiner", "made/some", join="mean")


def test_what_cannot_be_built_is_an_error(install):
    install(
        "made", [Component("metric", "far", "made_metric:Far", "", install="made[far]")], made_metric="import fardist"
    )
    with pytest.raises(MissingDependency, match="pip install 'made\\[far\\]'"):
        check("metric", "far")
    with pytest.raises(ConfigError, match="there is no parameter 'sigma'"):
        check("combiner", "pca", sigma=1)


@given(st.binary(max_size=200))
def test_random_bytes_hold_no_pickle(data):
    try:
        pickle.loads(data)
    except Exception:
        assert not holds_pickle(data)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.floats() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)),
    st.integers(0, pickle.HIGHEST_PROTOCOL),
    st.booleans(),
)
def test_pickles_are_found_packed_or_not(value, protocol, packed):
    data = pickle.dumps(("state", value), protocol)
    assert holds_pickle(gzip.compress(data) if packed else data)
    assert holds_pickle(data + bytes(7))


def test_weights_hold_no_pickle():
    generator = np.random.default_rng(0)
    assert not holds_pickle(generator.normal(size=500_000).astype(np.float32).tobytes())
    assert not any(holds_pickle(np.int64(number).tobytes()) for number in range(0, 20_000, 61))
