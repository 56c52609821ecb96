"""Every component of micraframe's own keeps the promises of its kind; a plugin's own tests check the plugin's."""

from __future__ import annotations

import numpy as np
import pytest

from micraframe import catalog
from micraframe.combiners.last_layer import LastLayer
from micraframe.testing import check, check_combiner

QUICK = {
    ("dataset", "modified-digits"): {"size": 64, "counts": [1, 2], "train": 6, "valid": 3, "test": 3},
    ("method", "micra-net"): {
        "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
        "dropout": 0.0,
        "training": {"epochs": 2, "batch_size": 3},
    },
}
NEEDS_FILES = {("dataset", "folder")}

ENTRIES = [
    entry
    for entry in catalog().entries()
    if entry.plugin.name == "micraframe" and (entry.component.kind, entry.component.name) not in NEEDS_FILES
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: f"{entry.component.kind}-{entry.component.name}")
def test_conformance(entry):
    kind, name = entry.component.kind, entry.component.name
    check(kind, entry.qualified, **QUICK.get((kind, name), {}))


def test_the_kit_finds_what_is_wrong():
    class Flipped(LastLayer):
        def combine(self, maps, image):
            result = super().combine(maps, image)
            object.__setattr__(result, "values", np.ascontiguousarray(result.values.swapaxes(1, 2)))
            return result

    with pytest.raises(AssertionError, match="the image's size"):
        check_combiner(Flipped(LastLayer.Params()))
