"""Fixtures shared by all tests."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from command_line import Command, Ran

from micraframe import catalog, cli
from micraframe.plugin import Component


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a function that runs the command line in this process."""

    def run(*words: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["micraframe", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return Ran(int(caught.value.code or 0), printed.out, printed.err)

    return run


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
