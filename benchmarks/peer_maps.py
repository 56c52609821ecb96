"""The signed maps of pytorch-grad-cam and TorchCAM: of any classifier, and of a tiny one as a committed reference.

    python -m benchmarks.peer_maps    # writes tests/extractors/peers.safetensors; needs the extra `bench`

The file holds the tiny classifier's weights, its images and each peer's maps before rectifying and scaling, so that our
extractors are compared with the peers even if these are not installed. Its metadata holds the peers' versions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from micraframe import registry
from micraframe.classifier import Classifier, create_classifier
from micraframe.types import FloatArray

FILE = Path(__file__).parents[1] / "tests" / "extractors" / "peers.safetensors"
WIDTHS = (4, 8)
CHANNELS, CLASSES = 2, 3
TARGETS = (2, 0)
"""The class to explain in each image."""

OF_GRAD_CAM = {"grad-cam": "GradCAM", "layer-cam": "LayerCAM", "hires-cam": "HiResCAM", "grad-cam++": "GradCAMPlusPlus"}
OF_TORCHCAM = {"grad-cam": "GradCAM", "layer-cam": "LayerCAM"}
"""Our names, and the peers' classes that compute the same. TorchCAM's Grad-CAM++ sums A g^3, not A."""


def grad_cam_maps(classifier: Classifier, image: FloatArray, target: int, name: str) -> list[FloatArray]:
    """Return pytorch-grad-cam's maps (1, h, w) of every block, signed, for an image (1, C, H, W) and a class."""
    import pytorch_grad_cam

    blocks = list(classifier.backbone.blocks.values())
    with getattr(pytorch_grad_cam, OF_GRAD_CAM[name])(model=classifier, target_layers=blocks) as cam:
        tensor = torch.from_numpy(image)
        cam.activations_and_grads(tensor)[0, target].backward()
        seen = cam.activations_and_grads
        return [
            cam.get_cam_image(tensor, block, [], activation.numpy(), gradient.numpy(), eigen_smooth=False)
            for block, activation, gradient in zip(blocks, seen.activations, seen.gradients, strict=True)
        ]


def torchcam_maps(classifier: Classifier, image: FloatArray, target: int, name: str) -> list[FloatArray]:
    """Return TorchCAM's maps (1, h, w) of every block, signed, for an image (1, C, H, W) and a class."""
    from torchcam import methods

    blocks = list(classifier.backbone.blocks.values())
    with getattr(methods, OF_TORCHCAM[name])(classifier, target_layer=blocks, input_shape=image.shape[1:]) as cam:
        cam._relu = False
        scores = classifier(torch.from_numpy(image))
        return [found.numpy() for found in cam.compute_cams(target, scores, normalized=False)]


PEERS = {"grad-cam": (grad_cam_maps, OF_GRAD_CAM), "torchcam": (torchcam_maps, OF_TORCHCAM)}
"""By distribution: the function that computes the maps, and the extractors that it covers."""


def tiny() -> Classifier:
    """Return the network of the file, with torch's initial weights."""
    return create_classifier(registry.build("backbone", "unet-encoder", widths=WIDTHS), CHANNELS, CLASSES).eval()


def lively(classifier: Classifier) -> Classifier:
    """Give batch normalisations an effect, and gradients a size at which a peer's 1e-6 in a divisor is negligible.

    In place; returns the same classifier.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in classifier.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
        classifier.linear.weight *= 1e4
    return classifier


def reference(classifier: Classifier, images: FloatArray, targets: Sequence[int]) -> dict[str, FloatArray]:
    """Return the peers' maps (B, h, w), by `maps/PEER/EXTRACTOR/LAYER`."""
    found = {}
    for peer, (compute, names) in PEERS.items():
        for name in names:
            rows = [compute(classifier, images[[row]], target, name) for row, target in enumerate(targets)]
            for layer, parts in zip(classifier.layers, zip(*rows, strict=True), strict=True):
                found[f"maps/{peer}/{name}/{layer.name}"] = np.concatenate(parts).astype(np.float32)
    return found


def main() -> None:
    """Write the file."""
    torch.manual_seed(0)
    classifier = lively(tiny())
    images = np.random.default_rng(0).random((len(TARGETS), CHANNELS, 19, 15), np.float32)
    weights = {f"weights/{key}": value.numpy() for key, value in classifier.state_dict().items()}
    # Contiguous copies: the file stores an array's memory as it is.
    maps = {key: np.ascontiguousarray(value) for key, value in reference(classifier, images, TARGETS).items()}
    versions = {name: version(name) for name in (*PEERS, "torch")}
    # Under one key: the order of several would vary.
    metadata = {"about": json.dumps({"targets": TARGETS, "versions": versions})}
    save_file({"images": images, **weights, **maps}, FILE, metadata)
    print(f"{FILE}: {FILE.stat().st_size} bytes, {versions}")


if __name__ == "__main__":
    main()
