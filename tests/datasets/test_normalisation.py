from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from micraframe.datasets.normalisation import NormalisationParams, fit_normalisation
from micraframe.errors import DataError

IMAGES = [
    np.random.default_rng(n).normal([[[30_000]], [[30_500]]], 100 + 50 * n, (2, 5 + n, 7)).astype(np.float32)
    for n in range(3)
]


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_training_images_are_measured_together(per_channel: bool) -> None:
    pixels = np.concatenate([image.reshape(2, -1) for image in IMAGES], axis=1).astype(float)
    pixels = pixels if per_channel else pixels.reshape(1, -1)
    wanted = {
        "min-max": (pixels.min(1), pixels.max(1) - pixels.min(1)),
        "mean-sd": (pixels.mean(1), pixels.std(1)),
    }
    for kind, (offset, scale) in wanted.items():
        normalisation = fit_normalisation(
            NormalisationParams(kind=kind, scope="train", per_channel=per_channel, clip=True), iter(IMAGES)
        )
        # Standardised images are not clipped, as they are not where each image is measured.
        assert (normalisation.kind, normalisation.clip) == ("fixed", kind != "mean-sd")
        np.testing.assert_allclose(normalisation.offset, offset, rtol=1e-9)
        np.testing.assert_allclose(normalisation.scale, scale, rtol=1e-6)


def test_percentiles_are_the_median_images() -> None:
    low, high = (np.median([np.percentile(image.astype(float), q) for image in IMAGES]) for q in (5, 90))
    normalisation = fit_normalisation(NormalisationParams(kind="percentile", scope="train", low=5, high=90), IMAGES)
    assert normalisation.offset == (pytest.approx(low),)
    assert normalisation.scale == (pytest.approx(high - low),)


def test_other_normalisations_look_at_no_image() -> None:
    def images() -> object:
        raise AssertionError("an image was read")
        yield

    for wanted in (
        NormalisationParams(),
        NormalisationParams(kind="fixed", scope="train", offset=(1, 2), scale=(3, 4)),
    ):
        normalisation = fit_normalisation(wanted, images())
        assert normalisation.kind == wanted.kind
        assert normalisation.offset == wanted.offset


def test_what_cannot_be_measured_is_refused() -> None:
    wanted = NormalisationParams(kind="mean-sd", scope="train")
    with pytest.raises(DataError, match="constant"):
        fit_normalisation(wanted, [np.ones((1, 3, 3), np.float32)])
    with pytest.raises(DataError, match="expected training images, got none"):
        fit_normalisation(wanted, [])
    with pytest.raises(ValidationError, match="low < high"):
        NormalisationParams(low=50, high=50)
    with pytest.raises(ValidationError, match="non-zero scales"):
        NormalisationParams(scale=(1, 0))
