"""HiResCAM of all layers at once."""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.extractors.single_pass import SinglePass


def hires_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

    With A^k the activations of a layer's filter k and y^c the logit of class c,

        L^c_ij = sum_k (dy^c / dA^k_ij) A^k_ij

    Signed: nothing is rectified (Draelos, R. L. and Carin, L. "Use HiResCAM instead of Grad-CAM for faithful
    explanations of convolutional neural networks". arXiv:2011.08891, 2020).
    """
    return (gradients * activations).sum(1)


@final
class HiResCam(SinglePass):
    """HiResCAM (Draelos and Carin 2020) of every layer: gradients weight each position by itself."""

    layer_map = staticmethod(hires_cam)
