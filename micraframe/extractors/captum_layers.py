"""captum's layer attributions, layer by layer: slow, and the reference for what is fast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from captum import attr
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator
from torch import Tensor, nn

from micraframe.classifier import Classifier
from micraframe.device import exact_float32
from micraframe.errors import ModelError
from micraframe.extractors.frozen import check_classes, checked_images, frozen_copy, probabilities
from micraframe.extractors.memory import reused_if_large
from micraframe.interfaces import ClassRule, Explain, Extractor, Parameters
from micraframe.types import FloatArray, Maps

Method = Literal[
    "LayerGradCam",
    "LayerActivation",
    "LayerGradientXActivation",
    "InternalInfluence",
    "LayerConductance",
    "LayerIntegratedGradients",
    "LayerGradientShap",
    "LayerDeepLift",
    "LayerFeatureAblation",
]
OF_A_PATH = ("InternalInfluence", "LayerConductance", "LayerIntegratedGradients")

REFUSED = {
    "LayerDeepLiftShap": "it wants several baseline images, and an extractor has one, black: LayerDeepLift is the same",
    "LayerFeaturePermutation": "it permutes the images of a batch, and an extractor explains each by itself: "
    "LayerFeatureAblation is near to it",
    "LayerLRP": "captum has rules for what convolutions, normalisations and pooling put out, and a layer is mostly "
    "what a block or its activation puts out: LayerDeepLift is near to it",
}
"""captum's layer attributions that cannot serve, and why."""

AT_ONCE = 8
"""Copies of an image that captum runs together."""


def attribution(
    method: Method, classifier: Classifier, maker: Maker, image: Tensor, target: int, steps: int, seed: int
) -> Tensor:
    """Return the map (1, h, w) of a layer, for an image (1, C, H, W) and a class; captum's is summed over filters.

    The baseline is black: zero, of the image or (LayerFeatureAblation) of the layer.

    Raises:
        ModelError: If captum cannot do it with the network.
    """
    algorithm = getattr(attr, method)(classifier, maker.module)
    image = image.detach().requires_grad_()  # required here, or captum does it and warns
    if method == "LayerActivation":
        found = algorithm.attribute(image)
    elif method == "LayerGradientShap":
        # It would run all samples at once, whatever their number.
        counts = [AT_ONCE] * (steps // AT_ONCE) + [steps % AT_ONCE] * (steps % AT_ONCE > 0)
        black = torch.zeros_like(image)
        with seeded(seed, image.device):
            found = sum(algorithm.attribute(image, black, n, target=target) * (n / steps) for n in counts)
    elif method == "LayerDeepLift":
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Setting forward, backward hooks", UserWarning)  # on a copy
                found = algorithm.attribute(image, target=target)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"captum's LayerDeepLift cannot serve this network: {reason}") from error
    elif method == "LayerFeatureAblation":
        cells = torch.arange(maker.size.numel(), device=image.device).reshape(1, 1, *maker.size)
        # All filters of a cell have the same value: what the cell is worth.
        found = algorithm.attribute(image, target=target, layer_mask=cells, perturbations_per_eval=AT_ONCE)[:, :1]
    elif method in OF_A_PATH:
        found = algorithm.attribute(image, target=target, n_steps=steps, internal_batch_size=AT_ONCE)
    else:
        found = algorithm.attribute(image, target=target)
    summed: Tensor = found.detach().sum(1)
    return summed


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Fix what is drawn from the global generators of torch and numpy, both of which captum uses; restore them."""
    state = np.random.get_state()  # noqa: NPY002  # captum's generator
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002  # captum's generator
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002  # captum's generator


@final
class CaptumLayers(Extractor):
    """One of captum's layer attributions, of every layer; one that has a value for each filter is summed over them.

    Kokhlikyan, N. et al. "Captum: a unified and generic model interpretability library for PyTorch".
    arXiv:2009.07896, 2020. For each layer and class it is captum that runs the network anew.

    LayerFeatureAblation sets all filters of a cell to zero at once, with a forward pass for each cell. To LayerDeepLift
    only torch's modules are non-linear; functions, as a classifier's global pooling, count by their gradient. Three of
    captum's cannot serve: LayerDeepLiftShap (wants several baselines), LayerFeaturePermutation (permutes a batch's
    images) and LayerLRP (has no rule for what blocks and activations put out).
    """

    class Params(Parameters):
        method: Method = Field("LayerGradCam", description="The class of captum.attr.")
        steps: PositiveInt = Field(
            50,
            description="Steps on the path from a black image, for InternalInfluence, LayerConductance and "
            "LayerIntegratedGradients; places drawn on it, for LayerGradientShap.",
        )
        seed: NonNegativeInt = Field(0, description="Of what LayerGradientShap draws, the same for every map.")

        @field_validator("method", mode="before")
        @classmethod
        def _serves(cls, method: object) -> object:
            if isinstance(method, str) and method in REFUSED:
                raise ValueError(f"captum's {method} cannot serve: {REFUSED[method]}")
            return method

    def __init__(self, params: Params) -> None:
        self.params = params

    def prepare(self, classifier: Classifier) -> Explain:
        """See `Extractor.prepare`."""
        twin = frozen_copy(classifier)
        device = next(twin.parameters()).device

        @exact_float32()
        def explain(images: FloatArray, rule: ClassRule) -> list[Maps]:
            with checked_images(twin, images):
                if not len(images):
                    return []
                batch = torch.from_numpy(np.ascontiguousarray(images)).to(device)
                makers = makers_of_layers(twin, batch[:1])
                with torch.no_grad():
                    scores = probabilities(twin(batch))
            chosen = check_classes(rule(scores), len(images), scores.shape[1])
            with reused_if_large(device, twin.layers, images.shape[2:], batch.itemsize):
                return [
                    Maps(images.shape[2:], classes, twin.layers, self._attribute(twin, makers, image, classes), row)
                    for image, classes, row in zip(torch.split(batch, 1), chosen, scores, strict=True)
                ]

        return explain

    def _attribute(
        self, classifier: Classifier, makers: list[Maker], image: Tensor, classes: tuple[int, ...]
    ) -> tuple[FloatArray, ...]:
        """Return the maps, float32 (K, h, w) per layer, of one image (1, C, H, W)."""
        method, steps, seed = self.params.method, self.params.steps, self.params.seed
        maps = []
        for maker in makers:
            planes = [attribution(method, classifier, maker, image, target, steps, seed) for target in classes]
            arrays = [plane.cpu().numpy() for plane in planes]
            maps.append(np.concatenate([np.empty((0, *maker.size), np.float32), *arrays]))
        return tuple(maps)


class Maker(NamedTuple):
    """The module that puts out a layer, and the layer's (h, w)."""

    module: nn.Module
    size: torch.Size


def makers_of_layers(classifier: Classifier, images: Tensor) -> list[Maker]:
    """Return for each layer the module of the backbone that puts it out, as a dry run shows.

    Raises:
        ModelError: If a layer is no module's output.
    """
    makers: dict[int, nn.Module] = {}
    outputs: list[Any] = []  # kept alive, so that no two have the same id

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        makers.setdefault(id(output), module)
        outputs.append(output)

    hooks = [module.register_forward_hook(after) for module in classifier.backbone.modules()]
    try:
        with torch.no_grad():
            features = classifier.features(images)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, feature in zip(classifier.layers, features, strict=True):
        if id(feature) not in makers:
            raise ModelError(
                f"captum needs a module for each layer; layer {layer.name!r} is not the output of any: use grad-cam"
            )
    return [Maker(makers[id(feature)], feature.shape[2:]) for feature in features]
