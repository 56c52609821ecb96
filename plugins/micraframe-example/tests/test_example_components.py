"""What the example's components compute, and that they work together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from micraframe_example.combiner import StretchedMean
from micraframe_example.metric import AreaDifference

from micraframe import build, pipeline
from micraframe.config import Choice
from micraframe.metrics.reduction import stack, summarise
from micraframe.parameters import Parameters
from micraframe.testing import full_samples
from micraframe.types import FitContext, Layer, Maps, Prediction, Scores


def test_the_dataset_has_a_disc_in_two_of_three_images():
    dataset = build("dataset", "micraframe-example/discs", images=9, valid=0, test=0, normalisation={"kind": "none"})
    samples = list(dataset.samples("train"))
    assert [sample.labels.tolist() for sample in samples] == [[False], [True], [True]] * 3
    for sample in samples:
        assert sample.masks.sum() == pytest.approx(np.pi * 7**2 * sample.labels[0], rel=0.1)
        np.testing.assert_array_equal(sample.image > 0.45, sample.masks)


def test_the_dataset_can_be_cut_into_crops():
    dataset = build("dataset", "micraframe-example/discs", crop=32)
    assert dataset.info().image_size == (32, 32)
    assert {sample.image.shape for sample in dataset.samples("train")} == {(1, 32, 32)}


@pytest.mark.parametrize("width", [1, 8])
def test_the_backbone_describes_its_layers(width):
    network, layers = build("backbone", "micraframe-example/two-convolutions", width=width).create(2)
    activations = network(torch.zeros(3, 2, 33, 48))
    for layer, activation in zip(layers, activations, strict=True):
        assert activation.shape == (3, layer.channels, 33 // layer.stride, 48 // layer.stride)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_combiner_is_the_mean_of_stretched_layers(power):
    fine, coarse = np.array([[0, 2], [-1, 4]], np.float32), np.array([[3]], np.float32)
    layers = (Layer("fine", 1, 1), Layer("coarse", 1, 2))
    maps = Maps((2, 2), (0,), layers, (fine[None], coarse[None]), np.array([0.9], np.float32))
    scores = StretchedMean(StretchedMean.Params(power=power)).combine(maps, np.zeros((1, 2, 2), np.float32))
    # The coarse layer has one value, so no contrast.
    np.testing.assert_allclose(scores.maps[0], np.array([[0, 0.25], [0, 0.5]]) ** power)


def test_the_metric_leaves_out_ignored_pixels():
    sample = full_samples(1)[0]
    ignore = np.zeros(sample.image.shape[1:], bool)
    ignore[:24] = True
    scores = Scores.without_maps(np.ones(2, np.float32), ignore.shape)
    prediction = Prediction(scores, sample.labels, np.zeros_like(sample.masks))
    metric = AreaDifference(Parameters())
    measured = metric.measure(prediction, replace(sample, ignore=ignore))["area_difference"]
    assert measured.tolist() == (sample.masks[:, 24:].sum((1, 2)) / ignore.size).tolist()


def test_they_work_together():
    dataset = build("dataset", "micraframe-example/discs")
    names = {"backbone": "micraframe-example/two-convolutions", "combiner": "micraframe-example/stretched-mean"}
    train, valid, test = (list(dataset.samples(split)) for split in ("train", "valid", "test"))
    context = FitContext(device="cpu", precision="float32")
    method = Choice(name="micra-net", params={**names, "training": {"epochs": 1}})
    trained = pipeline.fit(method, train, valid, dataset.info(), context)
    metric = build("metric", "micraframe-example/area-difference")
    pairs = zip(trained.predict(sample.image for sample in test), test, strict=True)
    (column,) = summarise(metric, stack([metric.measure(*pair) for pair in pairs], 1))
    assert not column.column.higher_is_better
    assert 0 <= column.per_class[0] <= 1
