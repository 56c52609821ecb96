"""The components that micraframe itself offers, through the same hook as every plugin."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2

MICRA_NET: Final = (
    "Bilodeau, A., Delmas, C. V. L., Parent, M., De Koninck, P., Durand, A. and Lavoie-Cardinal, F. Microscopy "
    "analysis neural network to solve detection, enumeration and segmentation from image-level annotations. Nature "
    "Machine Intelligence 4, 455-466 (2022)."
)

CITATIONS: Final[Mapping[str, str]] = {
    "micra-net": MICRA_NET,
    "unet": (
        "Ronneberger, O., Fischer, P. and Brox, T. U-Net: convolutional networks for biomedical image "
        "segmentation. MICCAI, 234-241 (2015)."
    ),
    "grad-cam": (
        "Selvaraju, R. R. et al. Grad-CAM: visual explanations from deep networks via gradient-based "
        "localization. ICCV, 618-626 (2017)."
    ),
    "layer-cam": (
        "Jiang, P.-T., Zhang, C.-B., Hou, Q., Cheng, M.-M. and Wei, Y. LayerCAM: exploring hierarchical class "
        "activation maps for localization. IEEE Transactions on Image Processing 30, 5875-5888 (2021)."
    ),
    "grad-cam++": (
        "Chattopadhay, A., Sarkar, A., Howlader, P. and Balasubramanian, V. N. Grad-CAM++: generalized "
        "gradient-based visual explanations for deep convolutional networks. WACV, 839-847 (2018)."
    ),
    "self-training": (
        "Lee, D.-H. Pseudo-label: the simple and efficient semi-supervised learning method for deep neural "
        "networks. ICML workshop on challenges in representation learning (2013)."
    ),
}
"""What to cite for a component, by its name."""

_Record = tuple[str, str, str]

COMPONENTS: Final[Mapping[str, tuple[_Record, ...]]] = {
    "dataset": (
        (
            "modified-digits",
            "datasets.modified_digits:ModifiedDigits",
            "Embedded: scikit-learn's digits, scattered as MNIST's are in the MICRA-Net paper",
        ),
        (
            "nuclei-sample",
            "datasets.nuclei_sample:NucleiSample",
            "Embedded: 60 small fluorescence images of outlined nuclei from BBBC038, of many sources",
        ),
        (
            "folder",
            "datasets.folder:Folder",
            "A folder of images with tables of labels, points or boxes, class sub-folders or masks",
        ),
    ),
    "annotator": (
        ("image-level", "annotators.image_level:ImageLevel", "For each class, whether it is in the image"),
        ("points", "annotators.points:Points", "A point in every object"),
        (
            "scribbles",
            "annotators.scribbles:Scribbles",
            "Strokes in some objects and in the background; all other pixels stay unannotated",
        ),
        ("boxes", "annotators.boxes:Boxes", "The bounding box of every object"),
        ("polygons", "annotators.polygons:Polygons", "Every object's outline as a polygon with few vertices"),
        (
            "altered",
            "annotators.altered:Altered",
            "Imprecise outlines: each object's is too wide or too narrow by a random error",
        ),
        ("dilated", "annotators.dilated:Dilated", "Every object's outline, too wide by the same margin"),
        ("full", "annotators.full:Full", "Everything that the dataset has: masks and instances"),
    ),
    "backbone": (
        (
            "unet-encoder",
            "backbones.unet_encoder:UNetEncoder",
            "MICRA-Net's U-Net encoder: four stages of two 3x3 convolutions",
        ),
        ("unet", "backbones.unet:UNetBackbone", "The encoder with a decoder: layers up to the image's resolution"),
        ("timm", "backbones.timm_features:TimmFeatures", "Any convolutional timm model, by its name"),
    ),
    "extractor": (
        (
            "grad-cam",
            "extractors.cams:GradCam",
            "Grad-CAM of all layers at once: one forward pass, then one backward pass per explained class",
        ),
        (
            "captum",
            "extractors.captum_layers:CaptumLayers",
            "captum's layer attributions, layer by layer: the reference implementation",
        ),
        (
            "layer-cam",
            "extractors.cams:LayerCam",
            "LayerCAM of all layers: each position is weighted by its own positive gradient",
        ),
        (
            "grad-cam++",
            "extractors.cams:GradCamPlusPlus",
            "Grad-CAM++ of all layers: small structures count as much as large ones",
        ),
        (
            "hires-cam",
            "extractors.cams:HiResCam",
            "HiResCAM of all layers: each position is weighted by its own gradient",
        ),
        (
            "evidence",
            "extractors.evidence:Evidence",
            "The logits of every position, of a classifier that pools them; no backward pass",
        ),
        (
            "views",
            "extractors.views:Views",
            "Another extractor's maps, averaged over flips and quarter turns of the image",
        ),
    ),
    "combiner": (
        ("pca", "combiners.pca:Pca", "First principal component of the layers' maps, with a named sign policy"),
        ("select", "combiners.select:Select", "Chosen layers, combined by mean, sum, product, maximum or weights"),
        ("last-layer", "combiners.last_layer:LastLayer", "The deepest layer's map alone: coarse"),
        (
            "evidence",
            "combiners.evidence:EvidenceProbability",
            "The sigmoid of the last layer's map, for extractor evidence: 0.5 is a logit of 0",
        ),
        ("guided", "combiners.guided:Guided", "Another combiner's map, sharpened by the image"),
    ),
    "head": (
        ("classification", "heads.classification:ClassificationHead", "Which classes are in the image; no masks"),
        ("semantic", "heads.semantic:SemanticHead", "One mask for each class that is present"),
        (
            "instance",
            "heads.instance:InstanceHead",
            "Individual objects: object minus contact, then components or watershed",
        ),
        ("detection", "heads.detection:DetectionHead", "A point with a score for every object"),
    ),
    "method": (
        ("micra-net", "micranet:MicraNet", "Masks from image-level labels: a classifier's activation maps, combined"),
        (
            "self-training",
            "selftraining:SelfTraining",
            "Masks from image-level labels: a student learns from the masks that a teacher makes",
        ),
        (
            "best-from-labels",
            "best_from_labels:BestFromLabels",
            "The recommended way from image-level labels to masks: self-training, its parts chosen; needs the U-Net",
        ),
        (
            "intensity-otsu",
            "controls.intensity_otsu:IntensityOtsu",
            "Control: Otsu's threshold of the image's own intensities",
        ),
        (
            "presence-otsu",
            "controls.presence_otsu:PresenceOtsu",
            "Control: a classifier decides presence, and Otsu's threshold segments the image's own intensities",
        ),
        ("random-map", "controls.random_map:RandomMap", "Control: a smooth random map"),
        ("centre-blob", "controls.centre_blob:CentreBlob", "Control: a blob in the centre of the image"),
    ),
    "metric": (
        (
            "classification",
            "metrics.classification:ClassificationMetric",
            "Whether each class's presence was classified correctly",
        ),
        (
            "overlap",
            "metrics.overlap:OverlapMetric",
            "Precision, recall, F1, IoU and symmetric boundary Dice of each class's mask",
        ),
        (
            "objects",
            "metrics.objects:ObjectMetric",
            "F1 of objects over IoU thresholds, its area, and fractions missed, extra, split and merged",
        ),
        (
            "detection",
            "metrics.detection:DetectionMetric",
            "Precision, recall, F1 and average precision of points within a distance",
        ),
        (
            "counts",
            "metrics.counts:CountMetric",
            "Errors of the number of objects in each image",
        ),
        (
            "distances",
            "metrics.distances:DistanceMetric",
            "Distance of each class's mask from the true mask: of centroids and of contours",
        ),
        (
            "object-distances",
            "metrics.object_distances:ObjectDistanceMetric",
            "Median distance of matched objects and of their contours",
        ),
        (
            "localisation",
            "metrics.localisation:LocalisationMetric",
            "Pixel average precision and pointing game of each class's map",
        ),
    ),
}
"""Name, module within micraframe and class, and summary of the components of each kind."""


_NUCLEI: Final = Path(__file__).with_name("datasets") / "nuclei"

_MICRA_NET: Final = {
    "backbone": {"name": "micraframe/unet-encoder", "params": {"widths": [4, 8]}},
    "dropout": 0.0,
    "training": {"epochs": 2, "batch_size": 3},
}

EXAMPLES: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("dataset", "modified-digits"): {"size": 64, "counts": [1, 2], "train": 6, "valid": 3, "test": 3},
    ("dataset", "folder"): {"images": str(_NUCLEI / "images"), "masks": str(_NUCLEI / "masks")},
    ("method", "micra-net"): _MICRA_NET,
    ("method", "presence-otsu"): {"classifier": {"name": "micraframe/micra-net", "params": _MICRA_NET}},
    ("method", "best-from-labels"): {
        "teacher_widths": [4, 8],
        "student_widths": [4, 8],
        "epochs": 8,
        "batch_size": 2,
    },
    ("method", "self-training"): {
        "teacher": {"name": "micraframe/micra-net", "params": _MICRA_NET},
        "student": {"name": "unet", "params": {"widths": [4, 8], "training": {"epochs": 2}}},
        "threshold": 0.5,
    },
}
"""Parameters with which the conformance kit tries a component out, where they are not the defaults."""

OPT_OUTS: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("extractor", "views"): {
        "presence-as-predicted": "presence is the mean over the views, by which classes are chosen too"
    },
}
"""Checks of the conformance kit that a component does not pass, and why."""


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the records of the built-in components."""
    return [
        Component(
            kind,
            name,
            f"micraframe.{target}",
            summary,
            citation=CITATIONS.get(name, ""),
            example=EXAMPLES.get((kind, name), {}),
            opt_out=OPT_OUTS.get((kind, name), {}),
        )
        for kind, records in COMPONENTS.items()
        for name, target, summary in records
    ]
