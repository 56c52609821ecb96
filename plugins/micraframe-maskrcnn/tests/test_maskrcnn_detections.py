from __future__ import annotations

import numpy as np
import pytest
import torch
from micraframe_maskrcnn.detections import Detections, Rules, arrange, paste
from micraframe_maskrcnn.targets import number, unpack
from scipy import ndimage
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from micraframe.objects import components

SIZE = (20, 31)
HALF = Rules(0.5, 0.5, 0.5, 0)

Row = tuple[int, float, tuple[float, float, float, float]]


def detections(*rows: Row) -> Detections:
    """Detections whose masks are 1 all over their box."""
    return Detections(
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32),
        np.ones((len(rows), 28, 28), np.float32),
    )


def blobs() -> np.ndarray:
    """Objects of 5 to 25 pixels across, at the edges too."""
    noise = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((97, 131)), 4)
    return components((noise > noise.std())[None])


def test_pasting_undoes_the_cutting_of_masks_for_training():
    objects = unpack(torch.from_numpy(np.concatenate([number(blobs()), np.zeros((1, 97, 131), np.int32)])), 1)
    cells = project_masks_on_boxes(objects.masks, objects.boxes, torch.arange(len(objects.boxes)), 28).numpy()
    assert len(cells) > 10
    for true, box, mask in zip(objects.masks.numpy() > 0, objects.boxes.numpy(), cells, strict=True):
        pasted = np.zeros(true.shape, np.float32)
        place, pasted[place] = paste(mask, box, true.shape)
        assert ((pasted > 0.5) & true).sum() > 0.97 * ((pasted > 0.5) | true).sum()


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ((4, 5, 12, 9), (slice(5, 9), slice(4, 12))),
        ((3.6, 5.4, 12.4, 9.6), (slice(5, 10), slice(4, 12))),
        ((-5, -5, 2, 2), (slice(0, 2), slice(0, 2))),
        ((29, 18, 40, 40), (slice(18, 20), slice(29, 31))),
        ((5.6, 5.6, 6.4, 6.4), (slice(6, 6), slice(6, 6))),
        ((40, 40, 50, 50), (slice(20, 20), slice(31, 31))),
        ((-9, 3, -2, 5), (slice(3, 5), slice(0, 0))),
    ],
)
def test_pixels_are_of_a_box_whose_middle_is_in_it(box, place):
    found, values = paste(np.ones((28, 28), np.float32), np.array(box, np.float32), SIZE)
    assert found == place
    assert values.shape == np.empty(SIZE)[place].shape
    assert (values == 1).all()


def test_where_objects_of_a_class_overlap_the_better_one_has_the_pixel():
    found = detections((0, 0.9, (4, 4, 12, 12)), (1, 0.8, (6, 6, 14, 14)), (0, 0.7, (8, 4, 16, 12)))
    result = arrange(found, 3, SIZE, HALF)
    assert np.allclose(result.scores, [0.9, 0.8, 0])
    assert result.present.tolist() == [True, True, False]
    assert result.status == ("ok", "ok", "absent")
    assert [int((result.instances[0] == label).sum()) for label in (1, 2)] == [64, 32]
    assert int((result.instances[1] == 1).sum()) == 64
    assert np.array_equal(result.masks, result.instances > 0)
    assert np.allclose(result.points[0], [[7.5, 7.5, 0.9], [7.5, 13.5, 0.7]])
    assert result.points[2].shape == (0, 3)


def test_an_object_that_was_found_twice_is_there_once():
    found = detections((0, 0.9, (4, 4, 12, 12)), (0, 0.8, (3, 3, 12, 12)))
    assert arrange(found, 1, SIZE, HALF).instances.sum() == 64
    assert np.unique(arrange(found, 1, SIZE, HALF._replace(own=0)).instances).tolist() == [0, 1, 2]


def test_the_score_map_is_score_times_probability_of_the_best():
    result = arrange(detections((0, 0.8, (2, 2, 10, 10)), (0, 0.3, (6, 2, 20, 10))), 1, SIZE, HALF)
    assert result.score_map.values[0, 6, 8] == np.float32(0.8)
    assert result.score_map.values[0, 6, 16] == np.float32(0.3)
    assert result.score_map.values[0, 15, 25] == 0
    assert result.instances.max() == 1


def test_what_scores_less_than_its_class_must_does_not_count():
    found = detections((0, 0.6, (2, 2, 10, 10)), (1, 0.6, (2, 2, 10, 10)))
    result = arrange(found, 2, SIZE, HALF._replace(decision=(0.6, 0.7)))
    assert result.present.tolist() == [True, False]
    assert result.instances.any((1, 2)).tolist() == [True, False]
    assert [(one.name, one.value) for one in result.thresholds] == [
        ("presence of class 0", 0.6),
        ("presence of class 1", 0.7),
        ("mask", 0.5),
    ]


def test_small_objects_are_dropped_and_the_others_numbered_anew():
    found = detections((0, 0.9, (4, 4, 12, 12)), (0, 0.8, (14, 4, 17, 7)), (0, 0.7, (20, 4, 28, 12)))
    result = arrange(found, 1, SIZE, HALF._replace(minimum_size=10))
    assert np.unique(result.instances).tolist() == [0, 1, 2]
    assert np.allclose(result.points[0][:, 2], [0.9, 0.7])
    gone = arrange(found, 1, SIZE, HALF._replace(minimum_size=1000))
    assert gone.status == ("empty",)
    assert gone.present.all()


@pytest.mark.parametrize("rows", [[], [(0, 0.9, (40.0, 40.0, 50.0, 50.0))]])
def test_where_nothing_is_found_nothing_is_said(rows):
    result = arrange(detections(*rows), 2, SIZE, HALF)
    assert result.scores.tolist() == [0, 0]
    assert not result.instances.any()
    assert result.score_map.status == ("empty", "empty")
    assert all(points.shape == (0, 3) for points in result.points)
