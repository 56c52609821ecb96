"""The evidence that a classifier pools: a map of every class, in its forward pass."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from micraframe.classifier import Classifier
from micraframe.errors import ModelError
from micraframe.extractors.frozen import choose_classes, probabilities
from micraframe.extractors.single_pass import SinglePass, explain_in_chunks
from micraframe.interfaces import ClassRule, Explain, Extractor
from micraframe.pooling import LogSumExp
from micraframe.types import FloatArray, Maps


@final
class Evidence(Extractor[SinglePass.Params]):
    """The logits of every position of the last layer, which the classifier pools into those of the image.

    With A the activations of the last layer, and W and b the linear layer's weights and bias, the one map of class c is

        s^c_ij = sum_k W_ck A^k_ij + b_c

    It is what was trained, not an explanation of it: there is no backward pass, and 0 is where presence is as probable
    as absence. The classifier must pool evidence, as with `pooling: log-sum-exp`; combiner `evidence` makes
    probabilities of the logits.
    """

    Params = SinglePass.Params

    def prepare(self, classifier: Classifier) -> Explain:
        """Return a function that explains batches of images; see `Extractor.prepare`."""
        if not isinstance(classifier.pooling, LogSumExp):
            raise ModelError(
                f"extractor evidence: expected a classifier that pools the logits of all positions, got pooling "
                f"{classifier.pooling}, which pools features; train with pooling: log-sum-exp, or use grad-cam"
            )
        return explain_in_chunks(classifier, self.params, evidence_chunk)


@torch.no_grad()
def evidence_chunk(classifier: Classifier, images: Tensor, rule: ClassRule) -> list[Maps]:
    """Return the maps of images (B, C, H, W), on the frozen classifier's device and in its precision."""
    last = classifier.features(images.contiguous(memory_format=torch.channels_last))[-1].float()
    pooling = classifier.pooling
    assert isinstance(pooling, LogSumExp)
    evidence = classifier.evidence(last)
    presence = probabilities(pooling.pool(evidence))
    every: FloatArray = evidence.cpu().numpy()
    size = (images.shape[2], images.shape[3])
    return [
        Maps(size, classes, classifier.layers[-1:], (maps[list(classes)],), row)
        for classes, maps, row in zip(choose_classes(rule, presence), every, presence, strict=True)
    ]
