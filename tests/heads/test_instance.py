import numpy as np
import pytest

FIXED = {"name": "fixed", "value": 0.5}


def touching():
    """Two cells side by side that touch in column 8, and the map of where they touch."""
    cells, contact = np.zeros((2, 12, 17), np.float32)
    cells[3:9, 2:15] = 0.9
    contact[2:10, 8] = 0.8
    return cells, contact


@pytest.mark.parametrize("contact_map", ["coarse", "combined"])
def test_the_contact_map_separates_objects_that_touch(decide, contact_map):
    cells, contact = touching()
    whole = decide("instance", [cells, contact], [0.9, 0.9], mask_threshold=FIXED)
    assert whole.instances[0].max() == 1
    maps = (cells, contact if contact_map == "combined" else np.zeros_like(contact))
    cut = decide(
        "instance",
        maps,
        [0.9, 0.9],
        coarse=[cells, contact],
        contact=1,
        contact_map=contact_map,
        mask_threshold=FIXED,
    )
    assert cut.instances[0].max() == 2
    assert len({cut.instances[0, 5, 4], cut.instances[0, 5, 12], 0}) == 3
    assert not cut.instances[0, :, 8].any()
    assert np.array_equal(cut.masks, cut.instances > 0)
    assert cut.masks[1].any() == (contact_map == "combined")


def test_without_a_coarse_map_the_combined_one_is_subtracted(decide):
    cells, contact = touching()
    found = decide("instance", [contact, cells], [0.9, 0.9], contact=0, mask_threshold=FIXED)
    assert found.instances[1].max() == 2
    assert found.instances[0].max() == 1


def test_nothing_is_subtracted_from_an_image_without_contact(decide):
    cells, contact = touching()
    found = decide("instance", [cells, contact], [0.9, 0.1], contact=1, mask_threshold=FIXED)
    assert found.instances[0].max() == 1
    assert found.status == ("ok", "absent")
    assert not found.instances[1].any()


def test_nothing_is_subtracted_if_the_head_says_so(decide):
    cells, contact = touching()
    maps, presence = [cells, contact], [0.9, 0.9]
    found = decide("instance", maps, presence, contact=1, contact_map="none", mask_threshold=FIXED)
    assert np.array_equal(found.instances, decide("instance", maps, presence, mask_threshold=FIXED).instances)


def test_the_default_threshold_ignores_zero_pixels(decide):
    values = np.zeros((30, 30))
    values[2:12, 2:12] = 0.3
    values[4:8, 4:8] = 0.9
    assert decide("instance", [values], [0.9]).masks.sum() == 16


def test_watershed_cuts_at_the_neck(decide):
    y, x = np.mgrid[:30, :50]
    discs = ((y - 15) ** 2 + (x - 15) ** 2 < 100) | ((y - 15) ** 2 + (x - 33) ** 2 < 100)
    values = [discs * 0.9]
    assert decide("instance", values, [0.9], mask_threshold=FIXED).instances.max() == 1
    assert decide("instance", values, [0.9], mask_threshold=FIXED, split="watershed").instances.max() == 2


def test_small_objects_are_removed_and_numbers_have_no_gaps(decide):
    values = np.zeros((10, 20))
    values[1, 1] = values[3:6, 3:6] = values[3:6, 10:14] = 0.9
    found = decide("instance", [values], [0.9], mask_threshold=FIXED, minimum_size=2)
    assert sorted(np.unique(found.instances)) == [0, 1, 2]
    assert decide("instance", [values], [0.9], mask_threshold=FIXED, minimum_size=13).status == ("empty",)


@pytest.mark.parametrize("level", [0, 0.5, 1])
def test_maps_without_contrast_give_no_object(decide, level):
    found = decide("instance", np.full((2, 9, 7), level), [0.9, 0.9], contact=1, split="watershed")
    assert not found.instances.any()
    assert found.status == ("empty", "empty")
