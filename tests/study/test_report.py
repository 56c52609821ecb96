from __future__ import annotations

import math
import re
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_studies import DIGITS, FAILING, compared, net, study

from micraframe import config
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.overlay import FALSE_NEGATIVE, FALSE_POSITIVE, PREDICTED, TRUE, contours
from micraframe.plugin import Component
from micraframe.pricing import Prices, TaskPrices
from micraframe.study.folder import StudyFolder
from micraframe.study.plan import plan, planned_pairs
from micraframe.study.report import page as report_page
from micraframe.study.report.classes import confusion
from micraframe.study.report.examples import pick, scale_bar
from micraframe.study.report.methods_text import DatasetSize, methods_text
from micraframe.study.report.page import progress_text
from micraframe.study.report.planned import Planning
from micraframe.study.report.tuned import thresholds_text
from micraframe.study.report.wording import annotation_text, count_text, listed, significant_text, slugs
from micraframe.study.run import run_study, write_results
from micraframe.types import Progress

VOID = {"meta", "br", "img", "link", "hr", "input"}

ENTRY = [Component("method", "failing", "report_methods:Failing", "Fails")]

DATASETS = """
from dataclasses import replace
from typing import final
from micraframe.interfaces import Dataset
from micraframe.registry import build

@final
class Unmasked(Dataset):
    def info(self):
        return replace(build("dataset", "modified-digits", **PARAMS).info(), name="no masks")
    def samples(self, split):
        digits = build("dataset", "modified-digits", **PARAMS).samples(split)
        return [replace(sample, masks=None, instances=None, points=None, boxes=None) for sample in digits]
"""
DATASETS_ENTRY = [Component("dataset", "unmasked", "report_datasets:Unmasked", "Without masks")]

METRICS = """
from typing import final
import numpy as np
from micraframe.interfaces import Column, Metric

@final
class Missed(Metric):
    def columns(self):
        return (Column("missed_pixels", "share of true pixels that the mask misses", higher_is_better=False),)
    def measure(self, prediction, truth):
        missed = (truth.masks & ~prediction.masks).sum(axis=(1, 2)) / np.maximum(truth.masks.sum(axis=(1, 2)), 1)
        return {"missed_pixels": np.where(truth.labels, missed, np.nan)}
"""
METRICS_ENTRY = [
    Component("metric", "missed", "report_metrics:Missed", "Missed pixels", citation="Third, P. Party (2030).")
]


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.assets: list[str] = []
        self.tags: Counter[str] = Counter()
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            elif tag == "a" and name == "href":
                self.targets.append(value)
            elif name in ("src", "href", "xlink:href", "data", "poster", "srcset"):
                self.assets.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data


def check(path: Path) -> Page:
    """Return the page, which must be well-formed and self-contained, with links to existing anchors."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    anchors = [target for target in page.targets if target.startswith("#")]
    assert all(anchor[1:] in page.ids for anchor in anchors)
    assert all((path.parent / target).is_file() for target in page.targets if target not in anchors)
    assert all(asset.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#")) for asset in page.assets)
    assert len(text) < 1 << 20
    assert all(asset[1:] in page.ids for asset in page.assets if asset.startswith("#"))
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    assert {"failures", "methods", "reproduction"} <= set(page.ids)
    return page


CONTROL = compared("centre-blob")


def curve(images: int | None) -> ComparedMethod:
    return compared("intensity-otsu", "full", train_images=images)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Return a study with everything, and its folder: two seeds, tuned thresholds, a curve, F1 of objects."""
    folder = tmp_path_factory.mktemp("finished")
    whole = study(
        net("net & <b>maps</b> $1"),
        CONTROL,
        curve(2),
        curve(None),
        metrics=[
            Choice(name="classification"),
            Choice(name="overlap"),
            Choice(name="objects", params={"iou": [0.25, 0.5]}),
        ],
        seeds=[0, 1],
        tuning_images=2,
        pictures=1,
    )
    assert not run_study(whole, folder).failures
    return whole, folder


def test_the_page_has_every_section_and_is_self_contained(finished):
    _, folder = finished
    page = check(folder / "report.html")
    slug = "modified-digits"
    sections = ("answer", "table", "comparisons", "examples", "presence", "segmentation", "breakeven", "thresholds")
    assert {f"{slug}-{name}" for name in (*sections, "failures", "objects")} <= set(page.ids)
    assert page.ids.index(f"{slug}-answer") < page.ids.index(f"{slug}-table"), "the answer comes first"
    # Each photograph is in the page once, however many methods are drawn over it.
    assert page.tags["image"] == 4 * (2 + 4)
    assert page.tags["caption"] >= 6
    assert {"rows.csv", "summary.csv", "statistics.csv", "costs.csv"} <= set(page.targets)
    assert "net & <b>maps</b> $1" in page.words
    assert "Oracle thresholds use test labels: an upper bound, never a result" in page.words
    assert "All 8 runs completed." in page.words or "All 9 runs completed." in page.words
    assert "full annotation (2 images)" in page.words
    assert not re.search(
        r"contender|\bcells?\b|\bIOU\b|Compared were|told", page.words.partition("Configuration with")[0]
    )


def test_of_methods_that_share_a_trained_model_the_first_is_shown_whatever_outlines_say_of_the_others(tmp_path):
    variants = [net("first"), net("second", combiner="last-layer")]
    for named in (variants, variants[::-1]):
        outcome = run_study(study(*named, CONTROL, tuning_images=4), tmp_path)
        text = outcome.report.read_text(encoding="utf-8")
        page = check(outcome.report)
        assert "Variants that share a trained model" in page.words
        table = text[text.index('id="modified-digits-table"') : text.index('id="modified-digits-ablation"')]
        assert re.findall("(first|second)</th>", table) == [named[0].label]
        # One trained model and a control: nothing to test together, but pairs to compare.
        assert "Are all methods" not in page.words
        assert "exploratory comparisons by iou" in page.words


def test_masks_are_read_once_however_often_pictures_are_made_smaller(finished, tmp_path, monkeypatch):
    whole, folder = finished
    shutil.copytree(folder, tmp_path / "copy")
    reads: list[int] = []
    read = StudyFolder.masks

    def counted(self, run, number, width):
        reads.append(number)
        return read(self, run, number, width)

    monkeypatch.setattr(StudyFolder, "masks", counted)
    monkeypatch.setattr(report_page, "_PICTURE_BYTES", 0)
    whole = whole.model_copy(update={"pictures": 0})
    write_results(whole, plan(whole), StudyFolder(tmp_path / "copy"), Progress())
    assert sorted(reads) == sorted([0, 1, 2, 3] * 4)


def written(whole: Study) -> str:
    """Return the methods section of a study that was not run."""
    whole = config.resolve(whole)
    sizes = {"modified-digits": DatasetSize({"train": 12, "valid": 4, "test": 4}, 4)}
    runs = plan(whole)
    text = methods_text(whole, runs, Planning(planned_pairs(whole, runs)), sizes, {}, {})
    return " ".join(paragraph for _, paragraph in text.paragraphs)


def test_the_methods_section_says_which_budget_had_which_recipe():
    text = written(study(net("net").model_copy(update={"budgets": [0.5, 1.0]}), CONTROL))
    assert '"net" on image-level labels (6 images) was trained for at most 2 epochs with' in text
    assert '"net" on image-level labels was trained for at most 1 epoch with' in text
    assert "as many optimisation steps as with all of them" in text
    assert "Where a number of images is given" in text
    assert "All comparisons are exploratory" in text
    alone = written(study(net("net")))
    assert '"net" was trained for at most 1 epoch with' in alone
    assert "optimisation steps" not in alone


def test_comparisons_that_were_named_after_results_existed_are_marked(tmp_path):
    def rebuilt(folder: Path = tmp_path, **changes) -> str:
        changed = named.model_copy(update=changes)
        return check(write_results(changed, plan(changed), StudyFolder(folder), Progress()).report).words

    pair, other = ("intensity-otsu", "centre-blob"), ("intensity-otsu", "random-map")
    methods = compared("intensity-otsu"), CONTROL, compared("random-map")
    named = study(*methods, comparisons=[pair], margin=0.1, tuning_images=0)
    (tmp_path / "planned.json").write_text("{}")  # of a start that ended before any result
    first = check(run_study(named, tmp_path).report).words
    assert "were named before results existed, and their p values" in first
    assert "‡" not in first
    run_study(named.model_copy(update={"comparisons": [other]}), tmp_path)  # results exist: the record stays
    later = rebuilt(comparisons=[pair[::-1], other], margin=0.2)
    assert later.count("‡") == 2, "in the caption and once in the table"
    assert "were named before results existed, except 1 named afterwards, and" in later
    assert "the margin of 0.2 in iou, which was set after results existed" in later
    assert "dropped" not in later
    assert "named before results existed and dropped since: 1." in rebuilt(comparisons=None, reference=None)
    assert "were named after results existed" in rebuilt(primary_metric="f1")
    (tmp_path / "planned.json").unlink()
    assert "are named in the configuration, and" in rebuilt()


def test_confusion_counts_each_class_and_averages_trained_models():
    label = np.array([[1, 0], [1, 0], [0, math.nan]])
    right, wrong = np.array([[1.0, 1], [0, 1], [1, math.nan]]), np.array([[0.0, 1], [0, 0], [1, math.nan]])
    found = confusion([{"label": label, "correct": right}, {"label": label, "correct": wrong}])
    assert [values.tolist() for values in found] == [[0.5, 0], [1.5, 0], [0, 0.5], [1, 1.5]]
    assert found.sensitivity.tolist() == pytest.approx([0.25, math.nan], nan_ok=True)
    assert found.total().specificity.tolist() == pytest.approx([2.5 / 3])


def test_scale_bars_have_round_lengths():
    assert scale_bar(100.0) == (0.2, "20 µm")
    assert scale_bar(4.0) == (0.25, "1 µm")
    assert scale_bar(1.0) == (0.2, "200 nm")


def test_truth_and_prediction_are_outlined_and_only_errors_are_hatched():
    truth = np.zeros((1, 40, 40), np.bool_)
    truth[0, 5:25, 5:25] = True
    predicted = np.roll(truth, 10, axis=2)
    drawn = contours(predicted, truth)
    colours = drawn[..., :3].reshape(-1, 3)[drawn[..., 3].ravel() == 255]
    assert {tuple(colour) for colour in colours.tolist()} == {TRUE, PREDICTED, FALSE_POSITIVE, FALSE_NEGATIVE}
    assert not drawn[9:20, 18:22, 3].any(), "pixels that are right show the raw image"
    assert not contours(None, truth)[9:20, 9:20, 3].any()


def test_figures_are_files_whose_text_is_text(finished):
    _, folder = finished
    names = sorted(path.name for path in (folder / "figures").iterdir())
    assert names == [f"modified-digits-{figure}.svg" for figure in ("failures", "object-f1", "quality")]
    for name in names:
        root = ET.parse(folder / "figures" / name).getroot()
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert ("too little" if name == names[0] else "image-level labels") in words
    assert any("net & <b>maps</b> $1" in (word or "") for word in words) or "control" in words


def test_no_label_leads_a_picture_out_of_its_folder(tmp_path):
    folder = tmp_path / "a" / "b" / "study"
    twins = net("../../../x"), net("x", combiner="last-layer")
    outcome = run_study(study(*twins, pictures=1, tuning_images=0), folder)
    names = ["modified-digits-x-steps.png", "modified-digits-x-2-steps.png"]
    assert [path.relative_to(folder / "pictures") for path in outcome.pictures] == [Path(name) for name in names]
    assert set(tmp_path.rglob("*.png")) == set(outcome.pictures)


def test_the_same_study_gives_the_same_bytes(finished):
    whole, folder = finished
    before = {path.name: path.read_bytes() for path in [folder / "report.html", *(folder / "figures").iterdir()]}
    write_results(whole, plan(whole), StudyFolder(folder), Progress())
    after = {path.name: path.read_bytes() for path in [folder / "report.html", *(folder / "figures").iterdir()]}
    dates = re.compile(rb"\d{4}-\d\d-\d\d")
    assert {name: dates.sub(b"", text) for name, text in before.items()} == {
        name: dates.sub(b"", text) for name, text in after.items()
    }


def test_the_methods_section_describes_the_study_and_cites_its_components(finished):
    text = check(finished[1] / "report.html").words
    assert "12 for training, 4 for validation and 4 for testing" in text
    assert "10 classes" in text
    assert "48 x 48 pixels" in text
    assert "random seeds 0 and 1" in text
    assert 'We compared "net & <b>maps</b> $1" (micra-net [' in text
    assert "head semantic" in text
    assert (
        '"intensity-otsu" (intensity-otsu: head semantic), trained separately on full annotation (2 images) and' in text
    )
    assert "was trained for at most 1 epoch with Adam (learning rate 0.001, batch size 4" in text
    assert "Bilodeau" in text
    assert "Selvaraju" in text
    assert "Ronneberger" not in text
    assert "Mask R-CNN" not in text
    assert "Tuning maximised the mean IoU over these images" in text


def test_a_failed_run_is_shown_with_its_traceback_beside_the_others(tmp_path, install):
    install("fake", ENTRY, report_methods=FAILING.replace("this", "<this> & that"))
    outcome = run_study(study(compared("failing"), CONTROL), tmp_path)
    page = check(outcome.report)
    assert "RuntimeError: cannot learn <this> & that" in page.words
    assert "Without results so far: failing + image-level labels" in page.words
    assert "1 of 2 runs completed; 1 failed." in page.words
    assert "1 of 2 runs failed and is in no table" in page.words
    assert page.tags["svg"] >= 1


def test_a_plugins_metric_is_defined_cited_and_ranked_by_its_own_direction(tmp_path, install):
    install("fake_metrics", METRICS_ENTRY, report_metrics=METRICS)
    forest = ComparedMethod(method=Choice(name="forest", params={"trees": 2}), annotator=Choice(name="full"))
    both = study(
        CONTROL, net("net"), forest, metrics=[Choice(name="missed")], primary_metric="missed_pixels", compared=[]
    )
    outcome = run_study(both, tmp_path)
    page = check(outcome.report)
    assert "missed_pixels: share of true pixels that the mask misses." in page.words
    assert "Low values of missed_pixels are good." in page.words
    assert "Third, P. Party (2030)." in page.words
    means = [
        row.mean for row in outcome.summary if row.method in ("net", "forest trees=2") and row.thresholds == "fixed"
    ]
    assert min(means) < max(means)
    assert f"<strong>{min(means):.3f}</strong>" in outcome.report.read_text(encoding="utf-8")


def test_a_single_method_has_nothing_to_compare(tmp_path):
    page = check(run_study(study(CONTROL, tuning_images=0), tmp_path).report)
    assert "nothing to compare" in page.words
    assert "No method was trained with different numbers of annotated images" in page.words
    assert "No thresholds were tuned" in page.words


def test_a_study_without_completed_runs_says_so(tmp_path):
    nothing = study(CONTROL.model_copy(update={"budgets": [0.5, 1.0]}), seeds=[0, 1])
    outcome = write_results(nothing, plan(nothing), StudyFolder(tmp_path), Progress())
    page = check(outcome.report)
    assert "No run of this study has completed yet." in page.words
    assert "2 combinations of method and annotation, 2 seeds." in page.words
    assert "4 runs not completed yet" in page.words
    assert page.tags["svg"] == 0


def test_a_truth_without_masks_has_no_quality_to_show(tmp_path, install):
    install("unmasked_plugin", DATASETS_ENTRY, report_datasets=f"PARAMS = {DIGITS!r}\n{DATASETS}")
    page = check(run_study(study(CONTROL, datasets=[Choice(name="unmasked")], pictures=1), tmp_path).report)
    assert not (tmp_path / "pictures").exists()
    assert "iou is undefined for every method" in page.words
    assert page.tags["svg"] == 0


def test_annotation_that_takes_no_time_is_drawn_at_the_edge(tmp_path):
    free = Prices(tasks={"image-level": TaskPrices(image=0)})
    page = check(run_study(study(CONTROL, curve(None), prices=free), tmp_path).report)
    assert "Annotation that takes no time" in page.words
    assert "except those of image-level" in page.words
    only = check(run_study(study(CONTROL, prices=free), tmp_path).report)
    assert "Annotation that takes no time" in only.words


def test_images_are_picked_from_best_to_worst_without_repetition():
    values = np.array([0.2, math.nan, 0.9, 0.4, 0.3, 0.5])
    ranks = ["best", "upper quartile", "median", "lower quartile", "worst"]
    assert pick(values) == list(zip(ranks, [2, 5, 3, 4, 0], strict=True))
    assert pick(np.array([0.2, 0.9]), higher_is_better=False) == [("best", 0), ("worst", 1)]
    assert pick(np.array([0.2])) == [("best", 0)]
    assert pick(np.array([math.nan])) == []


def threshold(name: str, value: float | None, rule: str = "") -> dict[str, object]:
    return {"name": name, "value": value, "rule": rule, "origin": "fixed"}


def test_thresholds_are_means_over_seeds_ranges_over_classes_or_rules():
    one = [threshold("presence of class 0", 0.4), threshold("mask", None, "otsu")]
    other = [threshold("presence of class 0", 0.6), threshold("mask", 0.25)]
    assert thresholds_text([one]) == "presence 0.40; mask otsu"
    assert thresholds_text([one, other]) == "presence 0.50; mask 0.25 (1 of 2 seeds), otherwise otsu"
    classes = [threshold(f"presence of class {index}", index / 10) for index in range(10)]
    assert thresholds_text([classes]) == "presence 0.00 to 0.90 (10 classes)"
    # One seed kept the head's own threshold for all classes, the other has one per class.
    assert thresholds_text([[threshold("presence", 0.3)], classes]) == "presence 0.15 to 0.60 (10 classes)"
    assert thresholds_text([[]]) == ""


def test_numbers_are_written_without_exponents():
    numbers = {0: "0", 0.0000421: "0.0000421", 0.5: "0.5", 12.34: "12.3", 1234.5: "1230", math.nan: "n/a"}
    assert {value: significant_text(value) for value in numbers} == numbers


def test_lists_and_counts_read_like_english():
    assert [listed(list(names)) for names in ("", "a", "ab", "abc")] == ["", "a", "a and b", "a, b and c"]
    assert [count_text(number, "run") for number in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
    assert progress_text(57, 57, 0) == "All 57 runs completed."
    assert progress_text(50, 57, 3) == "50 of 57 runs completed; 3 failed."


@pytest.mark.parametrize(
    ("annotator", "words"),
    [
        ("image-level", "image-level labels"),
        ("full, 25 images", "full annotation (25 images)"),
        ("altered sigma=2, 1 images", "imprecise outlines (sigma = 2 px, 1 image)"),
        ("dilated size=5", "dilated outlines (size = 5 px)"),
        ("theirs mode=a b shape=[1, 2]", "theirs (mode = a b, shape = [1, 2])"),
    ],
)
def test_annotations_are_readable(annotator, words):
    assert annotation_text(annotator) == words


def test_slugs_differ_and_cannot_leave_a_folder():
    assert slugs(["../../x", "..", "", "A b", "a-b"]) == ["x", "unnamed", "unnamed-2", "a-b", "a-b-2"]
