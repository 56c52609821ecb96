from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_studies import DIGITS, NET, study

from micraframe.config import Choice, Contender, Study
from micraframe.study import StudyFolder, plan, run_study, write_results
from micraframe.study.report.examples import rank
from micraframe.study.report.tuned import thresholds_text
from micraframe.study.report.wording import hours_text, listed
from micraframe.types import Progress

VOID = {"meta", "br", "img", "link", "hr", "input"}

METHODS = """
from typing import final
from micraframe.interfaces import Method
from micraframe.types import Annotation

@final
class Failing(Method):
    learns_from = frozenset({Annotation.LABELS})
    def fit(self, train, valid, info, run):
        raise RuntimeError("cannot learn <this> & that")
    def load(self, folder, device="auto"):
        raise RuntimeError

"""
ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 1
@hookimpl
def micraframe_components():
    return [Component("method", "failing", "report_methods:Failing", "Fails")]
"""

UNMASKED = """
from dataclasses import replace
from typing import final
from micraframe.interfaces import Dataset
from micraframe.registry import build

@final
class Unmasked(Dataset):
    def info(self):
        return replace(build("dataset", "modified-digits", **PARAMS).info(), name="no <masks>")
    def samples(self, split):
        digits = build("dataset", "modified-digits", **PARAMS).samples(split)
        return [replace(sample, masks=None, instances=None, points=None, boxes=None) for sample in digits]
"""
UNMASKED_ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 1
@hookimpl
def micraframe_components():
    return [Component("dataset", "unmasked", "report_datasets:Unmasked", "Without masks")]
"""


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps what they say."""

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
    """Return the page, which must be well-formed, need nothing but itself, and link to what is there."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(target.startswith("#") and target[1:] in page.ids for target in page.targets)
    assert all(asset.startswith(("data:image/png;base64,", "#")) for asset in page.assets)
    assert all(asset[1:] in page.ids for asset in page.assets if asset.startswith("#"))
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    assert {"failures", "methods", "reproduction"} <= set(page.ids)
    return page


CONTROL = Contender(method=Choice(name="centre-blob"))


def curve(images: int | None) -> Contender:
    return Contender(method=Choice(name="intensity-otsu"), annotator=Choice(name="full"), images=images)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, Path]:
    """Return a study that has everything, and its folder: two seeds, tuned thresholds, a curve, F1 of objects."""
    folder = tmp_path_factory.mktemp("finished")
    whole = study(
        Contender(method=Choice(name="micra-net", params=NET), label="net & <b>maps</b> $1"),
        CONTROL,
        curve(2),
        curve(None),
        metrics=[
            Choice(name="classification"),
            Choice(name="overlap"),
            Choice(name="objects", params={"iou": [0.25, 0.5]}),
        ],
        seeds=[0, 1],
        tune=2,
    )
    assert not run_study(whole, folder).failures
    return whole, folder


def test_where_images_are_too_few_for_any_pair_to_be_significant_it_is_said(finished, tmp_path):
    words = check(finished[1] / "report.html").words
    assert "No pair can be significant here" in words
    assert "with 4 independent groups and\n4 contenders its corrected p is 0.75 at best" in words
    more = study(CONTROL, curve(None), datasets=[Choice(name="modified-digits", params={**DIGITS, "test": 6})])
    assert "No pair can be significant here" not in check(run_study(more, tmp_path).report).words


def test_the_page_has_every_section_and_needs_nothing_else(finished):
    _, folder = finished
    page = check(folder / "report.html")
    slug = "modified-digits"
    sections = ("table", "quality", "breakeven", "objects", "thresholds", "examples")
    assert {f"{slug}-{name}" for name in sections} <= set(page.ids)
    assert page.tags["svg"] == 2
    # Image, truth and prediction of the best, median and worst image of four contenders.
    assert page.tags["img"] == 4 * 3 * 3
    assert page.tags["caption"] >= 6
    assert "net & <b>maps</b> $1" in page.words
    assert "The oracle is no result" in page.words
    assert "upper bound only of what it maximises, each seed's mean IOU" in page.words
    assert "oracle (upper bound)" not in page.words
    assert "Holm" in page.words


def test_figures_are_files_of_their_own_whose_text_is_text(finished):
    _, folder = finished
    names = sorted(path.name for path in (folder / "figures").iterdir())
    assert names == ["modified-digits-object-f1.svg", "modified-digits-quality.svg"]
    for name in names:
        root = ET.parse(folder / "figures" / name).getroot()
        words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "1  net & <b>maps</b> $1 (image-level)" in words


def test_the_same_study_gives_the_same_bytes(finished):
    whole, folder = finished
    before = {path.name: path.read_bytes() for path in [folder / "report.html", *(folder / "figures").iterdir()]}
    write_results(whole, plan(whole), StudyFolder(folder), Progress())
    after = {path.name: path.read_bytes() for path in [folder / "report.html", *(folder / "figures").iterdir()]}
    dates = re.compile(rb"\d{4}-\d\d-\d\d")
    assert {name: dates.sub(b"", text) for name, text in before.items()} == {
        name: dates.sub(b"", text) for name, text in after.items()
    }


def test_the_methods_text_says_what_the_study_did_and_cites_what_it_used(finished):
    page = check(finished[1] / "report.html")
    text = page.words
    assert "12 to train on, 4 to validate on and 4 to test on" in text
    assert "10 classes" in text
    assert "48 x 48 pixels" in text
    assert "seeds 0 and 1" in text
    assert "Bilodeau" in text
    assert "Selvaraju" in text
    assert "Ronneberger" not in text
    assert "Mask R-CNN" not in text
    assert "highest mean IOU on these images, presence being decided as with the fixed ones or, class by class" in text
    assert "an upper bound of each seed's mean IOU with such thresholds, and of no other measure" in text


def test_a_failed_cell_is_shown_with_its_traceback_and_the_rest_stands(tmp_path, install):
    install("fake", ENTRY, report_methods=METHODS)
    outcome = run_study(study(Contender(method=Choice(name="failing")), CONTROL), tmp_path)
    page = check(outcome.report)
    assert "RuntimeError: cannot learn <this> & that" in page.words
    assert "Without any result as yet: failing (image-level)" in page.words
    assert "1 of 2 cells done, 1\nfailed" in page.words
    assert page.tags["svg"] == 1


def test_one_contender_with_one_seed_is_compared_with_nothing(tmp_path):
    page = check(run_study(study(CONTROL), tmp_path).report)
    assert "nothing to compare" in page.words
    assert "No method was given different numbers of annotated images" in page.words
    assert "No thresholds were tuned" in page.words


def test_a_study_of_which_nothing_is_done_says_so(tmp_path):
    nothing = study(CONTROL, seeds=[0, 1])
    outcome = write_results(nothing, plan(nothing), StudyFolder(tmp_path), Progress())
    page = check(outcome.report)
    assert "Nothing of this study is done yet." in page.words
    assert "2 cells not done yet" in page.words
    assert page.tags["svg"] == 0


def test_without_masks_in_the_truth_there_is_no_quality_to_show(tmp_path, install):
    source = f"PARAMS = {DIGITS!r}\n{UNMASKED}"
    install("unmasked_plugin", UNMASKED_ENTRY, report_datasets=source)
    page = check(run_study(study(CONTROL, datasets=[Choice(name="unmasked")]), tmp_path).report)
    assert "iou is not known of any contender" in page.words
    assert "iou is undefined for every image" in page.words
    assert page.tags["svg"] == 0


def test_annotation_that_costs_nothing_stands_at_the_edge(tmp_path):
    free = Choice(name="image-level", params={"cost": {"image": 0, "image_low": 0, "image_high": 0}})
    both = study(Contender(method=CONTROL.method, annotator=free, label="free"), CONTROL)
    page = check(run_study(both, tmp_path).report)
    assert "What costs nothing" in page.words
    assert "from 0 h" not in page.words
    only = study(Contender(method=CONTROL.method, annotator=free, label="free"))
    assert check(run_study(only, tmp_path).report).tags["svg"] == 1


def test_best_median_and_worst():
    assert rank(np.array([0.2, math.nan, 0.9, 0.4, 0.2])) == [("best", 2, 0.9), ("median", 3, 0.4), ("worst", 4, 0.2)]
    assert rank(np.array([0.2, 0.9, 0.4]), lower=True) == [("best", 0, 0.2), ("median", 2, 0.4), ("worst", 1, 0.9)]
    assert rank(np.array([0.2, 0.9])) == [("best", 1, 0.9), ("worst", 0, 0.2)]
    assert rank(np.array([0.2])) == [("best", 0, 0.2)]
    assert rank(np.array([math.nan])) == []


def threshold(name: str, value: float | None, rule: str = "") -> dict[str, object]:
    return {"name": name, "value": value, "rule": rule, "origin": "fixed"}


def test_thresholds_are_told_as_means_over_seeds_ranges_over_classes_and_rules():
    one = [threshold("presence of class 0", 0.4), threshold("mask", None, "otsu")]
    other = [threshold("presence of class 0", 0.6), threshold("mask", 0.25)]
    assert thresholds_text([one]) == "presence 0.40; mask otsu"
    assert thresholds_text([one, other]) == "presence 0.50; mask 0.25 (1 of 2 times), else otsu"
    classes = [threshold(f"presence of class {index}", index / 10) for index in range(10)]
    assert thresholds_text([classes]) == "presence 0.00 to 0.90 (10 classes)"
    # The head's own, one for all classes, was best with one seed, and one for each with the other.
    assert thresholds_text([[threshold("presence", 0.3)], classes]) == "presence 0.15 to 0.60 (10 classes)"
    assert thresholds_text([[]]) == ""


def test_hours_are_written_without_exponents():
    assert [hours_text(value) for value in (0, 0.0000421, 0.5, 12.34, 1234.5)] == [
        "0",
        "0.0000421",
        "0.5",
        "12.3",
        "1230",
    ]
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
