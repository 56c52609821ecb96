from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from micraframe_forest.method import image_scores

from micraframe import build
from micraframe.errors import ConfigError, DataError, ModelError
from micraframe.modelfile import load_model, save_model
from micraframe.testing import check, full_samples
from micraframe.tiling import Tiling, predict
from micraframe.types import DatasetInfo, Normalisation, Run

INFO = DatasetInfo("shapes", ("disc", "square"), 1, Normalisation(), "0" * 64)
QUICK = {"trees": 10, "pixels": 2000}


def annotated(name, **params):
    annotator = build("annotator", name, **params)
    method = build("method", "forest")
    return [annotator.annotate(sample, 1)[0].keep(method.learns_from) for sample in full_samples(10)]


def fit(samples, info=INFO, seed=0, **params):
    return build("method", "forest", **QUICK | params).fit(samples, [], info, Run(seed=seed))


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


def test_image_level_labels_are_not_enough():
    with pytest.raises(DataError, match="image-level labels are not enough"):
        fit(annotated("image-level"))


def test_saved_and_loaded_says_the_same_to_the_last_bit(tmp_path):
    fitted = fit(annotated("scribbles"))
    fitted.save(tmp_path / "model")
    loaded = build("method", "forest", area=3, head="instance").load(tmp_path / "model")
    images = [sample.image for sample in full_samples(3)] + [np.zeros((1, 1, 7), np.float32)]
    for image, one, other in zip(images, fitted.predict(images), loaded.predict(images), strict=True):
        assert one.score_map.values.tobytes() == other.score_map.values.tobytes()
        assert one.score_map.values.shape[1:] == image.shape[1:]
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
    with pytest.raises(ModelError, match="has 1 channels"):
        list(fitted.predict([full_samples(1)[0].image]))
    with pytest.raises(DataError, match="has 2 channels; the dataset's have 1"):
        fit(samples)


def test_a_model_of_another_method_or_of_other_features_is_refused(tmp_path):
    fit(annotated("full")).save(tmp_path / "forest")
    other = (0.3, 0.7, 1, 1.6, 3.5, 5, 11)
    with pytest.raises(ModelError, match="at sigmas .* 10.0]; the method that loads it has .* 11.0]"):
        build("method", "forest", sigmas=other).load(tmp_path / "forest")
    saved = load_model(tmp_path / "forest")
    save_model(tmp_path / "forest", dataclasses.replace(saved, info=dataclasses.replace(INFO, channels=2)))
    with pytest.raises(ModelError, match=r"is of \(56, 2\) features and classes; \(112, 2\) are wanted"):
        build("method", "forest").load(tmp_path / "forest")
    samples = [sample.keep(build("method", "random-map").learns_from) for sample in full_samples(2)]
    build("method", "random-map").fit(samples, [], INFO, Run()).save(tmp_path / "control")
    with pytest.raises(ModelError, match="holds a micraframe/random-map"):
        build("method", "forest").load(tmp_path / "control")


def test_image_scores_are_what_an_area_reaches():
    values = np.zeros((2, 5, 6), np.float32)
    values[0, 0, :4] = [0.9, 0.8, 0.7, 0.6]
    assert image_scores(values, 3).tolist() == pytest.approx([0.7, 0])
    assert image_scores(values, 1).tolist() == pytest.approx([0.9, 0])
    assert image_scores(values, 31).tolist() == [0, 0]


@pytest.mark.parametrize("params", [{"sigmas": []}, {"sigmas": [0]}, {"trees": 0}, {"area": 0}, {"colour": 1}])
def test_wrong_parameters(params):
    with pytest.raises(ConfigError):
        build("method", "forest", **params)


def test_in_tiles_it_says_what_it_says_of_the_whole():
    fitted = fit(annotated("full"), sigmas=[0.7, 1.6])
    image = np.tile(full_samples(1)[0].image, (1, 3, 4))[:, :130, :171]
    (whole,) = fitted.predict([image])
    (tiled,) = predict(fitted, [image], Tiling(size=96, halo=32))
    # Sums of other lengths differ in their last bits, on which a tree may decide otherwise.
    assert (np.abs(tiled.score_map.values - whole.score_map.values) > 1e-3).mean() < 1e-3
    assert tiled.scores.tolist() == image_scores(tiled.score_map.values, 20).tolist()
