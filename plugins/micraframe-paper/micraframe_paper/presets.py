"""The two presets of each dataset: what follows the paper's text, and what follows the published code.

A preset is the parameters of method `micra-net`, and a head with its parameters. Both fit a dataset of this plugin,
whose own defaults are what the two have in common: crops, normalisation, and the rule for positive crops.

| | F-actin | CTC | EM | P. vivax | MNIST |
|---|---|---|---|---|---|
| `scale` (min-max of each layer) | yes | yes | paper only | paper only | yes |
| `sign` (of the component) | L8 | official: none | L8 | official: none | official: none |
| `rescale` | L8 > 0, foreground | L8 > 0 | L8 > 0 | - | - |
| `smoothing`, `smoothing_after` (px) | 1 | 3 | 1, 5 | 3, 10 | - |
| `mask_threshold` | 80 % | Otsu, not of 0 | 90 % | Otsu | Otsu in blocks |
| `contact_map` | - | paper: L8; official: PCA | - | - | - |
| `fill_holes` (px) | - | all | 2500 | 2500 | - |
| components that are kept | all | from 20 x 20 px | with the maximum | with the maximum | all |
| `overlap` | yes | - | - | - | the higher map |

Where the published code has no rule for the sign, scikit-learn's of that time applied: the largest score is positive.
The paper's text says nothing about the sign; its presets have the rule of F-actin. Presence thresholds that were
validated (EM, P. vivax) are in the published model files, or come from a study's validation images; here they are 0.5.

How networks are trained is published for F-actin only. Other datasets have the same recipe, with the augmentations
that do not change what their images mean: digits are not mirrored, and standardised intensities have no gamma.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from micraframe.config import Choice

Studied = Literal["f-actin", "ctc", "em-axon", "p-vivax", "modified-mnist"]
"""The paper's datasets, as this plugin names them."""

Version = Literal["paper", "official"]

DATASETS: Final[tuple[Studied, ...]] = get_args(Studied)
VERSIONS: Final[tuple[Version, ...]] = get_args(Version)

ANY_HOLE: Final = 65536.0
"""Pixels of a crop of 256 px: no hole is larger."""


@dataclass(frozen=True)
class Preset:
    """How MICRA-Net is set up for a dataset.

    Attributes:
        params: The parameters of method `micra-net`.
        head: The head, with its parameters.
    """

    params: Mapping[str, Any]
    head: Choice

    @property
    def method(self) -> Choice:
        """The method with its parameters."""
        return Choice(name="micraframe/micra-net", params=dict(self.params))


def preset(dataset: Studied, version: Version) -> Preset:
    """Return the preset of a dataset."""
    return Preset(
        {
            "backbone": {"name": "micraframe/unet-encoder", "params": {"widths": [32, 64, 128, 256]}},
            "pooling": "max",
            "dropout": 0.5,
            "training": training(dataset),
            "extractor": {"name": "micraframe/grad-cam", "params": {}},
            "combiner": combiner(dataset, version),
        },
        head(dataset, version),
    )


def training(dataset: Studied) -> dict[str, Any]:
    """Return the recipe of training: Adam and a plateau."""
    flips = [{"kind": "flip", "axis": "left-right"}, {"kind": "flip", "axis": "up-down"}]
    intensities = [
        {"kind": "intensity", "mean": 0.01, "sigma": 0.1},
        {"kind": "gamma", "mean": 0.005, "sigma": 0.0707},
    ]
    return {
        "epochs": 250,
        "batch_size": 64,
        "optimiser": "adam",
        "learning_rate": 1e-3,
        "schedule": "plateau",
        "minimum_learning_rate": 1e-5,
        "early_stopping": 30,
        "pos_weight": "auto",
        "augmentations": {"modified-mnist": [], "p-vivax": flips}.get(dataset, flips + intensities),
    }


def combiner(dataset: Studied, version: Version) -> dict[str, Any]:
    """Return how layers are combined: the first principal component of L1 to L7."""
    official = version == "official"
    unscaled = official and dataset in ("em-axon", "p-vivax")
    unsigned = official and dataset in ("ctc", "p-vivax", "modified-mnist")
    return {
        "name": "micraframe/pca",
        "params": {
            "layers": "all-but-deepest",
            "scale": "none" if unscaled else "min-max",
            "sign": "largest-score" if unsigned else "deepest-weighted",
        },
    }


def head(dataset: Studied, version: Version) -> Choice:
    """Return how masks, or objects, are made of a map; the version matters to CTC only."""
    whole = {"fill_holes": 2500.0, "components": "maximum"}
    params: dict[Studied, dict[str, Any]] = {
        "f-actin": {
            "rescale": "coarse-and-foreground",
            "smoothing": 1.0,
            "mask_threshold": {"name": "percentile", "value": 80.0},
        },
        "ctc": {
            "rescale": "coarse",
            "smoothing": 3.0,
            "mask_threshold": {"name": "otsu", "nonzero": True},
            "contact_map": {"paper": "coarse", "official": "combined"}[version],
            "fill_holes": ANY_HOLE,
            "minimum_size": 20.0 * 20.0,
        },
        "em-axon": {
            "rescale": "coarse",
            "smoothing": 1.0,
            "smoothing_after": 5.0,
            "mask_threshold": {"name": "percentile", "value": 90.0},
            **whole,
        },
        "p-vivax": {"smoothing": 3.0, "smoothing_after": 10.0, "mask_threshold": {"name": "otsu"}, **whole},
        "modified-mnist": {
            "mask_threshold": {"name": "block-otsu", "block": 8, "minimum_coarse": 0.3},
            "overlap": "argmax",
        },
    }
    name = "micraframe/instance" if dataset == "ctc" else "micraframe/semantic"
    return Choice(name=name, params={"presence_threshold": 0.5, **params[dataset]})
