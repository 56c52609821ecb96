"""Studies that take seconds: what tests of plans, runs, prices and reports begin with."""

from __future__ import annotations

from typing import Any

from micraframe.config import Choice, ComparedMethod, Study

DIGITS = {"size": 48, "counts": [1], "train": 12, "valid": 4, "test": 4}
NET = {
    "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
    "dropout": 0,
    "training": {"epochs": 1, "batch_size": 4},
}
HEAD = Choice(name="semantic", params={"presence_threshold": 0.2})

FAILING = """
from typing import final
from micraframe.interfaces import Method
from micraframe.types import Annotation

@final
class Failing(Method):
    learns_from = frozenset({Annotation.LABELS})
    def fit(self, train, valid, info, context):
        raise RuntimeError("cannot learn this")
    def restore(self, state, info, device):
        raise RuntimeError
"""
"""A module with a method that cannot be trained."""


def study(*methods: ComparedMethod, **changes: Any) -> Study:
    """Return a study of digits with these methods and without pictures, apart from the changes."""
    settings = {
        "datasets": [Choice(name="modified-digits", params=DIGITS)],
        "methods": list(methods),
        "ceilings": False,
        "pictures": 0,
        "device": "cpu",
        "precision": "float32",
    }
    return Study(**settings | changes)


def compared(method: str, annotator: str = "image-level", **changes: Any) -> ComparedMethod:
    """Return a method with default parameters."""
    return ComparedMethod(method=Choice(name=method), annotator=Choice(name=annotator), **changes)


def net(label: str = "a", head: Choice = HEAD, **params: Any) -> ComparedMethod:
    """Return a MICRA-Net that trains in no time, and so learns next to nothing."""
    return ComparedMethod(method=Choice(name="micra-net", params={**NET, **params}), head=head, label=label)


def net_from(annotator: str, **params: Any) -> ComparedMethod:
    """Return the same, trained from another annotation."""
    return net().model_copy(update={"annotator": Choice(name=annotator, params=params)})
