"""A study from annotation to tables: what methods see, what annotation counts, and what results say."""

from __future__ import annotations

import csv
import gc
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_studies import DIGITS, compared, net, study

from micraframe import config, pipeline
from micraframe.config import Choice, ComparedMethod, Study
from micraframe.errors import DataError
from micraframe.interfaces import Column, Metric
from micraframe.metrics.overlap import OverlapMetric
from micraframe.parameters import Parameters
from micraframe.pricing import Prices
from micraframe.registry import build
from micraframe.study import StudyFolder, job, plan, run_study, write_results
from micraframe.study.job import subset, tuning_samples
from micraframe.study.tables import ROWS, Values, differences, read_csv, summarise, write_csv
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
MICRAFRAME_API = 1
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
    # 3 origins of thresholds of 2 methods, 2 seeds, 4 images, 10 classes; correct, presence and label, 6 of masks.
    assert len(rows) == 3 * 2 * 2 * 4 * 10 * 9
    assert set(rows.select("method", "thresholds").iter_rows()) == {
        (method, origin) for method in ("net", "intensity-otsu") for origin in ("fixed", "validation", "oracle")
    }
    with (tmp_path / "summary.csv").open(newline="") as stream:
        summary = list(csv.DictReader(stream))
    names = ["dataset", "annotator", "method", "thresholds", "metric", "mean", "low", "high", "n"]
    assert list(summary[0])[: len(names)] == names
    assert {row["method"] for row in summary} == {"net", "intensity-otsu"}
    assert {row["resamples"] for row in summary if row["metric"] == "average_precision"} == {"200"}
    assert {row["resamples"] for row in summary if row["metric"] == "iou"} == {"10000"}
    with (tmp_path / "costs.csv").open(newline="") as stream:
        costs = list(csv.DictReader(stream))
    # One decision for each of the 12 training and 4 validation images; outlines of the 4 tuning images.
    assert {int(row["decisions"]) for row in costs if row["thresholds"] == "fixed"} == {16}
    assert all(int(row["decisions"]) > 16 for row in costs if row["thresholds"] == "validation")
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
    # Test and validation images; then, for either origin, those to tune on and the test images as they were tuned.
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
    assert len(counts) == 6
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
    assert work == (Work("image-level", 4, 0, 4),)


def test_labels_of_tuning_images_count_once():
    bare = [sample.keep({Annotation.LABELS}) for sample in VALID]
    # The method's own annotator provides those of all four, or of two or one of them.
    kept, nothing = tuned_on(net("net"), bare)
    assert [one.id for one in kept] == [one.id for one in bare]
    assert nothing == ()
    assert tuned_on(net("net"), bare, annotated=2)[1] == (Work("image-level", 2, 0, 2),)
    assert tuned_on(net("net"), bare, annotated=1, tuning_images=2)[1] == (Work("image-level", 1, 0, 1),)
    unknown = [sample.keep(()) for sample in bare]
    kept, nothing = tuned_on(net("net"), unknown, annotated=1)
    assert all(sample.labels is None for sample in kept)
    assert nothing == ()


def test_outlines_of_the_method_itself_are_no_additional_work():
    assert tuned_on(net("net"), VALID, tuning_images=3)[1]
    assert tuned_on(compared("centre-blob", "full"), VALID, tuning_images=3)[1] == ()
    _, rest = tuned_on(compared("centre-blob", "full", train_images=6), VALID, annotated=2, tuning_images=3)
    had = {sample.id for sample in subset(VALID, 2, seed=0)}
    (further,) = [sample for sample in subset(VALID, 3, seed=0) if sample.id not in had]
    assert rest == (build("annotator", "full").annotate(further, 0)[1],)


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


def table(*rows: tuple[object, ...]) -> pl.DataFrame:
    """Return rows of one method: seed, image, group, class, metric, value."""
    return pl.DataFrame([("d", "a", "m", seed, "fixed", *rest) for seed, *rest in rows], ROWS, orient="row")


def test_summaries_are_over_images_and_say_how_seeds_differ():
    def rows(seed: int, *values: float):
        places = (("x", "0"), ("x", "1"), ("y", "0"), ("z", "0"))
        for (image, class_), value in zip(places, values, strict=True):
            for column in OverlapMetric(OverlapMetric.Params()).columns():
                yield seed, image, "xz" if image in "xz" else image, class_, column.name, value

    metrics = [OverlapMetric(OverlapMetric.Params())]
    both = table(*rows(0, 1.0, 0.0, math.nan, 0.25), *rows(1, 0.5, 0.5, math.nan, 0.75))
    summary = next(each for each in summarise(Values(both, metrics)) if each.metric == "iou")
    assert (summary.n, summary.groups, summary.seeds) == (2, 1, 2)
    assert math.isnan(summary.low)  # a single group says nothing about others
    assert summary.mean == pytest.approx(0.5)
    assert summary.seed_sd == pytest.approx(np.std([0.375, 0.625], ddof=1))
    undefined = next(iter(summarise(Values(table(*rows(0, *[math.nan] * 4)), metrics))))
    assert undefined.n == 0
    assert math.isnan(undefined.mean)


class Counts(Metric[Parameters]):
    """A pooled ratio, and a number that no sums express."""

    def columns(self):
        return (
            Column("pooled", "hits by total", numerator="hits", denominator="total"),
            Column("extreme", "largest share", higher_is_better=False, pooled=True),
        )

    def measure(self, prediction, truth):
        raise NotImplementedError

    def reduce(self, statistics):
        with np.errstate(invalid="ignore"):
            shares = np.asarray(statistics["hits"]) / np.asarray(statistics["total"])
        return {**super().reduce(statistics), "extreme": np.nanmax(shares, axis=0, initial=0)}


def counts(method: str, shift: int) -> pl.DataFrame:
    random = np.random.default_rng(shift)
    rows = []
    for seed in (0, 1):
        for number in range(30):
            for class_ in "ab":
                total = int(random.integers(1, 9))
                for name, value in (("hits", min(total, int(random.integers(0, 4)) + shift)), ("total", total)):
                    rows.append((seed, f"i{number}", f"g{number // 2}", class_, name, value))
    return table(*rows).with_columns(method=pl.lit(method))


def test_pooled_metrics_have_intervals_and_tests():
    values = Values(pl.concat([counts("m", 0), counts("n", 4)]), [Counts(Parameters())])
    first, _, second, _ = found = summarise(values)
    assert [each.metric for each in found] == ["pooled", "extreme"] * 2
    for each, rows in ((first, counts("m", 0)), (second, counts("n", 4))):
        sums = rows.group_by("seed", "class", "metric").agg(pl.col("value").sum()).pivot("metric", values="value")
        assert each.mean == pytest.approx((sums["hits"] / sums["total"]).mean())
        assert each.low < each.mean < each.high
        assert (each.n, each.groups, each.resamples) == (30, 15, 10_000)
    assert [each.resamples for each in found if each.metric == "extreme"] == [200, 200]
    overall, pair = differences(values, ["pooled", "extreme"])
    assert (overall.test, pair.metric, pair.first, pair.second) == ("F", "pooled", "m (a)", "n (a)")
    assert math.isnan(overall.statistic)
    assert pair.statistic == pytest.approx(first.mean - second.mean)
    assert pair.low < pair.statistic < pair.high < 0
    assert pair.p < 0.01


def test_tables_read_back_as_they_were_written(tmp_path: Path):
    written = table((0, "x", "g", "0", "iou", float(np.float32(1 / 3))), (0, "007", "", 'a, "b"', "iou", math.nan))
    written = written.with_columns(method=pl.lit("m, with comma"))
    write_csv(tmp_path / "rows.csv", written)
    assert (tmp_path / "rows.csv").read_text().endswith('007,,"a, ""b""",iou,\n')
    read = read_csv(tmp_path / "rows.csv", ROWS)
    assert np.float32(read["value"][0]) == np.float32(1 / 3)
    assert math.isnan(read["value"][1])
    assert read.drop("value").equals(written.drop("value"))
