"""The README says what is so: its code runs, its plugin keeps every promise, its numbers are the committed ones."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from micraframe import config
from micraframe.config import Train
from micraframe.testing import check

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert all(line.endswith("(10, 64, 64)") for line in lines)


def test_the_plugin_keeps_every_promise(install):
    component, entry = blocks("python")[1:3]
    install("entry", entry, mycombiner=component)
    check("combiner", "brightest")
    check("combiner", "entry/brightest", sharpness=2)


def test_the_configuration_is_allowed():
    (text,) = blocks("yaml")
    assert config.parse(text, Train).method.params["combiner"] == "guided"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("benchmarks/studies/*/study.yaml")), ids=lambda path: path.parent.name
)
def test_committed_studies_are_allowed(path):
    resolved = config.resolve(config.read(path, config.Study))
    assert config.parse(config.to_yaml(resolved), config.Study) == resolved


def test_its_numbers_are_those_of_the_committed_results():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.render(README) == README
