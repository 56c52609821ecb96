"""Deliberately wrong components: one that is right of each kind, and many that differ from it in one thing.

Each row names the check of the conformance kit that must catch it, alone. `conformance_page.py` makes the table in
`docs/conformance.md` of them.
"""

from __future__ import annotations

import base64
import bz2
import dataclasses
import gzip
import io
import itertools
import lzma
import math
import pickle
import random
import re
import socket
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import nn
from torch.nn import functional

from micraframe.datasets.sources import LazySamples
from micraframe.errors import ModelError
from micraframe.extractors.frozen import frozen_copy
from micraframe.interfaces import (
    Annotator,
    Backbone,
    Column,
    Combiner,
    Dataset,
    Extractor,
    Head,
    HeadParams,
    MaskHeadParams,
    Method,
    Metric,
    Model,
)
from micraframe.parameters import Parameters
from micraframe.types import (
    SPLITS,
    Annotation,
    DatasetInfo,
    Layer,
    Maps,
    Normalisation,
    Prediction,
    Sample,
    Scores,
    Work,
)

# fmt: off
# A row of the table is one to three lines; formatted, it would be seven.


@dataclass(frozen=True)
class Wrong:
    """A wrong component.

    Attributes:
        kind: Its kind.
        what: What is wrong; completes "a component that ...".
        check: The check that catches it.
        message: Pattern that what the check reports matches.
    """

    kind: str
    what: str
    check: str
    message: str

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.what.lower()).strip("-")

    @property
    def class_name(self) -> str:
        return f"{self.kind}_{self.name}".replace("-", "_")


RIGHT: dict[str, type] = {}
ROWS: list[Wrong] = []


def right(component: type) -> type:
    RIGHT[component.kind] = component
    return component


def wrong(kind: str, check: str, what: str, message: str, **changes: Any) -> None:
    row = Wrong(kind, what, check, message)
    assert row.class_name not in globals()
    for name, change in changes.items():
        if getattr(change, "__name__", "") == "<lambda>":
            change.__name__ = name
    globals()[row.class_name] = type(row.class_name, (RIGHT[kind],), changes)
    ROWS.append(row)


BUFFERS: dict[Any, Any] = {}


def reused(values: np.ndarray) -> np.ndarray:
    """Return the same array for all values of a shape."""
    buffer = BUFFERS.setdefault((values.shape, values.dtype.str), np.empty_like(values))
    buffer[:] = values
    return buffer


def call_home() -> None:
    with suppress(OSError):
        socket.create_connection(("example.org", 80))


COUNT = itertools.count()
RANDOM = np.random.default_rng()

# Datasets


@right
class RightDataset(Dataset[Parameters]):
    """Thirty random images in each split."""

    kind = "dataset"
    count = 30

    def info(self):
        return DatasetInfo("right", ("disc",), 1, Normalisation(), "0" * 64, **self.more())

    def more(self):
        return {}

    def samples(self, split):
        return LazySamples(range(self.count), lambda number: self.sample(split, number))

    def sample(self, split, number):
        labels = np.array([number % 2], bool)
        return Sample(self.id(split, number), self.image(split, number), labels=labels, group=self.group(split, number))

    def id(self, split, number):
        return f"{split}-{number}"

    group = id

    def image(self, split, number):
        return np.random.default_rng([SPLITS.index(split), number]).random((1, 8, 8), np.float32)


class Endless(Sequence):
    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index % len(self.samples)]


def fails(*args):
    raise KeyError("a lost file")


wrong("dataset", "returns-info", "describes itself by a dictionary", "to be a DatasetInfo, got a dict",
    info=lambda s: {})
wrong("dataset", "returns-info", "describes itself differently each time", "expected the same info",
    more=lambda s: {"citation": str(next(COUNT))})
wrong("dataset", "returns-samples", "returns a generator of samples", "to be a sequence, got a generator",
    samples=lambda s, split: (s.sample(split, number) for number in range(3)))
wrong("dataset", "returns-samples", "has samples beyond its end", "to raise IndexError, got a sample",
    samples=lambda s, split: Endless(RightDataset.samples(s, split)))
wrong("dataset", "returns-samples", "cannot read its files", "got KeyError: 'a lost file' at .*py:", image=fails)
wrong("dataset", "returns-samples", "has no samples", "expected samples, got none", count=0)
wrong("dataset", "trains", "has no training samples", "expected training samples",
    samples=lambda s, split: RightDataset.samples(s, split) if split == "test" else [])
wrong("dataset", "distinct-ids", "uses an id twice", r"distinct ids, got \['train-29'\]",
    id=lambda s, split, number: "train-29" if (split, number) == ("test", 29) else f"{split}-{number}")
wrong("dataset", "same-bytes", "augments images at random", "expected the same bytes of 'train-0'",
    image=lambda s, split, number: RANDOM.random((1, 8, 8), np.float32))
wrong("dataset", "fresh-results", "reads images into one buffer", "expected 'train-0' to last",
    image=lambda s, split, number: reused(RightDataset.image(s, split, number)))
wrong("dataset", "channels-as-in-info", "has images with another channel", "expected 1 channel in .*, got 2",
    image=lambda s, split, number: np.repeat(RightDataset.image(s, split, number), 2, 0))
wrong("dataset", "classes-as-in-info", "labels classes that it does not name",
    "expected labels of 1 class in .*, got 2",
    sample=lambda s, split, number: dataclasses.replace(RightDataset.sample(s, split, number), labels=np.ones(2, bool)))
wrong("dataset", "sizes-as-in-info", "names a size that images do not have",
    r"expected image_size \(8, 9\) of .*, got \(8, 8\)",
    more=lambda s: {"image_size": (8, 9)})
wrong("dataset", "groups-apart", "divides a slide after its 20th sample",
    r"each group in one split, got that of 'train-25' \(train\) and 'test-25' \(test\)",
    group=lambda s, split, number: "slide" if number == 25 and split != "valid" else f"{split}-{number}")
wrong("dataset", "images-apart", "has a training image in the test split",
    "each image in one split, got that of 'train-29'",
    image=lambda s, split, number: RightDataset.image(s, "train" if (split, number) == ("test", 29) else split, number))
wrong("dataset", "makes-no-request", "downloads its images", "expected no request, got one to example.org",
    more=lambda s: call_home() or {})

# Annotators


@right
class RightAnnotator(Annotator[Parameters]):
    """Image-level labels."""

    kind = "annotator"

    def annotate(self, sample, seed):
        return self.change(sample.keep({Annotation.LABELS}), sample), Work("image-level", decisions=2)

    def change(self, kept, sample):
        return kept


def overwrite_masks(kept, sample):
    sample.masks[:] = False
    return kept


def overwrite_image(kept, sample):
    sample.image.flags.writeable = True
    sample.image[:] = 0
    return kept


def annotators(check: str, what: str, message: str, change: Any = None, **changes: Any) -> None:
    if change is not None:
        changes["change"] = lambda self, kept, sample: change(kept, sample)
    wrong("annotator", check, what, message, **changes)


annotators("inputs-unchanged", "erases the sample's masks", "annotate to leave its inputs", overwrite_masks)
annotators("inputs-unchanged", "erases the sample's image", "annotate to leave its inputs", overwrite_image)
annotators("fresh-results", "returns its labels in one buffer", "the result of annotate to last",
    lambda kept, sample: dataclasses.replace(kept, labels=reused(kept.labels)))
annotators("same-bytes", "ignores the seed", "annotate to return the same bytes",
    lambda kept, sample: dataclasses.replace(kept, labels=RANDOM.random(2) < 0.5))
annotators("returns-sample-and-work", "returns no work", "to be a tuple, got a Sample",
    annotate=lambda s, sample, seed: sample.keep({Annotation.LABELS}))
annotators("keeps-id-and-image", "inverts images", "expected the id and image of 'sample-0'",
    lambda kept, sample: dataclasses.replace(kept, image=1 - kept.image))
annotators("annotates", "removes all annotation", "got a sample without any", lambda kept, sample: sample.keep(()))
annotators("one-entry-per-class", "labels one of two classes", "expected labels of 2 classes, got 1",
    lambda kept, sample: dataclasses.replace(kept, labels=np.ones(1, bool)))
annotators("hides-the-rest", "keeps the path of the masks", "no source of weaker annotation, got 'masks/of/this.png'",
    lambda kept, sample: dataclasses.replace(kept, source=sample.source))
annotators("hides-the-rest", "keeps an image that is part of an array with masks",
    "a view of an array that holds masks",
    lambda kept, sample: dataclasses.replace(kept, image=sample.image))
annotators("says-what-is-missing", "crashes without masks",
    "to raise DataError for a sample without annotation, not to return, got AttributeError",
    lambda kept, sample: kept if sample.masks.size else None)

# Backbones


class Network(nn.Module):
    def __init__(self, channels, forward):
        super().__init__()
        self.shallow = nn.Conv2d(channels, 4, 3, padding=1)
        self.deep = nn.Conv2d(4, 4, 3, padding=1)
        self.register_buffer("seen", torch.zeros(()))
        self.compute = forward

    def forward(self, images):
        return self.compute(self, images)


LAYERS = (Layer("shallow", 4, 1), Layer("deep", 4, 2))


@right
class RightBackbone(Backbone[Parameters]):
    """Two convolutions."""

    kind = "backbone"
    layers = LAYERS

    def create(self, channels):
        return Network(channels, self.forward), self.layers

    def forward(self, network, images):
        shallow = torch.relu(network.shallow(images))
        return self.change(network, [shallow, network.deep(functional.max_pool2d(shallow, 2))])

    def change(self, network, layers):
        return layers


def scaled_at_random(self, channels):
    network, layers = RightBackbone.create(self, channels)
    network.shallow.weight.data *= 1 + random.random()
    return network, layers


def count_images(self, network, layers):
    network.seen += len(layers[0])
    return layers


def in_one_buffer(self, network, layers):
    for number, layer in enumerate(layers):
        key = number, layer.shape
        layer.data = BUFFERS.setdefault(key, torch.empty(layer.shape)).copy_(layer.data)
    return layers


class Wider(RightBackbone):
    def create(self, channels):
        network, _ = RightBackbone.create(self, channels)
        network.shallow, network.deep = nn.Conv2d(channels, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        return network, (Layer("shallow", 6, 1), Layer("deep", 6, 2))


def backbones(check: str, what: str, message: str, change: Any = None, **changes: Any) -> None:
    if change is not None:
        changes["change"] = lambda self, network, layers: change(layers)
    wrong("backbone", check, what, message, **changes)


backbones("creates-network", "creates a network without layers", "what create returns to be a tuple, got a Network",
    create=lambda s, channels: RightBackbone.create(s, channels)[0])
backbones("creates-network", "names its layers by strings", r"a tuple of Layers, got \('shallow', 'deep'\)",
    layers=("shallow", "deep"))
backbones("creates-network", "returns its last layer only", "a list of activations, got a Tensor",
    lambda layers: layers[-1])
backbones("creates-network", "announces more layers than it has", "activations of the 3 layers",
    layers=(*LAYERS, Layer("x", 4, 4)))
backbones("creates-network", "takes images of one size", "expected the network to return, got RuntimeError",
    lambda layers: [layers[0], layers[1] + torch.zeros(32, 32)])
backbones("creates-network", "has a layer that nothing uses",
    "a gradient of the last layer at layer 'shallow', got none",
    lambda layers: [layers[0] + 1, layers[1]])
wrong("backbone", "inputs-unchanged", "counts images in evaluation", "got other weights or statistics",
    change=count_images)
backbones("inputs-unchanged", "writes to its images", "expected features to leave its inputs",
    forward=lambda s, network, images: RightBackbone.forward(s, network, images.data.mul_(0.5)))
wrong("backbone", "fresh-results", "returns its layers in one buffer", "the result of features to last",
    change=in_one_buffer)
backbones("same-bytes", "drops activations in evaluation", "features to return the same bytes",
    lambda layers: [layers[0], functional.dropout(layers[1], 0.5, training=True)])
backbones("same-network-untrained", "is another network untrained", "expected the same network untrained",
    untrained=lambda s: Wider(s.params))
backbones("seeded-weights", "draws weights from its own generator", "the same weights from the same seed",
    create=scaled_at_random)
backbones("batch-of-two", "normalises over the batch", "alone and in a batch, got others of layer 1",
    lambda layers: [layers[0], functional.batch_norm(layers[1], None, None, training=True)])
backbones("finite-gradients", "takes the root of zeros", "a finite gradient at layer 0",
    lambda layers: [layers[0], layers[1] + functional.avg_pool2d(torch.sqrt(layers[0]), 2)])
backbones("layers-kept", "activates in place between layers", "layer 'shallow' to keep its activations",
    layers=(LAYERS[0], Layer("activated", 4, 1)), forward=lambda s, network, images: [shallow :=
        network.shallow(images), torch.relu_(shallow)])

# Extractors


@right
class RightExtractor(Extractor[Parameters]):
    """Class activation mapping of the deepest layer (Zhou et al., CVPR 2016)."""

    kind = "extractor"

    def prepare(self, classifier):
        frozen = self.frozen(classifier)

        def explain(images, rule):
            with torch.no_grad():
                deepest = frozen.features(torch.from_numpy(images))[-1]
                presence = torch.sigmoid(frozen.logits(deepest)).numpy()
            explained = []
            for activation, row in zip(deepest, presence, strict=True):
                classes = self.classes(rule, row)
                weight = frozen.linear.weight.detach()[list(classes)]
                values = torch.einsum("ck,khw->chw", weight, activation).numpy()
                layer, values = self.layer(frozen.layers[-1]), self.values(values)
                explained.append(Maps(self.size(images), classes, (layer,), (values,), self.presence(row)))
            return self.change(explained, images)

        return explain

    def frozen(self, classifier):
        return frozen_copy(classifier)

    def classes(self, rule, row):
        return tuple(rule(row))

    def size(self, images):
        return images.shape[2:]

    def layer(self, layer):
        return layer

    def values(self, values):
        return values

    def presence(self, row):
        return row

    def change(self, explained, images):
        return explained


def refuse(self, classifier):
    raise ModelError("expected a transformer, got another network; choose grad-cam")


def crash(self, classifier):
    raise ValueError("no transformer")


def darken(self, explained, images):
    images *= 0.5
    return explained


def with_hook(self, classifier):
    classifier.register_forward_hook(lambda *args: None)
    return frozen_copy(classifier)


def by_batch(self, explained, images):
    top = max((values.max() for maps in explained for values in maps.maps if values.size), default=1)
    return [dataclasses.replace(maps, maps=tuple(values / top for values in maps.maps)) for maps in explained]


def extractors(check: str, what: str, message: str, **changes: Any) -> None:
    wrong("extractor", check, what, message, **changes)


extractors("returns-maps", "refuses every classifier", "^expected a transformer, got another network", prepare=refuse)
extractors("returns-maps", "refuses with a ValueError", "expected prepare to return, got ValueError: no transf",
    prepare=crash)
extractors("returns-maps", "explains by a dictionary", "returns to be a list, got a dict",
    change=lambda s, explained, images: dict(enumerate(explained)))
extractors("returns-maps", "skips the last image of a batch", "expected Maps of 3 images, got 2",
    change=lambda s, explained, images: explained[:2] if len(images) == 3 else explained)
extractors("presence-as-predicted", "reports logits as presence", "expected presence .*, the sigmoid of the logits",
    presence=lambda s, row: np.log(row / (1 - row)))
extractors("classes-as-chosen", "explains all classes", "expected maps of the chosen classes",
    classes=lambda s, rule, row: (0, 1, 2))
extractors("fits-image-and-layers", "exchanges height and width", "expected the image's size",
    size=lambda s, images: images.shape[:1:-1])
extractors("fits-image-and-layers", "enlarges maps", "expected about 8.0 x 8.0 cells of layer 'L3', got 32 x 32",
    values=lambda s, values: values.repeat(4, 1).repeat(4, 2))
extractors("batch-of-three", "normalises over the batch", "the same maps of an image alone and in a batch",
    change=by_batch)
extractors("frozen-copy", "explains the classifier that is still trained", "as it was prepared", frozen=lambda s, c: c)
extractors("inputs-unchanged", "leaves a hook", "expected the classifier as it was", frozen=with_hook)
extractors("inputs-unchanged", "leaves the classifier in training mode", "expected the classifier as it was",
    frozen=lambda s, classifier: frozen_copy(classifier.train()))
extractors("inputs-unchanged", "writes to images", "expected explained to leave its inputs", change=darken)
extractors("fresh-results", "returns its maps in one buffer", "the result of explained to last",
    values=lambda s, v: reused(v))
extractors("same-bytes", "smooths with random noise", "explained to return the same bytes",
    values=lambda s, values: values + RANDOM.random(values.shape, np.float32))

# Combiners


@right
class RightCombiner(Combiner[Parameters]):
    """The same for every pixel."""

    kind = "combiner"

    def combine(self, maps, image):
        return Scores(self.presence(maps), maps.classes, self.values(maps, image), self.status(maps))

    def presence(self, maps):
        return maps.presence

    def values(self, maps, image):
        return np.full((len(maps.classes), *maps.size), 1 / (2 + np.abs(maps.maps[0]).sum()), np.float32)

    def status(self, maps):
        return ()


EVEN = RightCombiner.values


def write(array, values):
    array.ravel()[:1] = 0
    return values


def stretched(self, maps, image):
    values = np.resize(maps.maps[0], (len(maps.classes), *maps.size))
    low, high = values.min(initial=0), values.max(initial=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (values - low) / (high - low) if len(values) else values


class SetParameters(Parameters):
    layers: Any = Field(frozenset({1}), description="Layers.")


class BareParameters(Parameters):
    sigma: float = 1.0


class LooseParameters(Parameters):
    model_config = ConfigDict(extra="ignore")


def combiners(check: str, what: str, message: str, values: Any = None, **changes: Any) -> None:
    wrong("combiner", check, what, message, **({"values": values} if values else {}), **changes)


combiners("holds-parameters", "drops its parameters", r"expected params Parameters\(\), got None",
    __init__=lambda s, params: setattr(s, "params", None))
combiners("described-parameters", "does not describe a parameter", "got none of sigma", Params=BareParameters)
combiners("strict-parameters", "ignores misspelt parameters", "extra=\"forbid\", got 'ignore'", Params=LooseParameters)
combiners("parameters-as-json", "has a parameter that JSON changes", "after saving as JSON", Params=SetParameters)
combiners("makes-no-request", "asks a server", "got one to example.org", lambda s, m, i: call_home() or EVEN(s, m, i))
combiners("inputs-unchanged", "writes to maps", "combine to leave its inputs",
    lambda s, m, i: write(m.maps[0], EVEN(s, m, i)))
combiners("inputs-unchanged", "writes to the image", "combine to leave its inputs",
    lambda s, m, i: write(i, EVEN(s, m, i)))
combiners("fresh-results", "returns maps in one buffer", "the result of combine to last",
    lambda s, m, i: reused(EVEN(s, m, i)))
combiners("same-bytes", "adds random numbers", "combine to return the same bytes",
    lambda s, m, i: EVEN(s, m, i) * RANDOM.random(dtype=np.float32))
combiners("same-bytes", "remembers the images before", "combine to return the same bytes",
    lambda s, m, i: EVEN(s, m, i) / np.float32(1 + next(COUNT)))
combiners("returns-scores", "returns a bare array", "combine returns to be a Scores, got a ndarray",
    combine=lambda s, m, i: EVEN(s, m, i))
combiners("returns-scores", "does not upsample", r"size \(32, 32\), got .* size \(16, 16\)",
    lambda s, m, i: EVEN(s, m, i)[:, ::2, ::2].copy())
combiners("returns-scores", "exceeds 1", r"scores: expected maps in \[0, 1\], got 2", lambda s, m, i: EVEN(s, m, i) + 2)
combiners("any-size", "exchanges height and width", r"size \(33, 47\), got .* \(47, 33\)",
    lambda s, m, i: EVEN(s, m, i).swapaxes(1, 2).copy())
combiners("no-class", "needs a class", "no class.* to return, got IndexError",
    lambda s, m, i: EVEN(s, m, i) * (m.maps[0][0] is not None))
combiners("constant-maps", "divides by the range", r"expected maps in \[0, 1\], got nan", stretched)
combiners("negative-maps", "takes the root of the maximum", "negative maps.* to return, got ValueError",
    lambda s, m, i: EVEN(s, m, i) * np.float32(math.sqrt(m.maps[0].max(initial=-9)) < 0 if m.classes else 1))
combiners("keeps-presence", "changes presence", "expected presence .* that of the maps",
    presence=lambda s, maps: maps.presence / 2)
combiners("known-statuses", "invents a status", "among ok, .*, got 'fine'",
    status=lambda s, maps: ("fine",) * len(maps.classes))

# Heads


@right
class RightHead(Head[HeadParams]):
    """The pixels above one half."""

    kind = "head"

    def decide(self, scores, image, info):
        present = self.which(scores.presence)
        masks = np.zeros((len(present), *scores.size), bool)
        for index in np.flatnonzero(present):
            masks[index] = self.mask(scores, index)
        return self.predict(scores, present, masks)

    def which(self, presence):
        return self.present(presence)

    def mask(self, scores, index):
        return scores.maps[scores.row(index)] > 0.5

    def predict(self, scores, present, masks):
        return Prediction(scores, present, masks)


def at(position, absent=False):
    """Return a prediction with a point at a position of (H, W) for every class that is present, or absent."""

    def predict(self, scores, present, masks):
        none, one = np.zeros((0, 3), np.float32), np.array([[*position(*scores.size), 1]], np.float32)
        return Prediction(scores, present, masks, points=tuple(one if each != absent else none for each in present))

    return predict


def heads(check: str, what: str, message: str, predict: Any = None, **changes: Any) -> None:
    if predict is not None:
        changes["predict"] = predict
    wrong("head", check, what, message, **changes)


heads("chooses-classes", "asks for classes by a mask", "a tuple of distinct indices below 3, got array",
    classes_to_explain=lambda s, presence: s.present(presence))
heads("returns-prediction", "returns bare masks", "to be a Prediction, got a ndarray",
    lambda s, scores, present, masks: masks)
heads("returns-prediction", "returns other scores", "to hold the scores that were given",
    lambda s, scores, present, masks: Prediction(dataclasses.replace(scores), present, masks))
heads("without-coarse-maps", "needs coarse maps", "no coarse maps.* to return, got AttributeError",
    mask=lambda s, scores, index: RightHead.mask(s, scores, index) & (scores.coarse.max() <= 1))
heads("presence-threshold", "finds the first class everywhere",
    r"expected present \[False, False, False\], got \[True, False, False\]",
    lambda s, scores, present, masks: Prediction(scores, present | np.array([True, False, False]), masks))
heads("tuned-presence-thresholds", "has one threshold for all classes",
    r"expected present \[True, False, True\].*, got \[True, False, False\]",
    which=lambda s, presence: presence >= np.max(s.params.presence_threshold))
heads("tuned-mask-threshold", "ignores a tuned mask threshold", "expected no pixel above 1", Params=MaskHeadParams)
heads("masks-of-image-size", "cuts off a row", r"expected masks of shape \(3, 32, 32\), got \(3, 31, 32\)",
    lambda s, scores, present, masks: Prediction(scores, present, masks[:, 1:]))
heads("absent-classes-empty", "draws masks of absent classes", "expected no masks of an absent class",
    lambda s, scores, present, masks: Prediction(scores, present, np.ones_like(masks)))
heads("absent-classes-empty", "points at absent classes", "expected no points of an absent class",
    at(lambda h, w: (0, 0), absent=True))
heads("points-inside", "exchanges x and y", r"expected points \(y, x\) in the image", at(lambda h, w: (w - 1, h - 1)))
heads("ignores-other-maps", "normalises over all maps", "expected the same masks when",
    mask=lambda s, scores, index: scores.maps[scores.row(index)] > scores.maps.mean())
heads("known-statuses", "invents a status", "a Prediction among ok, .* got 'fine'",
    lambda s, scores, present, masks: Prediction(scores, present, masks, status=("fine",) * 3))
heads("inputs-unchanged", "writes to scores", "decide to leave its inputs",
    mask=lambda s, scores, index: write(scores.maps, False))
heads("fresh-results", "returns masks in one buffer", "the result of decide to last",
    lambda s, scores, present, masks: Prediction(scores, present, reused(masks)))
heads("same-bytes", "breaks ties at random", "decide to return the same bytes",
    mask=lambda s, scores, index: RANDOM.random(scores.size) < 0.5)

# Methods


class RightModel(Model):
    def __init__(self, method, tensors):
        self.method = method
        self.tensors = tensors

    def score(self, images, rule):
        return self.method.score(self, images, rule)

    def state(self):
        return self.method.state(self.tensors)

    def merge_tiles(self, merged, tiles):
        return self.method.merge(merged, tiles)


@right
class RightMethod(Method[Parameters]):
    """Bright pixels are structures; a class is as probable as it is frequent."""

    kind = "method"
    learns_from = frozenset({Annotation.LABELS})

    def fit(self, train, valid, info, context):
        return RightModel(self, self.learn(train, context))

    def learn(self, train, context):
        return {"frequency": torch.tensor(np.mean([sample.labels for sample in train], 0, dtype=np.float32))}

    def restore(self, state, info, device):
        return RightModel(self, dict(state))

    def score(self, model, images, rule):
        for image in images:
            yield self.scores(model, image, rule)

    def scores(self, model, image, rule):
        presence = model.tensors["frequency"].numpy()
        classes = tuple(rule(presence))
        return Scores(presence, classes, np.repeat(self.bright(image)[None], len(classes), 0))

    def bright(self, image):
        return np.clip(image.mean(0), 0, 1)

    def state(self, tensors):
        return tensors

    def merge(self, merged, tiles):
        return merged


LEARN, SCORES, SCORE = RightMethod.learn, RightMethod.scores, RightMethod.score
FOREST = {"threshold": [0.25, 0.5], "left": [1, 2], "name": "a tree of a forest"}


def saved(pack) -> dict[str, Any]:
    """Return changes by which a method saves, beside its tensors, an object as bytes."""
    return {"state": lambda self, tensors: tensors | {"forest": torch.tensor(list(pack(FOREST)), dtype=torch.uint8)}}


def torch_saved(value) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def hidden(array) -> bytes:
    return base64.b85encode(pickle.dumps(np.array([0.25, 0.5])))


def restore_hidden(self, state, info, device):
    pickle.loads(base64.b85decode(bytes(state["forest"].tolist())))
    return RightModel(self, {"frequency": state["frequency"]})


def skip_last(self, model, images, rule):
    previous = None
    for image in images:
        if previous is not None:
            yield self.scores(model, previous, rule)
        previous = image


def less_previous(self, model, images, rule):
    previous = 0.0
    for image in images:
        yield self.scores(model, image * (previous == 0), rule)
        previous = image.mean()


def fit_in_place(self, train, context):
    for sample in train:
        write(sample.image, None)
    return LEARN(self, train, context)


def score_in_place(self, model, image, rule):
    image -= image.min()
    return SCORES(self, model, image, rule)


class Forgetful(RightModel):
    def __init__(self, method, tensors):
        super().__init__(method, tensors)
        self.learned = 1.0


def forgetful_scores(self, model, image, rule):
    scores = SCORES(self, model, image, rule)
    return scores if hasattr(model, "learned") else dataclasses.replace(scores, presence=scores.presence / 4)


def two_more(self, tensors):
    return tensors | {"history": [0.1, 0.2]}


def methods(check: str, what: str, message: str, **changes: Any) -> None:
    wrong("method", check, what, message, **changes)


methods("inputs-unchanged", "normalises its samples in place", "expected fit to leave its samples", learn=fit_in_place)
methods("inputs-unchanged", "normalises images in place", "expected score to leave its inputs", scores=score_in_place)
methods("declares-itself", "learns from nothing", "learns_from to be a frozenset", learns_from=())
methods("declares-itself", "names an inference parameter that it lacks", r"got \['sigma'\]",
    inference_params=frozenset({"sigma"}))
methods("declares-itself", "has a default head that does not exist", "there is no head 'lost'",
    default_head=("lost", {}))
methods("returns-model", "returns its weights", "what fit returns to be a Model, got a dict",
    fit=lambda s, train, *rest: LEARN(s, train, rest))
methods("returns-scores", "yields bare maps", "what score yields to be a Scores, got a ndarray",
    scores=lambda s, model, image, rule: image)
methods("returns-scores", "returns maps of half the size", r"size \(48, 48\), got 2 and size \(24, 24\)",
    bright=lambda s, image: image[0, ::2, ::2])
methods("returns-scores", "has no map of a chosen class", "expected maps of the classes",
    scores=lambda s, model, image, rule: SCORES(s, model, image, lambda presence: ()))
methods("one-result-per-image", "skips the last image", "expected scores of 9 images, got 8", score=skip_last)
methods("one-result-per-image", "scores every image twice", "expected scores of 9 images, got 18",
    score=lambda s, model, images, rule: SCORE(s, model, (image for image in images for _ in range(2)), rule))
methods("fresh-results", "yields maps in one buffer", "expected scores to last",
    scores=lambda s, model, image, rule: dataclasses.replace(scores := SCORES(s, model, image, rule),
        maps=reused(scores.maps)))
methods("same-bytes", "drops activations in evaluation", "score to return the same bytes",
    bright=lambda s, image: image[0] * (RANDOM.random(image.shape[1:]) < 0.9))
methods("state-of-tensors", "saves a list", r"state\(\)\['history'\] to be a Tensor, got a list", state=two_more)
for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
    pickled = lambda value, protocol=protocol: pickle.dumps(value, protocol)  # noqa: E731
    methods("no-pickle", f"saves a pickle of protocol {protocol}", "got a pickle", **saved(pickled))
for packer in (zlib, gzip, bz2, lzma):
    fixed = {"mtime": 0} if packer is gzip else {}
    packed = lambda value, pack=packer.compress, fixed=fixed: pack(pickle.dumps(value), **fixed)  # noqa: E731
    methods("no-pickle", f"saves a pickle packed by {packer.__name__}", "got a pickle", **saved(packed))
methods("no-pickle", "saves what torch.save writes", "got a pickle", **saved(torch_saved))
methods("no-pickle", "saves a pickle after a header", "got a pickle",
    **saved(lambda value: b"forest 1.0\n" + pickle.dumps(value)))
methods("no-pickle", "unpickles what it encoded", r"got \['numpy.*\], which can run code",
    restore=restore_hidden, **saved(hidden))
methods("same-seed-same-model", "ignores the seed", "the same weights from the same seed",
    learn=lambda s, train, context: LEARN(s, train, context) | {"extra": torch.tensor(RANDOM.random())})
methods("same-seed-same-model", "says that it is deterministic, and is not",
    "for every seed.* set deterministic = False",
    deterministic=True, learn=lambda s, train, context: {"frequency": torch.tensor([0.9, 0.1 * context.seed])})
methods("saved-and-loaded", "forgets what it learned", "the same presence after saving and loading",
    fit=lambda s, train, *rest: Forgetful(s, LEARN(s, train, rest)), scores=forgetful_scores)
methods("alone-and-among-others", "subtracts the image before", "alone and among others", score=less_previous)
methods("constant-memory", "reads all images first", "expected a batch of images to be read, got all 12",
    score=lambda s, model, images, rule: SCORE(s, model, list(images), rule))
methods("tiles-merged", "keeps the first tile", r"expected scores of size \(70, 131\)",
    merge=lambda s, merged, tiles: tiles[0].scores)
methods("known-statuses", "invents a status", "among ok, .*, got 'fine'",
    scores=lambda s, model, image, rule: dataclasses.replace(scores := SCORES(s, model, image, rule), status=("fine",) *
        len(scores.classes)))
methods("untrained-model", "has another state untrained", "the state of a trained model",
    untrained=lambda s, info: RightModel(s, {"frequency": torch.zeros(2), "more": torch.zeros(1)}))
methods("makes-no-request", "downloads weights", "got one to example.org",
    learn=lambda s, train, context: call_home() or LEARN(s, train, context))

# Metrics


@right
class RightMetric(Metric[Parameters]):
    """How far the area of a mask is from the true one."""

    kind = "metric"
    column = Column("error", "the difference of areas", False)

    def columns(self):
        return (self.column,)

    def measure(self, prediction, truth):
        return {"error": self.error(prediction, truth)}

    def error(self, prediction, truth):
        if prediction.masks is None or truth.masks is None:
            return np.full(len(prediction.present), np.nan)
        return np.abs(prediction.masks.mean((1, 2)) - truth.masks.mean((1, 2)))


ERROR, REDUCE = RightMetric.error, RightMetric.reduce


def metrics(check: str, what: str, message: str, error: Any = None, **changes: Any) -> None:
    if error is not None:
        changes["error"] = lambda self, prediction, truth: error(ERROR(self, prediction, truth), prediction, truth)
    wrong("metric", check, what, message, **changes)


def first_of_all(self, statistics):
    values = statistics["error"]
    return {"error": values[0] if len(values) else np.full(2, np.nan)}


def sort_in_place(self, statistics):
    statistics["error"].sort(axis=0)
    return REDUCE(self, statistics)


metrics("describes-columns", "names columns by strings", "a column to be a Column, got a str",
    columns=lambda s: ("error",))
metrics("describes-columns", "does not define a column", "expected a definition and a range",
    column=Column("error", ""))
metrics("returns-statistics", "returns a bare array", "measure returns to be a Mapping, got a ndarray",
    measure=lambda s, *pair: ERROR(s, *pair))
metrics("returns-statistics", "returns lists", "'error' of measure to be a ndarray, got a list",
    lambda error, p, t: error.tolist())
metrics("returns-statistics", "returns a number more", r"shape \(2,\), of 'error' of measure, got \(3,\)",
    lambda error, p, t: np.append(error, 0.0))
metrics("returns-statistics", "returns whole numbers", "expected floats of 'error' of measure, got int",
    lambda error, p, t: np.nan_to_num(error).astype(int))
metrics("returns-statistics", "is infinite", "expected finite numbers", lambda error, p, t: np.full(2, np.inf))
metrics("less-annotation", "needs masks", "less annotation.* to return, got AttributeError",
    error=lambda error, p, t: error * (p.masks.size + t.masks.size > 0))
metrics("statistics-of-columns", "lacks the statistic of a column", r"got none of \['error'\]",
    measure=lambda s, *pair: {"mistake": ERROR(s, *pair)})
metrics("values-in-range", "exceeds its range", "expected 'error' from 0 to 0.01, got",
    column=Column("error", "areas", False, (0, 0.01)))
metrics("reduces-to-columns", "reduces to other names", r"the columns \['error'\], got \['mean'\]",
    reduce=lambda s, statistics: {"mean": REDUCE(s, statistics)["error"]})
metrics("reduces-to-columns", "cannot reduce no image", "expected reduce to return, got IndexError",
    reduce=lambda s, statistics: {"error": statistics["error"][0]})
metrics("reduces-to-columns", "sorts statistics in place", "expected reduce to leave the statistics",
    reduce=sort_in_place)
metrics("any-order-of-images", "takes the first image", "for images in another order", reduce=first_of_all)
metrics("higher-is-better", "calls an error good", "correct higher_is_better", column=Column("error", "areas", True))
metrics("inputs-unchanged", "writes to the truth", "measure to leave its inputs",
    lambda error, p, t: error if t.masks is None else write(t.masks, error))
metrics("inputs-unchanged", "writes to the prediction", "measure to leave its inputs",
    lambda error, p, t: write(p.scores.maps, error))
metrics("fresh-results", "returns numbers in one buffer", "the result of measure to last",
    lambda error, p, t: reused(error))
metrics("same-bytes", "samples pixels at random", "measure to return the same bytes",
    lambda error, p, t: error * RANDOM.random())
metrics("same-reduction", "resamples images at random", "the same bytes of the same statistics",
    reduce=lambda s, statistics: {"error": REDUCE(s, statistics)["error"] * RANDOM.random()})
