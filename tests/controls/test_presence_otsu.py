"""Presence by a classifier, masks by Otsu of the image, and the contrast chosen by labels alone."""

from __future__ import annotations

import numpy as np
import pytest

from micraframe.config import Choice
from micraframe.controls.presence_otsu import (
    CONTRASTS,
    ContrastName,
    choose_contrast,
    choose_contrasts,
    contrast_map,
)
from micraframe.errors import ConfigError
from micraframe.pipeline import Pipeline, load
from micraframe.pipeline import fit as fit_pipeline
from micraframe.registry import build
from micraframe.types import Annotation, BoolArray, DatasetInfo, FitContext, FloatArray, Normalisation, Sample

INFO = DatasetInfo("toy", ("bright", "dark", "deviation"), 1, Normalisation(), "0")
CLASSIFIER = {
    "name": "micra-net",
    "params": {
        "backbone": {"name": "unet-encoder", "params": {"widths": [8, 16]}},
        "dropout": 0.0,
        "training": {"epochs": 12, "batch_size": 8, "learning_rate": 1.0e-2, "early_stopping": None},
    },
}


def picture(index: int, contrast: ContrastName | None) -> tuple[FloatArray, BoolArray]:
    """Return an image of noise, with a disc that is brighter, darker, or noisier than the rest; and the disc."""
    generator = np.random.default_rng(index)
    y, x = np.mgrid[:40, :44]
    disc = np.hypot(y - generator.integers(12, 28), x - generator.integers(12, 32)) < 9
    image = 0.5 + generator.normal(0, 0.03, disc.shape)
    if contrast == "deviation":
        image += disc * generator.normal(0, 0.2, disc.shape)
    elif contrast:
        image += 0.3 * disc * (1 if contrast == "bright" else -1)
    return image.astype(np.float32)[None], disc


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_the_contrast_is_chosen_by_labels_and_finds_the_structure(contrast: ContrastName) -> None:
    containing = [picture(index, contrast) for index in range(8)]
    lacking = [picture(index, None)[0] for index in range(8, 16)]
    assert choose_contrast([image for image, _ in containing], lacking, 3) == contrast
    model = fit([Sample(str(i), image, labels=np.full(3, i < 8)) for i, image in enumerate(images(contrast))])
    assert [CONTRASTS[index] for index in model.model.contrasts] == [contrast] * 3
    for image, disc in containing:
        (prediction,) = model.predict([image])
        mask = prediction.masks[0]
        assert np.count_nonzero(mask & disc) / np.count_nonzero(mask | disc) > (
            0.55 if contrast == "deviation" else 0.9
        )


def images(contrast: ContrastName) -> list[FloatArray]:
    return [picture(index, contrast if index < 8 else None)[0] for index in range(16)]


def fit(train: list[Sample], **params: object) -> Pipeline:
    """Fit with a classifier that knows no more than how frequent the classes are."""
    constant = {"name": "intensity-otsu", "params": {"presence": "all"}}
    choice = Choice(name="presence-otsu", params={"classifier": constant, "radius": 3, **params})
    return fit_pipeline(choice, train, train, INFO, FitContext(device="cpu"))


def test_each_class_has_its_own_contrast() -> None:
    kinds = [*CONTRASTS, None] * 6
    samples = [
        Sample(str(i), picture(i, kind)[0], labels=np.array([kind == each for each in CONTRASTS]))
        for i, kind in enumerate(kinds)
    ]
    assert [CONTRASTS[index] for index in choose_contrasts(samples, 3)] == list(CONTRASTS)


def test_where_labels_never_differ_there_is_still_a_choice() -> None:
    pictures = images("dark")[:8]
    # No image lacks the class: most of their pixels are background all the same.
    assert choose_contrast(pictures, [], 3) == "dark"
    assert choose_contrast([], pictures, 3) == "bright"
    flat = [np.full((1, 9, 9), 0.5, np.float32)]
    assert choose_contrast(flat, flat, 3) == "bright"


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_maps_of_any_image_are_in_range(contrast: ContrastName) -> None:
    for shift, scale in ((0, 1), (-70, 5), (1e4, 1e-2)):
        values = contrast_map(picture(0, "bright")[0] * np.float32(scale) + np.float32(shift), contrast, 2)
        assert values.dtype == np.float32
        assert 0 <= values.min() < values.max() == 1
    assert not contrast_map(np.full((2, 7, 5), 0.1, np.float32), contrast, 2).any()


def test_deviation_is_the_standard_deviation_in_a_square() -> None:
    image = picture(3, "deviation")[0]
    slow = np.array([[image[0, y - 2 : y + 3, x - 2 : x + 3].std() for x in range(2, 42)] for y in range(2, 38)])
    found = contrast_map(image, "deviation", 2)[2:-2, 2:-2]
    assert found / found.max() == pytest.approx(slow / slow.max(), abs=1e-5)


def test_a_classifier_learned_from_labels_decides_presence(tmp_path) -> None:
    samples = [
        Sample(str(i), picture(i, "bright" if i % 2 else None)[0], labels=np.array([i % 2 == 1])) for i in range(48)
    ]
    info = DatasetInfo("toy", ("disc",), 1, Normalisation(), "0")
    assert build("method", "presence-otsu").learns_from == {Annotation.LABELS}
    choice = Choice(name="presence-otsu", params={"classifier": CLASSIFIER})
    pipeline = fit_pipeline(choice, samples[:32], samples[32:40], info, FitContext(device="cpu", precision="float32"))
    test = samples[40:]
    found = list(pipeline.predict([sample.image for sample in test]))
    assert [prediction.present[0] for prediction in found] == [sample.labels[0] for sample in test]
    for number, prediction in enumerate(found, start=40):
        disc = picture(number, None)[1] & prediction.present[0]
        assert np.count_nonzero(prediction.masks[0] ^ disc) <= 0.1 * np.count_nonzero(disc)
    pipeline.save(tmp_path / "model")
    dark = next(load(tmp_path / "model", "cpu", contrast="dark").predict([test[1].image]))
    assert np.count_nonzero(dark.masks[0] & found[1].masks[0]) == 0
    assert dark.scores.presence.tolist() == pytest.approx(found[1].scores.presence.tolist())


def test_a_classifier_that_does_not_learn_from_labels_is_refused() -> None:
    refused = "classifier: expected a method that learns from labels, got 'micraframe-unet/unet'"
    with pytest.raises(ConfigError, match=refused):
        build("method", "presence-otsu", classifier={"name": "micraframe-unet/unet"})
