"""A new method beside a committed study: only it is run, on the same data, and what is committed is only read."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest
from small_studies import DIGITS, compared, study
from typer.testing import CliRunner

from micraframe import config
from micraframe.cli import app
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError
from micraframe.study import StudyFolder, job, run_study
from micraframe.study.committed import ROWS_FILE, RUNS_FILE, choose_methods, export
from micraframe.study.run import plan_of

OLD = (compared("intensity-otsu"), compared("random-map", "boxes"))
NEW = compared("centre-blob", label="new")
CHANGES = {"tuning_images": 2, "ceilings": True, "compared": ["average_precision"]}


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("committed")
    made = study(*OLD, seeds=[0, 1], **CHANGES)
    assert not run_study(made, folder / "run").failures
    export(made, StudyFolder(folder / "run"), folder / "study")
    return folder / "study"


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_only_the_new_method_is_run_and_tables_show_all(tmp_path, committed, monkeypatch):
    before, run = content(committed), []
    execute = job.execute
    monkeypatch.setattr(job, "execute", lambda one, *rest: (run.append(one.method), execute(one, *rest)))
    new = choose_methods(study(*OLD, NEW, seeds=[0, 1], **CHANGES), committed, ["new"])
    outcome = run_study(new, tmp_path / "new", against=committed)
    assert not outcome.failures
    assert run == ["new", "new"]
    assert content(committed) == before
    together = run_study(study(*OLD, NEW, seeds=[0, 1], **CHANGES), tmp_path / "all")
    names = ("iou", "average_precision")

    def shown(summary):
        return {row for row in summary if row.metric in names and row.thresholds != "oracle" and row.method != "new"}

    assert shown(outcome.summary) == shown(together.summary)
    assert {row.method for row in outcome.summary} == {"intensity-otsu", "random-map", "new", "ceiling"}
    costs = {name: (tmp_path / name / "costs.csv").read_text().splitlines() for name in ("new", "all")}
    assert sorted(costs["new"]) == sorted(costs["all"])
    statistics = (tmp_path / "new" / "statistics.csv").read_text()
    assert "new (image-level)" in statistics
    assert outcome.report.exists()
    # Without the committed study, the same command shows the study's own runs only.
    assert {row.method for row in run_study(new, tmp_path / "new").summary} == {"new"}


def test_the_folder_that_a_study_wrote_is_one_to_compare_with(committed):
    for name in (ROWS_FILE, RUNS_FILE):
        assert (committed.parent / "run" / name).read_bytes() == (committed / name).read_bytes()


def test_from_the_command_line(tmp_path, committed):
    file = tmp_path / "study.yaml"
    file.write_text(config.to_yaml(study(NEW, reference="random-map", **CHANGES)))
    words = ["study", "run", str(file), "--output", str(tmp_path / "out"), "--against", str(committed)]
    ran = CliRunner().invoke(app, [*words, "--method", "new", "--json"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    for command in ("report", "status"):
        again = CliRunner().invoke(app, ["study", command, str(tmp_path / "out"), "--json"], catch_exceptions=False)
        assert again.exit_code == 0, again.output
    assert {str(each["run"]).split(" / ")[2] for each in json.loads(again.stdout)} == {
        "new",
        "intensity-otsu",
        "random-map",
        "ceiling",
    }
    assert "random-map (boxes)" in (tmp_path / "out" / "statistics.csv").read_text()


def test_only_the_statistics_of_compared_metrics_are_kept(tmp_path):
    made = study(*OLD, tuning_images=2, compared=["precision"])
    run_study(made, tmp_path / "run")
    export(made, StudyFolder(tmp_path / "run"), tmp_path / "study")
    rows = pl.read_parquet(tmp_path / "study" / ROWS_FILE)
    assert set(rows["metric"]) == {"iou", "precision"}
    assert set(rows["thresholds"]) == {"fixed", "validation"}
    assert {path.name for path in (tmp_path / "study").iterdir()} == {ROWS_FILE, RUNS_FILE}
    other = content(tmp_path / "study")
    export(made, StudyFolder(tmp_path / "run"), tmp_path / "study")
    assert content(tmp_path / "study") == other
    outcome = run_study(
        study(NEW, tuning_images=2, compared=["precision"]), tmp_path / "new", against=tmp_path / "study"
    )
    assert {row.metric for row in outcome.summary} == {"iou", "precision"}


def test_a_committed_study_grows_by_the_new_method(tmp_path, committed):
    new = choose_methods(study(*OLD, NEW, seeds=[0, 1], **CHANGES), committed, ["new"])
    run_study(new, tmp_path / "new", against=committed)
    export(new, StudyFolder(tmp_path / "new"), tmp_path / "grown")
    run_study(study(*OLD, NEW, seeds=[0, 1], **CHANGES), tmp_path / "all")
    export(study(*OLD, NEW, seeds=[0, 1], **CHANGES), StudyFolder(tmp_path / "all"), tmp_path / "whole")

    def rows(name):
        return sorted(map(str, pl.read_parquet(tmp_path / name / ROWS_FILE).iter_rows()))

    def runs(name):
        records = json.loads((tmp_path / name / RUNS_FILE).read_text())["runs"]
        return {(each["compared"]["label"], each["seed"], each["kind"], each["key"]) for each in records}

    assert rows("grown") == rows("whole")
    assert runs("grown") == runs("whole")
    newer = compared("centre-blob", label="newer")
    outcome = run_study(study(newer, seeds=[0, 1], **CHANGES), tmp_path / "newer", against=tmp_path / "grown")
    assert {row.method for row in outcome.summary} == {"intensity-otsu", "random-map", "new", "newer", "ceiling"}


def test_a_method_with_another_annotation_is_another_one(committed):
    boxes, points = compared("random-map", "boxes"), compared("random-map", "points")
    for names in ((), ("random-map",)):
        chosen = choose_methods(study(OLD[0], boxes, points, seeds=[0, 1], **CHANGES), committed, names)
        assert [each.annotator.name for each in chosen.methods] == ["micraframe/points"]


@pytest.mark.parametrize("names", [(), ("random-map",)])
def test_only_budgets_that_a_committed_study_lacks_are_run(committed, names):
    budgets = compared("random-map", "boxes").model_copy(update={"budgets": [0.5, 1.0]})
    made = study(OLD[0], budgets, seeds=[0, 1], **CHANGES)
    chosen = choose_methods(made, committed, names)
    assert [each.budgets for each in chosen.methods] == [[0.5]]
    whole = {run.key: run for run in plan_of(made)}
    planned = plan_of(chosen, against=committed)
    assert {run.key for run in planned} <= {*whole}
    assert [(run.compared.train_images, run.seed) for run in planned] == [(6, 0), (6, 1)]
    several = budgets.model_copy(update={"budgets": [0.4, 0.5, 1.0]})
    chosen = choose_methods(study(several, seeds=[0, 1], **CHANGES), committed, names)
    assert [each.budgets for each in chosen.methods] == [[0.4], [0.5]]
    assert len(plan_of(chosen, against=committed)) == 4


def test_another_method_of_a_known_name_is_refused(committed):
    changed = compared("intensity-otsu", label="intensity-otsu").model_copy(
        update={"method": Choice(name="intensity-otsu", params={"presence": "prevalent"})}
    )
    with pytest.raises(ConfigError, match="give it another label"):
        plan_of(study(changed, seeds=[2], **CHANGES), against=committed)
    assert plan_of(study(OLD[0], seeds=[2], **CHANGES), against=committed)


def test_a_committed_study_grows_by_seeds(tmp_path, committed):
    names = ("intensity-otsu", "random-map")
    more = choose_methods(study(*OLD, seeds=[2], **CHANGES), committed, names)
    planned = plan_of(more, against=committed)
    assert [(run.method, run.seed) for run in planned] == [("intensity-otsu", 2), ("random-map", 2)]  # no ceiling
    grown = run_study(more, tmp_path / "grown", against=committed)
    together = run_study(study(*OLD, seeds=[0, 1, 2], **CHANGES), tmp_path / "together")

    def shown(summary):
        return {
            row
            for row in summary
            if row.metric in ("iou", "average_precision") and row.thresholds in ("fixed", "validation")
        }

    assert shown(grown.summary) == shown(together.summary)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"datasets": [Choice(name="modified-digits", params={**DIGITS, "seed": 1})]}, "with the fingerprint"),
        ({"tuning_images": 3}, "expected tuning_images 3"),
        ({"primary_metric": "recall"}, "expected statistics of 'recall'"),
        (
            {"metrics": [Choice(name="classification"), Choice(name="overlap", params={"radius": 5})]},
            "expected 'iou' measured by",
        ),
        ({"methods": [compared("random-map", "boxes")]}, "has modified-digits / boxes / random-map / seed 0 already"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, committed, changes, said):
    made = study(NEW, **{**CHANGES, "ceilings": False}).model_copy(update=changes)
    with pytest.raises(ConfigError, match=said):
        run_study(made, tmp_path, against=committed)
    assert not (tmp_path / "runs").exists()


def test_a_mistyped_comparison_is_refused_before_anything_is_run(tmp_path, committed):
    made = study(NEW, reference="random-maps", **CHANGES)
    for start in (plan_of, lambda study, against: run_study(study, tmp_path / "out", against=against)):
        with pytest.raises(ConfigError, match="reference: expected one of .*'random-maps', which names none"):
            start(made, against=committed)
    assert not (tmp_path / "out" / "runs").exists()
    assert [run.method for run in plan_of(study(NEW, reference="random-map", **CHANGES), against=committed)] == ["new"]


def spoilt(record, **changes):
    return json.dumps({**record, "runs": [{**record["runs"][0], **changes}, *record["runs"][1:]]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda record: "{}", "columns: Field required"),
        (lambda record: "no JSON", "Invalid JSON"),
        (lambda record: b"\xff", "utf-8"),
        (lambda record: spoilt(record, key="../../../elsewhere"), "runs.0.key: String should match"),
        (lambda record: spoilt(record, training_key="../models"), "runs.0.training_key: String should match"),
        (lambda record: spoilt(record, computed=[0, 99]), "computed: expected positions below"),
        (lambda record: spoilt(record, dataset="other"), "expected an entry of other"),
        (lambda record: spoilt(record, tuning_work=[{"task": "labels", "images": -1}]), "not negative|tuning_work"),
    ],
)
def test_a_record_of_another_shape_is_refused(tmp_path, committed, spoil, said):
    folder = tmp_path / "committed"
    shutil.copytree(committed, folder)
    record = json.loads((committed / RUNS_FILE).read_text(encoding="utf-8"))
    content = spoil(record)
    (folder / RUNS_FILE).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=rf"(?s){RUNS_FILE}: expected the record of a study.*({said})"):
        run_study(study(NEW, **CHANGES), tmp_path / "out", against=folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: b"",
        lambda rows: rows[:40],
        lambda rows: rows[:40] + bytes(40),
        lambda rows: rows[:40] + bytes(40) + rows[80:],
        lambda rows: b"dataset,annotator",
    ],
)
def test_damaged_rows_are_refused(tmp_path, committed, spoil):
    folder = tmp_path / "committed"
    shutil.copytree(committed, folder)
    (folder / ROWS_FILE).write_bytes(spoil((committed / ROWS_FILE).read_bytes()))
    with pytest.raises(ConfigError, match=f"{ROWS_FILE}: cannot be read: "):
        run_study(study(NEW, **CHANGES), tmp_path / "out", against=folder)


def test_nothing_is_committed_of_a_study_without_completed_runs(tmp_path):
    with pytest.raises(DataError, match="expected completed runs"):
        export(study(NEW), StudyFolder(tmp_path), tmp_path / "study")


def test_links_of_a_committed_report_lead_to_what_is_committed(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    from publish import ROOT, relinked

    page = '<a href="figures/a.svg">figures/a.svg</a> <a href="rows.csv">rows.csv</a> <a href="pictures/b.png">b</a>'
    page += ' <a href="gone.csv">gone.csv</a> <a href="#top">top</a> <a href="https://x.org/rows.csv">x</a>'
    assert relinked(page, {"a.svg", "rows.parquet", "b.jpg"}) == (
        '<a href="a.svg">a.svg</a> <a href="rows.parquet">rows.parquet</a> <a href="b.jpg">b.jpg</a>'
        ' gone.csv <a href="#top">top</a> <a href="https://x.org/rows.csv">x</a>'
    )
    for report in ROOT.glob("*/report.html"):
        links = re.findall(r'href="([^"#:]+)"', report.read_text(encoding="utf-8"))
        assert [link for link in links if not (report.parent / link).exists()] == []


def test_methods_are_chosen_by_name_and_new_ones_by_default(committed, tmp_path):
    made = study(*OLD, NEW)
    assert [each.label for each in choose_methods(made, committed, ()).methods] == ["new"]
    with pytest.raises(ConfigError, match="expected a method of the study, got 'else'"):
        choose_methods(made, committed, ["else"])
    with pytest.raises(ConfigError, match="it has every method of this study"):
        choose_methods(study(*OLD), committed, ())
    with pytest.raises(ConfigError, match="expected the record of a study"):
        choose_methods(made, tmp_path, ())
    with pytest.raises(ConfigError, match=r"absent: no such folder \(current folder: /.*\); name the folder of"):
        choose_methods(made, tmp_path / "absent", ())
