"""A study that asks for it says of each method what labels alone say, and nothing else changes."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import polars as pl
import pytest
from pydantic import ValidationError
from small_studies import DIGITS, compared, net, study

from micraframe.pipeline import Pipeline, load
from micraframe.registry import build
from micraframe.selection import LabelCriteria, label_criteria
from micraframe.study.folder import StudyFolder
from micraframe.study.job import subset
from micraframe.study.plan import plan
from micraframe.study.run import run_study
from micraframe.types import Annotation

NAMES = [field.name for field in dataclasses.fields(LabelCriteria)]


def test_labels_alone_judge_every_run_of_a_study_that_asks_for_it(tmp_path):
    methods = [net("first"), net("second", combiner="last-layer"), compared("intensity-otsu")]
    plain = study(*methods, tuning_images=3)
    judged = plain.model_copy(update={"label_criteria": True})
    outcome = run_study(judged, tmp_path)
    assert not outcome.failures
    folder, runs = StudyFolder(tmp_path), plan(judged)
    table = pl.read_csv(tmp_path / "criteria.csv")
    assert table.columns == ["dataset", "annotator", "method", "seed", "thresholds", *NAMES]
    fixed = table.filter(pl.col("thresholds") == "fixed")
    assert fixed["method"].to_list() == ["first", "second", "intensity-otsu"]
    assert {"validation", "oracle"}.isdisjoint(table["thresholds"])

    samples = build("dataset", "modified-digits", **DIGITS).samples("valid")
    chosen = [sample.keep({Annotation.LABELS}) for sample in subset(samples, 3, 0)]
    for run, row in zip(runs, fixed.select(NAMES).iter_rows(), strict=True):
        pipeline = load(folder.model(run), "cpu", head=run.compared.head, **run.inference)
        expected = dataclasses.astuple(label_criteria(pipeline, chosen))
        assert [math.nan if value is None else value for value in row] == pytest.approx(expected, nan_ok=True)

    text = outcome.report.read_text(encoding="utf-8")
    section = text[text.index('id="modified-digits-criteria"') :]
    section = section[: section.index("</section>")]
    assert section.count('<th scope="row">') == len(table), "variants of a model are rows of their own"
    # The same study without: other keys, the same models, and no table.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "models").glob("*.json")}
    text = run_study(plain, tmp_path).report.read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "Chosen without masks" not in text
    assert not (tmp_path / "criteria.csv").exists()


def test_validation_images_are_explained_once(tmp_path, monkeypatch):
    explained: Counter[bytes] = Counter()
    score = Pipeline.score

    def counting(self, images, rule=None):
        images = list(images)
        for image, scores in zip(images, score(self, images, rule), strict=True):
            if scores.classes:  # not where only presence is looked for
                explained[image.tobytes()] += 1
            yield scores

    monkeypatch.setattr(Pipeline, "score", counting)
    digits = build("dataset", "modified-digits", **DIGITS)
    chosen = {sample.image.tobytes() for sample in subset(digits.samples("valid"), 3, 0)}
    made = study(net("net"), tuning_images=3)
    for judged in (False, True):
        explained.clear()
        output = tmp_path / str(judged)
        assert not run_study(made.model_copy(update={"label_criteria": judged}), output).failures
        assert {image: explained[image] for image in chosen} == dict.fromkeys(chosen, 1)
    first, second = ((tmp_path / str(judged) / "rows.csv").read_bytes() for judged in (False, True))
    assert first == second


def test_criteria_need_images():
    with pytest.raises(ValidationError, match="tuning_images of at least 1"):
        study(net(), tuning_images=0, label_criteria=True)
