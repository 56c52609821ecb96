"""Whom to cite for what a study used."""

from __future__ import annotations

MICRA_NET = (
    "Bilodeau, A., Delmas, C. V. L., Parent, M., De Koninck, P., Durand, A. and Lavoie-Cardinal, F. Microscopy "
    "analysis neural network to solve detection, enumeration and segmentation from image-level annotations. Nature "
    "Machine Intelligence 4, 455-466 (2022)."
)
HOLM = (
    "Holm, S. A simple sequentially rejective multiple test procedure. Scandinavian Journal of Statistics 6, 65-70 "
    "(1979)."
)

COMPONENTS = {
    "micraframe/micra-net": MICRA_NET,
    "micraframe-unet/unet": (
        "Ronneberger, O., Fischer, P. and Brox, T. U-Net: convolutional networks for biomedical image segmentation. "
        "MICCAI, 234-241 (2015)."
    ),
    "micraframe-maskrcnn/mask-rcnn": (
        "He, K., Gkioxari, G., Dollár, P. and Girshick, R. Mask R-CNN. ICCV, 2961-2969 (2017)."
    ),
    "micraframe-forest/forest": (
        "Berg, S. et al. ilastik: interactive machine learning for (bio)image analysis. Nature Methods 16, 1226-1232 "
        "(2019)."
    ),
    "micraframe/grad-cam": (
        "Selvaraju, R. R. et al. Grad-CAM: visual explanations from deep networks via gradient-based localization. "
        "ICCV, 618-626 (2017)."
    ),
    "micraframe/grad-cam++": (
        "Chattopadhay, A., Sarkar, A., Howlader, P. and Balasubramanian, V. N. Grad-CAM++: generalized gradient-based "
        "visual explanations for deep convolutional networks. WACV, 839-847 (2018)."
    ),
    "micraframe/layer-cam": (
        "Jiang, P.-T., Zhang, C.-B., Hou, Q., Cheng, M.-M. and Wei, Y. LayerCAM: exploring hierarchical class "
        "activation maps for localization. IEEE Transactions on Image Processing 30, 5875-5888 (2021)."
    ),
}
"""Of components, by their qualified names."""

PRICES = {
    "micranet2022": MICRA_NET,
    "coco2014": "Lin, T.-Y. et al. Microsoft COCO: common objects in context. ECCV, 740-755 (2014).",
    "bearman2016": (
        "Bearman, A., Russakovsky, O., Ferrari, V. and Fei-Fei, L. What's the point: semantic segmentation with point "
        "supervision. ECCV, 549-565 (2016)."
    ),
    "papadopoulos2017": (
        "Papadopoulos, D. P., Uijlings, J. R. R., Keller, F. and Ferrari, V. Extreme clicking for efficient object "
        "annotation. ICCV, 4930-4939 (2017)."
    ),
    "microsam2024": "Archit, A. et al. Segment Anything for Microscopy. bioRxiv (2024).",
}
"""Of what annotation costs, by preset."""


class References:
    """Numbers citations in the order in which they are first named."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def cite(self, citation: str) -> str:
        """Return the mark of a citation, such as ` [3]`; nothing for none."""
        return f" [{self._numbers.setdefault(citation, len(self._numbers) + 1)}]" if citation else ""

    def listed(self) -> tuple[str, ...]:
        """Return what was cited, in order."""
        return tuple(self._numbers)
