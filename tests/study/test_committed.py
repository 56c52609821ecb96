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
from micraframe.study import job, run_study
from micraframe.study.committed import ROWS_FILE, RUNS_FILE, choose_methods, missing_seeds
from micraframe.study.run import plan_of

OLD = (compared("intensity-otsu"), compared("random-map", "boxes"))
NEW = compared("centre-blob", label="new")
CHANGES = {"tuning_images": 2, "ceilings": True, "compared": ["average_precision"]}


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("committed")
    made = study(*OLD, seeds=[0, 1], **CHANGES)
    assert not run_study(made, folder / "run").failures
    (folder / "study").mkdir()
    for name in (ROWS_FILE, RUNS_FILE):
        shutil.copyfile(folder / "run" / name, folder / "study" / name)
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


def test_the_folder_that_a_study_wrote_is_one_to_compare_with(tmp_path, committed):
    new = study(NEW, reference="random-map", seeds=[0, 1], **CHANGES)
    first = run_study(new, tmp_path / "first", against=committed.parent / "run")
    assert {row.method for row in first.summary} == {"intensity-otsu", "random-map", "new", "ceiling"}
    # So is that of a study which was itself compared with another.
    newer = study(compared("centre-blob", label="newer"), reference="new", seeds=[0, 1], **CHANGES)
    second = run_study(newer, tmp_path / "second", against=tmp_path / "first")
    assert {row.method for row in second.summary} == {"intensity-otsu", "random-map", "new", "newer", "ceiling"}


def test_a_study_is_not_written_to_the_folder_that_it_is_compared_with(tmp_path, committed):
    source = shutil.copytree(committed.parent / "run", tmp_path / "run")
    before = (source / "study.yaml").read_bytes()
    with pytest.raises(ConfigError, match="expected another folder"):
        run_study(study(NEW, **CHANGES), source, against=tmp_path / "elsewhere" / ".." / "run")
    assert (source / "study.yaml").read_bytes() == before


def test_results_of_an_earlier_study_are_never_taken_for_own_ones(tmp_path, committed):
    run_study(study(NEW, seeds=[0, 1], **CHANGES), tmp_path / "out", against=committed)
    both = run_study(study(*OLD, NEW, seeds=[0, 1], **CHANGES), tmp_path / "out")
    origins = {name: {row.thresholds for row in both.summary if row.method == name} for name in ("new", "random-map")}
    assert origins["random-map"] == origins["new"]
    assert "oracle" in origins["new"]


def test_results_of_an_earlier_study_are_read_anew(tmp_path, committed):
    new = study(NEW, seeds=[0, 1], **CHANGES)
    run_study(new, tmp_path / "out", against=committed)
    source = shutil.copytree(committed, tmp_path / "source")
    rows = pl.read_parquet(source / ROWS_FILE).with_columns(value=pl.lit(0.25, pl.Float64))
    rows.write_parquet(source / ROWS_FILE)
    again = run_study(new, tmp_path / "out", against=source)
    assert {row.mean for row in again.summary if row.method == "random-map" and row.metric == "iou"} == {0.25}


def test_label_criteria_are_kept(tmp_path):
    changes = CHANGES | {"label_criteria": True}
    run_study(study(*OLD[:1], **changes), tmp_path / "old")
    run_study(study(NEW, **changes), tmp_path / "new", against=tmp_path / "old")
    tables = [pl.read_csv(tmp_path / name / "criteria.csv") for name in ("old", "new")]
    assert tables[1].filter(pl.col("method") == "intensity-otsu").equals(tables[0])
    assert "new" in tables[1]["method"].to_list()


def test_nothing_is_kept_to_compare_with_if_nothing_is_done(tmp_path, monkeypatch):
    run_study(study(*OLD), tmp_path)
    assert (tmp_path / RUNS_FILE).exists()
    monkeypatch.setattr(job, "execute", lambda *args: 1 / 0)
    assert run_study(study(*OLD, seeds=[5]), tmp_path).failures
    assert not (tmp_path / RUNS_FILE).exists()
    assert not (tmp_path / ROWS_FILE).exists()


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
    rows = pl.read_parquet(tmp_path / "run" / ROWS_FILE)
    assert set(rows["metric"]) == {"iou", "precision"}
    assert set(rows["thresholds"]) == {"fixed", "validation"}
    files = [tmp_path / "run" / name for name in (ROWS_FILE, RUNS_FILE)]
    before = [file.read_bytes() for file in files]
    run_study(made, tmp_path / "run")
    assert [file.read_bytes() for file in files] == before
    outcome = run_study(study(NEW, tuning_images=2, compared=["precision"]), tmp_path / "new", against=tmp_path / "run")
    assert {row.metric for row in outcome.summary} == {"iou", "precision"}


def test_a_committed_study_grows_by_the_new_method(tmp_path, committed):
    new = choose_methods(study(*OLD, NEW, seeds=[0, 1], **CHANGES), committed, ["new"])
    run_study(new, tmp_path / "new", against=committed)
    run_study(study(*OLD, NEW, seeds=[0, 1], **CHANGES), tmp_path / "all")

    def rows(name):
        return sorted(map(str, pl.read_parquet(tmp_path / name / ROWS_FILE).iter_rows()))

    def runs(name):
        records = json.loads((tmp_path / name / RUNS_FILE).read_text())["runs"]
        return {(each["compared"]["label"], each["seed"], each["kind"], each["key"]) for each in records}

    assert rows("new") == rows("all")
    assert runs("new") == runs("all")
    newer = compared("centre-blob", label="newer")
    outcome = run_study(study(newer, seeds=[0, 1], **CHANGES), tmp_path / "newer", against=tmp_path / "new")
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


def test_it_is_said_which_seeds_an_earlier_study_lacks(tmp_path, committed):
    made = study(*OLD, NEW, seeds=[0, 1, 2], **CHANGES)
    assert missing_seeds(made, committed) == {}  # seed 2 is new
    folder = shutil.copytree(committed, tmp_path / "committed")
    record = json.loads((folder / RUNS_FILE).read_text())
    kept = [run for run in record["runs"] if (run["compared"]["label"], run["seed"]) != ("random-map", 1)]
    (folder / RUNS_FILE).write_text(json.dumps({**record, "runs": kept}))
    assert missing_seeds(made, folder) == {"random-map (boxes)": (1,)}
    file = tmp_path / "study.yaml"
    file.write_text(config.to_yaml(made))
    words = ["study", "run", str(file), "--output", str(tmp_path / "out"), "--against", str(folder), "--dry-run"]
    assert "random-map (boxes) lacks seed 1" in CliRunner().invoke(app, words, catch_exceptions=False).stderr


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
    with pytest.raises(ConfigError, match=f"{ROWS_FILE}: cannot be read: .*restore"):
        run_study(study(NEW, **CHANGES), tmp_path / "out", against=folder)


def test_a_report_without_completed_runs_leaves_a_committed_folder_as_it_is(tmp_path, committed):
    folder = shutil.copytree(committed, tmp_path / "committed")
    (folder / "study.yaml").write_text(config.to_yaml(study(NEW, **CHANGES)))
    (folder / "summary.csv").write_text("kept")
    before = content(folder)
    ran = CliRunner().invoke(app, ["study", "report", str(folder)])
    assert isinstance(ran.exception, DataError)
    assert content(folder) == before


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
