import numpy as np
import pytest

from micraframe.errors import ConfigError
from micraframe.registry import build
from micraframe.types import ScoreMap

FIXED = {"name": "fixed", "value": 0.5}


def score_map(values, coarse=None):
    values = np.array(values, np.float32)
    coarse = values if coarse is None else np.array(coarse, np.float32)
    return ScoreMap(tuple(range(len(values))), values, coarse, ("ok",) * len(values))


def decide(found, scores, **params):
    image = np.zeros((1, *found.values.shape[1:]), np.float32)
    return build("head", "instance", **params).decide(found, np.array(scores, np.float32), image)


def touching():
    """Two cells side by side that touch in column 8, and the map of where they touch."""
    cells, contact = np.zeros((2, 12, 17), np.float32)
    cells[3:9, 2:15] = 0.9
    contact[2:10, 8] = 0.8
    return cells, contact


@pytest.mark.parametrize("contact_map", ["coarse", "values"])
def test_the_contact_map_cuts_what_touches(contact_map):
    cells, contact = touching()
    whole = decide(score_map([cells, contact]), [0.9, 0.9], threshold=FIXED)
    assert whole.instances[0].max() == 1
    both = (cells, contact) if contact_map == "values" else (cells, np.zeros_like(contact))
    cut = decide(score_map(both, [cells, contact]), [0.9, 0.9], contact=1, contact_map=contact_map, threshold=FIXED)
    assert cut.instances[0].max() == 2
    assert len({cut.instances[0, 5, 4], cut.instances[0, 5, 12], 0}) == 3
    assert not cut.instances[0, :, 8].any()
    assert np.array_equal(cut.masks, cut.instances > 0)
    assert cut.masks[1].any() == (contact_map == "values")


def test_without_contact_in_the_image_nothing_is_taken_off():
    cells, contact = touching()
    found = decide(score_map([cells, contact]), [0.9, 0.1], contact=1, threshold=FIXED)
    assert found.instances[0].max() == 1
    assert found.status == ("ok", "absent")
    assert not found.instances[1].any()


def test_a_contact_class_that_is_not_there_is_named():
    head = build("head", "instance", contact=2)
    with pytest.raises(ConfigError, match="contact class 2 of 2 classes"):
        head.wanted(np.array([0.9, 0.9], np.float32))
    assert build("head", "instance", contact=1).wanted(np.array([0.9, 0.4, 0.5], np.float32)) == (0, 2)


def test_otsu_is_of_the_non_zero_pixels():
    values = np.zeros((30, 30))
    values[2:12, 2:12] = 0.3
    values[4:8, 4:8] = 0.9
    assert decide(score_map([values]), [0.9]).masks.sum() == 16


def test_watershed_cuts_at_the_waist():
    y, x = np.mgrid[:30, :50]
    discs = ((y - 15) ** 2 + (x - 15) ** 2 < 100) | ((y - 15) ** 2 + (x - 33) ** 2 < 100)
    values = [discs * 0.9]
    assert decide(score_map(values), [0.9], threshold=FIXED).instances.max() == 1
    assert decide(score_map(values), [0.9], threshold=FIXED, split="watershed").instances.max() == 2


def test_small_objects_are_dropped_and_numbers_have_no_gaps():
    values = np.zeros((10, 20))
    values[1, 1] = values[3:6, 3:6] = values[3:6, 10:14] = 0.9
    found = decide(score_map([values]), [0.9], threshold=FIXED, minimum_size=2)
    assert sorted(np.unique(found.instances)) == [0, 1, 2]
    assert decide(score_map([values]), [0.9], threshold=FIXED, minimum_size=13).status == ("empty",)


@pytest.mark.parametrize("level", [0, 0.5, 1])
def test_maps_without_contrast_give_no_object(level):
    values = np.full((2, 9, 7), level)
    found = decide(score_map(values), [0.9, 0.9], contact=1, split="watershed")
    assert not found.instances.any()
    assert found.status == ("empty", "empty")
