from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from micraframe_maskrcnn.targets import layers, number, outlined, pack, stack, unpack
from scipy import ndimage

from micraframe.objects import bounding_boxes
from micraframe.training.augmentation import Flip, QuarterTurns, Rotation, augment, draw
from micraframe.types import Sample

SIZE = (13, 17)


def sample(**annotation) -> Sample:
    return Sample("s", np.zeros((1, *SIZE), np.float32), **annotation)


def boxes(*several):
    return tuple(np.array(one, np.float32).reshape(-1, 4) for one in several)


def found(target, classes):
    """The objects of a target: (class, box as (y0, x0, y1, x1), area)."""
    objects = unpack(torch.from_numpy(target), classes)
    return sorted(
        (index, (y0, x0, y1, x1), int(mask.sum()))
        for index, (x0, y0, x1, y1), mask in zip(
            objects.classes.tolist(), objects.boxes.tolist(), objects.masks, strict=True
        )
    )


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_instances_keep_their_boxes_and_areas(classes, seed):
    labels = np.random.default_rng(seed).integers(0, 5, (classes, *SIZE)).astype(np.int32)
    numbered = number(labels)
    assert np.array_equal(numbered > 0, labels > 0)
    expected = sorted(
        (index, tuple(box.tolist()), int((plane == label).sum()))
        for index, plane in enumerate(labels)
        for label, box in zip(np.unique(plane[plane > 0]), bounding_boxes(plane[None])[0], strict=True)
    )
    assert found(pack(sample(instances=labels)), classes) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), *(st.integers(0, 12),) * 4), max_size=12))
def test_boxes_keep_their_areas_however_they_overlap(drawn):
    drawn = [(k, min(y, 11), min(x, 15), min(y, 11) + 1 + h % 5, min(x, 15) + 1 + w) for k, y, x, h, w in drawn]
    drawn = [(k, y0, x0, min(y1, SIZE[0]), min(x1, SIZE[1])) for k, y0, x0, y1, x1 in drawn]
    given_ = boxes(*([one[1:] for one in drawn if one[0] == index] for index in range(2)))
    expected = sorted((k, (y0, x0, y1, x1), (y1 - y0) * (x1 - x0)) for k, y0, x0, y1, x1 in drawn)
    assert found(pack(sample(boxes=given_)), 2) == expected


def test_every_pixel_of_the_image_that_a_box_touches_is_filled():
    packed = layers(boxes([[-3, 2.5, 4.2, 99], [20, 0, 30, 5], [-9, -9, -1, -1]]), SIZE)
    assert packed.shape == (1, *SIZE)
    expected = np.zeros(SIZE, bool)
    expected[:5, 2:] = True
    assert np.array_equal(packed[0] > 0, expected)
    assert layers(boxes([], []), SIZE).shape == (0, *SIZE)


def test_instances_are_preferred_to_boxes_and_boxes_to_masks():
    masks = np.zeros((1, *SIZE), bool)
    masks[0, 2:4, 2:4] = masks[0, 8:10, 2:4] = True
    one = masks.astype(np.int32)
    box = boxes([[1, 1, 6, 6]])
    assert found(pack(sample(masks=masks, boxes=box, instances=one)), 1) == [(0, (2, 2, 10, 4), 8)]
    assert found(pack(sample(masks=masks, boxes=box)), 1) == [(0, (1, 1, 6, 6), 25)]
    assert found(pack(sample(masks=masks)), 1) == [(0, (2, 2, 4, 4), 4), (0, (8, 2, 10, 4), 4)]


def test_a_component_beside_ignored_pixels_is_ignored():
    masks = np.zeros((1, *SIZE), bool)
    masks[0, 2:4, 2:4] = masks[0, 8:10, 2:4] = True
    ignore = np.zeros(SIZE, bool)
    ignore[10:, 4:] = True  # beside a corner
    labels, unknown = outlined(masks, ignore)
    assert np.array_equal(labels[0] > 0, masks[0] & (np.arange(13) < 6)[:, None])
    assert np.array_equal(unknown, masks[0] & (np.arange(13) > 6)[:, None])
    objects = unpack(torch.from_numpy(pack(sample(masks=masks, ignore=ignore))), 1)
    assert np.array_equal(objects.ignore.numpy(), ignore | unknown)
    assert len(objects.boxes) == 1
    # Instances have known outlines.
    known = unpack(torch.from_numpy(pack(sample(instances=labels * 0 + masks, ignore=ignore))), 1)
    assert np.array_equal(known.ignore.numpy(), ignore)
    assert len(known.boxes) == 1


def test_boxes_are_measured_after_augmentation():
    deep = np.zeros((5, *SIZE), np.int32)
    target = stack([pack(sample(boxes=boxes([[1, 2, 4, 9], [3, 5, 12, 7]]))), deep])[0]
    assert target.shape == (5, *SIZE)
    changes = (Flip(probability=1), QuarterTurns(probability=1))
    drawn = draw(changes, 1, torch.Generator().manual_seed(0))
    _, [changed] = augment(torch.zeros(1, 1, *SIZE), torch.from_numpy(target)[None], changes, drawn, [0])
    # Mirrored left-right and turned by 180 degrees: mirrored up-down.
    assert found(changed.numpy(), 1) == [(0, (1, 5, 10, 7), 18), (0, (9, 2, 12, 9), 21)]


def test_a_target_may_be_empty():
    empty = unpack(torch.from_numpy(pack(sample(masks=np.zeros((2, *SIZE), bool)))), 2)
    assert empty.boxes.shape == (0, 4)
    assert empty.masks.shape == (0, *SIZE)
    assert empty.classes.dtype == torch.int64


def test_an_object_and_its_mirror_image_are_two():
    labels = np.zeros((2, 64, 64), np.int32)
    labels[0, 2:8, 4:10], labels[1, 30:40, 30:40] = 1, 1
    upright = Sample("s", np.zeros((1, 64, 64), np.float32), instances=labels)
    packed = torch.from_numpy(pack(upright))[None]
    (turned,) = Rotation().follow(packed, torch.tensor([15.0]))
    pieces = [ndimage.label(plane)[1] for plane in turned[:-1].numpy()]
    assert pieces == [2, 1]
    objects = unpack(turned, 2, mirrored=True)
    assert objects.classes.tolist() == [0, 0, 1]
    assert all(ndimage.label(mask)[1] == 1 for mask in objects.masks.numpy())
    assert (objects.boxes[:, 2:] - objects.boxes[:, :2]).amax() < 15
    assert torch.equal(objects.masks.sum(0) > 0, (turned[:-1] > 0).any(0))
    nothing = unpack(torch.zeros((2, *SIZE), dtype=torch.int32), 1, mirrored=True)
    assert len(nothing.boxes) == len(nothing.masks) == 0
