"""The demos and the committed studies compare fairly: one recipe, controls in both policies, budgets, planned pairs."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from micraframe import config
from micraframe.config import Study
from micraframe.study.committed import Committed
from micraframe.study.plan import method_name

STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"
TEXTS = {
    **{
        name: resources.files("micraframe.study").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        for name in ("demo", "digits")
    },
    **{
        path.stem if path.parent == STUDIES else path.parent.name: path.read_text(encoding="utf-8")
        for path in (STUDIES / "smoke.yaml", *sorted(STUDIES.glob("*/study.yaml")))
    },
}


def study_of(record: Path) -> Study:
    """Return the study that a record in a folder, or else an embedded study, is of."""
    return config.parse(TEXTS[record.parent.name], Study)


@pytest.fixture(params=TEXTS)
def study(request: pytest.FixtureRequest) -> Study:
    return config.parse(TEXTS[request.param], Study)


def recipes(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every recipe of training among a method's parameters."""
    for name, value in params.items():
        if isinstance(value, dict):
            if name == "training":
                yield value
            else:
                yield from recipes(value)


def test_presence_is_weighted_alike_whatever_the_annotation(study: Study) -> None:
    found = [recipe for compared in study.methods for recipe in recipes(compared.method.params)]
    # The demo's recommended method brings its own recipe, and is not among them.
    assert len(found) >= (3 if study.datasets[0].name == "micraframe/nuclei-sample" else 4)
    assert all("pos_weight" in recipe for recipe in found)
    assert len({recipe["pos_weight"] for recipe in found}) == 1


def test_controls_answer_in_both_ways_and_one_knows_what_is_present(study: Study) -> None:
    controls = [compared.method for compared in study.methods if "control" in compared.label]
    names = [control.name.rpartition("/")[2] for control in controls]
    assert "presence-otsu" in names
    assert {control.params.get("presence", "all") for control in controls} == {"all", "prevalent"}


def test_no_crop_is_dropped_from_the_test(study: Study) -> None:
    for dataset in study.datasets:
        assert dataset.params.get("ambiguous_test_crops") != "drop"


@pytest.mark.parametrize("record", sorted(STUDIES.glob("*/runs.json")), ids=lambda path: path.parent.name)
def test_what_tables_show_can_be_compared_with_unless_the_study_no_longer_has_it(record: Path) -> None:
    columns = ["dataset", "annotator", "method"]
    shown, kept = (
        set(table.select(columns).unique().collect().iter_rows())
        for table in (pl.scan_csv(record.parent / "summary.csv"), pl.scan_parquet(record.parent / "rows.parquet"))
    )
    assert kept <= shown
    assert not {method for *_, method in shown - kept} & {method_name(each) for each in study_of(record).methods}


@pytest.mark.parametrize("record", sorted(STUDIES.glob("*/runs.json")), ids=lambda path: path.parent.name)
def test_what_can_be_compared_with_is_described_by_components_that_there_are(record: Path) -> None:
    recorded = Committed.model_validate_json(record.read_text(encoding="utf-8"))
    methods = [run.compared for run in recorded.runs if run.kind == "method"]
    assert methods
    for compared in methods:
        assert config.resolve(compared).method.name == compared.method.name


def test_comparisons_are_planned(study: Study) -> None:
    assert study.comparisons
    assert any("control, presence and Otsu" in second for _, second in study.comparisons)


@pytest.mark.parametrize("name", ["nuclei_fluo", "t98g_phase", "pfc_neurons"])
def test_labels_and_outlines_have_curves(name: str) -> None:
    curves = {(each.label, each.annotator.name) for each in config.parse(TEXTS[name], Study).methods if each.budgets}
    assert {("U-Net", "full"), ("U-Net", "boxes"), ("forest", "scribbles")} <= curves
    labelled = {label for label, annotator in curves if annotator == "micraframe/image-level"}
    assert {"MICRA-Net, PCA (paper)", "MICRA-Net, guided", "control, presence and Otsu"} <= labelled
