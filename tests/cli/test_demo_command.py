"""The demo is a study like any other, and leaves out what is not installed."""

from __future__ import annotations

from importlib import resources

import pytest

from micraframe import catalog, config
from micraframe.cli.demo import installed_part
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
def test_methods_that_are_not_installed_are_left_out(demo):
    study, missing = installed_part(demo)
    assert {compared.method.name.partition("/")[2] for compared in study.methods} == {
        "micra-net",
        "presence-otsu",
        "intensity-otsu",
        "random-map",
        "centre-blob",
    }
    assert missing == [
        *(f"U-Net (micraframe/{name}): pip install micraframe-unet" for name in ("full", "boxes")),
        "forest (micraframe/scribbles): pip install micraframe-forest",
    ]


def test_what_the_demo_compares(demo):
    pytest.importorskip("micraframe_forest")
    pytest.importorskip("micraframe_unet")
    study, missing = installed_part(demo)
    assert not missing
    runs = [run for run in plan(study) if run.kind == "method"]
    assert len({run.training_key for run in runs if "micra-net" in run.compared.method.name}) == 1
    assert {(run.compared.method.name.partition("/")[2], run.annotator) for run in runs} == {
        *((name, "image-level") for name in ("micra-net", "presence-otsu", "intensity-otsu", "random-map")),
        ("centre-blob", "image-level"),
        ("unet", "full"),
        ("unet", "full, 240 images"),
        ("unet", "boxes"),
        ("forest", "scribbles"),
    }


IMITATION = """
from micraframe.plugin import Component, hookimpl
MICRAFRAME_API = 2
@hookimpl
def micraframe_components():
    from micraframe.builtin import micraframe_components
    return (*micraframe_components(), Component("method", "unet", "micraframe_unet.method:UNet", "U-Net"))
"""


def test_a_plugin_with_the_names_of_other_components_does_not_break_the_demo(demo, install):
    install("imitation", IMITATION)
    study, _ = installed_part(demo)
    assert plan(study)
