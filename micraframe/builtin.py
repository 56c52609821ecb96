"""The components that micraframe itself brings, offered by the hook that every plugin uses."""

from __future__ import annotations

from micraframe.plugin import Component, hookimpl

MICRAFRAME_API = 1


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
            "A folder of images with a table of labels, class sub-folders and/or masks",
        ),
        Component(
            "annotator",
            "image-level",
            "micraframe.annotators.image_level:ImageLevel",
            "Is each class in this image: yes or no",
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
            "Strokes in some objects and in the background; of other pixels nothing is said",
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
            "Every object's outline by a polygon of few corners",
        ),
        Component(
            "annotator",
            "altered",
            "micraframe.annotators.altered:Altered",
            "Every object's outline, each too wide or too narrow by its own error",
        ),
        Component(
            "annotator",
            "dilated",
            "micraframe.annotators.dilated:Dilated",
            "Every object's outline, all too wide",
        ),
        Component(
            "annotator",
            "full",
            "micraframe.annotators.full:Full",
            "Everything that the dataset knows: masks and instances",
        ),
        Component(
            "backbone",
            "unet-encoder",
            "micraframe.backbones.unet_encoder:UNetEncoder",
            "MICRA-Net's U-Net encoder: four stages of two 3x3 convolutions",
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
            "Grad-CAM of all layers: one forward pass, one backward pass per class rank",
        ),
        Component(
            "extractor",
            "captum",
            "micraframe.extractors.captum_layers:CaptumLayers",
            "captum's layer attributions, layer by layer: the reference",
        ),
        Component(
            "extractor",
            "layer-cam",
            "micraframe.extractors.layer_cam:LayerCam",
            "LayerCAM of all layers: positive gradients weight each position by itself",
        ),
        Component(
            "extractor",
            "grad-cam++",
            "micraframe.extractors.grad_cam_plus_plus:GradCamPlusPlus",
            "Grad-CAM++ of all layers: small structures count as much as large ones",
        ),
        Component(
            "extractor",
            "hires-cam",
            "micraframe.extractors.hires_cam:HiResCam",
            "HiResCAM of all layers: gradients weight each position by itself",
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
            "Layers chosen by hand, joined by mean, sum, product, max or weights",
        ),
        Component(
            "combiner",
            "last-layer",
            "micraframe.combiners.last_layer:LastLayer",
            "The deepest layer's map alone: coarse",
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
            "micraframe.heads.classification:Classification",
            "Which classes are in the image; no masks",
        ),
        Component(
            "head",
            "semantic",
            "micraframe.heads.semantic:Semantic",
            "One mask per class present",
        ),
        Component(
            "head",
            "instance",
            "micraframe.heads.instance:Instance",
            "Objects one by one: object minus contact, components or watershed",
        ),
        Component(
            "head",
            "detection",
            "micraframe.heads.detection:Detection",
            "A point with a score for every object",
        ),
        Component(
            "method",
            "micra-net",
            "micraframe.micranet:MicraNet",
            "Classifier, class activation maps, combiner, head: masks from image-level labels",
        ),
        Component(
            "method",
            "intensity-otsu",
            "micraframe.controls.intensity_otsu:IntensityOtsu",
            "Control: Otsu's threshold on the image's own intensities",
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
            "Control: a blob in the middle of the image",
        ),
        Component(
            "metric",
            "classification",
            "micraframe.metrics.classification:Classification",
            "Was each class's presence decided rightly",
        ),
        Component(
            "metric",
            "overlap",
            "micraframe.metrics.overlap:Overlap",
            "Precision, recall, F1, IOU and symmetric boundary dice of each class's mask",
        ),
        Component(
            "metric",
            "objects",
            "micraframe.metrics.objects:Objects",
            "F1 of objects against IOU, its area, and the shares missed, extra, split and merged",
        ),
        Component(
            "metric",
            "detection",
            "micraframe.metrics.detection:Detection",
            "Precision, recall, F1 and average precision of positions within a distance",
        ),
        Component(
            "metric",
            "distances",
            "micraframe.metrics.distances:Distances",
            "Distance of each class's mask from the truth: of centres of mass, and of contours",
        ),
        Component(
            "metric",
            "localisation",
            "micraframe.metrics.localisation:Localisation",
            "Pixel average precision and pointing game of each class's score map",
        ),
    ]
