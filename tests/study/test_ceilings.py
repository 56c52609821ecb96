"""Ceilings: what a training annotation could reach at best, measured as if it were a prediction."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from small_studies import DIGITS, compared, study

from micraframe.annotators.annotate import annotate_samples
from micraframe.registry import build
from micraframe.study import StudyFolder, plan, run_study, status
from micraframe.types import Annotation


def test_there_is_one_for_each_annotation_that_shows_a_place():
    made = study(
        compared("centre-blob"),
        compared("forest", "full", label="a"),
        compared("forest", "full", label="b", train_images=6),
        compared("forest", "boxes"),
        seeds=[3, 4],
        ceilings=True,
    )
    found = [run for run in plan(made) if run.kind == "ceiling"]
    assert [(run.method, run.annotator, run.seed) for run in found] == [("ceiling", "full", 3), ("ceiling", "boxes", 3)]


def test_outlines_reach_everything_and_boxes_what_filled_boxes_reach(tmp_path):
    made = study(compared("random-map", "full"), compared("random-map", "boxes"), tuning_images=2, ceilings=True)
    outcome = run_study(made, tmp_path)
    assert not outcome.failures
    reached = {
        row.annotator: row for row in outcome.summary if (row.method, row.metric) == ("ceiling", "iou_if_present")
    }
    assert reached["full"].mean == pytest.approx(1)
    assert reached["boxes"].models == 1
    ious = []
    digits = build("dataset", "modified-digits", **DIGITS)
    for sample in digits.samples("test"):
        boxed, _ = build("annotator", "boxes").annotate(sample, 0)
        for mask, boxes in zip(sample.masks, boxed.boxes, strict=True):
            if mask.any():
                filled = np.zeros_like(mask)
                for top, left, bottom, right in boxes.astype(int):
                    filled[top:bottom, left:right] = True
                ious.append((mask & filled).sum() / (mask | filled).sum())
    assert reached["boxes"].mean == pytest.approx(np.mean(ious), rel=1e-6)
    assert reached["boxes"].mean < 0.95
    rows = pl.read_csv(tmp_path / "rows.csv", infer_schema=False).filter(pl.col("method") == "ceiling")
    assert set(rows["thresholds"]) == {"fixed"}


def test_it_costs_what_the_annotation_costs_and_trains_nothing(tmp_path):
    made = study(compared("random-map", "boxes"), ceilings=True, tuning_images=0)
    run_study(made, tmp_path)
    folder = StudyFolder(tmp_path)
    (ceiling,) = [run for run in plan(made) if run.kind == "ceiling"]
    assert not folder.model(ceiling).exists()
    digits, boxes = build("dataset", "modified-digits", **DIGITS), build("annotator", "boxes")
    expected = [
        work
        for split in ("train", "valid")
        for work in annotate_samples(digits.samples(split), boxes, frozenset(Annotation), 0)[1]
    ]
    assert folder.training_work(ceiling) == tuple(expected)
    found = status(plan(made), folder)
    assert (found.trainings, found.shared) == (1, 0)


def test_strokes_reach_nothing_that_could_be_measured(tmp_path):
    made = study(compared("forest", "scribbles"), ceilings=True, tuning_images=0)
    outcome = run_study(made, tmp_path)
    assert not outcome.failures
    assert {row.method for row in outcome.summary} == {"forest"}
    assert all(StudyFolder(tmp_path).is_done(run) for run in plan(made))
