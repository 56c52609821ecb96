"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from micraframe import catalog
from micraframe.plugin import Component


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real images, or skip the test."""
    folder = Path(os.environ.get("MICRAFRAME_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is not there; set MICRAFRAME_DATA")
    return folder


ENTRY = """
from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2


@hookimpl
def micraframe_components():
    return {}
"""
"""The entry module of a plugin that offers these records."""

AddSite = Callable[[Path], None]
Install = Callable[..., None]


@pytest.fixture
def add_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[AddSite]:
    """Return a function that makes the distributions in a folder installed ones for the length of a test."""
    before, folders = set(sys.modules), []

    def add(folder: Path) -> None:
        monkeypatch.syspath_prepend(folder)
        folders.append(folder)
        catalog.cache_clear()

    yield add
    catalog.cache_clear()
    for name in set(sys.modules) - before:
        file = Path(str(getattr(sys.modules[name], "__file__", "")))
        if any(folder in file.parents for folder in folders):
            del sys.modules[name]


@pytest.fixture
def install(tmp_path: Path, add_site: AddSite) -> Install:
    """Return a function that really installs a plugin: its entry module, or the records it offers, and metadata."""
    site = tmp_path / "site-packages"
    site.mkdir()
    add_site(site)

    def install(name: str, source: str | Sequence[Component], version: str = "1.0", **modules: str) -> None:
        if not isinstance(source, str):
            source = ENTRY.format(list(source))
        for module, text in {name: source, **modules}.items():
            (site / f"{module}.py").write_text(textwrap.dedent(text))
        metadata = site / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[micraframe]\n{name} = {name}\n")
        importlib.invalidate_caches()
        catalog.cache_clear()

    return install
