"""Every built-in component passes the conformance kit, which finds what is wrong with others."""

from __future__ import annotations

import pytest

from micraframe import catalog
from micraframe.plugin import Component
from micraframe.testing import check

MICRA_NET = {
    "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
    "dropout": 0.0,
    "training": {"epochs": 2, "batch_size": 3},
}
QUICK = {
    ("dataset", "modified-digits"): {"size": 64, "counts": [1, 2], "train": 6, "valid": 3, "test": 3},
    # With views, presence is a mean over them, not what the classifier predicts for the image alone.
    ("extractor", "views"): {"flips": False},
    ("method", "micra-net"): MICRA_NET,
    ("method", "presence-otsu"): {"classifier": {"name": "micra-net", "params": MICRA_NET}},
    ("method", "best-from-labels"): {"teacher_widths": [4, 8], "student_widths": [4, 8], "epochs": 8, "batch_size": 2},
    ("method", "self-training"): {
        "teacher": {"name": "micra-net", "params": MICRA_NET},
        "student": {"name": "unet", "params": {"widths": [4, 8], "training": {"epochs": 2}}},
        "threshold": 0.5,
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


def test_a_classifier_that_pools_evidence_passes_too():
    training = {
        "epochs": 2,
        "batch_size": 3,
        "objectives": ["dense-negatives", "mix-consistency", "size"],
        "average": 0.9,
    }
    check(
        "method",
        "micra-net",
        backbone={"name": "unet", "params": {"widths": [4, 8], "upsampling": "bilinear"}},
        dropout=0.0,
        pooling="log-sum-exp",
        training=training,
        extractor="evidence",
        combiner="evidence",
    )


EXTRACTOR = """
from micraframe.errors import ModelError
from micraframe.interfaces import Extractor
from micraframe.parameters import Parameters

class Broken(Extractor[Parameters]):
    def prepare(self, classifier):
        {change}
"""

COMBINER = """
import numpy as np
from micraframe.interfaces import Combiner
from micraframe.parameters import Parameters
from micraframe.types import Scores

class Broken(Combiner[Parameters]):
    def combine(self, maps, image):
        values = np.zeros((len(maps.classes), *maps.size), np.float32)
        {change}
        return Scores(maps.presence, maps.classes, values)
"""

METRIC = """
import numpy as np
from micraframe.interfaces import Column, Metric
from micraframe.parameters import Parameters

class Broken(Metric[Parameters]):
    def columns(self):
        return (Column("broken", "a broken number"),)

    def measure(self, prediction, truth):
        return {change}
"""

HEAD = """
import numpy as np
from micraframe.interfaces import Head, HeadParams
from micraframe.types import Prediction

class Broken(Head[HeadParams]):
    def decide(self, scores, image, info):
        masks = np.zeros((3, *scores.size), bool)
        {change}
        return Prediction(scores, self.present(scores.presence), masks)
"""


@pytest.mark.parametrize(
    ("kind", "source", "change", "message"),
    [
        ("extractor", EXTRACTOR, "raise ModelError('not this one')", "^extractor broken: not this one"),
        (
            "combiner",
            COMBINER,
            "values = values.swapaxes(1, 2).copy()",
            "^combiner broken: expected maps of classes .* and size",
        ),
        ("combiner", COMBINER, "values += 2", r"^combiner broken: scores: expected maps in \[0, 1\]"),
        ("combiner", COMBINER, "values += np.random.default_rng().random(dtype=np.float32)", "same maps, same bytes"),
        ("combiner", COMBINER, "maps.maps[0][:] = 0", "does not write to its inputs"),
        ("combiner", COMBINER, "image[0, 0, 0] = 2", "leaves its inputs"),
        ("metric", METRIC, "{}", r"columns have statistics; \['broken'\] are missing"),
        ("metric", METRIC, "{'broken': np.zeros(3)}", "broken has one number per class"),
        ("metric", METRIC, "{'broken': np.full(2, np.inf)}", "broken is finite"),
        ("metric", METRIC, "{'broken': np.full(2, 2.0)}", "broken is from 0.0 to 1.0"),
        ("metric", METRIC, "truth.masks.fill(1) or {'broken': np.zeros(2)}", "does not write to its inputs"),
        ("head", HEAD, "masks[:] = True", "an absent class has no mask"),
        ("head", HEAD, "masks = masks[:, 1:]", "masks have the image's size"),
        ("head", HEAD, "scores.maps[:] = 0", "does not write to its inputs"),
    ],
)
def test_the_kit_finds_what_is_wrong(install, kind, source, change, message):
    entry = Component(kind, "broken", "broken_component:Broken", "Breaks a promise")
    install("broken_plugin", [entry], broken_component=source.replace("{change}", change))
    with pytest.raises(AssertionError, match=message):
        check(kind, "broken")
