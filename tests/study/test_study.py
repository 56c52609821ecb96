from __future__ import annotations

import csv
import gc
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from small_studies import DIGITS, net, study

from micraframe import config
from micraframe.config import Choice, Contender, Study
from micraframe.errors import ConfigError, DataError
from micraframe.registry import build
from micraframe.study import plan, run_study
from micraframe.study.cell import annotate, subset, tuning_samples, with_origin
from micraframe.study.folder import StudyFolder
from micraframe.study.tables import Row, Values, read_rows, summarise, write_csv
from micraframe.study.tuning import Tuned
from micraframe.types import Annotation, Cost, Sample, Threshold

METHODS = '''
import numpy as np
from dataclasses import replace
from typing import final
from micraframe.interfaces import Fitted, Method
from micraframe.registry import build
from micraframe.types import Annotation, ScoreMap

@final
class Failing(Method):
    learns_from = frozenset({Annotation.LABELS})
    def fit(self, train, valid, info, run):
        raise RuntimeError("cannot learn this")
    def load(self, folder, device="auto"):
        raise RuntimeError

@final
class Cheating(Method):
    """Looks for annotation wherever its arguments lead."""
    learns_from = frozenset({Annotation.LABELS})
    seen = []
    def fit(self, train, valid, info, run):
        Cheating.seen.append((train, valid, info, run))
        raise RuntimeError("has looked")
    def load(self, folder, device="auto"):
        raise RuntimeError

@final
class Peeking(Method):
    """Looks for annotation wherever the images come from that it is to predict of."""
    learns_from = frozenset({Annotation.LABELS})
    def fit(self, train, valid, info, run):
        return Peeked(build("head", "semantic", decision=0.9), len(info.classes))
    def load(self, folder, device="auto"):
        return Peeked(build("head", "semantic", decision=0.9), int((folder / "classes").read_text()))

@final
class Peeked(Fitted):
    found = []
    look = None
    def __init__(self, head, classes):
        self.head, self.classes = head, classes
    def with_head(self, head):
        return Peeked(head, self.classes)
    def predict(self, images):
        # Now: a generator that has ended leads nowhere.
        Peeked.found.append(Peeked.look(images))
        for image in images:
            # The brighter, the less it finds: a threshold in between is more accurate, and wants further score maps.
            scores = np.full(self.classes, 1 / (1 + image.sum()), np.float32)
            wanted = self.head.wanted(scores)
            values = np.repeat(np.clip(image[:1], 0, 1), len(wanted), axis=0)
            score_map = ScoreMap(wanted, values, values, ("ok",) * len(wanted))
            yield replace(self.head.decide(score_map, scores, image), score_map=score_map)
    def save(self, folder):
        folder.mkdir()
        (folder / "classes").write_text(str(self.classes))
'''
ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 1
@hookimpl
def micraframe_components():
    names = ("Failing", "Cheating", "Peeking")
    return [Component("method", name.lower(), f"fake_methods:{name}", name) for name in names]
"""


def test_a_study_writes_its_tables_and_pictures(tmp_path):
    outcome = run_study(
        study(net("net"), Contender(method=Choice(name="intensity-otsu")), seeds=[0, 1], pictures=2), tmp_path
    )
    assert not outcome.failures
    rows = list(read_rows(tmp_path / "rows.csv"))
    # 3 thresholds of the net and 1 of the control, 2 seeds, 4 images, 10 classes, 2 + 6 numbers.
    assert len(rows) == (3 + 1) * 2 * 4 * 10 * 8
    assert {(row.method, row.thresholds) for row in rows} == {
        ("net", "fixed"),
        ("net", "validation"),
        ("net", "oracle"),
        ("intensity-otsu", "fixed"),
    }
    with (tmp_path / "summary.csv").open(newline="") as stream:
        summary = list(csv.DictReader(stream))
    names = ["dataset", "annotator", "method", "thresholds", "metric", "mean", "low", "high", "n"]
    assert list(summary[0])[: len(names)] == names
    assert {row["method"] for row in summary} == {"net", "intensity-otsu"}
    with (tmp_path / "costs.csv").open(newline="") as stream:
        costs = list(csv.DictReader(stream))
    # One decision for each of the 12 training and 4 validation images; outlines of the 4 to tune thresholds on.
    assert {int(row["decisions"]) for row in costs if row["thresholds"] == "fixed"} == {16}
    assert all(int(row["decisions"]) > 16 for row in costs if row["thresholds"] == "validation")
    assert {row["method"] for row in costs if row["thresholds"] == "validation"} == {"net"}
    assert [path.exists() for path in outcome.pictures] == [True, True]
    assert config.read(tmp_path / "study.yaml", Study).seeds == [0, 1]


def test_the_same_study_gives_the_same_bytes_and_nothing_is_done_twice(tmp_path, monkeypatch):
    for name in ("one", "two"):
        run_study(study(net("net"), pictures=2), tmp_path / name)
    assert (tmp_path / "one" / "rows.csv").read_bytes() == (tmp_path / "two" / "rows.csv").read_bytes()

    from micraframe import micranet

    def fails(*arguments: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(micranet, "fit_classifier", fails)
    again = run_study(
        study(net("net"), net("coarse", combiner="last-layer"), net("cams", extractor="layer-cam")), tmp_path / "one"
    )
    assert not again.failures
    assert len(list((tmp_path / "one" / "models").glob("*/model.json"))) == 1
    assert {row.method for row in read_rows(tmp_path / "one" / "rows.csv")} == {"net", "coarse", "cams"}


def test_a_failed_cell_keeps_its_traceback_and_the_rest_goes_on(tmp_path, install):
    install("fake", ENTRY, fake_methods=METHODS)
    contenders = (Contender(method=Choice(name="failing")), Contender(method=Choice(name="centre-blob")))
    outcome = run_study(study(*contenders), tmp_path)
    assert list(outcome.failures) == ["modified-digits / image-level / failing / seed 0"]
    assert "RuntimeError: cannot learn this" in next(tmp_path.glob("cells/*/error.txt")).read_text()
    assert {row.method for row in outcome.summary} == {"centre-blob"}


def reachable(start: object) -> list[object]:
    """Return everything that can be reached from an object through references, modules and classes left out."""
    seen: dict[int, object] = {}
    queue = [start]
    while queue:
        found = queue.pop()
        if id(found) in seen or isinstance(found, type | type(math)):
            continue
        if isinstance(found, dict) and "__builtins__" in found:
            continue  # a module by another way: the globals of a function
        seen[id(found)] = found
        queue += gc.get_referents(found)
        if isinstance(found, np.ndarray):
            queue.append(found.base)  # which arrays do not tell the garbage collector
    return list(seen.values())


def test_a_method_that_looks_for_masks_finds_none(tmp_path, install):
    install("fake", ENTRY, fake_methods=METHODS)
    run_study(study(Contender(method=Choice(name="cheating"))), tmp_path)
    import fake_methods  # type: ignore[import-not-found]

    train, valid, info, run = fake_methods.Cheating.seen.pop()
    samples = [found for found in reachable((train, valid, info, run)) if isinstance(found, Sample)]
    assert len(samples) == 16
    for sample in samples:
        assert sample.labels is not None
        assert all(getattr(sample, kind.value) is None for kind in Annotation if kind is not Annotation.LABELS)
        assert sample.ignore is None
        assert sample.source == ""
    arrays = [found for found in reachable((train, valid, info, run)) if isinstance(found, np.ndarray)]
    masks = [array for array in arrays if array.dtype == np.bool_ and array.ndim > 1]
    assert not masks


def test_a_fitted_method_that_looks_for_masks_finds_none(tmp_path, install, monkeypatch):
    install("fake", ENTRY, fake_methods=METHODS)
    import fake_methods

    monkeypatch.setattr(fake_methods.Peeked, "look", staticmethod(reachable))
    # No room for score maps, so that they are made anew with every head that wants any.
    monkeypatch.setattr("micraframe.study.tuning.kept.__defaults__", (0,))
    outcome = run_study(study(Contender(method=Choice(name="peeking")), tune=3), tmp_path)
    assert not outcome.failures
    digits = build("dataset", "modified-digits", **DIGITS)
    known = {sample.image.tobytes() for split in ("test", "valid") for sample in digits.samples(split)}
    # Test and validation images; then, by either origin, those to tune on and the test images by what was tuned.
    counts = []
    for everything in fake_methods.Peeked.found:
        assert not any(isinstance(found, Sample) for found in everything)
        arrays = [found for found in everything if isinstance(found, np.ndarray)]
        # What arrays are views of is among them: it is the image as well, and nothing that could hold a mask besides.
        assert all(array.dtype == np.float32 and array.tobytes() in known for array in arrays)
        counts.append(len({array.tobytes() for array in arrays}))
    assert counts[:2] == [4, 3]
    assert len(counts) == 6
    assert all(counts)


def test_what_the_annotator_does_not_give_the_method_does_not_get():
    samples = build("dataset", "modified-digits", **DIGITS).samples("valid")
    given, cost = annotate(samples, build("annotator", "full"), frozenset({Annotation.MASKS}), seed=0)
    assert all(sample.masks is not None and sample.instances is None and sample.labels is None for sample in given)
    assert cost.seconds > 0
    given, _ = annotate(samples, build("annotator", "image-level"), frozenset(Annotation), seed=0)
    assert all(sample.masks is None and sample.labels is not None for sample in given)


VALID = build("dataset", "modified-digits", **DIGITS).samples("valid")


def tuned_on(contender: Contender, samples: Sequence[Sample], paid: int | None = None, **changes):
    """Return the samples and the cost of tuning a contender's thresholds."""
    made = config.resolve(study(contender, **changes))
    return tuning_samples(plan(made)[0], made, samples, paid)


def told(annotator: str, images: int | None = None) -> Contender:
    return Contender(method=Choice(name="centre-blob"), annotator=Choice(name=annotator), images=images)


def test_thresholds_are_tuned_on_what_the_annotator_wrote_down():
    outlined, cost = tuned_on(net("net"), VALID)
    assert all(np.array_equal(one.masks, sample.masks) for one, sample in zip(outlined, VALID, strict=True))
    labelled, less = tuned_on(told("full"), VALID, tuning_annotator=Choice(name="image-level"))
    assert all(one.masks is None and one.instances is None and one.labels is not None for one in labelled)
    assert 0 < less.seconds < cost.seconds


def test_labels_to_tune_on_are_paid_for_once():
    bare = [sample.keep({Annotation.LABELS}) for sample in VALID]
    # By the contender's own annotator, who gives them of all four or of two.
    kept, nothing = tuned_on(net("net"), bare)
    assert [one.id for one in kept] == [one.id for one in bare]
    assert nothing == Cost()
    _, two = tuned_on(net("net"), bare, paid=2)
    assert (two.decisions, two.seconds) == (2, 4.0)
    # At the prices of the tuning annotator.
    dear = Choice(name="full", params={"cost": {"preset": "bearman2016"}})
    _, one = tuned_on(net("net"), bare, paid=1, tune=2, tuning_annotator=dear)
    assert (one.decisions, one.seconds) == (1, 20.0)
    unknown = [sample.keep(()) for sample in bare]
    kept, nothing = tuned_on(net("net"), unknown, paid=1)
    assert all(sample.labels is None for sample in kept)
    assert nothing == Cost()


def test_outlines_that_the_contender_has_had_are_not_paid_for_again():
    _, whole = tuned_on(net("net"), VALID, tune=3)
    _, nothing = tuned_on(told("full"), VALID, tune=3)
    assert whole.seconds > 0
    assert nothing == Cost()
    _, rest = tuned_on(told("full", images=6), VALID, paid=2, tune=3)
    had = {sample.id for sample in subset(VALID, 2, seed=0)}
    (further,) = [sample for sample in subset(VALID, 3, seed=0) if sample.id not in had]
    assert rest == build("annotator", "full").annotate(further, 0)[1]


def test_the_bill_has_what_the_contenders_share_of_validation_images_leaves(tmp_path):
    half = {"annotator": Choice(name="full"), "images": 6}
    contender = net("net").model_copy(update=half)
    made = study(contender, tune=3)
    run_study(made, tmp_path)
    _, rest = tuned_on(contender, VALID, paid=2, tune=3)
    (cell,) = plan(made)
    assert StudyFolder(tmp_path).tuning_cost(cell) == rest


def test_without_validation_images_no_thresholds_can_be_tuned():
    with pytest.raises(DataError, match="'modified-digits' has 0 validation images.*set tune: 0"):
        tuned_on(net("net"), [])


def test_what_is_the_heads_own_keeps_its_origin():
    own = (Threshold("presence", 0.5), Threshold("mask", 0.3))
    for tuned, origins in (
        (Tuned(None, None), ["fixed", "fixed"]),
        (Tuned(None, 0.3), ["fixed", "oracle"]),
        (Tuned((0.5,), None), ["oracle", "fixed"]),
        (Tuned((0.5,), 0.3), ["oracle", "oracle"]),
    ):
        assert [with_origin(each, tuned, "oracle").origin for each in own] == origins


def test_contenders_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ConfigError, match="give contenders different labels"):
        plan(study(net("a"), net("a", combiner="last-layer")))


def test_an_unlabelled_contender_is_named_by_what_differs_from_the_defaults():
    cells = plan(study(Contender(method=Choice(name="random-map", params={"smoothing": 3}))))
    assert cells[0].method == "random-map smoothing=3"


def test_summaries_are_over_images_and_say_how_seeds_differ():
    def row(seed: int, image: str, class_: str, value: float) -> Row:
        return Row("d", "a", "m", seed, "fixed", image, "xz" if image in "xz" else image, class_, "iou", value)

    rows = [row(0, "x", "0", 1.0), row(0, "x", "1", 0.0), row(0, "y", "0", math.nan), row(0, "z", "0", 0.25)]
    rows += [row(1, "x", "0", 0.5), row(1, "x", "1", 0.5), row(1, "y", "0", math.nan), row(1, "z", "0", 0.75)]
    (summary,) = summarise(Values(rows))
    assert (summary.n, summary.groups, summary.seeds) == (2, 1, 2)
    assert math.isnan(summary.low)  # of one group, nobody knows how others would do
    assert summary.mean == pytest.approx(0.5)
    assert summary.seed_sd == pytest.approx(np.std([0.375, 0.625], ddof=1))
    (undefined,) = summarise(Values(rows[2:3]))
    assert undefined.n == 0
    assert math.isnan(undefined.mean)


def test_rows_read_back_as_they_were_written(tmp_path: Path):
    rows = [Row("d", "a", "m, with comma", 0, "fixed", "x", "g", "0", "iou", float(np.float32(1 / 3)))]
    write_csv(tmp_path / "rows.csv", rows, Row)
    assert np.float32(next(read_rows(tmp_path / "rows.csv")).value) == np.float32(1 / 3)
    write_csv(tmp_path / "nan.csv", [Row("d", "a", "m", 0, "fixed", "x", "g", "0", "iou", math.nan)], Row)
    assert (tmp_path / "nan.csv").read_text().endswith("iou,\n")
