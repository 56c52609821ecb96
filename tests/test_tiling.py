"""Images predicted in tiles: every pixel once, and the same as of the whole where a method looks no further."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from micraframe.errors import DataError
from micraframe.interfaces import Fitted
from micraframe.registry import build
from micraframe.testing import full_samples
from micraframe.tiling import ALIGNMENT, Tiling, lay, predict, stitch
from micraframe.types import Annotation, DatasetInfo, Normalisation, Part, Prediction, Run, ScoreMap

TILINGS = st.tuples(st.integers(64, 300), st.integers(0, 100)).filter(lambda t: t[0] - 2 * t[1] >= ALIGNMENT)


class Brightness(Fitted):
    """Takes the image itself for the score map of those of its two classes that reach 0.5 anywhere."""

    def __init__(self, head) -> None:
        self.head = head
        self.seen = []

    def predict(self, images):
        for image in images:
            self.seen.append(image.shape[1:])
            scores = image.max(axis=(1, 2))
            classes = tuple(int(index) for index in np.flatnonzero(scores >= 0.5))
            values = image[list(classes)]
            score_map = ScoreMap(classes, values, values / 2, ("ok",) * len(classes))
            if self.head is None:
                yield Prediction(scores, scores >= 0.5, masks=image > 0.5, method="brightness")
                continue
            decided = self.head.decide(score_map, scores, image)
            yield dataclasses.replace(decided, score_map=score_map, method="brightness")

    def save(self, folder):
        raise NotImplementedError


@given(st.integers(1, 2000), TILINGS)
def test_every_pixel_is_used_once_and_no_nearer_to_an_inner_edge_than_the_halo(side, tiling):
    tiling = Tiling(size=tiling[0], halo=tiling[1])
    tiles = lay(side, tiling)
    used = [pixel for _, span in tiles for pixel in range(*span)]
    assert used == list(range(side))
    for (first, last), (start, end) in tiles:
        assert first % ALIGNMENT == 0
        assert last - first < tiling.size + ALIGNMENT
        assert start - first >= tiling.halo or start == first == 0
        assert last - end >= tiling.halo or end == last == side
    assert len(tiles) == 1 or all(last - first >= tiling.size for (first, last), _ in tiles)


@pytest.mark.parametrize("size", [(100, 100), (65, 200), (301, 130), (64, 64), (20, 97)])
def test_what_looks_at_one_pixel_says_the_same_in_tiles(size):
    rng = np.random.default_rng(3)
    image = rng.random((2, *size), dtype=np.float32)
    head = build("head", "semantic", threshold={"name": "fixed", "value": 0.7})
    (whole,) = predict(Brightness(head), [image])
    cut = Brightness(head)
    (tiled,) = predict(cut, [image], Tiling(size=64, halo=16))
    assert max(max(seen) for seen in cut.seen) < 64 + ALIGNMENT
    for name in ("scores", "present", "masks"):
        assert getattr(tiled, name).tobytes() == getattr(whole, name).tobytes()
    for name in ("values", "coarse"):
        assert getattr(tiled.score_map, name).tobytes() == getattr(whole.score_map, name).tobytes()
    for name in ("status", "thresholds", "method"):
        assert getattr(tiled, name) == getattr(whole, name)


def test_a_class_speaks_for_nothing_where_a_tile_does_not_have_it():
    image = np.full((2, 64, 128), 0.4, np.float32)
    image[1, 10, 100] = 0.9  # in the right half alone
    (tiled,) = predict(Brightness(build("head", "semantic", threshold="otsu")), [image], Tiling(size=64, halo=0))
    assert tiled.score_map.classes == (1,)
    assert not tiled.score_map.values[0, :, :64].any()
    assert tiled.score_map.values[0, 20, 100] == np.float32(0.4)
    assert tiled.present.tolist() == [False, True]


def test_images_of_a_tile_are_not_cut_and_order_is_kept():
    rng = np.random.default_rng(0)
    images = [rng.random((2, side, 70), dtype=np.float32) for side in (70, 64, 200)]
    cut = Brightness(build("head", "semantic"))
    found = list(predict(cut, iter(images), Tiling(size=96, halo=0)))
    assert [one.masks.shape[1:] for one in found] == [image.shape[1:] for image in images]
    assert cut.seen[:2] == [(70, 70), (64, 70)]


def test_without_a_head_images_are_seen_whole():
    method = Brightness(None)
    list(predict(method, [np.zeros((2, 200, 200), np.float32)], Tiling(size=64, halo=0)))
    assert method.seen == [(200, 200)]


def test_a_method_that_shows_no_score_map_is_named():
    class Silent(Brightness):
        def predict(self, images):
            for _ in images:
                yield Prediction(np.zeros(2, np.float32), np.zeros(2, bool), method="silent")

    with pytest.raises(DataError, match="silent shows no score map.*predict without tiles"):
        list(predict(Silent(build("head", "semantic")), [np.zeros((2, 200, 64), np.float32)], Tiling(size=64, halo=0)))


@pytest.mark.parametrize(
    ("status", "expected"),
    [(("empty", "ok"), "ok"), (("ok", "empty"), "ok"), (("constant", "empty"), "constant")],
)
def test_a_class_is_ok_where_any_tile_is(status, expected):
    parts = []
    for column, one in enumerate(status):
        values = np.full((1, 4, 4), column / 2, np.float32)
        span = (4 * column, 4 * column + 4)
        parts.append(Part((0, 4), span, (0, 4), span, np.ones(3, np.float32), ScoreMap((2,), values, values, (one,))))
    joined = stitch(parts, (4, 8))
    assert (joined.classes, joined.status) == ((2,), (expected,))
    assert joined.values[0, 0].tolist() == [0] * 4 + [0.5] * 4


def test_micra_net_is_tiled_as_images_are_predicted():
    samples = [sample.keep({Annotation.LABELS}) for sample in full_samples(6, (64, 64))]
    info = DatasetInfo("shapes", ("disc", "square"), 1, Normalisation(), "0" * 64)
    method = build(
        "method",
        "micra-net",
        backbone={"name": "unet-encoder", "params": {"widths": [4, 8]}},
        dropout=0,
        training={"epochs": 1, "batch_size": 4},
        head={"name": "semantic", "params": {"decision": 0.0, "threshold": {"name": "fixed", "value": 0.5}}},
    )
    fitted = method.fit(samples[:4], samples[4:], info, Run(seed=0, device="cpu", precision="float32"))
    image = np.tile(samples[0].image, (1, 2, 2))
    (tiled,) = predict(fitted, [image], Tiling(size=64, halo=0))
    (alone,) = fitted.predict([samples[0].image])
    assert np.allclose(tiled.scores, alone.scores, atol=1e-6)
    assert np.allclose(tiled.score_map.values, np.tile(alone.score_map.values, (1, 2, 2)), atol=1e-5)


@pytest.mark.parametrize("params", [{"size": 63}, {"size": 128, "halo": 49}, {"halo": -1}, {"size": 96, "halos": 3}])
def test_tiles_that_leave_nothing_to_use_are_refused(params):
    with pytest.raises(ValidationError):
        Tiling(**params)


def test_tiles_overlap_by_twice_the_halo():
    spans = [tile for tile, _ in lay(700, Tiling(size=256, halo=32))]
    assert all(one[1] - other[0] >= 64 for one, other in itertools.pairwise(spans))
