import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from micraframe.config import Choice
from micraframe.controls.centre_blob import centre_blob
from micraframe.controls.intensity_otsu import intensity_map
from micraframe.controls.random_map import random_maps
from micraframe.errors import DataError
from micraframe.interfaces import Thresholds
from micraframe.pipeline import fit as fit_pipeline
from micraframe.pipeline import load
from micraframe.registry import build
from micraframe.thresholds import cut
from micraframe.tiling import Tiling
from micraframe.types import Annotation, DatasetInfo, FitContext, Normalisation, Sample

NAMES = ("intensity-otsu", "random-map", "centre-blob")
INFO = DatasetInfo("toy", ("rare", "common", "always"), 2, Normalisation(), "0")
LABELS = ([0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 1])


def image(seed=0, height=21, width=34):
    return np.random.default_rng(seed).random((2, height, width), np.float32)


TRAIN = [Sample(f"{i}", image(i), labels=np.array(labels, bool)) for i, labels in enumerate(LABELS)]


def fit(name, seed=0, head=None, tiling=None, **params):
    return fit_pipeline(Choice(name=name, params=params), TRAIN, (), INFO, FitContext(seed=seed), head, tiling)


def same(a, b):
    return (
        np.array_equal(a.scores.presence, b.scores.presence)
        and np.array_equal(a.masks, b.masks)
        and np.array_equal(a.scores.maps, b.scores.maps)
        and (a.status, a.present.tolist()) == (b.status, b.present.tolist())
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_control_learns_only_how_frequent_the_classes_are(name):
    assert build("method", name).learns_from == {Annotation.LABELS}
    model = fit(name).model
    assert model.prevalence.tolist() == [0.25, 0.5, 1]
    assert set(model.state()) == {"prevalence", "seed"}


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_all_classes_or_the_prevalent_ones(name):
    everything = next(fit(name).predict([image()]))
    assert everything.present.all()
    assert everything.masks.any((1, 2)).all()
    assert everything.status == ("ok", "ok", "ok")
    assert everything.scores.presence.tolist() == [1, 1, 1]
    prevalent = next(fit(name, presence="prevalent").predict([image()]))
    assert prevalent.scores.presence.tolist() == [0.25, 0.5, 1]
    assert prevalent.present.tolist() == [False, True, True]
    assert prevalent.masks.any((1, 2)).tolist() == [False, True, True]
    assert prevalent.status == ("absent", "ok", "ok")
    assert np.array_equal(prevalent.masks[1:], everything.masks[1:])


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_control_predicts_the_same(name, tmp_path):
    pipeline = fit(name, seed=5)
    pipeline.save(tmp_path / "a")
    pipeline.save(tmp_path / "b")
    assert same(next(pipeline.predict([image()])), next(load(tmp_path / "a").predict([image()])))
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (tmp_path / "b/weights.safetensors").read_bytes()
    prevalent = next(load(tmp_path / "a", presence="prevalent").predict([image()]))
    assert prevalent.present.tolist() == [False, True, True]


@pytest.mark.parametrize("name", NAMES)
def test_a_control_is_thresholded_tuned_and_tiled_like_any_method(name):
    pipeline = fit(name)
    (scores,) = pipeline.score([image()])
    (usual,) = pipeline.predict([image()])
    assert np.array_equal(usual.masks[1], cut(scores.maps[1], scores.maps[1], pipeline.head.params.mask_threshold))
    tuned = pipeline.with_thresholds(Thresholds(mask=0.25), "validation")
    assert np.array_equal(next(tuned.predict([image()])).masks, scores.maps > 0.25)
    assert next(tuned.predict([image()])).thresholds[-1].origin == "validation"
    large = image(0, 80, 150)
    (tiled,) = fit(name, tiling=Tiling(size=64, halo=16)).score([large])
    (whole,) = pipeline.score([large])
    assert tiled.maps.shape == whole.maps.shape
    assert not np.array_equal(tiled.maps, whole.maps)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_predicted_the_same_with_others_and_alone(name):
    pipeline = fit(name)
    images = [image(0), image(1, 7, 5), image(2)]
    together = list(pipeline.predict(iter(images)))
    assert [found.masks.shape[1:] for found in together] == [(21, 34), (7, 5), (21, 34)]
    assert all(same(found, next(pipeline.predict([one]))) for found, one in zip(together, images, strict=True))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 2)])
def test_images_of_any_size_and_without_contrast_have_a_prediction(name, size):
    found = next(fit(name).predict([np.full((2, *size), 0.3, np.float32)]))
    assert found.masks.shape == (3, *size)
    if name == "intensity-otsu":
        assert found.status == ("constant",) * 3
        assert not found.masks.any()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_with_other_channels_is_named(name):
    found = fit(name).predict([image(), image()[:1]])
    next(found)
    with pytest.raises(DataError, match="image 1: expected 2 channels, .* got 1"):
        next(found)


@pytest.mark.parametrize("polarity", ["bright", "dark", "auto"])
def test_intensity_is_thresholded_on_the_side_of_the_polarity(polarity):
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
def test_maps_range_from_zero_to_one(seed):
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


def test_the_blob_is_in_the_middle_and_has_the_area_of_its_threshold():
    head = Choice(name="semantic", params={"mask_threshold": {"name": "percentile", "value": 80}})
    found = next(fit("centre-blob", head=head).predict([image()]))
    assert ndimage.center_of_mass(found.masks[0]) == pytest.approx((10, 16.5))
    assert found.masks[0].mean() == pytest.approx(0.2, abs=0.01)


def test_the_prevalent_classes_are_the_best_constant_answer():
    labels = np.arange(1000) < 204
    train = [Sample(f"{i}", np.zeros((2, 1, 1), np.float32), labels=np.array([has])) for i, has in enumerate(labels)]
    info = DatasetInfo("toy", ("rare",), 2, Normalisation(), "0")
    metric = build("metric", "classification")
    accuracy = {}
    for presence in ("all", "prevalent"):
        choice = Choice(name="centre-blob", params={"presence": presence})
        pipeline = fit_pipeline(choice, train, (), info, FitContext())
        found = zip(pipeline.predict([sample.image for sample in train]), train, strict=True)
        accuracy[presence] = np.mean([metric.measure(*pair)["correct"][0] for pair in found])
    assert accuracy == pytest.approx({"all": 0.204, "prevalent": 0.796})


@pytest.mark.parametrize("name", NAMES)
def test_a_deterministic_control_does_not_depend_on_the_seed(name):
    one, other = (next(fit(name, seed=seed).predict([image()])) for seed in (0, 1))
    assert same(one, other) == build("method", name).deterministic == (name != "random-map")
