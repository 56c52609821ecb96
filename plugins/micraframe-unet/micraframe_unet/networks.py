"""U-Nets: the paper's, on micraframe's own encoder, and those of segmentation-models-pytorch."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from micraframe import registry
from micraframe.backbones.unet_encoder import Block
from micraframe.errors import MissingDependency, ModelError
from micraframe.types import Layer

OWN = "unet-encoder"


def create(encoder: str, widths: tuple[int, ...], pretrained: bool, channels: int, classes: int) -> nn.Module:
    """Make a network that maps images (B, C, H, W), of any H and W, to logits (B, K, H, W).

    Args:
        encoder: `unet-encoder`, or segmentation-models-pytorch's name: `resnet34`, `tu-resnet18` (timm's resnet18).
        widths: Filters of each stage of `unet-encoder`.
        pretrained: Begin with the encoder's published weights (not `unet-encoder`).
        channels: The number of channels C.
        classes: The number of classes K.

    Raises:
        ModelError: If there is no such encoder, it cannot serve, or its weights cannot be had.
        MissingDependency: If segmentation-models-pytorch is needed and cannot be imported.
    """
    if encoder != OWN:
        network = _from_smp(encoder, pretrained, channels, classes)
        return Padded(network, network.encoder.output_stride)
    if pretrained:
        raise ModelError(f"there are no published weights of encoder {OWN!r}; set pretrained: false")
    features, layers = registry.build("backbone", f"micraframe/{OWN}", widths=widths).create(channels)
    return Padded(Decoded(features, layers, classes), layers[-1].stride)


def begin_with(network: nn.Module, logits: Tensor) -> None:
    """Have a new network say this of every pixel, but for what its last weights add.

    Lin, T.-Y. et al. "Focal loss for dense object detection". ICCV 2017, section 3.3: without it, the first steps teach
    that every pixel is background, and where a class is rare there is little left to unteach it.

    Args:
        network: Of `create`.
        logits: float32 (K,).
    """
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    assert last.bias is not None
    with torch.no_grad():
        last.bias.copy_(logits)


class Padded(nn.Module):
    """Gives a network only images that its strides divide: the edge's values go on at the bottom and at the right.

    Args:
        network: Maps images (B, C, H, W) to (B, K, H, W).
        stride: What must divide H and W.
    """

    def __init__(self, network: nn.Module, stride: int) -> None:
        super().__init__()
        self.network = network
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, K, H, W) for images (B, C, H, W)."""
        height, width = images.shape[2:]
        # Two cells at least: with a single one, batch normalisation has nothing to normalise by.
        bottom, right = (max(-side % self.stride, 2 * self.stride - side) for side in (height, width))
        if bottom or right:
            images = functional.pad(images, (0, right, 0, bottom), mode="replicate")
        return cast("Tensor", self.network(images)[:, :, :height, :width])


class Decoded(nn.Module):
    """An encoder whose deepest layer is brought back to the image's size, joined on the way by those it came from.

    Ronneberger, O. et al. "U-Net: convolutional networks for biomedical image segmentation". MICCAI 2015; with padded
    convolutions and batch normalisation, as the encoder has them.

    Args:
        encoder: Maps images to the list of its layers' activations, shallow to deep, the strides being powers of 2.
        layers: What these are; the last layer of each stride is joined.
        classes: The number of classes K.
    """

    def __init__(self, encoder: nn.Module, layers: Sequence[Layer], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.joined = tuple({layer.stride: index for index, layer in enumerate(layers)}.values())
        widths = [layers[index].channels for index in self.joined]
        self.decoder = nn.ModuleList(Up(deep, shallow) for deep, shallow in itertools.pairwise(reversed(widths)))
        self.logits = nn.Conv2d(widths[0], classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K, H, W) for images (B, C, H, W) whose sides the deepest stride divides."""
        activations = self.encoder(images)
        *skips, deep = (activations[index] for index in self.joined)
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            deep = up(deep, skip)
        return cast("Tensor", self.logits(deep))


class Up(nn.Module):
    """Doubles a deep layer's size, joins the shallower one, and convolves twice.

    Args:
        deep: Channels of the deep layer.
        shallow: Channels of the shallow layer, and of what comes out.
    """

    def __init__(self, deep: int, shallow: int) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(deep, shallow, kernel_size=2, stride=2)
        self.blocks = nn.Sequential(Block(2 * shallow, shallow), Block(shallow, shallow))

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        """Return (B, shallow channels, 2 h, 2 w) for a deep layer (B, deep channels, h, w)."""
        return cast("Tensor", self.blocks(torch.cat([shallow, self.enlarge(deep)], dim=1)))


def _from_smp(encoder: str, pretrained: bool, channels: int, classes: int) -> Any:
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        raise MissingDependency(
            f"encoder {encoder!r} cannot be had: {error}; pip install segmentation-models-pytorch brings it"
        ) from error
    known = [*smp.encoders.get_encoder_names(), *(f"tu-{name}" for name in timm.list_models())]
    if encoder.partition(".")[0] not in known:
        near = difflib.get_close_matches(encoder, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "write tu- and the name of a timm model"
        raise ModelError(f"there is no encoder {encoder!r}; {hint}")

    def build(weights: str | None) -> Any:
        network = smp.Unet(encoder, encoder_weights=weights, in_channels=channels, classes=classes)
        stride = network.encoder.output_stride
        with torch.no_grad():
            found = network.eval()(torch.zeros(1, channels, 2 * stride, 3 * stride))
        if found.shape != (1, classes, 2 * stride, 3 * stride):
            raise ModelError(f"its logits have shape {tuple(found.shape)}")
        return network.train()

    try:
        return build("imagenet" if pretrained else None)
    except Exception as error:  # whatever it raises, this encoder cannot serve
        reason = f"{type(error).__name__}: {(str(error).splitlines() or ['no reason given'])[0]}"
        remedy = "choose a convolutional one" + (", or set pretrained: false" if pretrained else "")
        raise ModelError(f"encoder {encoder!r} cannot serve: {reason}; {remedy}") from error
