"""The gallery's panels: a map of the image's size, or the reason why a pair does not go together."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.gallery import NETWORKS, SIZE, names, panel, part_of
from micraframe.builtin import COMPONENTS
from micraframe.micranet import MicraNet, MicraNetModel
from micraframe.types import DatasetInfo, Normalisation, Sample

INFO = DatasetInfo("d", ("nucleus",), 1, Normalisation("none"), "0" * 64)


@pytest.fixture(scope="module")
def models() -> dict[str, MicraNetModel]:
    found = {name: MicraNet(MicraNet.Params.model_validate(each)).untrained(INFO) for name, each in NETWORKS.items()}
    assert set(found) == {"features", "evidence"}
    return found


def test_components_are_those_that_micraframe_offers() -> None:
    assert len(names("combiner")) == len(COMPONENTS["combiner"])
    assert {"grad-cam", "evidence"} <= set(names("extractor"))


def test_a_panel_has_the_size_of_the_image(models: dict[str, MicraNetModel]) -> None:
    image = np.random.default_rng(0).random((1, 40, 56), np.float32)
    for network, extractor, combiner in (
        ("features", "grad-cam", "pca"),
        ("features", "layer-cam", "guided"),
        ("evidence", "evidence", "evidence"),
        ("evidence", "views", "last-layer"),
    ):
        found = panel(models[network], extractor, combiner, image)
        assert not isinstance(found, str)
        assert found.shape == (40, 56)


def test_pairs_that_do_not_go_together_say_why(models: dict[str, MicraNetModel]) -> None:
    image = np.zeros((1, 32, 32), np.float32)
    assert panel(models["evidence"], "evidence", "pca", image) == "needs several layers"
    assert panel(models["features"], "grad-cam", "evidence", image) == "maps are not logits"


def test_the_part_that_is_shown_has_the_most_objects() -> None:
    instances = np.zeros((1, SIZE, 2 * SIZE), np.int32)
    instances[0, 5, 3], instances[0, 9, [SIZE + 70, SIZE + 90]] = 1, (2, 3)
    sample = Sample("s", np.zeros((1, SIZE, 2 * SIZE), np.float32), masks=instances > 0, instances=instances)
    part = part_of(sample)
    assert part.image.shape == (1, SIZE, SIZE)
    assert set(np.unique(part.instances)) == {0, 2, 3}
