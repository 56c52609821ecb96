"""Studies that take seconds: what tests of plans, runs, prices and reports begin with."""

from __future__ import annotations

from typing import Any

from micraframe.config import Choice, Contender, Study

DIGITS = {"size": 48, "counts": [1], "train": 12, "valid": 4, "test": 4}
NET = {
    "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
    "dropout": 0,
    "training": {"epochs": 1, "batch_size": 4},
    "head": {"name": "semantic", "params": {"decision": 0.2}},
}


def study(*contenders: Contender, **changes: Any) -> Study:
    """Return a study of digits with these contenders and without pictures, but for the changes."""
    settings = {
        "datasets": [Choice(name="modified-digits", params=DIGITS)],
        "contenders": list(contenders),
        "pictures": 0,
        "device": "cpu",
        "precision": "float32",
    }
    return Study(**settings | changes)


def net(label: str = "a", **params: Any) -> Contender:
    """Return a MICRA-Net that learns in no time, and so next to nothing."""
    return Contender(method=Choice(name="micra-net", params={**NET, **params}), label=label)


def told(annotator: str, **params: Any) -> Contender:
    """Return the same, told by another annotator."""
    return net().model_copy(update={"annotator": Choice(name=annotator, params=params)})
