"""What annotation costs in a study, and that other prices change nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_studies import DIGITS, compared, net, study
from table_files import rows_of

from micraframe import build, config
from micraframe.config import Choice
from micraframe.pricing import Prices
from micraframe.study.job import tuning_samples
from micraframe.study.plan import plan
from micraframe.study.run import run_study
from micraframe.types import Work


def costs(folder: Path) -> dict[tuple[str, str, str], tuple[int, float]]:
    return {
        (row["annotator"], row["method"], row["thresholds"]): (int(row["decisions"]), float(row["seconds"]))
        for row in rows_of(folder / "costs.csv")
    }


def test_at_other_prices_nothing_is_annotated_trained_or_measured_again(tmp_path, monkeypatch):
    run_study(study(net("a"), tuning_images=2), tmp_path)
    before, rows, table = costs(tmp_path), (tmp_path / "rows.csv").read_bytes(), (tmp_path / "costs.csv").read_bytes()
    fixed, validation = (before["image-level", "a", thresholds] for thresholds in ("fixed", "validation"))
    assert fixed == (16, 16 * 2)

    def fails(*arguments: object) -> None:
        raise AssertionError("repeated")

    monkeypatch.setattr("micraframe.study.run.run_job", fails)
    monkeypatch.setattr("micraframe.annotators.image_level.ImageLevel.annotate", fails)
    monkeypatch.setattr("micraframe.annotators.full.Full.annotate", fails)
    dear = study(net("a"), tuning_images=2, prices=Prices(preset="bearman2016"))
    assert not run_study(dear, tmp_path).failures
    after = costs(tmp_path)
    assert after.keys() == before.keys()
    # Per image, 20 s for labels and 239.7 s for outlines; as many decisions as before.
    assert after["image-level", "a", "fixed"] == (16, 16 * 20)
    assert after["image-level", "a", "validation"] == (validation[0], pytest.approx(16 * 20 + 2 * 239.7))
    assert (tmp_path / "rows.csv").read_bytes() == rows
    assert not run_study(study(net("a"), tuning_images=2), tmp_path).failures
    assert (tmp_path / "costs.csv").read_bytes() == table


def test_only_a_method_that_uses_validation_images_pays_for_them(tmp_path):
    assert not run_study(study(net("a"), compared("centre-blob"), tuning_images=3), tmp_path).failures
    found = costs(tmp_path)
    assert found["image-level", "a", "fixed"] == (12 + 4, 2 * (12 + 4))
    assert found["image-level", "centre-blob", "fixed"] == (12, 2 * 12)
    # An outline of the one digit in each tuning image; 3 of the 4 validation images of "a" are judged anyway.
    for method, seconds in (("a", 32), ("centre-blob", 24)):
        assert found["image-level", method, "validation"][1] == seconds + 3 * (2 + 14)


def test_a_share_of_the_images_costs_its_share(tmp_path):
    made = study(compared("centre-blob", budgets=[0.25, 0.5, 1.0]), tuning_images=0, ceilings=False)
    assert not run_study(made, tmp_path).failures
    seconds = {annotator: value for (annotator, _, _), (_, value) in costs(tmp_path).items()}
    assert seconds == {"image-level, 3 images": 6, "image-level, 6 images": 12, "image-level": 24}


def test_the_same_annotation_is_not_paid_twice():
    samples = build("dataset", "modified-digits", **DIGITS).samples("valid")
    full = net().model_copy(update={"annotator": Choice(name="full")})
    made = config.resolve(study(full, tuning_annotator=Choice(name="full")))
    assert tuning_samples(plan(made)[0], made, samples, None)[1] == ()
    made = config.resolve(study(net(), tuning_annotator=Choice(name="full"), tuning_images=3))
    (work,) = tuning_samples(plan(made)[0], made, samples, None)[1]
    assert (work.task, work.images) == ("outline", 3)
    assert isinstance(work, Work)
