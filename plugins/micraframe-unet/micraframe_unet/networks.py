"""U-Nets: the paper's network, on micraframe's encoder, and the networks of segmentation-models-pytorch."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from micraframe import registry
from micraframe.backbones.encoder import Norm
from micraframe.classifier import backbone_of, weights_for
from micraframe.errors import MissingDependency, ModelError, reason_of

OWN = "unet-encoder"


def create(
    encoder: str,
    channels: int,
    classes: int,
    widths: tuple[int, ...] = (16, 32, 64, 128),
    norm: Norm = "torch",
    pretrained: bool = False,
) -> nn.Module:
    """Return a network that maps images (B, C, H, W), of any H and W, to logits (B, K, H, W).

    Args:
        encoder: `unet-encoder`, or a segmentation-models-pytorch name: `resnet34`, `tu-resnet18` (timm's resnet18).
        channels: Number of channels C.
        classes: Number of classes K.
        widths: Filters of each stage of `unet-encoder`.
        norm: How the batch normalisation of `unet-encoder` is computed in training.
        pretrained: Start from the encoder's published weights (not for `unet-encoder`).

    Raises:
        ModelError: If the encoder does not exist or is unsuitable, or its weights cannot be loaded.
        MissingDependency: If segmentation-models-pytorch is needed and cannot be imported.
    """
    if encoder != OWN:
        network = _from_smp(encoder, pretrained, channels, classes)
        return Padded(network, network.encoder.output_stride)
    if pretrained:
        raise ModelError(f"encoder {OWN!r} has no published weights; set pretrained: false")
    backbone, layers = registry.build("backbone", "micraframe/unet", widths=widths, norm=norm).create(channels)
    logits = nn.Conv2d(layers[-1].channels, classes, kernel_size=1)
    return Padded(PixelLogits(backbone, logits), max(layer.stride for layer in layers))


def start_at(network: nn.Module, logits: Tensor) -> None:
    """Set the last bias of a new network to these logits, so that it starts from the frequencies of the classes.

    Lin, T.-Y. et al. "Focal loss for dense object detection". ICCV 2017, section 3.3: otherwise the first steps learn
    that every pixel is background, which a rare class hardly corrects.

    Args:
        network: From `create`.
        logits: float32 (K,).
    """
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(logits)


def continue_from(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy the backbone of another model into a new network with encoder `unet-encoder`; the rest is unchanged.

    Args:
        network: From `create`.
        state: Of a model with backbone `unet`, such as a pixel-wise MICRA-Net, or of another of these networks; or with
            backbone `unet-encoder`, such as the paper's MICRA-Net, which becomes the network's encoder.

    Raises:
        ModelError: If the model has no such backbone, or more than one, or if widths or channels differ.
    """
    own = network.state_dict()
    weights = weights_for(own, state)
    if not weights:
        raise ModelError(
            "expected a model with one U-Net backbone, or one encoder, of the same widths and channels to start from, "
            f"got another; set encoder: {OWN}, and the same widths as the other model's backbone, unet or unet-encoder"
        )
    network.get_submodule("network.backbone").load_state_dict(backbone_of(own) | weights)


class Padded(nn.Module):
    """Pads images to a multiple of a network's stride, repeating the last row and column, and crops its output.

    Args:
        network: Maps images (B, C, H, W) to (B, K, H, W).
        stride: Divisor that H and W must have.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, K, H, W) for images (B, C, H, W)."""
        height, width = images.shape[2:]
        # At least two cells: batch normalisation cannot normalise a single value.
        bottom, right = (max(-side % self.stride, 2 * self.stride - side) for side in (height, width))
        if bottom or right:
            images = functional.pad(images, (0, right, 0, bottom), mode="replicate")
        return cast("Tensor", self.network(images)[:, :, :height, :width])


class PixelLogits(nn.Module):
    """A linear layer at every position of a backbone's last layer.

    Args:
        backbone: Maps images to the list of its layers' activations; the last one has their size.
        logits: The linear layer, as a 1 x 1 convolution.
    """

    def __init__(self, backbone: nn.Module, logits: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) for images (B, C, H, W) whose sides are multiples of the deepest stride."""
        return cast("Tensor", self.logits(self.backbone(images)[-1]))


def _from_smp(encoder: str, pretrained: bool, channels: int, classes: int) -> Any:
    try:
        import segmentation_models_pytorch as smp
        import timm  # takes seconds, and `unet-encoder` does without
    except ImportError as error:
        raise MissingDependency(
            f"encoder {encoder!r}: cannot import segmentation-models-pytorch: {error}; pip install "
            "segmentation-models-pytorch"
        ) from error
    known = [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]
    if encoder.partition(".")[0] not in known:
        near = difflib.get_close_matches(encoder, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "write tu- and the name of a timm model"
        raise ModelError(f"unknown encoder {encoder!r}; {hint}")

    def build(weights: str | None) -> Any:
        network = smp.Unet(encoder, encoder_weights=weights, in_channels=channels, classes=classes)
        stride = network.encoder.output_stride
        with torch.no_grad():
            found = network.eval()(torch.zeros(1, channels, 2 * stride, 3 * stride))
        if found.shape != (1, classes, 2 * stride, 3 * stride):
            raise ModelError(f"expected logits of the image's size, got shape {tuple(found.shape)}")
        return network.train()

    try:
        return build("imagenet" if pretrained else None)
    except Exception as error:  # libraries raise many types of error for an unsuitable encoder
        reason = reason_of(error, typed=True)
        remedy = "choose a convolutional one" + (", or set pretrained: false" if pretrained else "")
        raise ModelError(f"encoder {encoder!r} is unsuitable: {reason}; {remedy}") from error
