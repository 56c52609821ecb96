"""docs/first-plugin.md and docs/afternoon.md: every command and every piece of code runs, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from plugin_folders import install_folder
from ruamel.yaml import YAML
from table_files import rows_of
from typer.testing import CliRunner

from micraframe import build, catalog, config
from micraframe.cli import app
from micraframe.config import Study
from micraframe.testing import check

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "micraframe" / "study" / "demo.yaml"
BLOCK = re.compile(r"(.*?)^```(python|yaml|console)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

AddSite = Callable[[Path], None]


def blocks(page: str) -> list[tuple[str, str, str]]:
    """Return the paragraph before each block of a page, its language, and the block."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [(before.strip().split("\n\n")[-1], *rest) for before, *rest in BLOCK.findall(text)]


def follow(page: str, add_site: AddSite, smaller: Mapping[str, str]) -> list[str]:
    """Do what a page says in the current folder, and return the commands; `smaller` is replaced in new files."""
    ran, broken = [], {}
    for said, language, block in blocks(page):
        path = Path(["", *re.findall(r"`([\w/.-]+\.(?:py|yaml))`", said)][-1])
        if language == "console":
            for line, shown in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.MULTILINE):
                printed = command(shlex.split(line), "failed" in shown, add_site)
                # Numbers are those of one processor.
                assert {word for word in re.findall(r"[a-z_]{3,}", shown) if word not in printed} == set()
                ran.append(line)
            for path in broken:
                path.write_text(broken[path])
        elif said.startswith("File "):
            assert path.read_text(encoding="utf-8") == block
        elif "ew file " in said:
            for old, new in smaller.items():
                assert path.suffix != ".yaml" or old in block
                block = block.replace(old, new)
            path.write_text(block, encoding="utf-8")
        elif "whose function becomes" in said:
            path.write_text(path.read_text().partition("@hookimpl")[0] + block)
        elif "at the end of" in said:
            path.write_text(f"{path.read_text()}\n\n{block}")
        elif said.startswith("Replace the line that begins with `bright =`"):
            broken = {path: path.read_text()}
            path.write_text(re.sub(r"bright = .*\n", block, broken[path]))
        elif language == "yaml":
            (kind, choice), *_ = YAML(typ="safe").load(block).items()
            build(kind, choice["name"], **choice["params"])
        else:
            exec(compile(block, page, "exec"), {})
    return ran


def command(words: list[str], fails: bool, add_site: AddSite) -> str:
    """Run a command of a page, as it says with or without success, and return what it prints."""
    program, *rest = words
    if program == "pip":
        install_folder(Path(rest[-1]).absolute(), add_site)
        return ""
    if program == "pytest":
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *rest],
            env={**os.environ, "PYTHONPATH": str(Path(rest[-1]).absolute())},
            capture_output=True,
            text=True,
        )
        assert done.returncode == fails, done.stdout
        return done.stdout
    forget_code()
    done = CliRunner().invoke(app, rest, env={"COLUMNS": "200"})
    assert done.exit_code == fails, done.output
    return done.output


def forget_code() -> None:
    """Read the plugin's files again when they are next used, as another process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_plugin"]:
        del sys.modules[name]
    catalog.cache_clear()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and compile nothing that is about to change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


def test_the_first_plugin(add_site: AddSite) -> None:
    ran = follow("first-plugin.md", add_site, {})
    assert [line.split()[1] for line in ran] == [
        *("new-plugin", "install", "list", "conformance", "my-plugin"),
        *("show", "conformance", "my-plugin", "conformance"),
    ]
    forget_code()
    check("combiner", "brightest")
    check("combiner", "my-plugin/brightest", sharpness=2)


def test_an_afternoon(add_site: AddSite) -> None:
    Path("benchmarks").symlink_to(ROOT / "benchmarks")
    smaller = {
        "epochs: 6": "epochs: 1",
        "widths: [8, 16, 32, 64]": "widths: [4, 8]",
        "seeds: [0, 1, 2]": "seeds: [0, 1]",
    }
    ran = follow("afternoon.md", add_site, smaller)
    assert [line.split()[1] for line in ran] == ["new-plugin", "install", "conformance", "study", "study"]
    folder = Path("runs/ranks")
    labels = {compared.label for compared in config.load(DEMO, Study).methods} | {"labels, rank mean", "labels, mean"}
    assert {row["method"] for row in rows_of(folder / "summary.csv")} == labels
    report = (folder / "report.html").read_text(encoding="utf-8")
    assert {label for label in labels if label not in report} == set()
    planned = [tuple(row.values()) for row in rows_of(folder / "statistics.csv") if "planned" in row.values()]
    assert {row[4:6] for row in planned} == {
        (f"labels, {name} (image-level)", "labels, MICRA-Net (paper) (image-level)") for name in ("rank mean", "mean")
    }


def test_the_afternoon_changes_only_the_combiner_of_the_papers_recipe() -> None:
    (text,) = (block for _, language, block in blocks("afternoon.md") if language == "yaml")
    page = config.resolve(config.parse(re.sub("my-plugin/[a-z-]+", "pca", text), Study))
    demo = config.load(DEMO, Study)
    (paper,) = (each for each in demo.methods if each.label == "labels, MICRA-Net (paper)")
    assert [each.method for each in page.methods] == [paper.method, paper.method]
    assert (page.seeds, page.datasets, page.metrics) == (demo.seeds, demo.datasets, demo.metrics)
