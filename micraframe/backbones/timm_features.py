"""Any convolutional model of timm as a backbone."""

from __future__ import annotations

import difflib
from typing import Any, final

import timm
import torch
from pydantic import Field
from torch import Tensor, nn

from micraframe.errors import DataError, ModelError
from micraframe.interfaces import Backbone, Parameters
from micraframe.types import Layer

_PROBE = (97, 75)
"""Sides of the image of the dry run: odd, different, and in no stride's table."""


@final
class TimmFeatures(Backbone):
    """The feature maps that a timm model offers (`features_only=True`), under timm's names for their modules.

    A dry run proves that the model can serve: that it takes an image of any size, gives each layer as (B, C, h, w)
    with one cell for every `stride` pixels, and that gradients of the deepest layer reach all others.
    """

    class Params(Parameters):
        model: str = Field("resnet18", description="timm's name; `timm.list_models()` knows them all.")
        pretrained: bool = Field(False, description="Begin with timm's published weights, from its cache or the net.")
        out_indices: tuple[int, ...] | None = Field(
            None, min_length=1, description="Which of timm's feature maps are layers, shallow to deep; all by default."
        )
        options: dict[str, Any] = Field({}, description="More keywords of timm.create_model: `{output_stride: 8}`.")

    def __init__(self, params: Params) -> None:
        self.params = params

    def untrained(self) -> TimmFeatures:
        """See `Backbone.untrained`: without timm's published weights, for which the net may be asked."""
        return TimmFeatures(self.params.model_copy(update={"pretrained": False}))

    def create(self, channels: int) -> tuple[nn.Module, tuple[Layer, ...]]:
        """See `Backbone.create`."""
        name = self.params.model
        network = self._build(channels)
        # Overwritten in place by the next activation, a feature map would no longer be what its name says.
        for module in network.modules():
            if getattr(module, "inplace", False) is True:
                module.inplace = False
        told = network.feature_info
        layers = tuple(
            Layer(module, int(width), int(stride))
            for module, width, stride in zip(told.module_name(), told.channels(), told.reduction(), strict=True)
        )
        if len({layer.name for layer in layers}) != len(layers):
            raise ModelError(f"timm model {name!r} names two layers alike: {[layer.name for layer in layers]}")
        features = Features(network, layers[-1].stride)
        dry_run(features, layers, channels, name)
        return features, layers

    def _build(self, channels: int) -> Any:
        params = self.params
        name = params.model
        if not timm.is_model(name):
            near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "timm.list_models() lists them"
            raise ModelError(f"timm has no model {name!r}; {hint}")
        chosen: dict[str, Any] = dict(params.options)
        if params.out_indices is not None:
            chosen["out_indices"] = params.out_indices

        def build(pretrained: bool) -> Any:
            return timm.create_model(name, features_only=True, in_chans=channels, pretrained=pretrained, **chosen)

        try:
            return build(params.pretrained)
        except Exception as error:  # timm has no error of its own: whatever it raises, the model cannot be made
            reason = _reason(error)
            if params.pretrained and _works(build):
                raise ModelError(
                    f"the published weights of timm model {name!r} cannot be had: {reason}; connect to the net once, "
                    "or set pretrained: false"
                ) from error
            raise ModelError(f"timm model {name!r} cannot serve: {reason}; choose a convolutional one") from error


class Features(nn.Module):
    """Runs a timm feature extractor.

    Args:
        network: Maps images (B, C, H, W) to a sequence of feature maps.
        stride: Of the deepest.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps, shallow to deep.

        Raises:
            DataError: If the image is too small for the network.
        """
        try:
            return list(self.network(images))
        except RuntimeError as error:
            height, width = images.shape[2:]
            if min(height, width) >= self.stride:
                raise
            raise DataError(
                f"an image of {height} x {width} pixels is too small for the network, whose deepest layer has a cell "
                f"for every {self.stride}; pad the images, or choose fewer layers"
            ) from error


def dry_run(network: nn.Module, layers: tuple[Layer, ...], channels: int, name: str) -> None:
    """Raise `ModelError` unless the network gives these layers for an odd-sized image, all reached by gradients."""
    height, width = _PROBE
    images = torch.rand((1, channels, height, width), generator=torch.Generator().manual_seed(0))
    refused = f"timm model {name!r} cannot serve:"
    was_training = network.training
    network.eval()
    try:
        features = network(images)
        gradients = torch.autograd.grad(features[-1].sum(), features, allow_unused=True)
    except Exception as error:  # as many ways to fail as timm has models
        raise ModelError(
            f"{refused} with an image of {height} x {width} pixels it fails: {_reason(error)}; a network that takes "
            "images of any size is wanted"
        ) from error
    finally:
        network.train(was_training)

    if len(features) != len(layers):
        raise ModelError(f"{refused} it announces {len(layers)} layers and gives {len(features)}")
    for layer, feature, gradient in zip(layers, features, gradients, strict=True):
        shape = tuple(feature.shape)
        if len(shape) != 4 or shape[1] != layer.channels:
            raise ModelError(
                f"{refused} its layer {layer.name!r} has shape {shape}; (batch, {layer.channels} channels, rows, "
                "columns) is wanted"
            )
        exact = (height / layer.stride, width / layer.stride)
        if any(abs(cells - wanted) >= 1 for cells, wanted in zip(shape[2:], exact, strict=True)):
            raise ModelError(
                f"{refused} its layer {layer.name!r} has {shape[2]} x {shape[3]} cells for {height} x {width} pixels; "
                f"at a stride of {layer.stride} that does not lie on the image, as where convolutions do not pad"
            )
        if gradient is None:
            raise ModelError(f"{refused} what follows does not use its layer {layer.name!r}: no gradient comes back")


def _works(build: Any) -> bool:
    """Say whether the model can be made without its published weights."""
    try:
        build(False)
    except Exception:  # the same ways to fail as above, and the first error is the one that is shown
        return False
    return True


def _reason(error: Exception) -> str:
    """Return an error's kind and first line; the rest is in the chained cause."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
