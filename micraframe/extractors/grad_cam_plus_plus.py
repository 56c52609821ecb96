"""Grad-CAM++ of all layers at once."""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.extractors.single_pass import SinglePass, weighted_sum


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

    With A^k the activations of a layer's filter k, g^k = dy^c / dA^k the gradient of the logit of class c, and
    S_k = sum_ab A^k_ab,

        L^c = sum_k w^c_k A^k,  w^c_k = sum_ij a^k_ij max(0, g^k_ij),
        a^k_ij = (g^k_ij)^2 / (2 (g^k_ij)^2 + S_k (g^k_ij)^3) = 1 / (2 + S_k g^k_ij)

    where g is not 0 (Chattopadhay, A. et al. "Grad-CAM++: generalized gradient-based visual explanations for deep
    convolutional networks". WACV 2018). The paper's activations come from a ReLU; of others only the positive part
    enters S_k, so that nothing is divided by 0 (pytorch-grad-cam takes both parts). The sum is not rectified.
    """
    positive = gradients.relu()
    total = activations.relu().sum((2, 3), keepdim=True)
    return weighted_sum(activations, (positive / (2 + total * positive)).sum((2, 3)))


@final
class GradCamPlusPlus(SinglePass):
    """Grad-CAM++ (Chattopadhay et al. 2018) of every layer: small structures count as much as large ones.

    For the output of a ReLU the maps equal those of pytorch-grad-cam. For other layers they differ: negative
    activations, with which the divisor could be 0 or less, are left out of S_k, while pytorch-grad-cam includes them.
    """

    layer_map = staticmethod(grad_cam_plus_plus)
