"""Grad-CAM++ of all layers in one go."""

from __future__ import annotations

from typing import final

from torch import Tensor

from micraframe.classifier import Classifier
from micraframe.extractors.single_pass import SinglePass, prepare, weighted_sum
from micraframe.interfaces import Explain, Extractor


def grad_cam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return the maps (B, h, w) for activations and gradients (B, k, h, w).

    With A^k the activations of a layer's filter k, g^k = dy^c / dA^k the gradient of the logit of class c, and
    S_k = sum_ab A^k_ab,

        L^c = sum_k w^c_k A^k,  w^c_k = sum_ij a^k_ij max(0, g^k_ij),
        a^k_ij = (g^k_ij)^2 / (2 (g^k_ij)^2 + S_k (g^k_ij)^3) = 1 / (2 + S_k g^k_ij)

    where g is not 0 (Chattopadhay, A. et al. "Grad-CAM++: generalized gradient-based visual explanations for deep
    convolutional networks". WACV 2018). The paper's activations come from a ReLU; of others the positive part goes
    into S_k, so that nothing is divided by 0 (pytorch-grad-cam takes both parts). The sum is not rectified.
    """
    positive = gradients.relu()
    total = activations.relu().sum((2, 3), keepdim=True)
    return weighted_sum(activations, (positive / (2 + total * positive)).sum((2, 3)))


@final
class GradCamPlusPlus(Extractor):
    """Grad-CAM++ (Chattopadhay et al. 2018) of every layer: small structures count as much as large ones.

    For layers that a ReLU puts out these are pytorch-grad-cam's maps. For others they differ: negative activations,
    with which the divisor could be 0 or less, are left out of S_k, and pytorch-grad-cam lets them in.
    """

    class Params(SinglePass):
        pass

    def __init__(self, params: Params) -> None:
        self.params = params

    def prepare(self, classifier: Classifier) -> Explain:
        """See `Extractor.prepare`."""
        return prepare(classifier, grad_cam_plus_plus, self.params)
