"""Mask R-CNN, built from torchvision's parts, on any backbone.

He, K., Gkioxari, G., Dollár, P. and Girshick, R. "Mask R-CNN". ICCV (2017); on feature pyramids, Lin, T.-Y. et al.
"Feature pyramid networks for object detection". CVPR (2017).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, box_iou
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import initLevelMapper

from micraframe.errors import ConfigError
from micraframe.runtime.device import exact_float32
from micraframe.types import DetectedObjects, Layer
from micraframe_maskrcnn.targets import TargetObjects, unpack

if TYPE_CHECKING:
    from micraframe_maskrcnn.method import MaskRcnn

LOSSES = ("objectness", "rpn_box_reg", "classifier", "box_reg", "mask")
"""The terms of the loss: of the proposals and their boxes, and of the final classes, boxes and masks."""

LEAST_SCORE = 0.05
"""Detections with a lower score are dropped as noise, independently of the head's thresholds."""

IGNORED = 0.5
"""A box with a larger fraction of ignored pixels than this does not count as background."""

_TARGET = dict[str, Tensor]


class MaskRcnnNetwork(nn.Module):
    """Finds objects: their boxes, classes and masks.

    Args:
        backbone: Maps images (B, C, H, W) to the list of its layers' activations.
        layers: Description of these layers.
        classes: Number of classes K.
        params: The method's, of which those of the backbone and of training are not used.

    Raises:
        ConfigError: If the backbone has none of the strides, or skips one between them.
    """

    def __init__(self, backbone: nn.Module, layers: Sequence[Layer], classes: int, params: MaskRcnn.Params) -> None:
        super().__init__()
        self.classes = classes
        self.min_size = params.min_size
        self._rotates = any(change.kind == "rotation" for change in params.training.augmentations)
        chosen = levels(layers, params.strides)
        strides = tuple(layers[index].stride for index in chosen)
        self.stride = strides[-1]
        width = params.pyramid
        self.pyramid = Pyramid(backbone, chosen, [layers[index].channels for index in chosen], width)
        anchors = Anchors((*strides, 2 * strides[-1]), params.anchors, params.ratios)
        self.rpn = Proposals(
            anchors,
            InFloat32(RPNHead(width, anchors.num_anchors_per_location()[0])),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={"training": 2000, "testing": 1000},
            post_nms_top_n={"training": 2000, "testing": 1000},
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            region_pool(strides, 7),
            TwoMLPHead(width * 7**2, params.box_head),
            InFloat32(FastRCNNPredictor(params.box_head, classes + 1)),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=params.rois_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=LEAST_SCORE,
            nms_thresh=params.nms_iou,
            detections_per_img=params.detections,
            mask_roi_pool=region_pool(strides, 14),
            mask_head=MaskRCNNHeads(width, params.mask_head, dilation=1),
            mask_predictor=InFloat32(MaskRCNNPredictor(params.mask_head[-1], params.mask_head[-1], classes + 1)),
        )

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Return the losses (B, 5), in the order of `LOSSES`: means over the batch, repeated for each image.

        In evaluation mode, proposals are sampled with the same random numbers each time, so that losses are comparable.

        Args:
            images: float32 (B, C, H, W).
            targets: int32 (B, D + 1, H, W), from `targets.pack`.
        """
        size = self._size(images)
        if size != tuple(targets.shape[2:]):
            targets = functional.interpolate(targets.float(), size, mode="nearest-exact").to(targets.dtype)
        objects = [unpack(target, self.classes, self.training and self._rotates) for target in targets]
        expected: list[_TARGET] = [
            {"boxes": one.boxes, "labels": one.classes + 1, "masks": one.masks, "ignore": one.ignore} for one in objects
        ]
        with _loss_mode(self.rpn, self.roi_heads, images.device, fixed=not self.training):
            padded, features = self._features(images, size)
            proposals, losses = self.rpn(padded, features, expected)
            proposals = [known(boxes, one) for boxes, one in zip(proposals, objects, strict=True)]
            if any(map(len, proposals)) or any(len(one.boxes) for one in objects):
                losses |= self.roi_heads(features, proposals, padded.image_sizes, expected)[1]
        zero = next(iter(features.values())).sum() * 0
        summed = torch.stack([losses.get(f"loss_{name}", zero) for name in LOSSES])
        return summed.expand(len(images), -1)

    @torch.no_grad()
    @exact_float32()
    def detect(self, image: Tensor) -> tuple[DetectedObjects, ...]:
        """Return the objects of an image (C, H, W), per class; in evaluation mode only."""
        images = image[None]
        size = self._size(images)
        padded, features = self._features(images, size)
        proposals, _ = self.rpn(padded, features)
        [found], _ = self.roi_heads(features, proposals, padded.image_sizes)
        back = [full / small for full, small in zip(image.shape[1:], size, strict=True)][::-1] * 2
        boxes = found["boxes"] * torch.tensor(back, device=image.device)
        boxes = boxes[:, [1, 0, 3, 2]]  # torchvision's are (x0, y0, x1, y1)
        objects = DetectedObjects(*(part.cpu().numpy() for part in (boxes, found["scores"], found["masks"][:, 0])))
        classes = found["labels"].cpu().numpy() - 1
        return tuple(objects.select(classes == index) for index in range(self.classes))

    def _size(self, images: Tensor) -> tuple[int, int]:
        """Return the rows and columns that images (B, C, H, W) are resized to."""
        height, width = images.shape[2:]
        scale = 1 if self.min_size is None else self.min_size / min(height, width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _features(self, images: Tensor, size: tuple[int, int]) -> tuple[ImageList, dict[str, Tensor]]:
        """Return images (B, C, H, W), resized and padded to whole cells of the deepest level, and their pyramid."""
        if size != tuple(images.shape[2:]):
            images = functional.interpolate(images, size, mode="bilinear", antialias=True)
        rows, columns = (-edge % self.stride for edge in size)
        padded = functional.pad(images, (0, columns, 0, rows), mode="replicate")
        return ImageList(padded, [size] * len(images)), self.pyramid(padded)


class Pyramid(nn.Module):
    """A feature pyramid over a backbone's layers, with one more level on top.

    Args:
        backbone: Maps images (B, C, H, W) to the list of its layers' activations.
        chosen: Indices of the layers under the pyramid, shallow to deep.
        channels: Channels of each of these.
        width: Channels of every level.
    """

    def __init__(self, backbone: nn.Module, chosen: Sequence[int], channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.chosen = tuple(chosen)
        self.fpn = FeaturePyramidNetwork(list(channels), width, LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the levels, by name, shallow to deep, in float32, which anchors then have too."""
        activations = self.backbone(images)
        levels = OrderedDict((str(level), activations[index]) for level, index in enumerate(self.chosen))
        return {name: level.float() for name, level in self.fpn(levels).items()}


class Anchors(AnchorGenerator):  # type: ignore[misc]  # torchvision ships no types
    """Anchors at the levels' true strides; torchvision derives strides from the sizes of image and level.

    Args:
        strides: Strides of the levels, in pixels.
        edges: Sides of the anchors, in strides.
        ratios: Height by width.
    """

    def __init__(self, strides: Sequence[int], edges: Sequence[float], ratios: Sequence[float]) -> None:
        super().__init__(
            tuple(tuple(edge * stride for edge in edges) for stride in strides), (tuple(ratios),) * len(strides)
        )
        self.strides = tuple(strides)

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        """Return the anchors (N, 4) of each image."""
        device = features[0].device
        self.set_cell_anchors(features[0].dtype, device)
        steps = [[torch.tensor(stride, device=device)] * 2 for stride in self.strides]
        anchors = torch.cat(self.grid_anchors([level.shape[-2:] for level in features], steps))
        return [anchors] * len(images.image_sizes)


class Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """torchvision's region proposal network, except that ignored pixels are not background."""

    def assign_targets_to_anchors(
        self, anchors: list[Tensor], targets: list[_TARGET]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return per image each anchor's label (1 object, 0 background, -1 neither) and box."""
        labels, boxes = super().assign_targets_to_anchors(anchors, targets)
        for label, anchor, target in zip(labels, anchors, targets, strict=True):
            if target["ignore"].any():
                label[(label == 0) & (ignored_share(anchor, target["ignore"]) > IGNORED)] = -1
        return labels, boxes

    def compute_loss(
        self, objectness: Tensor, deltas: Tensor, labels: list[Tensor], boxes: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return the losses of objectness and boxes: 0 if no anchor has a label."""
        if not any(bool((label >= 0).any()) for label in labels):
            return objectness.sum() * 0, deltas.sum() * 0
        return cast("tuple[Tensor, Tensor]", super().compute_loss(objectness, deltas, labels, boxes))


class InFloat32(nn.Module):
    """A module whose outputs are converted to float32: bfloat16 cannot represent positions in an image."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, features: Any) -> Any:
        """Return the module's outputs in float32."""
        return _float32(self.module(features))


def levels(layers: Sequence[Layer], strides: Sequence[int]) -> list[int]:
    """Return the index of the deepest layer of each of these strides that exists, shallow to deep.

    Raises:
        ConfigError: If there is none, or one is not twice the one before it.
    """
    deepest = {layer.stride: index for index, layer in enumerate(layers)}
    found = sorted(stride for stride in set(strides) if stride in deepest)
    doubled = all(after == 2 * before for before, after in pairwise(found))
    if not (found and doubled and math.log2(found[0]).is_integer()):
        raise ConfigError(
            f"strides: expected some of the backbone's strides {sorted(deepest)}, each twice the one before, got "
            f"{sorted(strides)}; the backbone has {found or 'none'} of them"
        )
    return [deepest[stride] for stride in found]


def region_pool(strides: Sequence[int], cells: int) -> MultiScaleRoIAlign:
    """Return a module that crops boxes out of the levels of these strides, as (cells, cells)."""
    pool = MultiScaleRoIAlign([str(level) for level in range(len(strides))], cells, sampling_ratio=2)
    # Otherwise torchvision derives these from the first images that it is given, and keeps them.
    pool.scales = [1 / stride for stride in strides]
    pool.map_levels = initLevelMapper(round(math.log2(strides[0])), round(math.log2(strides[-1])))
    return pool


def known(boxes: Tensor, objects: TargetObjects) -> Tensor:
    """Return the boxes (N, 4) without mostly ignored ones whose IoU with every object is below 0.5."""
    if not objects.ignore.any():
        return boxes
    overlap = functional.pad(box_iou(boxes, objects.boxes), (0, 1)).amax(1)
    return boxes[(overlap >= 0.5) | (ignored_share(boxes, objects.ignore) <= IGNORED)]


def ignored_share(boxes: Tensor, ignore: Tensor) -> Tensor:
    """Return the fraction of ignored pixels of each box (N, 4), (x0, y0, x1, y1), in the image; 1 if it has no pixel.

    Args:
        boxes: In pixels; corners are rounded.
        ignore: bool (H, W).
    """
    height, width = ignore.shape
    sums = functional.pad((~ignore).long().cumsum(0).cumsum(1), (1, 0, 1, 0))
    x0, x1 = (boxes[:, side].round().long().clamp(0, width) for side in (0, 2))
    y0, y1 = (boxes[:, side].round().long().clamp(0, height) for side in (1, 3))
    annotated = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return 1 - annotated / ((y1 - y0) * (x1 - x0)).clamp(min=1)


@contextmanager
def _loss_mode(rpn: nn.Module, roi_heads: nn.Module, device: torch.device, fixed: bool) -> Iterator[None]:
    """Let torchvision's parts compute losses, independently of the mode of their layers.

    Args:
        rpn: The region proposal network.
        roi_heads: The heads.
        device: Their device.
        fixed: Use the same random numbers each time, and leave torch's generators as they were.
    """
    parts = (rpn, roi_heads)
    modes = [part.training for part in parts]
    for part in parts:
        part.training = True
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=fixed):
            if fixed:
                torch.manual_seed(0)
            yield
    finally:
        for part, mode in zip(parts, modes, strict=True):
            part.training = mode


def _float32(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.float()
    return type(output)(_float32(part) for part in output)
