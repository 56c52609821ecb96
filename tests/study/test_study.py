"""A study from annotation to tables: what methods see, what annotation counts, and what results say."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_studies import DIGITS, compared, net, net_from, study
from table_files import rows_of

from micraframe import config, pipeline
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.errors import DataError
from micraframe.pricing import Prices
from micraframe.registry import build
from micraframe.study import StudyFolder, job, plan, run_study, write_results
from micraframe.study.job import labelled_samples, subset, tuning_samples
from micraframe.study.tables import ROWS, read_csv
from micraframe.tuning import bounded, read_thresholds
from micraframe.types import Annotation, Progress, Sample, Work

METHODS = '''
import numpy as np
from typing import final
from micraframe.interfaces import Method, Metric, Model, Column
from micraframe.types import Annotation, Scores

@final
class Failing(Method):
    learns_from = frozenset({Annotation.LABELS})
    def fit(self, train, valid, info, context):
        raise RuntimeError("cannot learn this")
    def restore(self, state, info, device):
        raise RuntimeError

@final
class Cheating(Method):
    """Looks for annotation wherever its arguments lead."""
    learns_from = frozenset({Annotation.LABELS})
    seen = []
    def fit(self, train, valid, info, context):
        Cheating.seen.append((train, valid, info, context))
        raise RuntimeError("has looked")
    def restore(self, state, info, device):
        raise RuntimeError

@final
class Peeking(Method):
    """Looks for annotation wherever the images come from."""
    learns_from = frozenset({Annotation.LABELS})
    default_head = ("micraframe/semantic", {"presence_threshold": 0.9})
    def fit(self, train, valid, info, context):
        return Peeked(len(info.classes))
    def restore(self, state, info, device):
        return Peeked(len(info.classes))

@final
class Peeked(Model):
    found = []
    look = None
    def __init__(self, classes):
        self.classes = classes
    def score(self, images, rule):
        # Now: a generator that has ended leads nowhere.
        Peeked.found.append(Peeked.look(images))
        for image in images:
            # The brighter, the lower the presence: a threshold in between is more accurate, and needs further maps.
            presence = np.full(self.classes, 1 / (1 + image.sum()), np.float32)
            classes = tuple(rule(presence))
            yield Scores(presence, classes, np.repeat(np.clip(image[:1], 0, 1), len(classes), axis=0))
    def state(self):
        return {}

@final
class Picky(Metric):
    """Fails where `FAILS_IN` says."""
    def columns(self):
        return (Column("picky", "fails"),)
    def measure(self, prediction, truth):
        if FAILS_IN == "measure" and prediction.masks.all():
            raise ValueError("cannot measure this")
        return {"picky": np.ones(len(prediction.present))}
    def reduce(self, statistics):
        if FAILS_IN == "reduce":
            raise ZeroDivisionError("cannot reduce this")
        return super().reduce(statistics)
FAILS_IN = ""
'''
ENTRY = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 2
@hookimpl
def micraframe_components():
    names = ("Failing", "Cheating", "Peeking")
    methods = [Component("method", name.lower(), f"fake_methods:{name}", name) for name in names]
    return [*methods, Component("metric", "picky", "fake_methods:Picky", "Picky")]
"""


def read_rows(folder: Path) -> pl.DataFrame:
    return read_csv(folder / "rows.csv", ROWS)


def test_a_study_writes_its_tables_and_pictures(tmp_path):
    outcome = run_study(study(net("net"), compared("intensity-otsu"), seeds=[0, 1], pictures=2), tmp_path)
    assert not outcome.failures
    rows = read_rows(tmp_path)
    # 5 and 3 origins of thresholds, 2 seeds, 4 images, 10 classes; correct, presence and label, 6 of masks.
    assert len(rows) == (5 + 3) * 2 * 4 * 10 * 9
    assert set(rows.select("method", "thresholds").iter_rows()) == {
        *((method, origin) for method in ("net", "intensity-otsu") for origin in ("fixed", "validation", "oracle")),
        # The control uses no validation images, so nobody has labelled any for it.
        *(("net", origin) for origin in ("negatives", "expected-share")),
    }
    summary = rows_of(tmp_path / "summary.csv")
    names = ["dataset", "annotator", "method", "thresholds", "metric", "mean", "low", "high", "n"]
    assert list(summary[0])[: len(names)] == names
    assert {row["method"] for row in summary} == {"net", "intensity-otsu"}
    assert {(row["method"], row["models"], row["conditional"]) for row in summary if row["thresholds"] == "fixed"} == {
        ("net", "2", "false"),
        ("intensity-otsu", "1", "false"),
    }
    costs = rows_of(tmp_path / "costs.csv")
    # One decision for each of the 12 training images, and of the 4 validation images where they are used; outlines of
    # the 4 tuning images.
    fixed = {row["method"]: int(row["decisions"]) for row in costs if row["thresholds"] == "fixed"}
    assert fixed == {"net": 16, "intensity-otsu": 12}
    assert all(int(row["decisions"]) > 16 for row in costs if row["thresholds"] == "validation")
    assert [path.exists() for path in outcome.pictures] == [True]
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
    assert len(list((tmp_path / "one" / "models").glob("*.json"))) == 1, "the record of one training"
    assert set(read_rows(tmp_path / "one")["method"]) == {"net", "coarse", "cams"}


def test_prices_change_costs_and_annotate_nothing(tmp_path, monkeypatch):
    cheap = study(net("net"), compared("centre-blob", "full"), tuning_images=2)
    run_study(cheap, tmp_path)
    before = (tmp_path / "costs.csv").read_text()
    monkeypatch.setattr(job, "annotate_samples", None)
    dear = cheap.model_copy(update={"prices": Prices(preset="bearman2016")})
    assert not run_study(dear, tmp_path).failures
    assert (tmp_path / "costs.csv").read_text() != before
    write_results(cheap, plan(cheap), StudyFolder(tmp_path), Progress())
    assert (tmp_path / "costs.csv").read_text() == before


def test_every_run_leaves_a_pipeline_with_its_thresholds(tmp_path):
    made = study(net("net"), net("coarse", combiner="last-layer"), tuning_images=3)
    assert not run_study(made, tmp_path).failures
    images = [sample.image for sample in build("dataset", "modified-digits", **DIGITS).samples("test")]
    metric = build("metric", "overlap")
    for run in plan(made):
        folder = StudyFolder(tmp_path)
        loaded = pipeline.load(folder.model(run), "cpu", head=run.compared.head, **run.inference)
        ready = loaded.with_thresholds(read_thresholds(folder.run(run)), "validation")
        rows = folder.rows(run).filter(pl.col("thresholds") == "validation", pl.col("metric") == "iou")
        truths = build("dataset", "modified-digits", **DIGITS).samples("test")
        found = [metric.measure(one, sample)["iou"] for one, sample in zip(ready.predict(images), truths, strict=True)]
        np.testing.assert_allclose(rows["value"], np.concatenate(found), rtol=1e-5)


@pytest.mark.parametrize("damage", ["", "half", "tuned"])
def test_a_run_with_damaged_results_is_not_done(tmp_path, damage):
    made = study(compared("intensity-otsu"), tuning_images=0)
    run_study(made, tmp_path)
    (run,), folder = plan(made), StudyFolder(tmp_path)
    whole = (tmp_path / "rows.csv").read_bytes()
    file = folder.run(run) / ("thresholds.json" if damage == "tuned" else "rows.csv")
    text = file.read_text()
    assert folder.is_done(run)
    file.write_text(text[: len(text) // 2] if damage else "")
    assert not folder.is_done(run)
    assert not run_study(made, tmp_path).failures
    assert folder.is_done(run)
    assert (tmp_path / "rows.csv").read_bytes() == whole


def test_a_failed_run_keeps_its_traceback_and_the_rest_goes_on(tmp_path, install):
    install("fake", ENTRY, fake_methods=METHODS)
    outcome = run_study(study(compared("failing"), compared("centre-blob")), tmp_path)
    assert list(outcome.failures) == ["modified-digits / image-level / failing / seed 0"]
    assert "RuntimeError: cannot learn this" in next(tmp_path.glob("runs/*/error.txt")).read_text()
    assert {row.method for row in outcome.summary} == {"centre-blob"}


@pytest.mark.parametrize("where", ["measure", "reduce"])
def test_a_metric_that_raises_fails_its_run_only(tmp_path, install, where):
    install("fake", ENTRY, fake_methods=METHODS.replace('FAILS_IN = ""', f'FAILS_IN = "{where}"'))
    metrics = [Choice(name="classification"), Choice(name="overlap"), Choice(name="picky")]
    everywhere = Choice(name="semantic", params={"mask_threshold": {"name": "fixed", "value": -1}})
    methods = compared("centre-blob", head=everywhere), compared("random-map")
    outcome = run_study(study(*methods, metrics=metrics, tuning_images=0), tmp_path)
    failed = ["centre-blob", "random-map"] if where == "reduce" else ["centre-blob"]
    assert [name.split(" / ")[2] for name in outcome.failures] == failed
    assert {row.method for row in outcome.summary} == {"centre-blob", "random-map"} - set(failed)


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
    run_study(study(compared("cheating")), tmp_path)
    import fake_methods  # type: ignore[import-not-found]

    everything = fake_methods.Cheating.seen.pop()
    samples = [found for found in reachable(everything) if isinstance(found, Sample)]
    assert len(samples) == 16
    for sample in samples:
        assert sample.labels is not None
        assert all(getattr(sample, kind.value) is None for kind in Annotation if kind is not Annotation.LABELS)
        assert sample.ignore is None
        assert sample.source == ""
    arrays = [found for found in reachable(everything) if isinstance(found, np.ndarray)]
    masks = [array for array in arrays if array.dtype == np.bool_ and array.ndim > 1]
    assert not masks


def test_a_model_that_looks_for_masks_finds_none(tmp_path, install, monkeypatch):
    install("fake", ENTRY, fake_methods=METHODS)
    import fake_methods

    monkeypatch.setattr(fake_methods.Peeked, "look", staticmethod(reachable))
    # Without room for maps, images are scored again with every head that needs any.
    monkeypatch.setattr(job, "bounded", lambda scores: bounded(scores, 0))
    outcome = run_study(study(compared("peeking"), tuning_images=3), tmp_path)
    assert not outcome.failures
    digits = build("dataset", "modified-digits", **DIGITS)
    known = {sample.image.tobytes() for split in ("test", "valid") for sample in digits.samples(split)}
    # Test and validation images, and the test images with either threshold by labels and as tuned on validation images;
    # then, to tune on the test images, these, and again as they were tuned.
    counts = []
    for everything in fake_methods.Peeked.found:
        assert not any(isinstance(found, Sample) for found in everything)
        # What arrays are views of is among them: it is the image as well, and nothing that could hold a mask besides.
        images = [found for found in everything if isinstance(found, np.ndarray) and found.dtype == np.float32]
        assert not [found for found in everything if isinstance(found, np.ndarray) and found.dtype == np.bool_]
        images = [array for array in images if array.ndim == 3]
        assert all(array.tobytes() in known for array in images)
        counts.append(len({array.tobytes() for array in images}))
    assert counts[:2] == [4, 3]
    assert len(counts) == 7
    assert all(counts)


VALID = build("dataset", "modified-digits", **DIGITS).samples("valid")


def tuned_on(method: ComparedMethod, samples: Sequence[Sample], annotated: int | None = None, **changes):
    """Return the samples and the additional work of tuning a method's thresholds."""
    made = config.resolve(study(method, **changes))
    return tuning_samples(plan(made)[0], made, samples, annotated)


def test_thresholds_are_tuned_on_the_annotators_annotation():
    outlined, (work,) = tuned_on(net("net"), VALID)
    assert all(np.array_equal(one.masks, sample.masks) for one, sample in zip(outlined, VALID, strict=True))
    assert (work.task, work.images) == ("outline", 4)
    level = Choice(name="image-level")
    labelled, work = tuned_on(compared("centre-blob", "full"), VALID, tuning_annotator=level)
    assert all(one.masks is None and one.instances is None and one.labels is not None for one in labelled)
    assert work == (Work("image-level", 4, 0, 4, 40),)


def test_labels_of_tuning_images_count_once():
    bare = [sample.keep({Annotation.LABELS}) for sample in VALID]
    # The method's own annotator provides those of all four, or of two or one of them.
    kept, nothing = tuned_on(net("net"), bare)
    assert [one.id for one in kept] == [one.id for one in bare]
    assert nothing == ()
    assert tuned_on(net("net"), bare, annotated=2)[1] == (Work("image-level", 2, 0, 2, 20),)
    assert tuned_on(net("net"), bare, annotated=1, tuning_images=2)[1] == (Work("image-level", 1, 0, 1, 10),)
    unknown = [sample.keep(()) for sample in bare]
    kept, nothing = tuned_on(net("net"), unknown, annotated=1)
    assert all(sample.labels is None for sample in kept)
    assert nothing == ()


def test_outlines_of_the_method_itself_are_no_additional_work():
    assert tuned_on(net("net"), VALID, tuning_images=3)[1]
    assert tuned_on(net_from("full"), VALID, tuning_images=3)[1] == ()
    # A control uses no validation images, so nobody has outlined these for it.
    (work,) = tuned_on(compared("centre-blob", "full"), VALID, tuning_images=3)[1]
    assert (work.task, work.images) == ("outline", 3)
    _, rest = tuned_on(net_from("full").model_copy(update={"train_images": 6}), VALID, annotated=2, tuning_images=3)
    had = {sample.id for sample in subset(VALID, 2, seed=0)}
    (further,) = [sample for sample in subset(VALID, 3, seed=0) if sample.id not in had]
    assert rest == (build("annotator", "full").annotate(further, 0)[1],)


def test_labels_that_a_method_has_of_validation_images_are_no_additional_work():
    made = config.resolve(study(net("net"), net_from("full"), compared("centre-blob"), tuning_images=3))
    level, full, control = (labelled_samples(run, made, VALID, None) for run in plan(made)[:3])
    drawn = subset(VALID, 3, seed=0)
    for samples in (level, full):
        assert [sample.id for sample in samples] == [sample.id for sample in drawn]
        assert all(sample.masks is None and sample.instances is None for sample in samples)
        assert all(np.array_equal(one.labels, other.labels) for one, other in zip(samples, drawn, strict=True))
    assert control == ()
    few = labelled_samples(plan(made)[0], made, VALID, 2)
    assert [sample.id for sample in few] == [sample.id for sample in subset(VALID, 2, seed=0)]


def test_a_run_counts_the_work_that_its_share_of_validation_images_leaves(tmp_path):
    half = net("net").model_copy(update={"annotator": Choice(name="full"), "train_images": 6})
    made = study(half, tuning_images=3)
    run_study(made, tmp_path)
    _, rest = tuned_on(half, VALID, annotated=2, tuning_images=3)
    (run,) = plan(made)
    assert StudyFolder(tmp_path).tuning_work(run) == rest


def test_without_validation_images_no_thresholds_can_be_tuned():
    with pytest.raises(DataError, match="'modified-digits': expected validation images.*set tuning_images: 0"):
        tuned_on(net("net"), [])


def test_smaller_subsets_are_part_of_larger_ones():
    samples = [Sample(str(number), np.zeros((1, 2, 2), np.float32)) for number in range(20)]
    few, some = ([sample.id for sample in subset(samples, number, seed=3)] for number in (4, 11))
    assert len(few) == 4
    assert set(few) < set(some)
    assert some == sorted(some, key=int)
    assert subset(samples, 20, seed=3) is samples
    assert subset(samples, None, seed=3) is samples
    assert few != [sample.id for sample in subset(samples, 4, seed=4)]
