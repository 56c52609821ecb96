"""The demos are studies like any other, and leave out what is not installed."""

from __future__ import annotations

from importlib import resources

import pytest

from micraframe import catalog, config
from micraframe.cli.demo import installed_part
from micraframe.config import Study
from micraframe.study import plan


def read(name: str) -> Study:
    return config.parse(resources.files("micraframe.study").joinpath(f"{name}.yaml").read_text(encoding="utf-8"), Study)


@pytest.fixture
def without_plugins(monkeypatch):
    monkeypatch.setenv("MICRAFRAME_DISABLE_PLUGINS", "micraframe-forest,micraframe-unet")
    catalog.cache_clear()
    yield
    catalog.cache_clear()


def methods_of(study: Study) -> set[str]:
    return {compared.method.name.partition("/")[2] for compared in study.methods}


@pytest.mark.usefixtures("without_plugins")
def test_methods_that_are_not_installed_are_left_out():
    study, missing = installed_part(read("demo"))
    assert methods_of(study) == {"micra-net", "presence-otsu", "intensity-otsu", "random-map"}
    assert missing == [
        "labels, best (micraframe/image-level): pip install micraframe-unet",
        "U-Net (micraframe/full): pip install micraframe-unet",
    ]
    assert plan(study)


@pytest.mark.usefixtures("without_plugins")
def test_digits_without_plugins_have_the_comparisons_that_are_left():
    study, missing = installed_part(read("digits"))
    assert methods_of(study) == {"micra-net", "presence-otsu", "intensity-otsu", "random-map", "centre-blob"}
    assert missing == [
        *(f"U-Net (micraframe/{name}): pip install micraframe-unet" for name in ("full", "boxes")),
        "forest (micraframe/scribbles): pip install micraframe-forest",
    ]
    assert len(study.comparisons) == 3
    assert plan(study)


def test_what_the_demo_compares():
    pytest.importorskip("micraframe_unet")
    study, missing = installed_part(read("demo"))
    assert not missing
    runs = [run for run in plan(study) if run.kind == "method"]
    assert {(run.compared.method.name.partition("/")[2], run.annotator) for run in runs} == {
        *((name, "image-level") for name in ("best-from-labels", "micra-net")),
        *((name, "image-level") for name in ("presence-otsu", "intensity-otsu", "random-map")),
        ("unet", "full"),
        ("unet", "full, 25 images"),
    }


def test_what_the_digits_compare():
    pytest.importorskip("micraframe_forest")
    pytest.importorskip("micraframe_unet")
    study, missing = installed_part(read("digits"))
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


@pytest.mark.parametrize("name", ["demo", "digits"])
def test_a_plugin_with_the_names_of_other_components_does_not_break_a_demo(name, install):
    install("imitation", IMITATION)
    study, _ = installed_part(read(name))
    assert plan(study)
