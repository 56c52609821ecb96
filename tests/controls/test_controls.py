import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from micraframe.controls.centre_blob import centre_blob
from micraframe.controls.guess import prevalence
from micraframe.controls.intensity_otsu import intensity_map
from micraframe.controls.random_map import random_maps
from micraframe.errors import DataError, ModelError
from micraframe.registry import build
from micraframe.types import Annotation, DatasetInfo, Normalisation, Run, Sample

NAMES = ("intensity-otsu", "random-map", "centre-blob")
INFO = DatasetInfo("toy", ("rare", "common", "always"), 2, Normalisation(), "0")
LABELS = ([0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 1])


def image(seed=0, height=21, width=34):
    return np.random.default_rng(seed).random((2, height, width), np.float32)


TRAIN = [Sample(f"{i}", image(i), labels=np.array(labels, bool)) for i, labels in enumerate(LABELS)]


def fit(name, seed=0, **params):
    return build("method", name, **params).fit(TRAIN, (), INFO, Run(seed=seed))


def same(a, b):
    return (
        np.array_equal(a.scores, b.scores)
        and np.array_equal(a.masks, b.masks)
        and np.array_equal(a.score_map.values, b.score_map.values)
        and (a.status, a.present.tolist()) == (b.status, b.present.tolist())
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_control_learns_only_how_frequent_the_classes_are(name):
    assert build("method", name).learns_from == {Annotation.LABELS}
    found = next(fit(name).predict([image()]))
    assert found.scores.tolist() == [0.25, 0.5, 1]
    assert found.method == f"micraframe/{name}"
    with pytest.raises(DataError, match="'bare' has no labels"):
        build("method", name).fit([Sample("bare", image())], (), INFO, Run())
    with pytest.raises(DataError, match="no training samples"):
        prevalence([], INFO)


@pytest.mark.parametrize("name", NAMES)
def test_it_claims_all_classes_or_the_prevalent_ones(name):
    everything = next(fit(name).predict([image()]))
    assert everything.present.all()
    assert everything.masks.any((1, 2)).all()
    assert everything.status == ("ok", "ok", "ok")
    prevalent = next(fit(name, presence="prevalent").predict([image()]))
    assert prevalent.present.tolist() == [False, True, True]
    assert prevalent.masks.any((1, 2)).tolist() == [False, True, True]
    assert prevalent.status == ("absent", "ok", "ok")
    assert np.array_equal(prevalent.masks[1:], everything.masks[1:])


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_predicts_the_same(name, tmp_path):
    fitted = fit(name, seed=5)
    fitted.save(tmp_path / "a")
    fitted.save(tmp_path / "b")
    loaded = build("method", name).load(tmp_path / "a")
    assert same(next(fitted.predict([image()])), next(loaded.predict([image()])))
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    other = NAMES[NAMES.index(name) - 1]
    with pytest.raises(ModelError, match=f"holds a micraframe/{name}; a micraframe/{other} is wanted"):
        build("method", other).load(tmp_path / "a")


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_predicted_the_same_in_any_company(name):
    fitted = fit(name)
    images = [image(0), image(1, 7, 5), image(2)]
    together = list(fitted.predict(iter(images)))
    assert [found.masks.shape[1:] for found in together] == [(21, 34), (7, 5), (21, 34)]
    assert all(same(found, next(fitted.predict([one]))) for found, one in zip(together, images, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_any_size_and_no_contrast_have_a_prediction(name, size):
    found = next(fit(name).predict([np.full((2, *size), 0.3, np.float32)]))
    assert found.masks.shape == (3, *size)
    if name == "intensity-otsu":
        assert found.status == ("constant",) * 3
        assert not found.masks.any()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_other_channels_is_named(name):
    found = fit(name).predict([image(), image()[:1]])
    next(found)
    with pytest.raises(ModelError, match="image 1 has 1 channels; the model learned from images of 2"):
        next(found)


@pytest.mark.parametrize("polarity", ["bright", "dark", "auto"])
def test_intensity_is_cut_at_otsu_on_the_side_asked_for(polarity):
    picture = np.zeros((2, 12, 9), np.float32)
    picture[:, 2:5, 3:6] = 1
    structure = picture[0] > 0
    for flip in (False, True):
        shown = 1 - picture if flip else picture
        found = next(fit("intensity-otsu", polarity=polarity).predict([shown])).masks[0]
        right = polarity == "auto" or flip == (polarity == "dark")
        assert np.array_equal(found, structure if right else ~structure)


@given(st.integers(0, 99))
@settings(max_examples=20)
def test_maps_reach_from_zero_to_one(seed):
    picture = image(seed, 9, 14)
    blob = centre_blob(9, 14, 0.3)
    for values in (*random_maps(picture, 2, seed, 2.0), intensity_map(picture, "auto")):
        assert values.dtype == np.float32
        assert (values.min(), values.max()) == (0, 1)
    assert blob.min() > 0
    assert blob.max() == blob[4, 7] == blob[4, 6] <= 1


def test_random_maps_differ_by_seed_image_and_class():
    one = random_maps(image(0), 2, 0, 2.0)
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(one, random_maps(image(1), 2, 0, 2.0))
    assert not np.array_equal(one, random_maps(image(0), 2, 1, 2.0))
    assert np.array_equal(one, random_maps(np.asfortranarray(image(0)), 2, 0, 2.0))


def test_random_maps_are_smooth():
    values = random_maps(image(0, 128, 128), 1, 0, 6.0)[0]
    steps = np.abs(np.diff(values, axis=1)).mean()
    assert steps < 0.2 * np.abs(np.diff(random_maps(image(0, 128, 128), 1, 0, 0.0)[0], axis=1)).mean()


def test_the_blob_is_in_the_middle_and_of_the_area_asked_for():
    found = next(fit("centre-blob", threshold={"name": "percentile", "value": 80}).predict([image()]))
    assert ndimage.center_of_mass(found.masks[0]) == pytest.approx((10, 16.5))
    assert found.masks[0].mean() == pytest.approx(0.2, abs=0.01)
