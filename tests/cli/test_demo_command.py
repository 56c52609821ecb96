"""The demo is a study like any other, and does without what is not installed."""

from __future__ import annotations

from importlib import resources

import pytest

from micraframe import catalog, config
from micraframe.cli.demo import _what_is_there
from micraframe.config import Study
from micraframe.study import plan


@pytest.fixture
def demo() -> Study:
    return config.parse(resources.files("micraframe.study").joinpath("demo.yaml").read_text(encoding="utf-8"), Study)


@pytest.fixture
def without_plugins(monkeypatch):
    monkeypatch.setenv("MICRAFRAME_DISABLE_PLUGINS", "micraframe-forest,micraframe-unet")
    catalog.cache_clear()
    yield
    catalog.cache_clear()


@pytest.mark.usefixtures("without_plugins")
def test_what_is_not_installed_is_left_out_and_said(demo):
    study, missing = _what_is_there(demo)
    assert {contender.method.name for contender in study.contenders} == {
        "micra-net",
        "intensity-otsu",
        "random-map",
        "centre-blob",
    }
    assert missing == [
        *(f"U-Net ({name}): pip install micraframe-unet" for name in ("full", *3 * ["dilated"], "boxes")),
        "forest (scribbles): pip install micraframe-forest",
    ]


def test_what_the_demo_compares(demo):
    pytest.importorskip("micraframe_forest")
    pytest.importorskip("micraframe_unet")
    study, missing = _what_is_there(demo)
    assert not missing
    cells = plan(study)
    assert len({cell.training_key for cell in cells if "micra-net" in cell.contender.method.name}) == 1
    assert {(cell.contender.method.name.partition("/")[2], cell.annotator) for cell in cells} == {
        *((name, "image-level") for name in ("micra-net", "intensity-otsu", "random-map", "centre-blob")),
        *(("unet", f"dilated size={size}") for size in (5, 10, 25)),
        ("unet", "full"),
        ("unet", "boxes"),
        ("forest", "scribbles"),
    }
