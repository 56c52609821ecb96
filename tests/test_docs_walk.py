"""The walk through docs/walk.md and the notebook: every command and cell runs, in the order of the page."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

from micraframe.cli import app

DOCS = Path(__file__).parents[1] / "docs"
SMALL = "{name: best-from-labels, params: {epochs: 1, batch_size: 8, teacher_widths: [4, 8], student_widths: [4, 8]}}"


def test_the_walk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "walk.md").read_text(encoding="utf-8")
    ran = []
    for language, block in re.findall(r"```(python|yaml|console)\n(.*?)```", page, re.DOTALL):
        if language == "python":
            exec(compile(block, "walk.md", "exec"), {})
            for folder, kept in (("fields", 6), ("new", 2)):  # keeps the test small
                for path in sorted(Path(folder).iterdir())[kept:]:
                    path.unlink()
        elif language == "yaml":
            Path("nuclei.yaml").write_text(block.replace("method: best-from-labels", f"method: {SMALL}"))
        else:
            for line, shown in re.findall(r"^\$ micraframe (.*)\n((?:[^$].*\n)*)", block, re.MULTILINE):
                capfd.readouterr()
                app(shlex.split(line), standalone_mode=False)
                printed = "".join(capfd.readouterr())
                # Numbers are those of all images, and of one processor.
                assert {word for word in re.findall(r"[a-z_]{3,}", shown) if word not in printed} == set()
                ran.append(line.split()[0])
    assert ran == ["crops", "data", "check", "train", "predict", "evaluate", "remodel", "tune", "predict"]
    for folder in ("found", "found-tuned"):
        with Path(folder, "predictions.csv").open() as table:
            assert len([row["objects"] for row in csv.DictReader(table)]) == 2


def notebook() -> list[dict[str, Any]]:
    path = DOCS / "notebooks" / "first-steps.ipynb"
    assert path.stat().st_size < 300_000
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with plt.rc_context():
        plt.switch_backend("agg")
        for cell in notebook():
            exec(compile("".join(cell["source"]), "first-steps.ipynb", "exec"), names)
        plt.close("all")
    found, true = names["found"], names["true"]
    assert len(found) == len(true) == 13


def test_the_notebook_was_executed_from_top_to_bottom() -> None:
    cells = notebook()
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output["output_type"] != "error" for cell in cells for output in cell["outputs"])
