"""README and docs say what is so: code runs, numbers are the committed ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import readme
from benchmarks.first_screen import joined, most_objects, outlines
from micraframe import config
from micraframe.config import Train
from micraframe.types import Sample

ROOT = Path(__file__).parents[1]
PAGES = readme.PAGES
MEANS = {"fixed": 0.25, "expected-share": 0.5, "oracle": 0.75}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("docs/python.md", "python")
    exec(compile(example, "python.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.endswith("(10, 64, 64)") for line in lines)


def test_the_configurations_are_allowed():
    (text,) = blocks("README.md", "yaml")
    assert config.resolve(config.parse(text, Train)).method.name == "micraframe/best-from-labels"
    *methods, masks = blocks("docs/methods.md", "yaml")
    others = [config.resolve(config.parse(text.partition("method:")[0] + method, Train)) for method in methods]
    assert [each.method.params["combiner"]["name"] for each in others] == ["micraframe/guided", "micraframe/evidence"]
    assert config.resolve(config.parse(masks, Train)).method.name == "micraframe-unet/unet"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("benchmarks/studies/*/study.yaml")), ids=lambda path: path.parent.name
)
def test_committed_studies_are_allowed(path):
    resolved = config.resolve(config.read(path, config.Study))
    assert config.parse(config.to_yaml(resolved), config.Study) == resolved


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_numbers_are_those_of_the_committed_results(page):
    text = page.read_text(encoding="utf-8")
    assert readme.render(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.fixture
def results(tmp_path):
    """Return the folder of a study with methods m and n."""
    row = "d,full,{},fixed,iou,0.5,,,4,1,1\n"
    head = "dataset,annotator,method,thresholds,metric,mean,low,high,n,groups,models\n"
    (tmp_path / "summary.csv").write_text(head + row.format("m") + row.format("n"))
    (tmp_path / "costs.csv").write_text(
        "dataset,annotator,method,thresholds,seconds\nd,full,m,fixed,3600\nd,full,n,fixed,3600\nd,full,n,fixed,10800\n"
    )
    (tmp_path / "provenance.json").write_text('{"date": "2026-01-02"}')
    return tmp_path


def test_a_number_without_an_interval_stands_alone(results):
    assert "| 1 | 0.500 |" in readme.table(results)


def test_a_table_of_chosen_methods(results):
    rows = [line for line in readme.table(results, ["n"]).splitlines() if line.startswith(("| m |", "| n |"))]
    assert rows == ["| n | full annotation | 2 | 0.500 |"]
    with pytest.raises(ValueError, match="expected methods of the study, got other; correct the mark"):
        readme.table(results, ["n", "other"])
    text = f"<!-- table: {results}; n; m -->\n<!-- end -->"
    assert readme.render(text).index("| n |") < readme.render(text).index("| m |")


def test_a_table_of_thresholds_leaves_out_what_was_not_measured(results):
    with (results / "summary.csv").open("a") as stream:
        stream.writelines(f"d,full,m,{origin},iou_if_present,{mean},,,4,1,1\n" for origin, mean in MEANS.items())
    text = readme.render(f"<!-- thresholds: {results}; m -->\n<!-- end -->")
    assert "| m | full annotation | 0.250 | 0.500 | 0.750 |" in text
    with pytest.raises(ValueError, match="expected methods of the study, got n; correct the mark"):
        readme.thresholds_table(results, ["n"])


def test_methods_of_several_studies_stand_side_by_side(tmp_path):
    scores = {"one": {"A": "iou_if_present", "B": "iou_if_present"}, "other": {"A": "detection_f1_pooled"}}
    for study, methods in scores.items():
        (tmp_path / study).mkdir()
        rows = ["dataset,annotator,method,thresholds,metric,mean"]
        for method, metric in methods.items():
            rows += [f"d,image-level,{method},fixed,{metric},0.5", f"d,image-level,{method},oracle,{metric},1"]
            rows += [f"d,full,{method},fixed,{metric},0.75", f"d,image-level,{method},fixed,correct,1"]
        (tmp_path / study / "summary.csv").write_text("\n".join(rows))
    lines = readme.ingredients_table(tmp_path, ["one", "other"]).splitlines()
    assert lines == ["| method | one | other |", "|---|---:|---:|", "| A | 0.500 | 0.500 |", "| B | 0.500 |  |"]


def test_a_table_of_several_datasets_has_a_row_for_each(results):
    for name in ("summary.csv", "costs.csv"):
        text = (results / name).read_text()
        others = [line for line in text.splitlines() if line.startswith("d,")]
        changed = [
            f"e{line[1:]}".replace("0.5", "0.75").replace("3600", "7200").replace(",4,", ",7,") for line in others
        ]
        (results / name).write_text(text + "\n".join(changed) + "\n")
    lines = readme.table(results).splitlines()
    assert lines[0].startswith("| dataset | method |")
    assert [line for line in lines if "full annotation" in line] == [
        "| d | m | full annotation | 1 | 0.500 |",
        "| d | n | full annotation | 2 | 0.500 |",
        "| e | m | full annotation | 2 | 0.750 |",
        "| e | n | full annotation | 2.5 | 0.750 |",
    ]
    tested = "test images of 1 fields, one trained model per method"
    assert lines[-1] == f"*d: 4 {tested}; e: 7 {tested}, 2026-01-02.*"
    chosen = [line[:9] for line in readme.table(results, ["n", "m"]).splitlines() if "full annotation" in line]
    assert chosen == ["| d | n |", "| d | m |", "| e | n |", "| e | m |"]


def test_the_masks_of_an_image_are_put_together_from_those_of_its_crops():
    whole = np.random.default_rng(0).random((2, 5, 7)) < 0.5
    crops = {f"a+b@y{y}x{x}": whole[:, y : y + 3, x : x + 4] for y in (0, 2) for x in (0, 3)}
    crops["a+bc@y0x0"] = ~crops["a+b@y0x0"]
    np.testing.assert_array_equal(joined(crops, "a+b", (5, 7)), whole)


def test_the_picture_shows_the_image_with_the_most_objects():
    numbers = np.array([[[0, 1, 1, 7]]], np.int32)
    samples = [
        Sample(id=name, image=np.zeros((1, 1, 4), np.float32), instances=numbers * factor)
        for name, factor in (("none", 0), ("two", 1), ("also two", 2))
    ]
    assert most_objects(samples).id == "two"
    np.testing.assert_array_equal(outlines(samples[1])[:, 0], [[0, 1, 1, 0], [0, 0, 0, 1]])
