"""A method that learns how often each class occurs."""

import numpy as np
import torch

from micraframe.interfaces import Method, Model
from micraframe.parameters import Parameters
from micraframe.types import Annotation, Scores


class BrightnessModel(Model):
    def __init__(self, frequency):
        self.frequency = frequency

    def score(self, images, rule):
        presence = self.frequency.numpy()
        classes = tuple(rule(presence))
        for image in images:
            bright = np.clip(image.mean(axis=0), 0, 1)
            yield Scores(presence, classes, np.repeat(bright[None], len(classes), axis=0))

    def state(self):
        return {"frequency": self.frequency}


class Brightness(Method[Parameters]):
    """Bright pixels suggest every class; a class is as probable as it is frequent in the training images."""

    learns_from = frozenset({Annotation.LABELS})

    def fit(self, train, valid, info, context):
        return BrightnessModel(torch.tensor(np.mean([sample.labels for sample in train], axis=0, dtype=np.float32)))

    def restore(self, state, info, device):
        return BrightnessModel(state["frequency"])
