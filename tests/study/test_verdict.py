from __future__ import annotations

import math
from collections.abc import Mapping

from micraframe.interfaces import Column
from micraframe.study.report.verdict import Candidate, Gap, claims, verdict

IOU = Column("iou", "intersection over union")
ERROR = Column("error", "an error", higher_is_better=False)


def candidate(key: str, hours: float, value: float, supervision: str = "other", images: int = 100) -> Candidate:
    curve = key.rstrip("0123456789")
    return Candidate(key, f"{key} + x", curve, supervision, images, hours, value, value - 0.02, value + 0.02)


LABELS = candidate("labels", 1.0, 0.6, "labels")
FEW, SOME, ALL = (
    candidate(f"net{images}", hours, value, "outlines", images)
    for images, hours, value in ((5, 0.5, 0.4), (20, 2.0, 0.62), (100, 10.0, 0.8))
)
METHODS = (LABELS, FEW, SOME, ALL)


def gaps(half_width: float | Mapping[str, float], equivalent: bool = False):
    """Return a function of gaps, whose intervals are that much wide to either side: of all, or by the first's key."""

    def gap(one: Candidate, other: Candidate) -> Gap:
        difference = one.value - other.value
        half = half_width if isinstance(half_width, float) else max(half_width[one.key], half_width[other.key])
        return Gap(difference, difference - half, difference + half, equivalent, 0.05)

    return gap


def text(*arguments) -> str:
    return "\n".join(verdict(*arguments))


def test_the_answer_names_the_best_method_of_each_budget_and_the_break_even():
    said = text(METHODS, (), gaps(0.05), IOU)
    assert "With 30 min to 1 h of annotator time, the best method is net5 + x: iou 0.400 [0.380, 0.420]." in said
    assert "With 1 h to 10 h of annotator time, the best method is labels + x" in said
    assert "better than with less time by 0.200 [0.150, 0.250]" in said
    assert "The intervals do not tell it from net20 + x." in said
    assert "With 10 h or more of annotator time, the best method is net100 + x" in said
    assert "Image-level labels alone reach iou 0.600 [0.580, 0.620] for 1 h, 75 % (69 to 81 %) of what" in said
    assert "Outlines of 5 images (30 min) reach 0.400 [0.380, 0.420]; of 20 images (2 h) reach 0.620" in said
    # Five images are certainly worse, 20 images cannot be distinguished from labels, all are certainly better.
    assert "The break-even of outlines with labels is between 30 min and 10 h, by interpolation at" in said


def test_what_the_intervals_do_not_carry_is_not_said():
    said = text(METHODS, (), gaps(0.5), IOU)
    assert "More annotation time did not clearly buy more" in said
    assert "the best method is" not in said
    assert "break-even" not in said
    assert "%" not in said
    assert "The interval does not tell which of the two is better" in said


def test_a_break_even_is_bounded_on_the_side_that_is_certain():
    unsure = {"labels": 0.0, "net5": 0.5, "net20": 0.5, "net100": 0.05}
    assert "The break-even is below 10 h" in text(METHODS, (), gaps(unsure), IOU)
    unsure = {"labels": 0.0, "net5": 0.05, "net20": 0.5, "net100": 0.5}
    assert "The break-even is beyond 30 min" in text(METHODS, (), gaps(unsure), IOU)
    cheap = candidate("net1", 0.2, 0.7, "outlines", 1)
    assert "There is no break-even: outlines of 12 min are better than labels of 1 h" in text(
        (LABELS, cheap, ALL), (), gaps(0.05), IOU
    )


def test_a_method_that_does_not_beat_the_best_control_is_named():
    control = candidate("blob", 0.1, 0.59)
    assert "control" not in text(METHODS, (), gaps(0.05), IOU)
    said = text(METHODS, (control, candidate("worse", 0.1, 0.1)), gaps(0.05), IOU)
    assert (
        'labels + x, net5 + x and net20 + x do not beat the control "blob" (0.590 [0.570, 0.610]) beyond doubt.' in said
    )
    assert 'No method beats the control "blob"' in text(METHODS, (control,), gaps(0.5), IOU)


def test_equivalence_needs_the_margin():
    near = (LABELS, candidate("net100", 10.0, 0.61, "outlines"))
    assert "equivalent within 0.05" in text(near, (), gaps(0.03, equivalent=True), IOU)
    assert "equivalent" not in text(near, (), gaps(0.03), IOU)


def test_low_values_may_be_good():
    methods = (candidate("a", 1.0, 0.5), candidate("b", 2.0, 0.2))
    assert [claim.candidate.key for claim in claims(methods, gaps(0.05), better=-1)] == ["a", "b"]
    assert "With 2 h or more of annotator time, the best method is b + x" in text(methods, (), gaps(0.05), ERROR)


def test_pairs_that_were_not_compared_and_unknown_values_say_nothing():
    unknown = candidate("c", 0.1, math.nan)
    assert claims((*METHODS, unknown), lambda one, other: None)[0].candidate is FEW
    assert len(claims(METHODS, lambda one, other: None)) == 1
    assert verdict((), (), gaps(0.1), IOU) == ()
