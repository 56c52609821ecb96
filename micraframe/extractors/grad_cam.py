"""Grad-CAM of all layers in one go."""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.classifier import Classifier
from micraframe.extractors.single_pass import SinglePass, prepare, weighted_sum
from micraframe.interfaces import Explain, Extractor


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

    With A^k the activations of a layer's filter k and y^c the logit of class c,

        L^c = sum_k alpha^c_k A^k,  alpha^c_k = mean_ij dy^c / dA^k_ij

    Signed: nothing is rectified (Bilodeau et al. 2022, Methods; Selvaraju, R. R. et al. "Grad-CAM: visual explanations
    from deep networks via gradient-based localization". ICCV 2017).
    """
    return weighted_sum(activations, gradients.mean((2, 3)))


@final
class GradCam(Extractor):
    """Grad-CAM (Selvaraju et al. 2017) of every layer, as MICRA-Net uses it."""

    class Params(SinglePass):
        pass

    def __init__(self, params: Params) -> None:
        self.params = params

    def prepare(self, classifier: Classifier) -> Explain:
        """See `Extractor.prepare`."""
        return prepare(classifier, grad_cam, self.params)
