"""MICRA-Net written down plainly: the paper's method, one image and one class at a time, by the usual libraries.

For each image and class: a forward pass, a backward pass through the whole network, parameters included, with a hook
on every layer; signed maps, of which the deepest is rectified; nearest upsampling; min-max of each layer; the mean of
five of scikit-learn's PCAs over all layers but the deepest; its sign by the deepest; the range where that one is
positive brought to [0, 1]; Otsu's threshold.

Until version 1.5, scikit-learn chose its randomised solver for a PCA of this shape, as in the paper; only with it is
repetition meaningful. Today it solves the small eigenproblem of the covariance.

It shares no code with micraframe but the network, which must be of the `unet-encoder` kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from skimage.filters import threshold_otsu
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torch.nn import functional

Array = npt.NDArray[Any]

Solver = Literal["auto", "randomized"]

REPEATED = 5
"""PCAs whose mean is taken."""


def masks(network: nn.Module, images: Array, classes: Sequence[int], solver: Solver = "auto") -> Array:
    """Return the masks, bool (B, K, H, W), of K classes in images, float32 (B, C, H, W)."""
    return np.stack(
        [[mask(maps(network, image, index), image.shape[1:], solver) for index in classes] for image in images]
    )


def maps(network: nn.Module, image: Array, index: int) -> list[Array]:
    """Return the map of each layer, float32 (h, w), shallow to deep, for one class in an image (C, H, W)."""
    activations: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        activations.append(output)

    hooks = [block.register_forward_hook(keep) for block in network.backbone.blocks.values()]
    network.zero_grad()
    logits = network(torch.from_numpy(image)[None].to(next(network.parameters()).device))
    logits[0, index].backward()
    for hook in hooks:
        hook.remove()
    found = []
    for activation in activations:
        weights = activation.grad.mean((2, 3), keepdim=True)
        found.append((weights * activation).sum(1)[0].detach().cpu().numpy())
    return found


def mask(layers: list[Array], size: tuple[int, int], solver: Solver = "auto") -> Array:
    """Return the mask, bool (H, W), for the maps of all layers, shallow to deep."""
    *shallow, deepest = [
        functional.interpolate(torch.from_numpy(layer)[None, None], size, mode="nearest")[0, 0].numpy()
        for layer in layers
    ]
    deepest = np.maximum(deepest, 0)
    inside = deepest > 0
    if not inside.any():
        return inside
    pixels = np.stack([min_max(layer).ravel() for layer in shallow], axis=1)
    repeated = [PCA(1, svd_solver=solver, random_state=seed).fit_transform(pixels) for seed in range(REPEATED)]
    component = np.mean(repeated, axis=0).reshape(size)
    if (component * deepest).sum() < 0:
        component = -component
    low, high = component[inside].min(), component[inside].max()
    component = np.clip((component - low) / (high - low), 0, 1)
    # With the usual 256 bins, a threshold is off by up to one bin, which changes a mask by more than the 1 % allowed.
    return component > threshold_otsu(component, nbins=4096)


def min_max(values: Array) -> Array:
    """Scale values to [0, 1]."""
    return (values - values.min()) / (values.max() - values.min())
