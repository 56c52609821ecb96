"""Class activation maps of all layers at once: Grad-CAM, Grad-CAM++, LayerCAM and HiResCAM.

Each is a formula for the map L^c of a class c in a layer, given the activations A^k of the layer's filters k and the
gradients dy^c / dA^k of the class's logit. Maps are signed: no sum is rectified.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.extractors.single_pass import SinglePass, weighted_sum


@final
class GradCam(SinglePass):
    """Grad-CAM (Selvaraju et al. 2017) of every layer, as MICRA-Net uses it."""

    @staticmethod
    def layer_map(activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

            L^c = sum_k alpha^c_k A^k,  alpha^c_k = mean_ij dy^c / dA^k_ij

        Signed as in Bilodeau et al. 2022, Methods; Selvaraju, R. R. et al. "Grad-CAM: visual explanations from deep
        networks via gradient-based localization". ICCV 2017.
        """
        return weighted_sum(activations, gradients.mean((2, 3)))


@final
class GradCamPlusPlus(SinglePass):
    """Grad-CAM++ (Chattopadhay et al. 2018) of every layer: small structures count as much as large ones.

    For the output of a ReLU the maps equal those of pytorch-grad-cam. For other layers they differ: negative
    activations, with which the divisor could be 0 or less, are left out of S_k, while pytorch-grad-cam includes them.
    """

    @staticmethod
    def layer_map(activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

        With the gradient g^k = dy^c / dA^k, and S_k = sum_ab max(0, A^k_ab),

            L^c = sum_k w^c_k A^k,  w^c_k = sum_ij a^k_ij max(0, g^k_ij),
            a^k_ij = (g^k_ij)^2 / (2 (g^k_ij)^2 + S_k (g^k_ij)^3) = 1 / (2 + S_k g^k_ij)

        where g is not 0. Chattopadhay, A. et al. "Grad-CAM++: generalized gradient-based visual explanations for deep
        convolutional networks". WACV 2018; there, activations come from a ReLU, so that S_k is their sum.
        """
        positive = gradients.relu()
        total = activations.relu().sum((2, 3), keepdim=True)
        return weighted_sum(activations, (positive / (2 + total * positive)).sum((2, 3)))


@final
class LayerCam(SinglePass):
    """LayerCAM (Jiang et al. 2021) of every layer: positive gradients weight each position by itself."""

    @staticmethod
    def layer_map(activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

            L^c_ij = sum_k max(0, dy^c / dA^k_ij) A^k_ij

        Jiang, P.-T. et al. "LayerCAM: exploring hierarchical class activation maps for localization". IEEE Transactions
        on Image Processing 30, 2021.
        """
        return (gradients.relu() * activations).sum(1)


@final
class HiResCam(SinglePass):
    """HiResCAM (Draelos and Carin 2020) of every layer: gradients weight each position by itself."""

    @staticmethod
    def layer_map(activations: Tensor, gradients: Tensor) -> Tensor:
        """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

            L^c_ij = sum_k (dy^c / dA^k_ij) A^k_ij

        Draelos, R. L. and Carin, L. "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural
        networks". arXiv:2011.08891, 2020.
        """
        return (gradients * activations).sum(1)
