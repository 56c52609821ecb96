"""A thousand images take no more memory than two hundred."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

STATM = Path("/proc/self/statm")
MOST = 10 << 20
"""Bytes that the process may grow by, from 200 images to 1 000: were the maps of each kept, it would be 21 MiB."""

PROGRAM = """
import resource
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed.subject import NARROW, classifier, pipeline
from micraframe import batching

torch.set_num_threads(1)
batching.BATCH_PIXELS = 8 * 24 * 24  # else all the images would be one batch
generator = np.random.default_rng(0)
images = (generator.random((1, 24, 24), np.float32) for _ in range(1000))
resident = {}
for number, prediction in enumerate(pipeline(classifier(NARROW)).predict(images), start=1):
    assert len(prediction.masks) == 10
    if number in (200, 1000):
        resident[number] = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
print(resident[1000] - resident[200])
"""


@pytest.mark.skipif(not STATM.exists(), reason="no /proc to ask how much memory is resident")
def test_memory_does_not_grow_with_the_number_of_images():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST
