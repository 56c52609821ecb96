"""The components that micraframe itself offers, through the same hook as every plugin."""

from __future__ import annotations

from typing import Final

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 2

MICRA_NET: Final = (
    "Bilodeau, A., Delmas, C. V. L., Parent, M., De Koninck, P., Durand, A. and Lavoie-Cardinal, F. Microscopy "
    "analysis neural network to solve detection, enumeration and segmentation from image-level annotations. Nature "
    "Machine Intelligence 4, 455-466 (2022)."
)
GRAD_CAM: Final = (
    "Selvaraju, R. R. et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. "
    "ICCV, 618-626 (2017)."
)
U_NET: Final = (
    "Ronneberger, O., Fischer, P. and Brox, T. U-Net: convolutional networks for biomedical image segmentation. "
    "MICCAI, 234-241 (2015)."
)
GRAD_CAM_PLUS_PLUS: Final = (
    "Chattopadhay, A., Sarkar, A., Howlader, P. and Balasubramanian, V. N. Grad-CAM++: generalized gradient-based "
    "visual explanations for deep convolutional networks. WACV, 839-847 (2018)."
)
LAYER_CAM: Final = (
    "Jiang, P.-T., Zhang, C.-B., Hou, Q., Cheng, M.-M. and Wei, Y. LayerCAM: exploring hierarchical class "
    "activation maps for localization. IEEE Transactions on Image Processing 30, 5875-5888 (2021)."
)


@hookimpl
def micraframe_components() -> list[Component]:
    """Return the records of the built-in components."""
    return [
        Component(
            "dataset",
            "modified-digits",
            "micraframe.datasets.modified_digits:ModifiedDigits",
            "Embedded: scikit-learn's digits, cluttered as the MICRA-Net paper clutters MNIST",
        ),
        Component(
            "dataset",
            "folder",
            "micraframe.datasets.folder:Folder",
            "A folder of images with tables of labels, points or boxes, class sub-folders or masks",
        ),
        Component(
            "annotator",
            "image-level",
            "micraframe.annotators.image_level:ImageLevel",
            "For each class, whether it is in the image",
        ),
        Component(
            "annotator",
            "points",
            "micraframe.annotators.points:Points",
            "A point in every object",
        ),
        Component(
            "annotator",
            "scribbles",
            "micraframe.annotators.scribbles:Scribbles",
            "Strokes in some objects and in the background; all other pixels stay unannotated",
        ),
        Component(
            "annotator",
            "boxes",
            "micraframe.annotators.boxes:Boxes",
            "The bounding box of every object",
        ),
        Component(
            "annotator",
            "polygons",
            "micraframe.annotators.polygons:Polygons",
            "Every object's outline as a polygon with few vertices",
        ),
        Component(
            "annotator",
            "altered",
            "micraframe.annotators.altered:Altered",
            "Imprecise outlines: each object's is too wide or too narrow by a random error",
        ),
        Component(
            "annotator",
            "dilated",
            "micraframe.annotators.dilated:Dilated",
            "Every object's outline, too wide by the same margin",
        ),
        Component(
            "annotator",
            "full",
            "micraframe.annotators.full:Full",
            "Everything that the dataset has: masks and instances",
        ),
        Component(
            "backbone",
            "unet-encoder",
            "micraframe.backbones.unet_encoder:UNetEncoder",
            "MICRA-Net's U-Net encoder: four stages of two 3x3 convolutions",
        ),
        Component(
            "backbone",
            "unet",
            "micraframe.backbones.unet:UNetBackbone",
            "The encoder with a decoder: layers up to the image's resolution",
            citation=U_NET,
        ),
        Component(
            "backbone",
            "timm",
            "micraframe.backbones.timm_features:TimmFeatures",
            "Any convolutional timm model, by its name",
        ),
        Component(
            "extractor",
            "grad-cam",
            "micraframe.extractors.grad_cam:GradCam",
            "Grad-CAM of all layers at once: one forward pass, then one backward pass per explained class",
            citation=GRAD_CAM,
        ),
        Component(
            "extractor",
            "captum",
            "micraframe.extractors.captum_layers:CaptumLayers",
            "captum's layer attributions, layer by layer: the reference implementation",
        ),
        Component(
            "extractor",
            "layer-cam",
            "micraframe.extractors.layer_cam:LayerCam",
            "LayerCAM of all layers: each position is weighted by its own positive gradient",
            citation=LAYER_CAM,
        ),
        Component(
            "extractor",
            "grad-cam++",
            "micraframe.extractors.grad_cam_plus_plus:GradCamPlusPlus",
            "Grad-CAM++ of all layers: small structures count as much as large ones",
            citation=GRAD_CAM_PLUS_PLUS,
        ),
        Component(
            "extractor",
            "hires-cam",
            "micraframe.extractors.hires_cam:HiResCam",
            "HiResCAM of all layers: each position is weighted by its own gradient",
        ),
        Component(
            "extractor",
            "evidence",
            "micraframe.extractors.evidence:Evidence",
            "The logits of every position, of a classifier that pools them; no backward pass",
        ),
        Component(
            "combiner",
            "pca",
            "micraframe.combiners.pca:Pca",
            "First principal component of the layers' maps, with a named sign policy",
        ),
        Component(
            "combiner",
            "select",
            "micraframe.combiners.select:Select",
            "Chosen layers, combined by mean, sum, product, maximum or weights",
        ),
        Component(
            "combiner",
            "last-layer",
            "micraframe.combiners.last_layer:LastLayer",
            "The deepest layer's map alone: coarse",
        ),
        Component(
            "combiner",
            "evidence",
            "micraframe.combiners.evidence:EvidenceProbability",
            "The sigmoid of the last layer's map, for extractor evidence: 0.5 is a logit of 0",
        ),
        Component(
            "combiner",
            "guided",
            "micraframe.combiners.guided:Guided",
            "Another combiner's map, sharpened by the image",
        ),
        Component(
            "head",
            "classification",
            "micraframe.heads.classification:ClassificationHead",
            "Which classes are in the image; no masks",
        ),
        Component(
            "head",
            "semantic",
            "micraframe.heads.semantic:SemanticHead",
            "One mask for each class that is present",
        ),
        Component(
            "head",
            "instance",
            "micraframe.heads.instance:InstanceHead",
            "Individual objects: object minus contact, then components or watershed",
        ),
        Component(
            "head",
            "detection",
            "micraframe.heads.detection:DetectionHead",
            "A point with a score for every object",
        ),
        Component(
            "method",
            "micra-net",
            "micraframe.micranet:MicraNet",
            "Masks from image-level labels: a classifier's activation maps, combined",
            citation=MICRA_NET,
        ),
        Component(
            "method",
            "intensity-otsu",
            "micraframe.controls.intensity_otsu:IntensityOtsu",
            "Control: Otsu's threshold of the image's own intensities",
        ),
        Component(
            "method",
            "presence-otsu",
            "micraframe.controls.presence_otsu:PresenceOtsu",
            "Control: a classifier decides presence, and Otsu's threshold segments the image's own intensities",
        ),
        Component(
            "method",
            "random-map",
            "micraframe.controls.random_map:RandomMap",
            "Control: a smooth random map",
        ),
        Component(
            "method",
            "centre-blob",
            "micraframe.controls.centre_blob:CentreBlob",
            "Control: a blob in the centre of the image",
        ),
        Component(
            "metric",
            "classification",
            "micraframe.metrics.classification:ClassificationMetric",
            "Whether each class's presence was classified correctly",
        ),
        Component(
            "metric",
            "overlap",
            "micraframe.metrics.overlap:OverlapMetric",
            "Precision, recall, F1, IoU and symmetric boundary Dice of each class's mask",
        ),
        Component(
            "metric",
            "objects",
            "micraframe.metrics.objects:ObjectMetric",
            "F1 of objects over IoU thresholds, its area, and fractions missed, extra, split and merged",
        ),
        Component(
            "metric",
            "detection",
            "micraframe.metrics.detection:DetectionMetric",
            "Precision, recall, F1 and average precision of points within a distance",
        ),
        Component(
            "metric",
            "distances",
            "micraframe.metrics.distances:DistanceMetric",
            "Distance of each class's mask from the true mask: of centroids and of contours",
        ),
        Component(
            "metric",
            "localisation",
            "micraframe.metrics.localisation:LocalisationMetric",
            "Pixel average precision and pointing game of each class's map",
        ),
    ]
