"""Every built-in component passes the conformance kit, with the example in its record; and so does every plugin's."""

from __future__ import annotations

import json

import pytest

from micraframe import catalog
from micraframe.plugin import Component
from micraframe.testing import check

ENTRIES = [entry for entry in catalog().entries() if entry.plugin.name == "micraframe"]
"""The tests of first-party plugins check theirs."""

VARIANTS = [
    ("extractor", "views", {"flips": False}),
    ("extractor", "views", {"flips": False, "extractor": "grad-cam"}),
    (
        "method",
        "micra-net",
        {
            "backbone": {"name": "unet", "params": {"widths": [4, 8], "upsampling": "bilinear"}},
            "dropout": 0.0,
            "pooling": "log-sum-exp",
            "training": {
                "epochs": 2,
                "batch_size": 3,
                "objectives": ["mix-consistency"],
                "average": 0.9,
            },
            "extractor": "evidence",
            "combiner": "evidence",
        },
    ),
]
"""Parameters besides those of the examples."""


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.component.kind}-{entry.component.name}")
def test_conformance(entry):
    check(entry.component.kind, entry.qualified)


@pytest.mark.parametrize(("kind", "name", "params"), VARIANTS)
def test_conformance_with_other_parameters(kind, name, params):
    check(kind, name, **params)


@pytest.fixture
def mixed(install):
    """Install a plugin with a component that works, one that is wrong, and some that cannot be tried."""
    install(
        "mixed",
        [
            Component("combiner", "good", "micraframe.combiners.last_layer:LastLayer", "Works"),
            Component("combiner", "random", "wrong_components:combiner_adds_random_numbers", "Breaks a promise"),
            Component("combiner", "far", "mixed_far:Far", "Needs what is not here", install="mixed[far]"),
            Component("dataset", "files", "micraframe.datasets.folder:Folder", "Requires a folder"),
            Component("dataset", "lost", "mixed_lost:Lost", "Its files are elsewhere"),
        ],
        mixed_far="import far_distribution",
        mixed_lost="""
            from micraframe.errors import DataError
            from wrong_components import RightDataset

            class Lost(RightDataset):
                def info(self):
                    raise DataError("images: folder not found; get the data from example.org")
        """,
    )


def test_the_command_lists_what_was_checked_what_failed_and_what_could_not_be_tried(command, mixed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    code, out, _ = command("conformance", "mixed")
    lines = out.splitlines()
    assert code == 1
    assert "combiner mixed/good: 15 checks run" in lines
    assert any(line.startswith("combiner mixed/random: 4 checks run, 1 failed, ") for line in lines)
    assert any(line.startswith("  same-bytes: expected combine to return the same bytes") for line in lines)
    assert any("combiner mixed/far: 0 checks run" in line and "pip install 'mixed[far]'" in line for line in lines)
    assert any("dataset mixed/files: 0 checks run" in line and "it requires images" in line for line in lines)
    assert any("dataset mixed/lost: " in line and "not here: images: folder not found" in line for line in lines)
    assert lines[-1] == "1 component failed"


def test_the_command_prints_json(command, mixed):
    code, out, _ = command("conformance", "mixed", "--json")
    records = json.loads(out)
    assert code == 1
    assert [each["check"] for each in records if each["outcome"] == "failed"] == ["same-bytes"]
    assert {each["outcome"] for each in records} == {"passed", "failed", "not applicable"}
    assert {each["plugin"] for each in records} == {"mixed"}


def test_a_rejected_plugin_is_reported_once_and_only_where_it_is_examined(command, install, recwarn):
    install("fine", [Component("combiner", "good", "micraframe.combiners.last_layer:LastLayer", "Works")])
    install("old", "MICRAFRAME_API = 0")
    code, out, err = command("conformance", "old")
    assert code == 1
    assert (out + err).count("rejected") == 1
    code, out, err = command("conformance", "fine")
    assert code == 0
    assert "old" not in out + err
    assert not recwarn


def test_a_plugin_that_passes_a_rejected_one_and_an_unknown_one(command, install):
    install("fine", [Component("combiner", "good", "micraframe.combiners.last_layer:LastLayer", "Works")])
    assert command("conformance", "fine")[0] == 0
    install("old", "MICRAFRAME_API = 0")
    code, out, _ = command("conformance", "old")
    assert code == 1
    assert "plugin old was rejected: PluginError: old: expected MICRAFRAME_API = 2, got 0" in out.replace("\n    ", " ")
    code, _, err = command("conformance", "fin")
    assert code == 2
    assert "there is no plugin 'fin'; did you mean 'fine'?" in err
