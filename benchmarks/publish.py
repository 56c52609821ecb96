"""Copies the tables, report, figures and pictures of a completed study to `benchmarks/studies/NAME`, to be committed.

    micraframe study run benchmarks/studies/NAME/study.yaml --output runs/NAME
    .venv/bin/python benchmarks/publish.py runs/NAME
    .venv/bin/python benchmarks/readme.py

`rows.csv`, with a line per image, class and statistic, is too long to commit. Committed are `rows.parquet`, with the
statistics of the compared metrics, and `runs.json`, which every study writes:

    micraframe study run STUDY --against benchmarks/studies/NAME --method NEW --output runs/new

compares a new method with these results without running any of them. Of a study that measures `review`, its curves are
drawn too.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

import polars as pl
from micraframe_paper.metrics.review import draw_review
from PIL import Image

from micraframe import config
from micraframe.config import Study
from micraframe.runtime.files import write_json, write_text
from micraframe.study import StudyFolder
from micraframe.study.committed import ROWS_FILE, RUNS_FILE, compares, runs_of
from micraframe.study.models import named

FILES = (
    "summary.csv",
    "costs.csv",
    "statistics.csv",
    "provenance.json",
    "report.html",
    ROWS_FILE,
    RUNS_FILE,
)
ROOT = Path(__file__).parent / "studies"


def publish(run: Path) -> Path:
    """Copy tables, report and pictures, and record the command; return the folder that they are in."""
    if missing := [name for name in FILES if not (run / name).exists()]:
        sys.exit(
            f"{run}: expected the folder of a completed study, got one without {', '.join(missing)}; run micraframe "
            f"study report {run}"
        )
    if failed := json.loads((run / "provenance.json").read_text(encoding="utf-8"))["failures"]:
        sys.exit(f"{run}: expected a study without failed runs, got failures of {', '.join(failed)}; run it again")
    target = ROOT / run.name
    target.mkdir(parents=True, exist_ok=True)
    if not compares(run):  # a run beside a committed study has no pictures of that study's methods: they stay
        for old in (*target.glob("*.jpg"), *target.glob("*.svg")):
            old.unlink()
    study = config.read(run / "study.yaml", Study)
    if any(metric.name.endswith("review") for metric in study.metrics):
        draw_review(pl.read_csv(run / "rows.csv"), run / "figures" / "review.svg")
    for path in (*(run / name for name in FILES), *run.glob("criteria.csv"), *sorted((run / "figures").glob("*.svg"))):
        shutil.copyfile(path, target / path.name)
    folder = StudyFolder(run.absolute())
    for picture in sorted((run / "pictures").glob("*.png")):
        # Good enough to look at, and a fifth of the size.
        Image.open(picture).convert("RGB").save(target / f"{picture.stem}.jpg", quality=85)
    for name, each in named(runs_of(config.resolve(study), folder)):
        curves = folder.training(each) / "curves.svg"
        # Where the validation loss decides how long a network learns, it is shown.
        if each.compared.method.params.get("training", {}).get("early_stopping") and curves.exists():
            shutil.copyfile(curves, target / f"{name}-curves.svg")
    path = target / "provenance.json"
    provenance = json.loads(path.read_text(encoding="utf-8"))
    file = target / "study.yaml"
    demo = "demo --digits" if run.name == "digits" else "demo"
    command = f"study run {file.relative_to(ROOT.parents[1])}" if file.exists() else demo
    provenance["command"] = f"micraframe {command} --output runs/{run.name}"
    write_json(path, provenance)
    report = target / "report.html"
    write_text(report, relinked(report.read_text(encoding="utf-8"), {each.name for each in target.iterdir()}))
    return target


def relinked(page: str, files: Collection[str]) -> str:
    """Return a study's report with links to the files beside it; what was not copied is named without a link."""

    def link(found: re.Match[str]) -> str:
        path = Path(found[1])
        copies = (path.name, f"{path.stem}.jpg", f"{path.stem}.parquet")
        name = next((copy for copy in copies if copy in files), "")
        return f'<a href="{name}">{name}</a>' if name else found[2]

    return re.sub(r'<a href="([^"#:]+)">([^<]*)</a>', link, page)


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(publish(Path(folder)))
