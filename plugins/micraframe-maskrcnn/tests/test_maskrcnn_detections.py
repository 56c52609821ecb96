from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from micraframe_maskrcnn.detections import join, linear, paste, score_objects, separate
from micraframe_maskrcnn.targets import number, unpack
from scipy import ndimage
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from micraframe.interfaces import ScoredTile
from micraframe.objects import components
from micraframe.tiling import Tiling, lay
from micraframe.types import DetectedObjects

SIZE = (20, 31)

Row = tuple[float, tuple[float, float, float, float]]


def found(*rows: Row) -> DetectedObjects:
    """Return objects, (score, box), whose masks are 1 everywhere."""
    return DetectedObjects(
        np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[0] for row in rows], np.float32),
        np.ones((len(rows), 28, 28), np.float32),
    )


def blobs() -> np.ndarray:
    """Objects of 5 to 25 pixels across, at the edges too."""
    noise = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((97, 131)), 4)
    return components((noise > noise.std())[None])


def map_coordinates(mask, box, size):
    """Return what `paste` yields for one mask, pixel by pixel."""
    place, cells = [], []
    for start, end, edge, length in zip(box[:2], box[2:], size, mask.shape, strict=True):
        first, last = (int(np.clip(np.ceil(side - 0.5), 0, edge)) for side in (start, end))
        place.append(slice(first, last))
        cells.append((np.arange(first, last) - start) / max(end - start, 1e-6) * length - 0.5)
    return tuple(place), ndimage.map_coordinates(mask, np.meshgrid(*cells, indexing="ij"), order=1, mode="nearest")


def test_pasting_inverts_the_cropping_of_masks_for_training():
    objects = unpack(torch.from_numpy(np.concatenate([number(blobs()), np.zeros((1, 97, 131), np.int32)])), 1)
    cells = project_masks_on_boxes(objects.masks, objects.boxes, torch.arange(len(objects.boxes)), 28).numpy()
    assert len(cells) > 10
    for true, (place, values) in zip(
        objects.masks.numpy() > 0, paste(cells, objects.boxes.numpy()[:, [1, 0, 3, 2]], (97, 131)), strict=True
    ):
        pasted = np.zeros(true.shape, np.float32)
        pasted[place] = values
        assert ((pasted > 0.5) & true).sum() > 0.97 * ((pasted > 0.5) | true).sum()


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 20), st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_pasted_masks_are_interpolated_linearly(seed, count, size):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-20, 55, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 40, (count, 2)) ** rng.choice([1, -1])], 1)
    boxes = boxes.astype(np.float32)
    masks = rng.random((count, 28, 28), np.float32)
    pasted = list(paste(masks, boxes, size))
    assert len(pasted) == count
    for (place, values), mask, box in zip(pasted, masks, boxes, strict=True):
        there, expected = map_coordinates(mask, box, size)
        assert values.dtype == np.float32
        assert values.shape == expected.shape == np.empty(size)[place].shape
        assert np.abs(values - expected).max(initial=0) < 1e-5
        assert not values.size or place == there
        [(_, alone)] = paste(mask[None], box[None], size)
        assert np.array_equal(alone, values)


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((5, 4, 9, 12), (slice(5, 9), slice(4, 12))),
        ((5.4, 3.6, 9.6, 12.4), (slice(5, 10), slice(4, 12))),
        ((-5, -5, 2, 2), (slice(0, 2), slice(0, 2))),
        ((18, 29, 40, 40), (slice(18, 20), slice(29, 31))),
        ((5.6, 5.6, 6.4, 6.4), (slice(6, 6), slice(6, 6))),
        ((40, 40, 50, 50), (slice(20, 20), slice(31, 31))),
        ((3, -9, 5, -2), (slice(3, 5), slice(0, 0))),
    ],
)
def test_a_box_holds_the_pixels_whose_centre_is_in_it(box, place):
    [(there, values)] = paste(np.ones((1, 28, 28), np.float32), np.array([box], np.float32), SIZE)
    assert there == place
    assert values.shape == np.empty(SIZE)[place].shape
    assert (values == 1).all()


def test_weights_belong_to_the_nearest_cells_and_sum_to_one():
    weights = linear(np.array([-3, 0, 0.25, 2, 9.5]), 3)
    assert np.allclose(weights, [[1, 0, 0], [1, 0, 0], [0.75, 0.25, 0], [0, 0, 1], [0, 0, 1]])


def test_a_map_is_the_largest_product_of_score_and_probability():
    several = found((0.8, (2, 2, 10, 10)), (0.3, (2, 6, 10, 20)))
    scores = score_objects([several, found()], SIZE)
    assert scores.classes == (0, 1)
    assert scores.coarse is None
    assert scores.maps[0, 6, 8] == np.float32(0.8)
    assert scores.maps[0, 6, 16] == np.float32(0.3)
    assert scores.maps[0, 15, 25] == 0
    assert scores.status == ("ok", "empty")
    assert np.array_equal(scores.presence, np.array([0.8, 0], np.float32))
    assert np.array_equal(scores.objects[0].boxes, several.boxes)


@pytest.mark.parametrize("rows", [[], [(0.9, (40.0, 40.0, 50.0, 50.0))]])
def test_objects_without_a_pixel_are_dropped(rows):
    scores = score_objects([found(*rows), found()], SIZE)
    assert scores.status == ("empty", "empty")
    assert scores.presence.tolist() == [0, 0]
    assert all(len(one.scores) == 0 for one in scores.objects)


def test_overlapping_pixels_belong_to_the_better_object():
    labels, scores = separate(found((0.9, (4, 4, 12, 12)), (0.7, (4, 8, 12, 16))), SIZE, 0.5, 0.5)
    assert np.bincount(labels.ravel())[1:].tolist() == [64, 32]
    assert np.array_equal(scores, np.array([0.9, 0.7], np.float32))


def test_duplicates_are_dropped():
    twice = found((0.9, (4, 4, 12, 12)), (0.8, (3, 3, 12, 12)))
    labels, scores = separate(twice, SIZE, 0.5, 0.5)
    assert labels.sum() == 64
    assert len(scores) == 1
    assert np.unique(separate(twice, SIZE, 0.5, 0)[0]).tolist() == [0, 1, 2]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.12))
def test_objects_contained_in_tiles_are_found_once(seed, jitter):
    """Objects of up to 30 pixels, reported by every tile that contains them, each time slightly displaced.

    By at most 12 % of its longer side, and not so far that the boxes of a thin object overlap by less than `nms_iou`:
    displaced by d both ways, boxes of w x h have an IoU above 1/2 if (w - d) (h - d) > 2/3 w h.
    """
    rng, size = np.random.default_rng(seed), (150, 203)
    middles = np.stack(np.meshgrid(np.arange(20, 150, 36), np.arange(20, 200, 36)), -1).reshape(-1, 2)
    half = rng.uniform(4, 15, (len(middles), 2))
    boxes = np.concatenate([middles - half, middles + half], 1)
    longer = 2 * half.max(1)
    total, area = 2 * half.sum(1), 4 * half.prod(1)
    farthest = (total - np.sqrt(total**2 - 4 / 3 * area)) / 2
    reach = np.minimum(jitter * longer, 0.99 * farthest)
    tiles = []
    for rows, used_rows in lay(size[0], tiling := Tiling(size=96, halo=16)):
        for columns, used_columns in lay(size[1], tiling):
            corner = np.array([rows[0], columns[0]] * 2)
            inside = (boxes[:, 0] >= rows[0]) & (boxes[:, 2] <= rows[1])
            inside &= (boxes[:, 1] >= columns[0]) & (boxes[:, 3] <= columns[1])
            moved = boxes[inside] - corner
            moved += rng.uniform(-0.5, 0.5, (inside.sum(), 1)) * reach[inside, None]
            here = found(*((float(rng.uniform(0.5, 1)), tuple(box)) for box in moved))
            scores = score_objects([found(), here], (rows[1] - rows[0], columns[1] - columns[0]))
            tiles.append(ScoredTile(rows, columns, used_rows, used_columns, scores))
    nothing, joined = join(tiles, nms_iou=0.5)
    assert len(nothing.scores) == 0
    assert len(joined.scores) == len(boxes)
    assert (np.diff(joined.scores) <= 0).all()
    nearest = np.abs(joined.boxes[:, None] - boxes[None]).max(2)
    assert sorted(nearest.argmin(1)) == list(range(len(boxes)))
    assert (nearest.min(1) <= jitter * longer[nearest.argmin(1)] + 1e-3).all()
