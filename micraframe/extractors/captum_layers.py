"""captum's layer attributions, layer by layer: slow, and the reference for what is fast."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, final

import numpy as np
import torch
from captum import attr
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from micraframe.classifier import Classifier
from micraframe.errors import ModelError
from micraframe.extractors.frozen import check_classes, frozen_copy, probabilities
from micraframe.interfaces import ClassRule, Explain, Extractor, Parameters
from micraframe.types import FloatArray, Maps

Method = Literal[
    "LayerGradCam",
    "LayerActivation",
    "LayerGradientXActivation",
    "InternalInfluence",
    "LayerConductance",
    "LayerIntegratedGradients",
]
OF_A_PATH = ("InternalInfluence", "LayerConductance", "LayerIntegratedGradients")


@final
class CaptumLayers(Extractor):
    """One of captum's layer attributions, of every layer; one that has a value for each filter is summed over them.

    Kokhlikyan, N. et al. "Captum: a unified and generic model interpretability library for PyTorch".
    arXiv:2009.07896, 2020. For each layer and class it is captum that runs the network anew.
    """

    class Params(Parameters):
        method: Method = Field("LayerGradCam", description="The class of captum.attr.")
        steps: PositiveInt = Field(
            50,
            description="Steps on the path from a black image, for InternalInfluence, LayerConductance and "
            "LayerIntegratedGradients.",
        )

    def __init__(self, params: Params) -> None:
        self.params = params

    def prepare(self, classifier: Classifier) -> Explain:
        """See `Extractor.prepare`."""
        twin = frozen_copy(classifier)
        device = next(twin.parameters()).device

        def explain(images: FloatArray, rule: ClassRule) -> list[Maps]:
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            makers = makers_of_layers(twin, batch[:1])
            with torch.no_grad():
                scores = probabilities(twin(batch))
            chosen = check_classes(rule(scores), len(images), scores.shape[1])
            return [
                Maps(images.shape[2:], classes, twin.layers, self._attribute(twin, makers, image, classes), row)
                for image, classes, row in zip(torch.split(batch, 1), chosen, scores, strict=True)
            ]

        return explain

    def _attribute(
        self, classifier: Classifier, makers: list[Maker], image: Tensor, classes: tuple[int, ...]
    ) -> tuple[FloatArray, ...]:
        """Return the maps, float32 (K, h, w) per layer, of one image (1, C, H, W)."""
        options: dict[str, Any] = {}
        if self.params.method in OF_A_PATH:
            options = {"n_steps": self.params.steps, "internal_batch_size": 8}
        maps = []
        for module, size in makers:
            algorithm = getattr(attr, self.params.method)(classifier, module)
            planes = [np.empty((0, *size), np.float32)]
            for target in classes:
                if self.params.method != "LayerActivation":
                    options["target"] = target
                # Required here, or captum does it and warns.
                found = algorithm.attribute(image.detach().requires_grad_(), **options)
                planes.append(found.detach().sum(1).cpu().numpy())
            maps.append(np.concatenate(planes))
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
