"""captum's layer attributions, layer by layer: slow, and the reference for the fast extractors."""

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
from micraframe.errors import ModelError
from micraframe.extractors.frozen import choose_classes, frozen_copy, probabilities
from micraframe.interfaces import ClassRule, Explain, Extractor
from micraframe.parameters import Parameters
from micraframe.runtime.device import exact_float32
from micraframe.types import FloatArray, Maps

Attribution = Literal[
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
INTEGRATED = ("InternalInfluence", "LayerConductance", "LayerIntegratedGradients")

REFUSED = {
    "LayerDeepLiftShap": "it needs several baseline images, and an extractor has one, black; use LayerDeepLift",
    "LayerFeaturePermutation": "it permutes the images of a batch, and an extractor explains each image alone; use "
    "LayerFeatureAblation",
    "LayerLRP": "captum has rules for the outputs of convolutions, normalisations and pooling, and a layer is usually "
    "the output of a block or an activation; use LayerDeepLift",
}
"""captum's layer attributions that cannot be used, and why."""

AT_ONCE = 8
"""Copies of an image that captum runs together."""


def attribution(
    method: Attribution, classifier: Classifier, source: LayerSource, image: Tensor, target: int, steps: int, seed: int
) -> Tensor:
    """Return the map (1, h, w) of a layer, for an image (1, C, H, W) and a class; captum's is summed over filters.

    The baseline is black: zero, of the image or (LayerFeatureAblation) of the layer.

    Raises:
        ModelError: If captum cannot explain this network.
    """
    algorithm = getattr(attr, method)(classifier, source.module)
    image = image.detach().requires_grad_()  # otherwise captum does it and warns
    if method == "LayerActivation":
        found = algorithm.attribute(image)
    elif method == "LayerGradientShap":
        # captum would run all samples at once.
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
            raise ModelError(f"captum's LayerDeepLift cannot explain this network: {reason}") from error
    elif method == "LayerFeatureAblation":
        cells = torch.arange(source.size.numel(), device=image.device).reshape(1, 1, *source.size)
        # All filters of a cell get the same value, that of the cell.
        found = algorithm.attribute(image, target=target, layer_mask=cells, perturbations_per_eval=AT_ONCE)[:, :1]
    elif method in INTEGRATED:
        found = algorithm.attribute(image, target=target, n_steps=steps, internal_batch_size=AT_ONCE)
    else:
        found = algorithm.attribute(image, target=target)
    summed: Tensor = found.detach().sum(1)
    return summed


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch and numpy, both of which captum uses, and restore them at the end."""
    state = np.random.get_state()  # noqa: NPY002  # captum's generator
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002  # captum's generator
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002  # captum's generator


@final
class CaptumLayers(Extractor["CaptumLayers.Params"]):
    """One of captum's layer attributions, of every layer; one with a value per filter is summed over the filters.

    Kokhlikyan, N. et al. "Captum: a unified and generic model interpretability library for PyTorch".
    arXiv:2009.07896, 2020. For each layer and class, captum runs the network again.

    LayerFeatureAblation sets all filters of a cell to zero at once, with a forward pass per cell. LayerDeepLift treats
    only torch's modules as non-linear; functions, such as a classifier's global pooling, count by their gradient. Three
    cannot be used: LayerDeepLiftShap (needs several baselines), LayerFeaturePermutation (permutes the images of a
    batch) and LayerLRP (has no rule for the outputs of blocks and activations).
    """

    class Params(Parameters):
        method: Attribution = Field("LayerGradCam", description="The class in captum.attr.")
        steps: PositiveInt = Field(
            50,
            description="Steps on the path from a black image, for InternalInfluence, LayerConductance and "
            "LayerIntegratedGradients; random positions on it, for LayerGradientShap.",
        )
        seed: NonNegativeInt = Field(0, description="Seed of LayerGradientShap, the same for every map.")

        @field_validator("method", mode="before")
        @classmethod
        def _serves(cls, method: object) -> object:
            if isinstance(method, str) and method in REFUSED:
                raise ValueError(f"captum's {method} cannot be used: {REFUSED[method]}")
            return method

    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images; see `Extractor.prepare`."""
        twin = frozen_copy(classifier)
        device = next(twin.parameters()).device

        @exact_float32()
        def explain(images: FloatArray, rule: ClassRule) -> list[Maps]:
            if not len(images):
                return []
            batch = torch.tensor(images, device=device)
            sources = layer_sources(twin, batch[:1])
            with torch.no_grad():
                presence = probabilities(twin(batch))
            chosen = choose_classes(rule, presence)
            return [
                Maps(images.shape[2:], classes, twin.layers, self._attribute(twin, sources, image, classes), row)
                for image, classes, row in zip(torch.split(batch, 1), chosen, presence, strict=True)
            ]

        return explain

    def _attribute(
        self, classifier: Classifier, sources: list[LayerSource], image: Tensor, classes: tuple[int, ...]
    ) -> tuple[FloatArray, ...]:
        """Return the maps, float32 (M, h, w) per layer, of one image (1, C, H, W)."""
        method, steps, seed = self.params.method, self.params.steps, self.params.seed
        maps = []
        for source in sources:
            planes = [attribution(method, classifier, source, image, target, steps, seed) for target in classes]
            arrays = [plane.cpu().numpy() for plane in planes]
            maps.append(np.concatenate([np.empty((0, *source.size), np.float32), *arrays]))
        return tuple(maps)


class LayerSource(NamedTuple):
    """The module whose output is a layer, and the layer's (h, w)."""

    module: nn.Module
    size: torch.Size


def layer_sources(classifier: Classifier, images: Tensor) -> list[LayerSource]:
    """Return for each layer the module of the backbone whose output it is, as a dry run shows.

    Raises:
        ModelError: If a layer is no module's output.
    """
    modules: dict[int, nn.Module] = {}
    outputs: list[Any] = []  # kept alive, so that no two have the same id

    def after(module: nn.Module, inputs: Any, output: Any) -> None:
        modules.setdefault(id(output), module)
        outputs.append(output)

    hooks = [module.register_forward_hook(after) for module in classifier.backbone.modules()]
    try:
        with torch.no_grad():
            features = classifier.features(images)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, feature in zip(classifier.layers, features, strict=True):
        if id(feature) not in modules:
            raise ModelError(
                f"captum needs layers that are the output of a module; layer {layer.name!r} is not: use grad-cam"
            )
    return [LayerSource(modules[id(feature)], feature.shape[2:]) for feature in features]
