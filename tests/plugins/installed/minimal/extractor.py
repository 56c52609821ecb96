"""Class activation mapping, which explains the deepest layer only."""

import torch

from micraframe.extractors.frozen import frozen_copy
from micraframe.interfaces import Extractor
from micraframe.parameters import Parameters
from micraframe.types import Maps


class Cam(Extractor[Parameters]):
    """The deepest layer, weighted by the linear layer (Zhou et al., CVPR 2016): M_c = sum_k w_ck A_k."""

    def prepare(self, classifier):
        frozen = frozen_copy(classifier)
        weight = frozen.linear.weight

        def explain(images, rule):
            deepest = frozen.features(torch.from_numpy(images).to(weight.device))[-1]
            explained = []
            for activation, row in zip(deepest, torch.sigmoid(frozen.logits(deepest)).cpu().numpy(), strict=True):
                classes = tuple(rule(row))
                maps = torch.einsum("ck,khw->chw", weight[list(classes)], activation).cpu().numpy()
                explained.append(Maps(images.shape[2:], classes, frozen.layers[-1:], (maps,), row))
            return explained

        return explain
