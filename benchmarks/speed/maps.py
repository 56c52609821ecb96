"""How long do the class activation maps of every layer take?

Eight layers of 32 to 256 filters, three classes of ten, eight images of 256 x 256: ours against captum layer by layer,
pytorch-grad-cam and TorchCAM with all layers as targets, the plain reference, and the minimum of every route: one
forward and three backward passes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from captum.attr import LayerGradCam
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torchcam.methods import GradCAM as TorchCam

from benchmarks.speed import reference
from benchmarks.speed.subject import CLASSES, NARROW, WIDTHS, bare_passes, classifier, digits
from benchmarks.speed.timing import Record, Route, Settings, record, take_turns
from micraframe import registry
from micraframe.classifier import Classifier
from micraframe.extractors.frozen import frozen_copy
from micraframe.types import FloatArray

OURS, BFLOAT16, CAPTUM, GRAD_CAM, TORCH_CAM, PLAIN, BARE, TUNED = (
    "micraframe",
    "micraframe, bfloat16",
    "captum, layer by layer",
    "pytorch-grad-cam, all layers",
    "TorchCAM, all layers",
    "the plain reference",
    "bare torch passes",
    "bare torch passes, batch norm folded, channels last",
)
TARGETS = {CAPTUM: ">= 5", GRAD_CAM: ">= 3"}


def records(settings: Settings) -> list[Record]:
    """Return how much longer the others take, and how much longer ours takes than the bare passes."""
    network = classifier(NARROW if settings.quick else WIDTHS, settings.device)
    images = digits(2 if settings.quick else 8, 128 if settings.quick else 256)
    seconds = take_turns(routes(network, images), settings)
    ours = seconds[OURS]
    return [
        record("maps", f"seconds: {OURS}", ours, "seconds"),
        *(
            record(f"maps: {name}", f"{name} / {OURS}", seconds[name] / ours, target=TARGETS.get(name))
            for name in (CAPTUM, GRAD_CAM, TORCH_CAM, PLAIN)
        ),
        record("maps: over bare passes", f"{OURS} / {BARE}", ours / seconds[BARE], target="<= 1.5"),
        *(
            record(f"maps: {name}, over bare passes", f"{name} / {BARE}", seconds[name] / seconds[BARE])
            for name in (CAPTUM, GRAD_CAM, TORCH_CAM, PLAIN)
        ),
        record("maps: over tuned bare passes", f"{OURS} / {TUNED}", ours / seconds[TUNED]),
        record("maps: bfloat16", f"{OURS} / {BFLOAT16}", ours / seconds[BFLOAT16]),
    ]


def routes(network: Classifier, images: FloatArray) -> Mapping[str, Route]:
    """Return the routes; each computes the maps of all layers, of three classes, in all images."""
    tensor = torch.from_numpy(images).to(next(network.parameters()).device)
    tuned = frozen_copy(network, fold=True)

    def ours(**params: object) -> Route:
        explain = registry.build("extractor", "grad-cam", **params).prepare(network)
        return lambda: explain(images, lambda presence: CLASSES)

    def captum() -> None:
        for block in network.backbone.blocks.values():
            algorithm = LayerGradCam(network, block)
            for index in CLASSES:
                algorithm.attribute(tensor.clone().requires_grad_(), target=index)

    # These two leave hooks on the network, so that each gets its own copy.
    twin, other = copy.deepcopy(network), copy.deepcopy(network)
    grad_cam = GradCAM(twin, list(twin.backbone.blocks.values()))
    torch_cam = TorchCam(other, list(other.backbone.blocks.values()), input_shape=images.shape[1:])

    def pytorch_grad_cam() -> None:
        for index in CLASSES:
            grad_cam(tensor, [ClassifierOutputTarget(index)] * len(images))

    def torchcam() -> None:
        scores = other(tensor)
        for index in CLASSES:
            torch_cam(index, scores, retain_graph=index != CLASSES[-1])

    def plain() -> None:
        for image in images:
            for index in CLASSES:
                reference.maps(network, image, index)

    return {
        OURS: ours(),
        BFLOAT16: ours(precision="bfloat16"),
        BARE: lambda: bare_passes(network, images),
        TUNED: lambda: bare_passes(tuned, images),
        CAPTUM: captum,
        GRAD_CAM: pytorch_grad_cam,
        TORCH_CAM: torchcam,
        PLAIN: plain,
    }
