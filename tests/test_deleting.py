"""Deleting a built-in component's file breaks only what names the component."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import micraframe
from micraframe import catalog

PACKAGE = Path(micraframe.__file__).parent

SURVEY = """
from micraframe.registry import catalog, load
from micraframe.errors import InterfaceError
# Only micraframe's own: a plugin may import a built-in component's module.
for entry in (entry for entry in catalog().entries() if entry.plugin.name == "micraframe"):
    try:
        load(entry)
    except InterfaceError as error:
        print(entry.component.kind, entry.component.name, "|", error)
"""


@pytest.mark.parametrize("kind", ["dataset", "annotator", "backbone", "extractor", "combiner", "head", "metric"])
def test_deleting_a_components_file_breaks_only_what_names_it(kind, tmp_path):
    entry = [each for each in catalog().entries(kind) if each.plugin.name == "micraframe"][-1]
    module = entry.component.target.partition(":")[0]
    shutil.copytree(PACKAGE, tmp_path / "micraframe", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / module.replace(".", "/")).with_suffix(".py").unlink()
    named_there = {
        (other.component.kind, other.component.name)
        for other in catalog().entries()
        if other.component.target.partition(":")[0] == module
    }
    done = subprocess.run(
        [sys.executable, "-P", "-c", SURVEY],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert {tuple(line.split(" | ")[0].split()) for line in lines} == named_there
    assert all(f"there is no module '{module}'" in line for line in lines)
