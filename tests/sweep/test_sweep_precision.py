"""Sweeps compute float32 at full precision, also on GPUs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from micraframe.extractors.frozen import fast_copy
from micraframe.sweep.engine import SweepEngine, dense_tile, exact_tile
from micraframe.sweep.image import open_image
from micraframe.sweep.windows import lay_windows
from micraframe.testing import small_classifier
from micraframe.types import Normalisation


@pytest.mark.parametrize(
    "compute", [lambda machine: dense_tile(machine, 1, 0, 0), lambda machine: exact_tile(machine, 0, 0)]
)
def test_float32_is_exact_during_a_sweep_and_restored_afterwards(compute):
    image = np.random.default_rng(0).random((1, 64, 64), np.float32)
    classifier, precision = fast_copy(small_classifier(), "float32")
    seen = []
    classifier.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(torch.backends.cudnn.conv.fp32_precision)
    )
    before = torch.backends.cudnn.conv.fp32_precision
    rows, columns = lay_windows(image.shape[1:], classifier.layers[-1].stride, (32, 32), 0.5, 64)
    with open_image(image) as opened:
        compute(SweepEngine(classifier, precision, opened, Normalisation(), rows, columns))
    assert set(seen) == {"ieee"}
    assert torch.backends.cudnn.conv.fp32_precision == before
