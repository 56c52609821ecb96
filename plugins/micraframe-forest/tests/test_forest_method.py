from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from micraframe_forest.method import presence

from micraframe import build, pipeline
from micraframe.config import Choice
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.modelfile import load_model, save_model
from micraframe.testing import check, full_samples
from micraframe.tiling import Tiling
from micraframe.types import DatasetInfo, FitContext, Normalisation

INFO = DatasetInfo("shapes", ("disc", "square"), 1, Normalisation(), "0" * 64)
QUICK = {"trees": 10, "pixels": 2000}


def annotated(name, **params):
    annotator = build("annotator", name, **params)
    method = build("method", "forest")
    return [annotator.annotate(sample, 1)[0].keep(method.learns_from) for sample in full_samples(10)]


def fit(samples, info=INFO, seed=0, **params):
    return pipeline.fit(Choice(name="forest", params=QUICK | params), samples, [], info, FitContext(seed=seed))


def overlap(fitted):
    samples = full_samples(14)[10:]
    found = np.stack([prediction.masks for prediction in fitted.predict(sample.image for sample in samples)])
    truth = np.stack([sample.masks for sample in samples])
    # Both shapes are equally bright: what a small forest must find is both together.
    one, other = found.any(1), truth.any(1)
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_conformance():
    check("method", "forest", trees=5, pixels=500)


def test_listing_loads_nothing_heavy():
    code = "import sys, micraframe_forest; print(*{'numpy', 'cv2', 'sklearn', 'torch', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(
    ("annotator", "params", "least"),
    [
        ("full", {}, 0.9),
        ("scribbles", {}, 0.7),
        ("boxes", {}, 0.6),
        ("points", {"background_distance": 12}, 0.6),
    ],
)
def test_it_learns_from(annotator, params, least):
    assert overlap(fit(annotated(annotator), **params)) >= least


def test_what_ignored_pixels_are_annotated_as_does_not_matter():
    samples = [
        dataclasses.replace(
            sample, instances=None, ignore=np.random.default_rng(0).random(sample.image.shape[1:]) < 0.3
        )
        for sample in full_samples(6)
    ]
    flipped = [dataclasses.replace(sample, masks=sample.masks ^ sample.ignore) for sample in samples]
    whole = [dataclasses.replace(sample, ignore=None) for sample in samples]
    one, other, different = (
        {name: tensor.numpy().tobytes() for name, tensor in fit(given).model.state().items()}
        for given in (samples, flipped, whole)
    )
    assert one == other != different


def test_image_level_labels_are_not_enough():
    with pytest.raises(DataError, match="expected points or boxes or masks or instances, .* got no annotation"):
        fit(annotated("image-level"))


def test_a_saved_forest_gives_the_same_bits_with_another_area_and_head(tmp_path):
    fitted = fit(annotated("scribbles"))
    fitted.save(tmp_path / "model")
    loaded = pipeline.load(tmp_path / "model", area=3, head="instance")
    images = [sample.image for sample in full_samples(3)] + [np.zeros((1, 1, 7), np.float32)]
    for image, one, other in zip(images, fitted.predict(images), loaded.predict(images), strict=True):
        assert one.scores.maps.tobytes() == other.scores.maps.tobytes()
        assert one.scores.size == image.shape[1:]
        assert one.scores.presence.tolist() == presence(one.scores.maps, 16).tolist()
        assert other.scores.presence.tolist() == presence(one.scores.maps, 3).tolist()
        assert other.instances is not None
    assert fitted.info == loaded.info


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        fit(annotated("scribbles"), seed=seed).save(tmp_path / name)
    one, two, other = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two", "other"))
    assert one == two
    assert one != other


def test_several_channels_of_odd_size():
    samples = [
        dataclasses.replace(
            sample,
            image=np.concatenate([np.zeros_like(sample.image), sample.image])[:, :, 1:].copy(),
            masks=sample.masks[:, :, 1:].copy(),
            instances=None,
            points=None,
            boxes=None,
        )
        for sample in full_samples(4)
    ]
    fitted = fit(samples, dataclasses.replace(INFO, channels=2))
    (prediction,) = fitted.predict([samples[0].image])
    assert prediction.masks.shape == (2, 48, 47)


def test_learned_parameters_cannot_be_overridden(tmp_path):
    fit(annotated("full")).save(tmp_path / "forest")
    with pytest.raises(ConfigError, match="only area and the head can"):
        pipeline.load(tmp_path / "forest", sigmas=[0.3, 0.7, 1, 1.6, 3.5, 5, 11])
    saved = load_model(tmp_path / "forest")
    save_model(tmp_path / "forest", dataclasses.replace(saved, info=dataclasses.replace(INFO, channels=2)))
    with pytest.raises(ModelError, match=r"forest: .* expected a forest with \(112, 2\) .*, got \(56, 2\)"):
        pipeline.load(tmp_path / "forest")


def test_presence_is_the_probability_that_an_area_reaches():
    values = np.zeros((2, 5, 6), np.float32)
    values[0, 0, :4] = [0.9, 0.8, 0.7, 0.6]
    assert presence(values, 3).tolist() == pytest.approx([0.7, 0])
    assert presence(values, 1).tolist() == pytest.approx([0.9, 0])
    assert presence(values, 31).tolist() == [0, 0]


@pytest.mark.parametrize("params", [{"sigmas": []}, {"sigmas": [0]}, {"trees": 0}, {"area": 0}, {"colour": 1}])
def test_wrong_parameters(params):
    with pytest.raises(ConfigError):
        build("method", "forest", **params)


def test_tiles_give_the_maps_of_the_whole_image():
    fitted = fit(annotated("full"), sigmas=[0.7, 1.6], area=20)
    image = np.tile(full_samples(1)[0].image, (1, 3, 4))[:, :130, :171]
    (whole,) = fitted.score([image])
    (tiled,) = dataclasses.replace(fitted, tiling=Tiling(size=96, halo=32)).score([image])
    # Sums over other lengths differ in their last bits, which can send a pixel to another leaf.
    assert (np.abs(tiled.maps - whole.maps) > 1e-3).mean() < 1e-3
    assert tiled.presence.tolist() == presence(tiled.maps, 20).tolist()
