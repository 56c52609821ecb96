"""Grad-CAM of all layers at once."""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.extractors.single_pass import SinglePass, weighted_sum


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

    With A^k the activations of a layer's filter k and y^c the logit of class c,

        L^c = sum_k alpha^c_k A^k,  alpha^c_k = mean_ij dy^c / dA^k_ij

    Signed: nothing is rectified (Bilodeau et al. 2022, Methods; Selvaraju, R. R. et al. "Grad-CAM: visual explanations
    from deep networks via gradient-based localization". ICCV 2017).
    """
    return weighted_sum(activations, gradients.mean((2, 3)))


@final
class GradCam(SinglePass):
    """Grad-CAM (Selvaraju et al. 2017) of every layer, as MICRA-Net uses it."""

    layer_map = staticmethod(grad_cam)
