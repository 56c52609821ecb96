"""LayerCAM of all layers at once."""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.extractors.single_pass import SinglePass


def layer_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

    With A^k the activations of a layer's filter k and y^c the logit of class c,

        L^c_ij = sum_k max(0, dy^c / dA^k_ij) A^k_ij

    The gradient is rectified, the sum is not (Jiang, P.-T. et al. "LayerCAM: exploring hierarchical class activation
    maps for localization". IEEE Transactions on Image Processing 30, 2021).
    """
    return (gradients.relu() * activations).sum(1)


@final
class LayerCam(SinglePass):
    """LayerCAM (Jiang et al. 2021) of every layer: positive gradients weight each position by itself."""

    layer_map = staticmethod(layer_cam)
