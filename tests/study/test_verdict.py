from __future__ import annotations

import math
from collections.abc import Mapping

from micraframe.config import Choice, ComparedMethod
from micraframe.interfaces import Column
from micraframe.study.plan import StudyRun
from micraframe.study.report.results import Gap, HoursRange, MethodResult
from micraframe.study.report.verdict import claims, verdict
from micraframe.study.tables import Summary
from micraframe.types import DatasetInfo, Normalisation

IOU = Column("iou", "intersection over union")
ERROR = Column("error", "an error", higher_is_better=False)


def result(
    method: str, hours: float, value: float, annotator: str = "boxes", images: int | None = None
) -> MethodResult:
    compared = ComparedMethod(
        method=Choice(name="x"), annotator=Choice(name=f"micraframe/{annotator}"), label=method, train_images=images
    )
    run = StudyRun(Choice(name="x"), DatasetInfo("d", ("a",), 1, Normalisation(), "f"), compared, 0, method, method)
    numbers = value, value - 0.02, value + 0.02, 9, 9, 1, math.nan, False
    summaries = {
        ("fixed", name): Summary("d", run.annotator, method, "fixed", name, *numbers) for name in ("iou", "error")
    }
    return MethodResult(0, "method", (run,), 1, HoursRange(hours, hours, hours), None, summaries, False)


LABELS = result("labels", 1.0, 0.6, "image-level")
FEW, SOME, ALL = (
    result("net", hours, value, "full", images)
    for images, hours, value in ((5, 0.5, 0.4), (20, 2.0, 0.62), (None, 10.0, 0.8))
)
METHODS = (LABELS, FEW, SOME, ALL)


def gaps(half_width: float | Mapping[float, float], equivalent: bool = False):
    """Return a function of gaps, whose intervals are that much wide to either side: of all, or by hours."""

    def gap(one: MethodResult, other: MethodResult) -> Gap:
        difference = one.mean("iou") - other.mean("iou")
        widths = half_width if isinstance(half_width, Mapping) else {}
        half = max(widths.get(each.hours.value, half_width) for each in (one, other))
        return Gap(difference, difference - half, difference + half, equivalent, 0.05)

    return gap


def text(*arguments) -> str:
    return "\n".join(verdict(*arguments))


def test_the_answer_names_the_best_method_of_each_budget_and_the_break_even():
    said = text(METHODS, (), gaps(0.05), IOU)
    assert "With 30 min to 1 h of annotator time, the best method is net + full annotation (5 images): iou" in said
    assert "With 1 h to 10 h of annotator time, the best method is labels + image-level labels" in said
    assert "better than with less time by 0.200 [0.150, 0.250]" in said
    assert "It cannot be distinguished from net + full annotation (20 images)." in said
    assert "With 10 h or more of annotator time, the best method is net + full annotation: iou" in said
    assert (
        "Image-level labels alone reach iou 0.600 [0.580, 0.620] for 1 h, 75 % of what full annotation reaches, 0.800 "
        "[0.780, 0.820] for 10 h (labels minus full: -0.200 [-0.250, -0.150])." in said
    )
    assert "Outlines of 5 images (30 min) reach 0.400 [0.380, 0.420]; of 20 images (2 h) reach 0.620" in said
    assert "of all training images (10 h) reach 0.800 [0.780, 0.820], by net." in said
    # Five images are certainly worse, 20 images cannot be distinguished from labels, all are certainly better.
    assert "The break-even of outlines with labels is between 30 min and 10 h, by interpolation at" in said


def test_what_the_intervals_do_not_carry_is_not_said():
    said = text(METHODS, (), gaps(0.5), IOU)
    assert "More annotation time did not clearly buy more" in said
    assert "the best method is" not in said
    assert "break-even" not in said
    assert "The interval does not tell which of the two is better" in said


def test_a_break_even_is_bounded_on_the_side_that_is_certain():
    unsure = {1.0: 0.0, 0.5: 0.5, 2.0: 0.5, 10.0: 0.05}
    assert "The break-even is below 10 h" in text(METHODS, (), gaps(unsure), IOU)
    unsure = {1.0: 0.0, 0.5: 0.05, 2.0: 0.5, 10.0: 0.5}
    assert "The break-even is beyond 30 min" in text(METHODS, (), gaps(unsure), IOU)
    cheap = result("net", 0.2, 0.7, "full", 1)
    assert "There is no break-even: outlines of 12 min are better than labels of 1 h" in text(
        (LABELS, cheap, ALL), (), gaps(0.05), IOU
    )


def test_a_method_that_does_not_beat_the_best_control_is_named():
    control = result("blob", 0.1, 0.59)
    assert "shown to beat" not in text(METHODS, (), gaps(0.05), IOU)
    said = text(METHODS, (control, result("worse", 0.1, 0.1)), gaps(0.05), IOU)
    assert (
        "labels + image-level labels, net + full annotation (5 images) and net + full annotation (20 images) were not "
        'shown to beat the control "blob" (0.590 [0.570, 0.610]).' in said
    )
    assert 'No method was shown to beat the control "blob"' in text(METHODS, (control,), gaps(0.5), IOU)
    named = result("control, blob", 0.1, 0.59)
    assert 'No method was shown to beat "control, blob" (' in text(METHODS, (named,), gaps(0.5), IOU)


def test_of_many_methods_that_do_not_beat_it_the_best_are_named():
    control = result("blob", 0.1, 0.59)
    many = [result(f"method {number}", 1.0, number / 10) for number in range(6)]
    said = text((*many, ALL), (control,), gaps(0.05), IOU)
    last = said[said.index("6 of 7 methods") :]
    assert [number for number in range(6) if f"method {number} + boxes" in last] == [3, 4, 5]
    assert last.index("method 5") < last.index("method 4") < last.index("method 3")


def test_a_noisy_method_with_a_higher_mean_does_not_hide_one_that_is_certainly_better():
    labels, noisy, certain = (
        result("labels", 1.0, 0.5, "image-level"),
        result("noisy", 1.5, 0.6),
        result("net", 2.0, 0.59, "full"),
    )
    unsure = gaps({1.0: 0.03, 1.5: 0.2, 2.0: 0.03})
    first, second = claims((labels, noisy, certain), unsure, IOU)
    assert (first.result, first.rivals) == (labels, (noisy,))
    assert (second.result, second.rivals) == (certain, (noisy,))
    said = text((labels, noisy, certain), (), unsure, IOU)
    assert "With 2 h or more of annotator time, the best method is net + full annotation" in said
    assert "did not clearly buy more" not in said


def test_a_method_that_is_certainly_better_or_worse_is_no_rival():
    worse, same = result("worse", 0.8, 0.1), result("same", 1.0, 0.61)
    assert [claim.rivals for claim in claims((LABELS, same, ALL), gaps(0.05), IOU)] == [(LABELS,), ()]
    assert [claim.result for claim in claims((worse, LABELS), gaps(0.05), IOU)] == [worse, LABELS]
    assert claims((LABELS, result("worse", 2.0, 0.1)), gaps(0.05), IOU)[0].rivals == ()


def test_equivalence_needs_the_margin():
    near = (LABELS, result("net", 10.0, 0.61, "full"))
    assert "equivalent within 0.05" in text(near, (), gaps(0.03, equivalent=True), IOU)
    assert "equivalent" not in text(near, (), gaps(0.03), IOU)


def test_low_values_may_be_good():
    methods = (result("a", 1.0, 0.5, "image-level"), result("b", 2.0, 0.2, "full"))
    assert [claim.result.method for claim in claims(methods, gaps(0.05), ERROR)] == ["a", "b"]
    said = text(methods, (), gaps(0.05), ERROR)
    assert "With 2 h or more of annotator time, the best method is b + full annotation" in said
    assert "for 1 h; full annotation reaches 0.200 [0.180, 0.220] for 2 h" in said


def test_pairs_that_were_not_compared_and_unknown_values_say_nothing():
    unknown = result("c", 0.1, math.nan)
    assert "cheapest, net + full annotation (5 images)" in text((*METHODS, unknown), (), lambda one, other: None, IOU)
    assert len(claims(METHODS, lambda one, other: None, IOU)) == 1
    assert verdict((), (), gaps(0.1), IOU) == ()
