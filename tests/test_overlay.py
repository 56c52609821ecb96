from __future__ import annotations

import numpy as np

from micraframe.overlay import COLOURS, overlay


def outlined(picture: np.ndarray, index: int = 0) -> list[list[int]]:
    return (picture == COLOURS[index]).all(axis=2).astype(int).tolist()


def test_a_mask_is_tinted_inside_and_opaque_at_its_edge_and_at_the_border() -> None:
    mask = np.zeros((1, 5, 5), np.bool_)
    mask[0, :4, 1:4] = True
    picture = overlay(np.zeros((1, 5, 5), np.float32), mask)
    assert outlined(picture) == [
        [0, 1, 1, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 0, 1, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0],
    ]
    assert picture[1, 2].tolist() == np.round(0.35 * np.array(COLOURS[0])).tolist()
    assert not picture[4].any()


def test_objects_that_touch_have_an_outline_each() -> None:
    objects = np.zeros((2, 5, 8), np.int32)
    objects[1, :, :4], objects[1, :, 4:] = 1, 2
    picture = overlay(np.zeros((1, 5, 8), np.float32), objects > 0, objects)
    assert outlined(picture, 1)[2] == [1, 0, 0, 1, 1, 0, 0, 1]
    assert outlined(overlay(np.zeros((1, 5, 8), np.float32), objects > 0), 1)[2] == [1, 0, 0, 0, 0, 0, 0, 1]


def test_a_mask_without_a_number_is_outlined_too() -> None:
    mask, objects = np.ones((1, 5, 8), np.bool_), np.zeros((1, 5, 8), np.int32)
    objects[0, :, :4] = 1
    assert outlined(overlay(np.zeros((1, 5, 8), np.float32), mask, objects))[2] == [1, 0, 0, 1, 1, 0, 0, 1]
