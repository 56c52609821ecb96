from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm

from micraframe.config import Choice
from micraframe.micranet import MicraNet
from micraframe.training import Recipe
from micraframe.types import DatasetInfo, Normalisation, Run, Sample

INFO = DatasetInfo("noise", ("rings", "fibers"), 1, Normalisation("none"), "")
RECIPE = Recipe(epochs=1, batch_size=4)


def make_samples(count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    return [
        Sample(f"s{number}", rng.random((1, 33, 35), dtype=np.float32), labels=rng.random(2) > 0.5)
        for number in range(count)
    ]


def test_the_log_names_the_classes(tmp_path: Path) -> None:
    backbone = Choice(name="unet-encoder", params={"widths": [2]})
    method = MicraNet(MicraNet.Params(backbone=backbone, training=RECIPE))
    method.fit(make_samples(4), make_samples(2), INFO, Run(folder=tmp_path))
    with (tmp_path / "log.csv").open() as stream:
        header = next(csv.reader(stream))
    assert [name for name in header if name.startswith("accuracy")] == ["accuracy rings", "accuracy fibers"]


def test_a_saved_model_is_loaded_without_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create, asked = timm.create_model, []

    def spy(name: str, *, pretrained: bool, **options: Any) -> Any:
        asked.append(pretrained)
        return create(name, pretrained=False, **options)  # there need be no net

    monkeypatch.setattr(timm, "create_model", spy)
    backbone = Choice(name="timm", params={"model": "resnet10t", "pretrained": True, "out_indices": [0, 1]})
    method = MicraNet(MicraNet.Params(backbone=backbone, training=RECIPE))
    fitted = method.fit(make_samples(4), make_samples(2), INFO, Run())
    assert asked == [True]
    fitted.save(tmp_path / "model")
    loaded = method.load(tmp_path / "model")
    assert asked == [True, False]
    image = make_samples(1)[0].image
    [one], [other] = fitted.predict([image]), loaded.predict([image])
    np.testing.assert_array_equal(one.scores, other.scores)
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "model.json").read_bytes() == (tmp_path / "model" / "model.json").read_bytes()
