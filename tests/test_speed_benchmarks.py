"""The speed benchmarks compare like with like, and their committed results are whole."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import reference, report, stages, timing
from benchmarks.speed.masks import overlaps, steps_of
from benchmarks.speed.subject import CLASSES, classifier, digits, pipeline


@pytest.mark.parametrize("place", report.GROUPS.values())
def test_what_measures_can_be_imported(place):
    name, _, function = place.partition(":")
    module = pytest.importorskip(f"benchmarks.speed.{name}", exc_type=ModuleNotFoundError)  # a peer is not installed
    assert callable(getattr(module, function))


@pytest.fixture(scope="module")
def made():
    network = classifier((4, 8, 16, 32))
    images = digits(3, 128)[:, :, :, :104]
    return network, images, steps_of(pipeline(network), images)


def test_the_references_maps_are_ours(made):
    network, images, steps = made
    for image, step in zip(images, steps, strict=True):
        assert step.maps.classes == CLASSES
        for row, index in enumerate(CLASSES):
            expected = reference.maps(network, image, index)
            assert len(expected) == len(step.maps.maps) == 8
            for layer, found in zip(expected, step.maps.maps, strict=True):
                np.testing.assert_allclose(found[row], layer, rtol=1e-4, atol=1e-5 * np.abs(layer).max())


@pytest.mark.parametrize("solver", ["auto", "randomized"])
def test_the_references_masks_are_ours(made, solver):
    network, images, steps = made
    found = np.concatenate([step.prediction.masks[list(CLASSES)] for step in steps])
    expected = np.concatenate(reference.masks(network, images, CLASSES, solver))
    assert expected.any((1, 2)).sum() >= 6
    assert min(overlaps(expected, found)) >= 0.99


def test_overlaps():
    first = np.zeros((3, 2, 2), bool)
    second = first.copy()
    first[0, 0], second[0, :, 0], first[1] = True, True, True
    assert overlaps(first, second) == pytest.approx([1 / 3, 0, 1])


@pytest.mark.parametrize(
    ("values", "unit", "target", "met"),
    [
        ([4, 6, 5], "ratio", ">= 5", True),
        ([4, 6, 4.9], "ratio", ">= 5", False),
        ([1.6, 1.5, 1], "ratio", "<= 1.5", True),
        ([0.98, 1, 1], "IOU", ">= 0.99", False),
        ([1, 2], "seconds", None, None),
    ],
)
def test_targets(values, unit, target, met):
    found = timing.record("name", "compared", values, unit, target)
    assert (found.median, found.minimum, found.maximum) == (np.median(values), min(values), max(values))
    assert found.met is met


def test_routes_take_turns():
    turns: list[str] = []
    seconds = timing.take_turns({name: lambda name=name: turns.append(name) for name in "ab"}, timing.Settings(3))
    assert "".join(turns) == "ab" + "abbaab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_stages_are_measured():
    found = stages.measured(stages.routes((4, 8, 16, 32), 64), repeats=1)
    assert "all" in found
    assert min(found.values()) >= 0


def test_peak_memory_is_the_processs_own():
    # This process has torch loaded: hundreds of MiB, which the child must not count as its own.
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.memory"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert 1 < float(done.stdout) < 100


def test_a_group_is_updated_and_the_others_stay(tmp_path):
    path = tmp_path / "results.json"
    one, two = (timing.record(name, "compared", [1, 2, 3]) for name in ("one", "two"))
    report.update(path, "masks", [one], timing.Settings())
    report.update(path, "maps", [one], timing.Settings())
    report.update(path, "masks", [two], timing.Settings())
    results = report.read(path)
    assert list(results) == ["maps", "masks"]
    assert [timing.Record(**each) for entry in results.values() for each in entry["records"]] == [one, two]
    table = report.render("<!-- table -->\n<!-- end -->\n", results)
    assert "| two | 2 | 1 | 3 |" in table
    assert report.render(table, results) == table


def test_the_readme_shows_the_committed_results():
    text = report.README.read_text(encoding="utf-8")
    assert report.render(text, report.read(report.RESULTS)) == text


@pytest.mark.skipif(not report.RESULTS.exists(), reason="nothing was measured yet: make bench")
def test_committed_records_are_whole():
    results = report.read(report.RESULTS)
    assert list(results) == list(report.GROUPS)
    fields = {field.name for field in dataclasses.fields(timing.Record)}
    for entry in results.values():
        assert entry["records"]
        assert entry["measured"]["repeats"] >= 5
        for each in entry["records"]:
            assert set(each) == fields
            assert each["minimum"] <= each["median"] <= each["maximum"]
            assert (each["met"] is None) == (each["target"] is None)
