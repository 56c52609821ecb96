"""How long does a random forest on ilastik's features take, compared with scipy's filters and scikit-image?

An image of 1024 x 1024. Features: our 56 (eight filters at seven scales) against the same by scipy.ndimage, each filter
called as documented, and against the 28 of scikit-image's `multiscale_basic_features`. From image to labels: the
method `forest` against `TrainableSegmenter`, which learn from the same pixels, each with 100 trees on its own features.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from micraframe_forest.features import SIGMAS, features
from scipy import ndimage
from skimage.feature import multiscale_basic_features
from skimage.future import TrainableSegmenter
from sklearn.ensemble import RandomForestClassifier

from benchmarks.speed.timing import Record, Settings, record, take_turns
from micraframe import pipeline
from micraframe.pipeline import Pipeline
from micraframe.types import BoolArray, DatasetInfo, FloatArray, Normalisation, Sample

TREES = 100
LABELLED = 20_000

peer_features = partial(multiscale_basic_features, sigma_min=min(SIGMAS), sigma_max=max(SIGMAS), num_sigma=len(SIGMAS))


def records(settings: Settings) -> list[Record]:
    """Return the speed-ups of features, and of images to labels."""
    image, mask = blobs(128 if settings.quick else 1024)
    return [*of_features(image, settings), *of_labels(image, mask, settings)]


def of_features(image: FloatArray, settings: Settings) -> list[Record]:
    """Measure the features of one image."""
    seconds = take_turns(
        {
            "ours": lambda: features(image[None]),
            "scipy": lambda: scipy_features(image),
            "peer": lambda: peer_features(image),
        },
        settings,
        warm_up=not settings.quick,
    )
    return [
        record("forest: features", "seconds: micraframe", seconds["ours"], "seconds"),
        record(
            "forest: features, scipy.ndimage",
            "scipy.ndimage / micraframe",
            seconds["scipy"] / seconds["ours"],
            target=">= 3",
        ),
        record(
            "forest: features, scikit-image",
            "scikit-image, half as many / micraframe",
            seconds["peer"] / seconds["ours"],
        ),
    ]


def of_labels(image: FloatArray, mask: BoolArray, settings: Settings) -> list[Record]:
    """Measure image to labels, and how many pixels each labels correctly."""
    rng = np.random.default_rng(0)
    ignore = np.ones(mask.size, np.bool_)
    ignore[rng.choice(mask.size, min(LABELLED, mask.size // 4), replace=False)] = False
    ignore = ignore.reshape(mask.shape)
    ours, peer = grow(image, mask, ignore), peer_segmenter(image, mask, ignore)

    def predict_ours() -> BoolArray:
        (prediction,) = ours.predict([image[None]])
        assert prediction.masks is not None
        return prediction.masks[0]

    def predict_peer() -> BoolArray:
        return np.asarray(peer.predict(image) == 2)

    seconds = take_turns({"ours": predict_ours, "peer": predict_peer}, settings, warm_up=not settings.quick)
    correct, peer_correct = (np.mean(one == mask) for one in (predict_ours(), predict_peer()))
    return [
        record("forest: image to labels", "seconds: micraframe", seconds["ours"], "seconds"),
        record(
            "forest: image to labels, scikit-image",
            "scikit-image's TrainableSegmenter / micraframe",
            seconds["peer"] / seconds["ours"],
        ),
        record(
            "forest: pixels labelled wrongly",
            "micraframe / scikit-image's TrainableSegmenter",
            [(1 - correct) / (1 - peer_correct)],
        ),
    ]


def grow(image: FloatArray, mask: BoolArray, ignore: BoolArray) -> Pipeline:
    """Return our forest."""
    sample = Sample("blobs", image[None], masks=mask[None], ignore=ignore)
    info = DatasetInfo("blobs", ("blob",), 1, Normalisation(), "0" * 64)
    return pipeline.fit({"name": "forest", "params": {"trees": TREES, "pixels": LABELLED}}, [sample], [], info)


def peer_segmenter(image: FloatArray, mask: BoolArray, ignore: BoolArray) -> TrainableSegmenter:
    """Return scikit-image's segmenter: label 1 is background, 2 blob, 0 not labelled."""
    forest = RandomForestClassifier(TREES, random_state=0, n_jobs=torch.get_num_threads())
    segmenter = TrainableSegmenter(clf=forest, features_func=peer_features)
    segmenter.fit(image, np.where(ignore, 0, mask + 1))
    return segmenter


def scipy_features(image: FloatArray) -> FloatArray:
    """Return the same features as ours, float32 (56, H, W), of an image (H, W)."""
    found = []
    for sigma in SIGMAS:
        smooth = partial(ndimage.gaussian_filter, sigma=sigma, mode="mirror")
        y, x = smooth(image, order=(1, 0)), smooth(image, order=(0, 1))
        yy, yx, xx = (smooth(image, order=order) for order in ((2, 0), (1, 1), (0, 2)))
        tensor = [ndimage.gaussian_filter(product, sigma / 2, mode="mirror") for product in (y * y, y * x, x * x)]
        found += [
            smooth(image),
            yy + xx,
            np.hypot(y, x),
            smooth(image) - ndimage.gaussian_filter(image, 0.66 * sigma, mode="mirror"),
        ]
        for a, b, c in (tensor, (yy, yx, xx)):
            spread = np.hypot((a - c) / 2, b)
            found += [(a + c) / 2 + spread, (a + c) / 2 - spread]
    return np.stack(found)


def blobs(side: int) -> tuple[FloatArray, BoolArray]:
    """Return a noisy image (side, side) of blobs of several sizes, and where they are."""
    rng = np.random.default_rng(0)
    field = sum(ndimage.gaussian_filter(rng.normal(size=(side, side)), sigma) * sigma for sigma in (3, 6, 12))
    mask = field > 1.0 * field.std()
    image = ndimage.gaussian_filter(mask.astype(np.float32), 1) + rng.normal(0, 0.5, mask.shape)
    return image.astype(np.float32), mask
