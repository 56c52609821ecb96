"""Writes the numbers of committed studies into README.md and docs/*.md, between marks.

.venv/bin/python benchmarks/readme.py            # rewrites them
.venv/bin/python benchmarks/readme.py --check    # fails if they would change

`<!-- table: FOLDER -->` stands for all methods, `<!-- table: FOLDER; METHOD; METHOD -->` for these, in this order;
`<!-- thresholds: FOLDER; METHOD -->` for the IoU of these methods by where the threshold of their masks comes from.
`<!-- ingredients: FOLDER; STUDY; STUDY -->` for the methods of several studies in the same folder, side by side.
`<!-- effort -->` stands for the paper's hours of annotation, recomputed.
"""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from micraframe_paper import effort

from micraframe.study.report.wording import annotation_text

ROOT = Path(__file__).parents[1]
METRICS = {
    "correct": "class-wise accuracy",
    "iou": "IoU",
    "iou_if_present": "IoU (images containing the class)",
    "object_auc": "AUC of object F1",
    "count_relative_error": "error of counts",
    "detection_f1_pooled": "F1 of detections",
    "reviewed_area": "share of the pixels to look at for a recall of 0.9",
}
SCORES = ("iou_if_present", "detection_f1_pooled")
"""What masks and detections score; a study has one of them."""
ORIGINS = {
    "fixed": "the method's own",
    "negatives": "negatives",
    "expected-share": "expected share",
    "erasing": "erasing",  # dropped; digits_criteria and blood_criteria still show it
    "validation": "validation masks",
    "oracle": "test masks",
}
MARK = re.compile(r"(<!-- (table|thresholds|ingredients): ([^\s;]+)((?:; [^;\n]+)*) -->\n).*?(<!-- end -->)", re.DOTALL)
EFFORT = re.compile(r"(<!-- effort -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "paper").glob("*.md")),
    ROOT / "plugins" / "micraframe-paper" / "README.md",
)


def summaries(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a study's summary with fixed thresholds."""
    return [row for row in _read(folder / "summary.csv") if row["thresholds"] == "fixed"]


def hours(folder: Path) -> dict[tuple[str, str, str], float]:
    """Return the hours of annotation of each dataset, annotator and method of a study, mean over seeds."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for row in _read(folder / "costs.csv"):
        if row["thresholds"] == "fixed":
            found.setdefault(_row_key(row), []).append(float(row["seconds"]) / 3600)
    return {key: sum(spent) / len(spent) for key, spent in found.items()}


def table(folder: Path, chosen: Sequence[str] = ()) -> str:
    """Return a study's table as Markdown: a row per dataset and method, a column per metric, mean and 95 % interval.

    Args:
        folder: The study's results.
        chosen: Methods, in order; by default all.

    Raises:
        ValueError: If one of them is not in the study.
    """
    rows, spent = summaries(folder), hours(folder)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    methods = list(dict.fromkeys(map(_row_key, rows)))
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    _check_methods(folder, chosen, methods)
    if chosen:
        methods = [each for dataset in datasets for name in chosen for each in methods if each[::2] == (dataset, name)]
    found = {(*_row_key(row), row["metric"]): row for row in rows}
    measured = {metric: title for metric, title in METRICS.items() if any(row["metric"] == metric for row in rows)}
    several = len(datasets) > 1
    lines = [
        "| dataset " * several + "| method | training annotation | hours | " + " | ".join(measured.values()) + " |",
        "|---" * several + "|---|---|---:|" + "---|" * len(measured),
    ]
    for dataset, annotator, method in methods:
        key = dataset, annotator, method
        numbers = [_number(found.get((*key, metric))) for metric in measured]
        cells = [dataset] * several + [method, annotation_text(annotator), f"{float(f'{spent[key]:.2g}'):g}", *numbers]
        lines.append("| " + " | ".join(cells) + " |")
    described = [_tested(rows, dataset) for dataset in datasets]
    lines += ["", f"*{'; '.join(described)}, {provenance['date']}.*", ""]
    return "\n".join(lines)


def thresholds_table(folder: Path, chosen: Sequence[str]) -> str:
    """Return what methods score by the origin of their thresholds, as Markdown.

    It is the IoU in images that contain the class or, where objects are detected, F1.

    Args:
        folder: The study's results.
        chosen: Methods, in order.

    Raises:
        ValueError: If one of them is not in the study.
    """
    rows = [row for row in _read(folder / "summary.csv") if row["metric"] in SCORES]
    found = {(*_row_key(row), row["thresholds"]): row for row in rows}
    methods = list(dict.fromkeys(map(_row_key, rows)))
    _check_methods(folder, chosen, methods)
    origins = [origin for origin in ORIGINS if any(row["thresholds"] == origin for row in rows)]
    lines = [
        "| method | training annotation | " + " | ".join(ORIGINS[origin] for origin in origins) + " |",
        "|---|---|" + "---|" * len(origins),
    ]
    for key in (each for name in chosen for each in methods if each[2] == name):
        numbers = [_number(found.get((*key, origin))) for origin in origins]
        lines.append("| " + " | ".join([key[2], annotation_text(key[1]), *numbers]) + " |")
    return "\n".join([*lines, ""])


def ingredients_table(folder: Path, chosen: Sequence[str]) -> str:
    """Return what methods that learn from labels of all crops score in several studies, as Markdown, in order of names.

    A cell is the mean IoU in images that contain the class or, where objects are detected, F1.

    Args:
        folder: Has the folders of the studies.
        chosen: The studies: a column each.
    """
    found: dict[str, dict[str, str]] = {}
    for name in chosen:
        for row in summaries(folder / name):
            if row["annotator"] == "image-level" and row["metric"] in SCORES:
                found.setdefault(row["method"], {})[name] = f"{float(row['mean']):.3f}"
    head = ["| method | " + " | ".join(chosen) + " |", "|---|" + "---:|" * len(chosen)]
    methods = sorted(each for each in found if not each.startswith("control"))
    rows = [" | ".join([method, *(found[method].get(name, "") for name in chosen)]) for method in methods]
    return "\n".join([*head, *(f"| {row} |" for row in rows), ""])


def _check_methods(folder: Path, chosen: Sequence[str], methods: Sequence[tuple[str, str, str]]) -> None:
    if unknown := set(chosen) - {method for *_, method in methods}:
        raise ValueError(f"{folder}: expected methods of the study, got {', '.join(sorted(unknown))}; correct the mark")


def _row_key(row: dict[str, str]) -> tuple[str, str, str]:
    return row["dataset"], row["annotator"], row["method"]


def _tested(rows: Sequence[dict[str, str]], dataset: str) -> str:
    """Return on what, and with how many models, the numbers of a dataset were measured."""
    same = [row for row in rows if row["dataset"] == dataset]
    row = same[0]
    images = f"{row['n']} test images"
    if int(row.get("groups") or row["n"]) < int(row["n"]):
        images += f" of {row['groups']} fields"
    if "seeds" in row:  # a study from before trained models were counted
        trained = f"{row['seeds']} seed(s)"
    else:
        models = max(int(each["models"]) for each in same)
        trained = f"{models} trained models per method" if models > 1 else "one trained model per method"
    return f"{dataset}: {images}, {trained}"


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _number(row: dict[str, str] | None) -> str:
    if row is None or not row["mean"]:
        return ""
    interval = f" ({float(row['low']):.3f} to {float(row['high']):.3f})" if row["low"] else ""
    return f"{float(row['mean']):.3f}{interval}"


def render(text: str) -> str:
    """Return a page with every marked table written again."""

    def written(match: re.Match[str]) -> str:
        made = {"table": table, "thresholds": thresholds_table, "ingredients": ingredients_table}[match[2]]
        return match[1] + "\n" + made(ROOT / match[3], match[4].split("; ")[1:]) + match[5]

    return EFFORT.sub(lambda match: f"{match[1]}\n{effort.as_markdown()}{match[2]}", MARK.sub(written, text))


if __name__ == "__main__":
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = render(old)
        if "--check" not in sys.argv[1:]:
            path.write_text(new, encoding="utf-8")
        elif new != old:
            sys.exit(f"{path.name} does not show the committed results; run benchmarks/readme.py")
