"""Writes the numbers of committed studies into the README, between its `<!-- table: FOLDER -->` marks.

.venv/bin/python benchmarks/readme.py            # rewrites README.md
.venv/bin/python benchmarks/readme.py --check    # fails if it would change
"""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

from micraframe.study.report.wording import annotation_text

ROOT = Path(__file__).parents[1]
METRICS = {
    "correct": "class-wise accuracy",
    "iou": "IoU",
    "iou_if_present": "IoU (images containing the class)",
    "object_auc": "AUC of object F1",
}
MARK = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(folder: Path) -> str:
    """Return a study's table as Markdown: a row per method, a column per metric, mean and 95 % interval."""
    rows = [row for row in _read(folder / "summary.csv") if row["thresholds"] == "fixed"]
    hours: dict[tuple[str, str], list[float]] = {}
    for row in _read(folder / "costs.csv"):
        if row["thresholds"] == "fixed":
            hours.setdefault((row["annotator"], row["method"]), []).append(float(row["seconds"]) / 3600)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    methods = list(dict.fromkeys((row["annotator"], row["method"]) for row in rows))
    found = {(row["annotator"], row["method"], row["metric"]): row for row in rows}
    measured = {metric: title for metric, title in METRICS.items() if any(row["metric"] == metric for row in rows)}
    lines = [
        "| method | training annotation | hours | " + " | ".join(measured.values()) + " |",
        "|---|---|---:|" + "---|" * len(measured),
    ]
    for annotator, method in methods:
        numbers = [_number(found.get((annotator, method, metric))) for metric in measured]
        spent = hours[annotator, method]
        lines.append(
            f"| {method} | {annotation_text(annotator)} | {sum(spent) / len(spent):.2g} | " + " | ".join(numbers) + " |"
        )
    row = rows[0]
    images = f"{row['n']} test images"
    if int(row.get("groups") or row["n"]) < int(row["n"]):
        images += f" of {row['groups']} fields"
    if "seeds" in row:  # a study from before trained models were counted
        trained = f"{row['seeds']} seed(s)"
    else:
        models = max(int(each["models"]) for each in rows)
        trained = f"{models} trained models per method" if models > 1 else "one trained model per method"
    lines += ["", f"*{row['dataset']}: {images}, {trained}, {provenance['date']}.*", ""]
    return "\n".join(lines)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _number(row: dict[str, str] | None) -> str:
    if row is None or not row["mean"]:
        return ""
    return f"{float(row['mean']):.3f} ({float(row['low']):.3f} to {float(row['high']):.3f})"


def render(text: str) -> str:
    """Return the README with every marked table written again."""
    return MARK.sub(lambda match: match[1] + "\n" + table(ROOT / match[2]) + match[3], text)


if __name__ == "__main__":
    path = ROOT / "README.md"
    old = path.read_text(encoding="utf-8")
    new = render(old)
    if "--check" in sys.argv[1:]:
        sys.exit(new != old and "README.md does not show the committed results; run benchmarks/readme.py")
    path.write_text(new, encoding="utf-8")
