from __future__ import annotations

import dataclasses
import math
from itertools import pairwise, product

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_studies import compared, study

from micraframe.config import Choice, ComparedMethod
from micraframe.interfaces import Column
from micraframe.registry import build
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import StudyRun, plan
from micraframe.study.report.failures import (
    KINDS,
    WITH_CLASS,
    MethodFailures,
    dataset_failures,
    failure_kinds,
    image_counts,
    image_kinds,
    kind_counts,
    kind_shares,
    kinds_text,
)
from micraframe.study.report.figures import KIND_COLOURS
from micraframe.study.report.results import DatasetResults, HoursRange, MethodResult
from micraframe.study.run import run_study, write_results
from micraframe.study.tables import ROWS, Difference, Values
from micraframe.types import DatasetInfo, Normalisation, Prediction, Progress, Sample, Scores

NAN = math.nan
below = math.nextafter(0.5, 0)


def kind(label: float, correct: float, precision: float, recall: float) -> str:
    """Return the kind of one image; empty where it is not counted."""
    found = int(failure_kinds(*np.array([[label], [correct], [precision], [recall]], np.float64))[0])
    return KINDS[found] if found >= 0 else ""


@pytest.mark.parametrize(
    ("precision", "recall", "expected"),
    [
        (0.5, 0.5, "good"),
        (1, 1, "good"),
        (0.5, below, "too little"),
        (1, 0.01, "too little"),
        (below, 0.5, "too much"),
        (0.01, 1, "too much"),
        (below, below, "elsewhere"),
        (0, 0, "elsewhere"),
        (NAN, 0, "missed entirely"),
    ],
)
def test_an_image_with_the_class_fails_by_precision_and_recall(precision, recall, expected):
    assert kind(1, 1, precision, recall) == expected
    assert kind(1, 0, precision, recall) == "missed entirely", "a class that was judged absent, whatever its mask"


@pytest.mark.parametrize(
    ("correct", "precision", "expected"),
    [(1, NAN, "rightly empty"), (0, NAN, "false alarm"), (1, 0, "false alarm"), (0, 0, "false alarm")],
)
def test_an_image_without_the_class_is_rightly_empty_or_a_false_alarm(correct, precision, expected):
    assert kind(0, correct, precision, NAN) == expected


@pytest.mark.parametrize(
    ("label", "correct", "precision", "recall"),
    [(NAN, NAN, 0.9, 0.9), (NAN, NAN, NAN, NAN), (1, 1, 0.9, NAN), (1, 0, NAN, NAN), (0, 0, 0.9, 0.9), (0, 1, NAN, 0)],
)
def test_an_image_is_not_counted_if_its_label_is_unknown_or_contradicts_its_outlines(label, correct, precision, recall):
    assert kind(label, correct, precision, recall) == ""


share = st.floats(0, 1)
images = st.tuples(
    st.sampled_from([0.0, 1.0, NAN]), st.sampled_from([0.0, 1.0]), share | st.just(NAN), share | st.just(NAN)
)


@given(st.lists(images, min_size=1, max_size=20))
def test_kinds_partition_the_images(listed):
    label, correct, precision, recall = np.array(listed).T
    kinds = failure_kinds(label, correct, precision, recall)
    unknown = np.isnan(label) | ((label == 1) == np.isnan(recall))
    assert np.array_equal(kinds == -1, unknown)
    contains = np.isin(kinds, range(len(WITH_CLASS)))
    assert np.array_equal(contains, ~unknown & (label == 1))
    found = contains & (kinds != KINDS.index("missed entirely"))
    assert np.array_equal(found, contains & (correct == 1) & ~np.isnan(precision))
    assert np.array_equal(np.isin(kinds, [1, 3])[found], (recall < 0.5)[found])
    assert np.array_equal(np.isin(kinds, [2, 3])[found], (precision < 0.5)[found])
    counts = kind_counts([kinds[:, None]])
    assert counts.sum() == (~unknown).sum()
    shares = kind_shares(counts)[0]
    for part, whole in ((shares[: len(WITH_CLASS)], contains.sum()), (shares[len(WITH_CLASS) :], counts[0, 5:].sum())):
        assert part.sum() == pytest.approx(1) if whole else np.isnan(part).all()


def test_the_metrics_of_real_masks_give_every_kind():
    half = np.zeros((4, 4), bool)
    half[:2] = True
    quarter, nothing, everything = half & half.T, np.zeros((4, 4), bool), np.ones((4, 4), bool)
    top = np.zeros((4, 4), bool)
    top[0] = True
    cases = [
        (half, half, "good"),
        (half, quarter, "good"),  # recall is exactly one half
        (half, everything, "good"),  # and precision
        (half, top & quarter, "too little"),
        (quarter & top, everything, "too much"),
        (half, ~half, "elsewhere"),
        (half, nothing, "missed entirely"),
        (nothing, nothing, "rightly empty"),
        (nothing, half, "false alarm"),
    ]
    truth, predicted = (np.stack([case[place] for case in cases]) for place in (0, 1))
    present = predicted.any(axis=(1, 2))
    prediction = Prediction(Scores.without_maps(present.astype(np.float32)), present, masks=predicted)
    sample = Sample("a", np.zeros((1, 4, 4), np.float32), masks=truth)
    measured: dict[str, np.ndarray] = {}
    for name in ("classification", "overlap"):
        measured |= build("metric", name).measure(prediction, sample)
    (kinds,) = image_kinds([{name: values[None] for name, values in measured.items()}], detections=False)
    assert [KINDS[each] for each in kinds[0]] == [case[2] for case in cases]


def test_shares_are_means_over_trained_models_of_each_sort_of_image():
    one, other = np.array([[0], [1], [4], [5], [-1]]), np.array([[0], [0], [1], [6], [-1]])
    counts = kind_counts([one, other])
    assert counts.tolist() == [[1.5, 1, 0, 0, 0.5, 0.5, 0.5]]
    assert image_counts(counts).tolist() == [[3, 1]]
    assert kind_shares(counts)[0].tolist() == pytest.approx([1 / 2, 1 / 3, 0, 0, 1 / 6, 1 / 2, 1 / 2])
    assert np.isnan(kind_shares(np.array([2.0, 0, 0, 0, 0, 0, 0]))).tolist() == [False] * 5 + [True] * 2


def test_without_precision_and_recall_of_each_image_no_kind_is_known():
    table = np.ones((3, 1))
    assert image_kinds([{"label": table, "correct": table, "precision": table}], detections=False) == ()
    both = dict.fromkeys(("label", "correct", "precision", "recall"), table)
    for models in ([both], [{"label": table, "correct": table}, both]):
        assert [each.tolist() for each in image_kinds(models, detections=False)] == [[[0]] * 3]
    assert image_kinds([both], detections=True) == ()


def test_the_metrics_of_real_detections_give_every_kind():
    here, there, far = [1.0, 1.0, 1.0], [1.0, 8.0, 1.0], [[8.0, place, 1.0] for place in (1.0, 4.0, 8.0)]
    cases = [
        ([here, there], [here, there], "good"),
        ([here, there], [here], "good"),  # recall is exactly one half
        ([here, there, far[0]], [here], "too little"),
        ([here], [here, *far[1:]], "too much"),
        ([here, there, far[0]], [here, *far[1:]], "elsewhere"),
        ([here], [there], "elsewhere"),
        ([here], [], "missed entirely"),
        ([], [], "rightly empty"),
        ([], [here], "false alarm"),
    ]
    truth, predicted = (tuple(np.array(case[place], np.float32).reshape(-1, 3) for case in cases) for place in (0, 1))
    present = np.array([len(points) > 0 for points in predicted])
    prediction = Prediction(Scores.without_maps(present.astype(np.float32)), present, points=predicted)
    labels = np.array([len(points) > 0 for points in truth])
    points = tuple(each[:, :2] for each in truth)
    sample = Sample("a", np.zeros((1, 9, 9), np.float32), labels=labels, points=points)
    measured: dict[str, np.ndarray] = {}
    for name, params in (("classification", {}), ("detection", {"distance": 2})):
        measured |= build("metric", name, **params).measure(prediction, sample)
    (kinds,) = image_kinds([{name: values[None] for name, values in measured.items()}], detections=True)
    assert [KINDS[each] for each in kinds[0]] == [case[2] for case in cases]


@pytest.mark.parametrize(
    ("label", "correct", "true", "expected"),
    [(1, 1, 1, "good"), (0, 1, 1, ""), (0, 0, 1, ""), (1, 1, 0, ""), (NAN, NAN, 1, ""), (None, 1, 1, "good")],
)
def test_detections_are_not_counted_where_the_label_is_unknown_or_contradicts_the_positions(
    label, correct, true, expected
):
    measured = {"correct": correct, "detection_tp": true, "detection_predicted": 1, "detection_true": true}
    if label is not None:  # committed rows may lack it
        measured["label"] = label
    statistics = {name: np.array([[value]], np.float32) for name, value in measured.items()}
    (kinds,) = image_kinds([statistics], detections=True)
    assert (KINDS[kinds[0, 0]] if kinds[0, 0] >= 0 else "") == expected


def test_a_page_about_detections_shows_their_failures_and_the_kind_beside_each_image(tmp_path):
    detection = Choice(name="detection", params={"distance": 5})
    head = Choice(name="detection")
    rows = [each.model_copy(update={"head": head}) for each in (compared("centre-blob"), compared("intensity-otsu"))]
    changes = {"metrics": [Choice(name="classification"), detection], "primary_metric": "detection_f1_pooled"}
    page = run_study(study(*rows, tuning_images=0, pictures=2, **changes), tmp_path).report.read_text(encoding="utf-8")
    part = page.partition('id="modified-digits-failures"')[2].partition("</section>")[0]
    assert "By the precision and recall of the detections" in part
    shown = page.partition('id="modified-digits-examples"')[2].partition("</section>")[0]
    assert any(kind in shown for kind in KINDS)


def test_an_example_says_its_kind_or_which_of_several_classes_failed():
    place = KINDS.index
    assert kinds_text(np.array([place("good")]), ["a"]) == "good"
    assert kinds_text(np.array([-1]), ["a"]) == ""
    several = np.array([place(each) for each in ("good", "false alarm", "too much", "rightly empty", "too much")])
    assert kinds_text(several, list("abcde")) == "too much: c and e; false alarm: b"


def result(label: str = "net", classes: tuple[str, ...] = ("a",), roles: tuple[str, ...] = ()) -> MethodResult:
    info = DatasetInfo("d", classes, 1, Normalisation(), "f", roles=roles)
    run = StudyRun(Choice(name="x"), info, ComparedMethod(method=Choice(name="x"), label=label), 0, label, label)
    return MethodResult(1, "method", (run,), 1, HoursRange(1, 1, 1), None, {}, True)


def sentence(*shares: float) -> str:
    return MethodFailures(result(), np.array([shares]), np.array(shares)).sentence(detections=False)


def test_a_sentence_says_how_often_and_how_a_method_fails():
    assert sentence(0.7, 0.21, 0.04, 0.05, 0, 0.98, 0.02) == (
        "net + image-level labels fails in 30 % of the images that contain the class, most often because it misses "
        "most of the object (21 %), and raises a false alarm in 2 % of those without it."
    )
    assert sentence(1, 0, 0, 0, 0, NAN, NAN) == (
        "net + image-level labels fails in 0 % of the images that contain the class."
    )
    assert "most of what it marks is not the object (60 %)" in sentence(0.4, 0, 0.6, 0, 0, NAN, NAN)
    assert "it marks the wrong place (60 %)" in sentence(0.4, 0, 0, 0.6, 0, NAN, NAN)
    assert "it misses the object entirely (60 %)" in sentence(0.4, 0, 0, 0, 0.6, NAN, NAN)
    shares = np.array([0.4, 0, 0.6, 0, 0, NAN, NAN])
    said = MethodFailures(result(), shares[None], shares).sentence(detections=True)
    assert "most of its detections are false (60 %)" in said


CLASSES, ROLES = ("a", "b"), ("object", "contact")
MEASURED = {"label": (1, 1), "correct": (1, 0), "precision": (0.9, NAN), "recall": (0.2, 0)}


def table(*methods: tuple[str, dict[str, tuple[float, float]]]) -> Values:
    """Return the statistics of one image and two classes."""
    rows = [
        ("d", "image-level", method, 0, "fixed", "i", "g", name, metric, float(numbers[place]))
        for method, measured in methods
        for (metric, numbers), (place, name) in product(measured.items(), enumerate(CLASSES))
    ]
    return Values(pl.DataFrame(rows, ROWS, orient="row"), [])


def results(first: MethodResult, second: MethodResult, variant: bool = False) -> DatasetResults:
    """Return results with a planned comparison of two methods, of which one may be a variant of the other."""
    planned = Difference("d", "iou", "fixed", "planned", first.key, second.key, *[NAN] * 7, 1, 1, False)
    shown, ablations = ((first,), ((first, second),)) if variant else ((first, second), ())
    iou = Column("iou", "intersection over union")
    return DatasetResults(first.runs[0].info, "d", shown, ablations, (), (iou,), iou, (planned,))


def test_the_contact_class_counts_by_itself_only_and_methods_of_unknown_failures_are_named():
    net, other = (result(name, CLASSES, ROLES) for name in ("net", "other"))
    failures = dataset_failures(results(net, other), table(("net", MEASURED), ("other", {"label": (1, 1)})))
    assert failures is not None
    (method,) = failures.methods
    assert method.shares[: len(WITH_CLASS)].tolist() == [0, 1, 0, 0, 0]
    assert method.per_class[1, : len(WITH_CLASS)].tolist() == [0, 0, 0, 0, 1]
    assert (failures.images.tolist(), failures.per_class.tolist()) == ([1, 0], [[1, 0], [1, 0]])
    assert failures.unknown == ("other + image-level labels",)
    assert [each.partition(" fails")[0] for each in failures.sentences] == ["net + image-level labels"]
    unmeasured = table(("net", {"label": (1, 1)}), ("other", {"label": (1, 1)}))
    assert dataset_failures(results(net, other), unmeasured) is None


def test_a_variant_is_shown_where_a_planned_comparison_names_it():
    net, variant = result("net", CLASSES, ROLES), dataclasses.replace(result("variant", CLASSES, ROLES), number=0)
    found, values = results(net, variant, variant=True), table(("net", MEASURED), ("variant", MEASURED))
    failures, unplanned = (
        dataset_failures(each, values) for each in (found, dataclasses.replace(found, differences=()))
    )
    assert failures is not None
    assert unplanned is not None
    assert [each.name for each in failures.methods] == ["1 net + image-level labels", "variant + image-level labels"]
    assert [each.name for each in unplanned.methods] == ["1 net + image-level labels"]
    assert (len(failures.sentences), len(unplanned.sentences)) == (2, 0)


def test_the_colours_of_kinds_differ_in_grey():
    grey = [
        sum(weight * int(colour[place : place + 2], 16) for place, weight in ((1, 0.299), (3, 0.587), (5, 0.114)))
        for colour in KIND_COLOURS
    ]
    assert all(lighter - darker > 30 for lighter, darker in pairwise(grey))


def test_the_page_shows_failures_by_kind_and_old_results_without_the_statistics_still_give_a_page(
    tmp_path, monkeypatch
):
    blob, otsu = compared("centre-blob"), compared("intensity-otsu")
    whole = study(blob, otsu, comparisons=[("intensity-otsu", "centre-blob")], tuning_images=0)
    page = run_study(whole, tmp_path).report.read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "modified-digits-failures.svg").is_file()
    part = page.partition('id="modified-digits-failures"')[2].partition("</section>")[0]
    assert page.count("missed entirely</b>, the class was judged absent") == 1
    assert "intensity-otsu + image-level labels fails in" in part
    assert "Class by class" in part
    assert (part.count("</table>"), part.count("</tbody>")) == (2, 1 + 10)
    read = StudyFolder.rows
    monkeypatch.setattr(StudyFolder, "rows", lambda self, run: read(self, run).filter(pl.col("metric") != "recall"))
    old = write_results(whole, plan(whole), StudyFolder(tmp_path), Progress()).report.read_text(encoding="utf-8")
    assert "Failures by kind" not in old
    assert "Segmentation" in old
