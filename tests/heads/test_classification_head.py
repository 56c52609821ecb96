import numpy as np
import pytest

from micraframe.errors import ConfigError
from micraframe.heads.classification import Classification
from micraframe.types import ScoreMap, Threshold

NONE = ScoreMap((), np.zeros((0, 5, 7), np.float32), np.zeros((0, 5, 7), np.float32), ())
IMAGE = np.zeros((1, 5, 7), np.float32)


def decide(scores, **params):
    head = Classification(Classification.Params(**params))
    scores = np.array(scores, np.float32)
    assert head.wanted(scores) == ()
    return head.decide(NONE, scores, IMAGE)


def test_a_class_is_present_from_the_decision_on():
    found = decide([0.49, 0.5, 0.9])
    assert found.present.tolist() == [False, True, True]
    assert found.status == ("absent", "ok", "ok")
    assert found.masks is None
    assert found.thresholds == (Threshold("presence", 0.5),)


def test_every_class_can_have_its_own_decision():
    found = decide([0.7, 0.7], decision=[0.7, 0.8])
    assert found.present.tolist() == [True, False]
    assert [threshold.value for threshold in found.thresholds] == [0.7, 0.8]
    with pytest.raises(ConfigError, match="2 numbers for 3 classes"):
        decide([0.1, 0.2, 0.3], decision=[0.7, 0.8])
