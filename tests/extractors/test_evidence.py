"""The evidence of a classifier, and the probabilities that combiner `evidence` makes of it."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from micraframe import pipeline, registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.combiners.evidence import EvidenceProbability
from micraframe.errors import ModelError
from micraframe.micranet import MicraNetModel
from micraframe.pooling import LogSumExp
from micraframe.testing import full_samples
from micraframe.types import Annotation, DatasetInfo, FitContext, Layer, Maps, Normalisation
from micraframe.upsampling import upsample

PARAMS: dict[str, Any] = {
    "backbone": {"name": "unet", "params": {"widths": [2, 3]}},
    "dropout": 0,
    "pooling": {"kind": "log-sum-exp", "r": 4},
    "extractor": "evidence",
    "combiner": "evidence",
    "training": {"epochs": 1, "batch_size": 4},
}
FIXED = {"name": "semantic", "params": {"mask_threshold": {"name": "fixed", "value": 0.5}, "presence_threshold": 0}}


def make(pooling: Any, backbone: str = "unet") -> Classifier:
    torch.manual_seed(0)
    return create_classifier(registry.build("backbone", backbone, widths=(3, 4)), 1, 3, pooling).eval()


def train(**params: Any) -> pipeline.Pipeline:
    samples = [sample.keep({Annotation.LABELS}) for sample in full_samples(6)]
    info = DatasetInfo("made", ("disc", "square"), 1, Normalisation("none"), "")
    choice = {"name": "micra-net", "params": PARAMS | params}
    return pipeline.fit(choice, samples[:4], samples[4:], info, FitContext(device="cpu"), head=FIXED)


@pytest.mark.parametrize("backbone", ["unet", "unet-encoder"])
def test_the_maps_are_the_logits_of_every_position(backbone: str) -> None:
    classifier = make(LogSumExp(), backbone)
    images = np.random.default_rng(0).random((2, 1, 21, 30), np.float32)
    first, second = registry.build("extractor", "evidence").prepare(classifier)(images, lambda presence: (2, 0))
    with torch.no_grad():
        last = classifier.features(torch.from_numpy(images))[-1]
        expected = classifier.evidence(last)[:, [2, 0]].numpy()
        presence = classifier(torch.from_numpy(images)).sigmoid().numpy()
    for number, maps in enumerate((first, second)):
        assert maps.layers == classifier.layers[-1:]
        np.testing.assert_allclose(maps.maps[0], expected[number], atol=1e-5)
        np.testing.assert_allclose(maps.presence, presence[number], atol=1e-6)


def test_there_is_no_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("gradients")

    explain = registry.build("extractor", "evidence").prepare(make(LogSumExp()))
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    [maps] = explain(np.zeros((1, 1, 9, 9), np.float32), lambda presence: (0,))
    assert maps.maps[0].shape == (1, 9, 9)


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_a_classifier_that_pools_features_has_none(pooling: str) -> None:
    with pytest.raises(ModelError, match=f"got pooling {pooling}.*train with pooling: log-sum-exp"):
        registry.build("extractor", "evidence").prepare(make(pooling))


def test_the_error_comes_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("micraframe.micranet.fit_classifier", lambda *arguments: pytest.fail("it trained"))
    with pytest.raises(ModelError, match="extractor evidence"):
        train(pooling="max")


def test_a_threshold_of_a_half_is_a_logit_of_zero() -> None:
    trained, image = train(), full_samples(1)[0].image
    assert isinstance(trained.model, MicraNetModel)
    classifier = copy.deepcopy(trained.model.classifier)
    [maps] = trained.model.explain([image], [0, 1])
    with torch.no_grad():
        classifier.linear.bias -= torch.from_numpy(np.median(maps.maps[-1], (1, 2)))
    model = MicraNetModel(trained.model.params, classifier, trained.info)
    [maps] = model.explain([image], [0, 1])
    [prediction] = dataclasses.replace(trained, model=model).predict([image])
    logits = maps.maps[-1]
    assert logits.shape == (2, *image.shape[1:])
    assert 0.2 < (logits > 0).mean() < 0.8
    np.testing.assert_array_equal(prediction.masks, logits > 0)


def test_logits_are_upsampled_before_the_sigmoid() -> None:
    logits = np.array([[[3, -2], [0, 5]], [[-1, -2], [-3, -4]], [[0, 0], [0, 0]]], np.float32)
    maps = Maps((9, 8), (0, 1, 2), (Layer("last", 1, 4),), (logits,), np.zeros(3, np.float32))
    for interpolation in ("bilinear", "nearest"):
        combiner = EvidenceProbability(EvidenceProbability.Params(interpolation=interpolation))
        scores = combiner.combine(maps, np.zeros((1, 9, 8), np.float32))
        assert scores.status == ("ok", "negative", "empty")
        np.testing.assert_allclose(scores.maps, expit(upsample(logits, (9, 8), 4, interpolation)), rtol=1e-6)
    assert (scores.maps[2] == 0.5).all()
