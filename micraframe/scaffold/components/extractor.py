"""An extractor: it explains a classifier, by a map per class and layer."""

from __future__ import annotations

from typing import final

import torch

from micraframe.classifier import Classifier
from micraframe.extractors.frozen import choose_classes, frozen_copy, probabilities
from micraframe.interfaces import ClassRule, Explain, Extractor
from micraframe.parameters import Parameters
from micraframe.types import FloatArray, Maps


@final
class DeepestCam(Extractor[Parameters]):
    """The deepest layer, weighted by the linear layer: M_c = sum_k w_ck A_k (Zhou et al., CVPR 2016)."""

    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images."""
        frozen = frozen_copy(classifier)
        weight = frozen.linear.weight

        @torch.no_grad()
        def explain(images: FloatArray, rule: ClassRule) -> list[Maps]:
            deepest = frozen.features(torch.from_numpy(images).to(weight.device))[-1]
            presence = probabilities(frozen.logits(deepest))
            explained = []
            for activation, row, classes in zip(deepest, presence, choose_classes(rule, presence), strict=True):
                maps = torch.einsum("ck,khw->chw", weight[list(classes)], activation).cpu().numpy()
                explained.append(Maps(images.shape[2:], classes, frozen.layers[-1:], (maps,), row))
            return explained

        return explain
