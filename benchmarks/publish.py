"""Copies the tables, report, figures and pictures of a completed study to `benchmarks/studies/NAME`, to be committed.

    micraframe study run benchmarks/studies/NAME/study.yaml --output runs/NAME
    .venv/bin/python benchmarks/publish.py runs/NAME
    .venv/bin/python benchmarks/readme.py

`rows.csv`, with a line per image, class and statistic, is too long to commit. Committed are `rows.csv.gz`, with the
statistics of the compared metrics, and `runs.json`:

    micraframe study run STUDY --against benchmarks/studies/NAME --method NEW --output runs/new

compares a new method with these results without running any of them.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from micraframe import config
from micraframe.config import Study
from micraframe.study import StudyFolder
from micraframe.study.committed import export

FILES = ("summary.csv", "costs.csv", "statistics.csv", "provenance.json", "report.html")
ROOT = Path(__file__).parent / "studies"


def publish(run: Path) -> Path:
    """Copy tables, report and pictures, and record the command; return the folder that they are in."""
    target = ROOT / run.name
    target.mkdir(parents=True, exist_ok=True)
    for old in (*target.glob("*.jpg"), *target.glob("*.svg")):
        old.unlink()
    for path in (*(run / name for name in FILES), *sorted((run / "figures").glob("*.svg"))):
        shutil.copyfile(path, target / path.name)
    export(config.read(run / "study.yaml", Study), StudyFolder(run.absolute()), target)
    for picture in sorted((run / "pictures").glob("*.png")):
        # Good enough to look at, and a fifth of the size.
        Image.open(picture).convert("RGB").save(target / f"{picture.stem}.jpg", quality=85)
    path = target / "provenance.json"
    provenance = json.loads(path.read_text(encoding="utf-8"))
    file = target / "study.yaml"
    command = f"micraframe study run {file.relative_to(ROOT.parents[1])} --output runs/{run.name}"
    provenance["command"] = command if file.exists() else f"micraframe {run.name} --output runs/{run.name}"
    path.write_text(json.dumps(provenance, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return target


if __name__ == "__main__":
    for folder in sys.argv[1:]:
        print(publish(Path(folder)))
