"""The studies of the MICRA-Net paper: its datasets, their two presets, its metrics, and the published model files."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2

_CITATION = (
    "Bilodeau, A. et al. Microscopy analysis neural network to solve detection, enumeration and segmentation from "
    "image-level annotations. Nature Machine Intelligence 4, 455-466 (2022)."
)

_SMALL = {
    "name": "micra-net",
    "params": {
        "backbone": {"name": "unet-encoder", "params": {"widths": [4, 8]}},
        "dropout": 0.0,
        "training": {"epochs": 2, "batch_size": 8},
    },
}
"""A network for the conformance kit, which learns in seconds."""


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the plugin's records."""
    return [
        Component(
            "dataset",
            "modified-mnist",
            "micraframe_paper.datasets.mnist:ModifiedMnist",
            "MNIST's digits scattered over images, with masks and objects",
            citation=_CITATION,
        ),
        Component(
            "dataset",
            "f-actin",
            "micraframe_paper.datasets.f_actin:FActin",
            "STED images of F-actin in neurons, cut into crops along dendrites",
            citation=_CITATION,
        ),
        Component(
            "dataset",
            "p-vivax",
            "micraframe_paper.datasets.p_vivax:PVivax",
            "Blood smears with Plasmodium vivax (BBBC041), with boxes of infected cells",
            citation=_CITATION,
        ),
        Component(
            "metric",
            "lattice-fft",
            "micraframe_paper.metrics.lattice_fft:LatticeFft",
            "Loss of the actin lattice's Fourier spectrum outside the mask",
            citation=_CITATION,
        ),
        Component(
            "metric",
            "low-intensity-share",
            "micraframe_paper.metrics.low_intensity:LowIntensityShare",
            "Share of low-intensity pixels under the mask",
            citation=_CITATION,
        ),
        Component(
            "method",
            "sliding-window",
            "micraframe_paper.sliding:SlidingWindow",
            "Detection in large images: a classifier of crops is moved over them, overlapping windows are averaged",
            citation=_CITATION,
            example={"classifier": _SMALL, "window": 32, "overlap": 0.5},
        ),
        Component(
            "method",
            "k-fold-finetuning",
            "micraframe_paper.finetuning:KFoldFinetuning",
            "A trained micra-net adapts to another device with a few images; the mean of a copy for each fold",
            citation=_CITATION,
            example={
                "source": _SMALL,
                "dataset": {"name": "nuclei-sample", "params": {"contact_class": "contact", "limit": 20}},
                "rename": {"nucleus": "disc", "contact": "square"},
                "folds": 2,
                "training": {"epochs": 1, "batch_size": 3},
            },
        ),
        Component(
            "metric",
            "review",
            "micraframe_paper.metrics.review:ReviewMetric",
            "Recall against the share of the images that somebody has to look at",
            citation=_CITATION,
        ),
        Component(
            "dataset",
            "ctc",
            "micraframe_paper.datasets.ctc:CellTrackingChallenge",
            "Six lines of the Cell Tracking Challenge, with a class for places where cells touch",
        ),
        Component(
            "dataset",
            "em-axon",
            "micraframe_paper.datasets.em_axon:EmAxon",
            "Large electron micrographs with few marked axons: positive and unlabelled crops",
        ),
        Component(
            "dataset",
            "blood-mosaic",
            "micraframe_paper.datasets.blood_mosaic:BloodMosaic",
            "A stand-in for em-axon: large fields composed of real blood smears, with few white cells",
        ),
        Component(
            "dataset",
            "nuclei-fluo",
            "micraframe_paper.datasets.folders:NucleiFluo",
            "349 fluorescence images of outlined nuclei, of many sources, from BBBC038",
        ),
        Component(
            "dataset",
            "t98g-phase",
            "micraframe_paper.datasets.folders:T98gPhase",
            "32 phase-contrast fields of outlined T98G cells, from Usiigaci",
        ),
        Component(
            "dataset",
            "pfc-neurons",
            "micraframe_paper.datasets.folders:PfcNeurons",
            "71 bright-field colour images of living neurons, each with the outline of one",
        ),
        Component(
            "dataset",
            "blood-cells",
            "micraframe_paper.datasets.folders:BloodCells",
            "244 colour fields of blood smears with boxes of red and white cells and platelets, from BCCD",
        ),
    ]
