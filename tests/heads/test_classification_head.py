import numpy as np
import pytest

from micraframe.errors import ConfigError
from micraframe.registry import build
from micraframe.types import Threshold

NO_MAPS = np.zeros((0, 5, 7))


def test_a_class_is_present_at_the_threshold_and_above(decide):
    found = decide("classification", NO_MAPS, [0.49, 0.5, 0.9])
    assert found.present.tolist() == [False, True, True]
    assert found.status == ("absent", "ok", "ok")
    assert found.masks is None
    assert found.thresholds == (Threshold("presence", 0.5),)


def test_nothing_is_explained():
    assert build("head", "classification").classes_to_explain(np.ones(3, np.float32)) == ()


def test_every_class_can_have_its_own_threshold(decide):
    found = decide("classification", NO_MAPS, [0.7, 0.7], presence_threshold=[0.7, 0.8])
    assert found.present.tolist() == [True, False]
    assert [threshold.value for threshold in found.thresholds] == [0.7, 0.8]
    with pytest.raises(ConfigError, match="expected one number or 3, one per class, got 2"):
        decide("classification", NO_MAPS, [0.1, 0.2, 0.3], presence_threshold=[0.7, 0.8])
