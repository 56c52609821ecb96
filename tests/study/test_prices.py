"""What annotation costs in a study, and that other prices change nothing else."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from small_studies import DIGITS, net, study, told

from micraframe import build, config
from micraframe.config import Choice
from micraframe.study import plan, run_study
from micraframe.study.cell import tuning_samples

BEARMAN = {"cost": {"preset": "bearman2016"}}


def bills(folder: Path) -> dict[tuple[str, str, str], tuple[int, float]]:
    with (folder / "costs.csv").open(newline="") as stream:
        return {
            (row["annotator"], row["method"], row["thresholds"]): (int(row["decisions"]), float(row["seconds"]))
            for row in csv.DictReader(stream)
        }


def test_at_other_prices_nothing_is_trained_or_measured_again(tmp_path, monkeypatch):
    run_study(study(net("a"), tune=2), tmp_path)
    before, rows, costs = bills(tmp_path), (tmp_path / "rows.csv").read_bytes(), (tmp_path / "costs.csv").read_bytes()
    fixed, validation = (before["image-level", "a", thresholds] for thresholds in ("fixed", "validation"))
    assert fixed == (16, 16 * 2)

    def fails(*arguments: object) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr("micraframe.study.run.run_job", fails)
    full = Choice(name="full", params=BEARMAN)
    assert not run_study(study(told("image-level", **BEARMAN), tune=2, tuning_annotator=full), tmp_path).failures
    after = bills(tmp_path)
    assert after.keys() == before.keys()
    # Per image, 20 s for labels and 239.7 s for outlines; as many decisions as before.
    assert after["image-level", "a", "fixed"] == (16, 16 * 20)
    assert after["image-level", "a", "validation"] == (validation[0], pytest.approx(16 * 20 + 2 * 239.7))
    assert (tmp_path / "rows.csv").read_bytes() == rows
    assert not run_study(study(net("a"), tune=2), tmp_path).failures
    assert (tmp_path / "costs.csv").read_bytes() == costs


def test_contenders_at_two_prices_share_a_training_and_have_a_bill_each(tmp_path):
    dear = told("image-level", **BEARMAN).model_copy(update={"label": "dear"})
    outcome = run_study(study(net("a"), dear, tune=0), tmp_path)
    assert not outcome.failures
    assert len(list((tmp_path / "models").glob("*/model.json"))) == 1
    assert {method: bill for (_, method, _), bill in bills(tmp_path).items()} == {"a": (16, 32), "dear": (16, 320)}


def test_the_same_annotation_at_another_price_is_not_paid_twice():
    samples = build("dataset", "modified-digits", **DIGITS).samples("valid")
    made = config.resolve(study(told("full"), tuning_annotator=Choice(name="full", params=BEARMAN)))
    assert tuning_samples(plan(made)[0], made, samples, None)[1].seconds == 0
