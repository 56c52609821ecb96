"""The tables of a study: numbers per trained model first, and what is compared with what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small_studies import compared, net, study

from micraframe import config, registry
from micraframe.errors import ConfigError
from micraframe.interfaces import Column, Metric
from micraframe.metrics.reduction import stack
from micraframe.metrics.reduction import summarise as summarised
from micraframe.parameters import Parameters
from micraframe.statistics import estimate, jackknifed_ratio
from micraframe.study import plan
from micraframe.study.plan import planned_pairs
from micraframe.study.tables import ROWS, Difference, Summary, Values, differences, read_csv, summarise, write_csv

Row = tuple[int, str, str, str, str, float]


class Counts(Metric[Parameters]):
    """A mean over images, a pooled ratio, and a number that no sums express."""

    def columns(self):
        return (
            Column("share", "mean share"),
            Column("pooled", "hits by total", numerator="hits", denominator="total"),
            Column("extreme", "largest share", higher_is_better=False, pooled=("hits", "total")),
        )

    def measure(self, prediction, truth):
        raise NotImplementedError

    def reduce(self, statistics):
        with np.errstate(invalid="ignore"):
            shares = np.asarray(statistics["hits"]) / np.asarray(statistics["total"])
        return {**super().reduce(statistics), "extreme": np.nanmax(shares, axis=0, initial=0)}


COUNTS = Counts(Parameters())


def table(rows: Iterable[Row], method: str = "m", thresholds: str = "fixed") -> pl.DataFrame:
    """Return rows of one method: seed, image, group, class, metric, value."""
    named = [("d", "a", method, seed, thresholds, *rest) for seed, *rest in rows]
    return pl.DataFrame(named, ROWS, orient="row")


def counts(method: str, shift: float = 0, seeds: Iterable[int] = (0, 1), images: int = 30) -> pl.DataFrame:
    """Return random counts of two images per group."""
    rows: list[Row] = []
    for seed in seeds:
        random = np.random.default_rng([seed, *method.encode()])
        for number in range(images):
            for class_ in "ab":
                total = float(random.integers(4, 9))
                hits = min(total, float(random.integers(0, 4)) + shift)
                image, group = f"i{number}", f"g{number // 2}"
                for name, value in (("hits", hits), ("total", total), ("share", hits / total)):
                    rows.append((seed, image, group, class_, name, value))
    return table(rows, method)


def of_shares(shares: Callable[[int, int], float], images: int, seeds: int, method: str = "m") -> Values:
    """Return values of one class where each image is a group of its own."""
    rows = [
        (seed, f"i{image:03}", f"i{image:03}", "a", name, value)
        for seed in range(seeds)
        for image in range(images)
        for name, value in (("share", shares(seed, image)), ("hits", 1.0), ("total", 2.0))
    ]
    return Values(table(rows, method), [COUNTS])


def summary(values: Values, metric: str = "share", method: str = "m") -> Summary:
    (found,) = [each for each in summarise(values) if (each.metric, each.method) == (metric, method)]
    return found


def test_no_mean_over_classes_includes_the_contact_class():
    frame, metrics = counts("m"), [COUNTS]
    left_out, alone = Values(frame, metrics, contacts={"d": "b"}), Values(frame.filter(pl.col("class") == "a"), metrics)
    assert summarise(left_out) == summarise(alone) != summarise(Values(frame, metrics))
    (group,) = left_out.groups()
    np.testing.assert_array_equal(left_out.table(group, "share"), alone.table(group, "share"))
    assert left_out.per_class(group, "share").shape == (2,)
    assert np.isfinite(left_out.per_class(group, "share")).all()


@pytest.mark.parametrize("seeds", [1, 3, 10, 20])
def test_false_alarms_weigh_the_same_for_any_number_of_seeds(seeds):
    """Averaged within images first, these were 0.755, 0.678, 0.494 and 0.417 of 1, 3, 10 and 20 seeds."""

    def iou(seed: int, image: int) -> float:
        if image < 50:
            return 0.8
        # Of 50 empty images, 5 have a false alarm, others for each seed; the rest is undefined.
        return 0.0 if (image + 5 * seed) % 50 < 5 else math.nan

    found = summary(of_shares(iou, 100, seeds))
    assert found.mean == pytest.approx(50 * 0.8 / 55)
    assert found.low < found.mean < found.high
    assert (found.models, found.conditional) == (seeds, seeds == 1)


def test_numbers_are_those_of_each_model_averaged():
    frame = counts("m")
    found = {each.metric: each for each in summarise(Values(frame, [COUNTS]))}
    numbers = []
    for _, rows in frame.group_by("seed"):
        wide = {
            str(name): part.pivot("class", index="image", values="value").select("a", "b").to_numpy()
            for (name,), part in rows.group_by("metric")
        }
        numbers.append({each.column.name: each.overall for each in summarised(COUNTS, wide)})
    for name in ("share", "pooled", "extreme"):
        assert found[name].mean == pytest.approx(np.mean([each[name] for each in numbers]))
        assert found[name].model_sd == pytest.approx(np.std([each[name] for each in numbers], ddof=1))
        assert (found[name].n, found[name].groups, found[name].models) == (30, 15, 2)
    for name in ("share", "pooled"):
        assert found[name].low < found[name].mean < found[name].high


def test_a_pooled_column_counts_the_images_of_its_own_statistics():
    """Masks of 40 images, labels of 6 in 3 groups: average precision is of 6 images, as `evaluate` says."""
    metrics = [registry.build("metric", "classification"), registry.build("metric", "overlap")]
    measured = [column.name for column in metrics[1].columns()]
    values = {
        f"i{image:02}": {
            "correct": 1.0 if image < 6 else math.nan,
            "presence": image / 40 if image < 6 else math.nan,
            "label": float(image % 2) if image < 6 else math.nan,
            **dict.fromkeys(measured, 0.5),
        }
        for image in range(40)
    }
    rows = [
        (0, name, f"g{int(name[1:]) // 2}", "a", statistic, value)
        for name, image in values.items()
        for statistic, value in image.items()
    ]
    found = {each.metric: each for each in summarise(Values(table(rows), metrics))}
    (reduced,) = [
        each
        for each in summarised(
            metrics[0], stack([{k: np.array([v]) for k, v in i.items()} for i in values.values()], 1)
        )
        if each.column.name == "average_precision"
    ]
    assert (found["average_precision"].n, found["average_precision"].groups) == (reduced.images, 3) == (6, 3)
    assert found["average_precision"].mean == pytest.approx(reduced.overall)
    assert (found["iou"].n, found["correct"].n) == (40, 6)


def test_average_precision_of_images_that_all_have_the_class_is_neither_a_number_nor_compared():
    def rows(method: str) -> pl.DataFrame:
        named = [(f"i{image}", {"correct": 1.0, "presence": image / 10, "label": 1.0}) for image in range(8)]
        return table(
            ((0, image, image, "a", name, value) for image, own in named for name, value in own.items()), method
        )

    values = Values(pl.concat([rows("m"), rows("n")]), [registry.build("metric", "classification")])
    found = summary(values, "average_precision")
    assert np.isnan([found.mean, found.low, found.high]).all()
    tests = differences(values, ["average_precision", "correct"])
    assert all(math.isnan(each.difference) for each in tests if each.metric == "average_precision")
    assert [each.difference for each in tests if (each.metric, each.kind) == ("correct", "exploratory")] == [0.0]


def test_only_what_is_asked_for_is_reduced():
    given: list[set[str]] = []

    class Watched(Counts):
        def reduce(self, statistics):
            given.append(set(statistics))
            return super().reduce(statistics)

    values = Values(counts("m"), [Watched(Parameters())])
    assert values.per_class(values.groups()[0], "share").shape == (2,)
    assert not given
    expected = np.mean([COUNTS.reduce(each)["extreme"] for each in values.statistics(values.groups()[0])], axis=0)
    assert values.per_class(values.groups()[0], "extreme") == pytest.approx(expected)
    summarise(values)
    assert given
    assert all(names == {"hits", "total"} for names in given)
    given.clear()
    asked = Values(counts("m"), [Watched(Parameters())], columns=["pooled"])
    assert [each.metric for each in summarise(asked)] == ["pooled"]
    assert not given


def test_images_of_a_group_are_not_independent():
    def rows(groups: int) -> Iterable[Row]:
        for image in range(40):
            for name in ("share", "hits", "total"):
                yield 0, f"i{image:02}", f"g{image % groups}", "a", name, float(image % 4 + 1)

    few, many = (summary(Values(table(rows(groups)), [COUNTS])) for groups in (4, 40))
    assert few.mean == many.mean
    assert (few.groups, many.groups) == (4, 40)
    assert few.high - few.low > 2 * (many.high - many.low)
    assert math.isnan(summary(Values(table(rows(1)), [COUNTS])).low)  # a single group says nothing about others


def test_identical_seeds_are_one_model_and_a_single_seed_holds_for_itself():
    once, thrice = (summary(of_shares(lambda _, image: image % 5 / 5, 20, seeds)) for seeds in (1, 3))
    assert (once.models, once.conditional) == (1, True)
    assert (thrice.models, thrice.conditional) == (1, False)
    assert (thrice.low, thrice.high) == (once.low, once.high)
    assert math.isnan(thrice.model_sd)
    declared = Values(counts("m", seeds=[0]), [COUNTS], {("d", "a", "m", 0): ""})
    assert (summary(declared).models, summary(declared).conditional) == (1, False)


def test_undefined_numbers_stay_undefined():
    found = summary(of_shares(lambda *_: math.nan, 4, 2))
    assert found.n == found.groups == 0
    assert math.isnan(found.mean)
    assert math.isnan(found.low)


def test_groups_without_the_metric_do_not_count():
    found = summary(of_shares(lambda _, image: image / 4 if image < 4 else math.nan, 400, 1))
    expected = estimate(jackknifed_ratio([[0, 1 / 4, 2 / 4, 3 / 4]], np.ones((1, 4))), bounds=(0, 1))
    assert (found.mean, found.low, found.high) == pytest.approx(expected[:3])
    assert found.groups == 4


def test_many_groups_are_left_out_in_blocks():
    random = np.random.default_rng(0).random((3, 1000))
    found = summary(of_shares(lambda seed, image: random[seed, image], 1000, 3))
    expected = estimate(random)
    assert found.mean == pytest.approx(expected.value)
    assert found.high - found.low == pytest.approx(expected.high - expected.low, rel=0.25)
    assert found.groups == 1000


def pairs(found: Iterable[Difference], kind: str) -> set[tuple[str, str, str]]:
    return {(each.first, each.second, each.metric) for each in found if each.kind == kind}


def test_only_planned_comparisons_are_corrected_together():
    frame = pl.concat([counts(name, shift) for name, shift in (("m", 0), ("n", 0), ("o", 3), ("p", 0))])
    values = Values(frame, [COUNTS])
    planned = [("o (a)", "m (a)"), ("n (a)", "m (a)")]
    found = differences(values, ["share", "pooled"], planned, margin=0.1)
    assert pairs(found, "planned") == {(*pair, "share") for pair in planned}
    assert len(pairs(found, "exploratory")) == 4 + 6
    first, second = [each for each in found if each.kind == "planned"]
    assert {(each.first, each.second) for each in (first, second)} == set(planned)
    small, large = sorted((first, second), key=lambda each: each.p)
    assert small.first == "o (a)"
    assert small.p < 0.01
    assert small.p_holm == pytest.approx(2 * small.p)
    assert large.p_holm == pytest.approx(large.p)
    assert small.low < small.difference < small.high
    assert small.low > 0.2
    assert small.p_equivalent > 0.99
    assert large.p_equivalent < 0.5
    assert {each.margin for each in (first, second)} == {0.1}
    for each in found:
        if each.kind != "planned":
            assert np.isnan([each.p_holm, each.margin, each.p_equivalent]).all()
        if each.kind == "F":
            assert (each.first, each.models, each.groups) == ("", 8, 15)
            assert each.difference > 10
            assert each.p < 0.001
    # Without a margin there is no equivalence, and without a plan nothing is corrected.
    assert all(math.isnan(each.p_equivalent) for each in differences(values, ["share"], planned))
    assert not pairs(differences(values, ["share"]), "planned")


def test_the_f_test_is_about_ranked_methods_only():
    values = Values(pl.concat([counts("m"), counts("n", 3), counts("control"), counts("variant", 3)]), [COUNTS])
    alone = differences(Values(pl.concat([counts("m"), counts("n", 3)]), [COUNTS]), ["share"])
    found = differences(values, ["share"], ranked={("d", "a", "m"), ("d", "a", "n")})
    assert found[0].kind == "F"
    assert (found[0].difference, found[0].p) == (alone[0].difference, alone[0].p)
    assert found[0].models == 4
    assert len(pairs(found, "exploratory")) == 6
    assert {each.kind for each in differences(values, ["share"], ranked={("d", "a", "m")})} == {"exploratory"}


def test_pooled_metrics_are_compared_too():
    values = Values(pl.concat([counts("m"), counts("n", 4)]), [COUNTS])
    for metric in ("pooled", "extreme"):
        overall, pair = differences(values, [metric])
        assert (overall.kind, pair.kind, pair.first, pair.second) == ("F", "exploratory", "m (a)", "n (a)")
        numbers = [summary(values, metric, method).mean for method in "mn"]
        assert pair.difference == pytest.approx(numbers[0] - numbers[1])
    (_, pair) = differences(values, ["pooled"])
    assert pair.low < pair.difference < pair.high < 0
    assert pair.p < 0.01


def test_ceilings_and_oracle_thresholds_are_not_compared():
    frame = pl.concat([counts("m"), counts("ceiling", 4), counts("n").with_columns(thresholds=pl.lit("oracle"))])
    values = Values(frame, [COUNTS])
    assert differences(values, ["share"]) == []
    assert summary(values, method="ceiling").mean > summary(values).mean


def test_methods_that_share_trained_models_are_compared_model_by_model():
    random = np.random.default_rng(0)
    models, images = random.normal(0, 0.1, 3), random.normal(0, 0.05, 30)

    def rows(shift: float) -> Iterable[Row]:
        for seed, image in np.ndindex(3, 30):
            share = 0.5 + models[seed] + images[image] + shift + random.normal(0, 0.01)
            for name in ("share", "hits", "total"):
                yield seed, f"i{image}", f"i{image}", "a", name, share

    frame = pl.concat([table(rows(0), "m"), table(rows(0.02), "n")])
    same = {("d", "a", method, seed): f"training {seed}" for method in "mn" for seed in range(3)}
    _, unknown = differences(Values(frame, [COUNTS]), ["share"])
    _, shared = differences(Values(frame, [COUNTS], same), ["share"])
    assert unknown.difference == pytest.approx(shared.difference)
    assert unknown.p > 0.5
    assert shared.p < 0.01
    assert (unknown.models, shared.models) == (6, 3)


def test_a_comparison_of_single_models_says_so():
    random = counts("m", seeds=[0])
    frame = pl.concat([random, counts("n"), counts("o", seeds=[0])])
    found = differences(Values(frame, [COUNTS], {("d", "a", "o", 0): ""}), ["share"])
    assert {each.second: each.conditional for each in found if each.first == "n (a)"} == {"o (a)": False}
    assert {each.second: each.models for each in found if each.first == "m (a)"} == {"n (a)": 3, "o (a)": 2}
    assert all(each.conditional for each in found if each.first == "m (a)")


def test_a_study_names_its_comparisons_as_tables_do():
    methods = net("net"), compared("centre-blob"), compared("centre-blob", "full"), compared("intensity-otsu")
    runs = plan(study(*methods))

    def planned(**changes: object) -> tuple[tuple[str, str], ...]:
        made = study(*methods, **changes)
        found = planned_pairs(made, runs)
        assert config.parse(config.to_yaml(made), config.Study) == made
        assert plan(made) == runs
        return found

    assert planned() == ()
    assert planned(comparisons=[("net", "centre-blob (full)")]) == (("net (image-level)", "centre-blob (full)"),)
    assert planned(reference="intensity-otsu") == tuple(
        (f"{name}", "intensity-otsu (image-level)")
        for name in ("net (image-level)", "centre-blob (image-level)", "centre-blob (full)")
    )
    with pytest.raises(ConfigError, match="reference: expected one of this study's methods.*'nett', which names none"):
        planned(reference="nett")
    with pytest.raises(ConfigError, match=r"which names centre-blob \(image-level\) and centre-blob \(full\)"):
        plan(study(*methods, comparisons=[("net", "centre-blob")]))
    with pytest.raises(ConfigError, match="two different methods"):
        plan(study(*methods, comparisons=[("net", "net (image-level)")]))


def test_tables_read_back_as_they_were_written(tmp_path: Path):
    rows = [(0, "x", "g", "0", "iou", float(np.float32(1 / 3))), (0, "007", "", 'a, "b"', "iou", math.nan)]
    written = table(rows, "m, with comma")
    write_csv(tmp_path / "rows.csv", written)
    assert (tmp_path / "rows.csv").read_text().endswith('007,,"a, ""b""",iou,\n')
    read = read_csv(tmp_path / "rows.csv", ROWS)
    assert np.float32(read["value"][0]) == np.float32(1 / 3)
    assert math.isnan(read["value"][1])
    assert read.drop("value").equals(written.drop("value"))
