"""The presets of the paper's datasets, and the studies that use them."""

from __future__ import annotations

from pathlib import Path

import pytest
from micraframe_paper.presets import DATASETS, VERSIONS, Studied, Version, preset

from micraframe import config, registry
from micraframe.config import Choice, Study
from micraframe.micranet import MicraNet
from micraframe.study.plan import check_columns, plan

ROOT = Path(__file__).parents[3]
STUDIES = sorted((ROOT / "plugins" / "micraframe-paper" / "studies").glob("*.yaml"))
COMMITTED = ROOT / "benchmarks" / "studies"
RERUNS: dict[Studied, list[Path]] = {
    "modified-mnist": [COMMITTED / name / "study.yaml" for name in ("modified-mnist-half", "modified-mnist-paper")],
    "p-vivax": [COMMITTED / "p_vivax_subset" / "study.yaml"],
}


def resolved(choice: Choice, kind: str) -> Choice:
    return config.resolve_choice(kind, choice)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(tmp_path))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_of_a_study_are_the_presets_of_its_dataset(dataset: Studied, version: Version) -> None:
    (path,) = (each for each in STUDIES if each.stem == dataset)
    study = config.load(path, Study)
    assert [choice.name for choice in study.datasets] == [f"micraframe-paper/{dataset}"]
    row = next(each for each in study.methods if each.label == version)
    chosen = preset(dataset, version)
    assert row.method == resolved(chosen.method, "method")
    assert row.head == resolved(chosen.head, "head")
    best = next(each for each in study.methods if each.label == "best-from-labels")
    assert best.method.name == "micraframe/best-from-labels"


def at_scale(head: Choice, scale: float) -> Choice:
    """Return a head whose lengths and areas are in pixels of images that were resized by this factor."""
    powers = {"smoothing": 1, "smoothing_after": 1, "fill_holes": 2}
    resized = {name: head.params[name] * scale**power for name, power in powers.items()}
    return Choice(name=head.name, params={**head.params, **resized})


@pytest.mark.parametrize("dataset", RERUNS)
@pytest.mark.parametrize("version", VERSIONS)
def test_reruns_have_the_presets_but_for_network_and_training(dataset: Studied, version: Version) -> None:
    chosen = preset(dataset, version)
    params, head = resolved(chosen.method, "method").params, resolved(chosen.head, "head")
    for path in RERUNS[dataset]:
        study = config.load(path, Study)
        row = next(each for each in study.methods if each.label == f"MICRA-Net, {version}")
        assert all(row.method.params[name] == params[name] for name in (*MicraNet.inference_params, "pooling"))
        assert row.head == at_scale(head, study.datasets[0].params.get("scale", 1.0))


def test_the_two_reruns_differ_in_widths_and_seeds_only() -> None:
    half, paper = (path.read_text(encoding="utf-8").splitlines() for path in RERUNS["modified-mnist"])
    differing = {pair for pair in zip(half, paper, strict=True) if pair[0] != pair[1] and not pair[0].startswith("#")}
    assert {line.partition("widths: ")[2] or line for pair in differing for line in pair} == {
        "[16, 32, 64, 128], norm: narrow}}",
        "[32, 64, 128, 256], norm: narrow}}",
        "[8, 16, 32, 64]",
        "[16, 32, 64, 128]",
        "seeds: [0, 1, 2]",
        "seeds: [0]",
    }


def test_presets_differ_where_facts_differ() -> None:
    combiners = {
        (dataset, version): (params["scale"], params["sign"])
        for dataset in DATASETS
        for version in VERSIONS
        if (params := preset(dataset, version).params["combiner"]["params"])
    }
    assert {key: value for key, value in combiners.items() if value != ("min-max", "deepest-weighted")} == {
        ("ctc", "official"): ("min-max", "largest-score"),
        ("em-axon", "official"): ("none", "deepest-weighted"),
        ("p-vivax", "official"): ("none", "largest-score"),
        ("modified-mnist", "official"): ("min-max", "largest-score"),
    }
    heads = {dataset for dataset in DATASETS if preset(dataset, "paper").head != preset(dataset, "official").head}
    assert heads == {"ctc"}


@pytest.mark.parametrize("path", [*STUDIES, *RERUNS["p-vivax"]], ids=lambda path: path.stem)
def test_every_study_can_be_read_and_reports_what_it_compares(path: Path) -> None:
    study = config.load(path, Study)
    check_columns(study)
    for each in study.methods:
        registry.build("method", each.method.name, **each.method.params)
        assert each.head is None or registry.build("head", each.head.name, **each.head.params)
        registry.build("annotator", each.annotator.name, **each.annotator.params)


@pytest.mark.parametrize(
    "path", [*(each for each in STUDIES if each.stem.startswith("modified-mnist")), *RERUNS["modified-mnist"]]
)
def test_the_studies_of_modified_mnist_can_be_planned(path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    study = config.load(path, Study)
    rooted = study.datasets[0].params | {"root": str(data / "mnist")}
    runs = plan(study.model_copy(update={"datasets": [Choice(name=study.datasets[0].name, params=rooted)]}))
    trained = [run for run in runs if run.kind == "method"]
    assert len(trained) == len(study.methods) * len(study.seeds)


def test_the_study_of_the_malaria_images_that_are_here_can_be_planned(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MICRAFRAME_DATA", str(data))
    (path,) = RERUNS["p-vivax"]
    study = config.load(path, Study)
    assert sum(run.kind == "method" for run in plan(study)) == len(study.methods) * len(study.seeds)
