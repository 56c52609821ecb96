from __future__ import annotations

import numpy as np
import pytest
import torch
from micraframe_maskrcnn.detections import Decided, Detections, arrange, windows
from torchvision.models.detection.roi_heads import paste_masks_in_image

SIZE = (20, 31)
HALF = Decided(0.5, 0.5, 0)


def detections(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    """Detections whose masks are 1 all over their box."""
    return Detections(
        torch.tensor([row[2] for row in rows], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([row[0] for row in rows], dtype=torch.int64),
        torch.tensor([row[1] for row in rows], dtype=torch.float32),
        torch.ones(len(rows), 28, 28),
    )


def test_masks_are_pasted_as_torchvision_does():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(40, 2, generator=generator) * torch.tensor([40, 30]) - 5
    boxes = torch.cat([corners, corners + 0.1 + torch.rand(40, 2, generator=generator) * 20], 1)
    masks = torch.rand(40, 28, 28, generator=generator)
    expected = paste_masks_in_image(masks[:, None], boxes, SIZE)[:, 0].numpy()
    found = Detections(boxes, torch.arange(40), torch.ones(40), masks)
    pasted = np.zeros((40, *SIZE), np.float32)
    for index, _, place, probabilities in windows(found, SIZE):
        pasted[index][place] = probabilities
    assert (pasted.any((1, 2)) == expected.any((1, 2))).all()
    assert not pasted.any((1, 2)).all()  # some are outside of the image
    assert np.array_equal(pasted, expected)


def test_where_objects_of_a_class_overlap_the_better_one_has_the_pixel():
    found = detections((0, 0.9, (4, 4, 12, 12)), (1, 0.8, (6, 6, 14, 14)), (0, 0.7, (8, 4, 16, 12)))
    result = arrange(found, 3, SIZE, HALF)
    assert np.allclose(result.scores, [0.9, 0.8, 0])
    assert result.present.tolist() == [True, True, False]
    assert result.status == ("ok", "ok", "absent")
    first, second = ((result.instances[0] == number).sum() for number in (1, 2))
    assert first == 64
    assert second == 32
    assert (result.instances[1] == 1).sum() == 64
    assert np.array_equal(result.masks, result.instances > 0)
    assert np.allclose(result.points[0], [[7.5, 7.5, 0.9], [7.5, 13.5, 0.7]])
    assert result.points[2].shape == (0, 3)


def test_the_score_map_is_score_times_probability_of_the_best():
    result = arrange(detections((0, 0.8, (2, 2, 10, 10)), (0, 0.3, (6, 2, 20, 10))), 1, SIZE, HALF)
    assert result.score_map.values[0, 6, 8] == np.float32(0.8)
    assert result.score_map.values[0, 6, 16] == np.float32(0.3)
    assert result.score_map.values[0, 15, 25] == 0
    assert result.instances.max() == 1


def test_what_scores_less_than_its_class_must_does_not_count():
    found = detections((0, 0.6, (2, 2, 10, 10)), (1, 0.6, (2, 2, 10, 10)))
    result = arrange(found, 2, SIZE, Decided((0.5, 0.7), 0.5, 0))
    assert result.present.tolist() == [True, False]
    assert result.instances.any((1, 2)).tolist() == [True, False]
    assert [(one.name, round(one.value, 2)) for one in result.thresholds] == [
        ("presence of class 0", 0.5),
        ("presence of class 1", 0.7),
        ("mask", 0.5),
    ]


def test_small_objects_are_dropped_after_they_lost_what_they_shared():
    found = detections((0, 0.9, (4, 4, 12, 12)), (0, 0.8, (4, 4, 13, 12)), (0, 0.7, (20, 4, 28, 12)))
    result = arrange(found, 1, SIZE, Decided(0.5, 0.5, 10))
    assert np.unique(result.instances).tolist() == [0, 1, 2]
    assert np.allclose(result.points[0][:, 2], [0.9, 0.7])
    gone = arrange(found, 1, SIZE, Decided(0.5, 0.5, 1000))
    assert gone.status == ("empty",)
    assert gone.present.all()


@pytest.mark.parametrize("boxes", [[], [(40.0, 40.0, 50.0, 50.0)]])
def test_where_nothing_is_found_nothing_is_said(boxes):
    result = arrange(detections(*((0, 0.9, box) for box in boxes)), 2, SIZE, HALF)
    assert result.scores.tolist() == [0, 0]
    assert not result.instances.any()
    assert result.score_map.status == ("empty", "empty")
    assert all(points.shape == (0, 3) for points in result.points)
