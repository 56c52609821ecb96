"""Installs the folder of a plugin for the length of a test, without pip."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Callable
from pathlib import Path

from micraframe import catalog


def install_folder(folder: Path, add_site: Callable[[Path], None]) -> None:
    """Install a plugin's folder as `pip install --editable` does: metadata, and the folder on the path."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    heading = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(heading)
    points = (f"{name} = {target}\n" for name, target in project["entry-points"]["micraframe"].items())
    (metadata / "entry_points.txt").write_text("[micraframe]\n" + "".join(points))
    add_site(folder)
    importlib.invalidate_caches()
    catalog.cache_clear()
