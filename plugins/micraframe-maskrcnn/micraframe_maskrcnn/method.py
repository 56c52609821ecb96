"""The method `mask-rcnn`: learns from objects, finds objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, final

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from micraframe import registry
from micraframe.classifier import create_network
from micraframe.config import BackboneChoice, Choice
from micraframe.errors import DataError
from micraframe.interfaces import Backbone, ClassRule, Method, Model, ScoredTile
from micraframe.parameters import Parameters
from micraframe.runtime.device import choose_device
from micraframe.training import Examples, Recipe, fit
from micraframe.types import Annotation, DatasetInfo, FitContext, FloatArray, Sample, Scores
from micraframe_maskrcnn.detections import join, score_objects
from micraframe_maskrcnn.network import LOSSES, MaskRcnnNetwork
from micraframe_maskrcnn.targets import pack, stack

RESNET50 = Choice(name="micraframe/timm", params={"model": "resnet50", "out_indices": [1, 2, 3, 4]})


@final
class MaskRcnn(Method["MaskRcnn.Params"]):
    """Objects, each with a box, a class, a score and a mask (He et al. 2017), learned from the samples alone.

    It learns from instances; without them from boxes, whose masks are the filled boxes, and so it finds filled boxes;
    without either from the connected components of masks. Background boxes that are mostly ignored do not count.
    """

    class Params(Parameters):
        backbone: BackboneChoice = Field(
            RESNET50, description="The network; on a small machine, use a timm resnet18 or a unet-encoder."
        )
        strides: tuple[PositiveInt, ...] = Field(
            (4, 8, 16, 32),
            min_length=1,
            description="Strides of the backbone's layers that feed the feature pyramid; others are skipped.",
        )
        pyramid: int = Field(256, ge=1, description="Channels of the feature pyramid.")
        box_head: int = Field(1024, ge=1, description="Features per box, from which class and corners are predicted.")
        mask_head: tuple[PositiveInt, ...] = Field(
            (256, 256, 256, 256), min_length=1, description="Filters of each 3x3 convolution before the masks."
        )
        anchors: tuple[PositiveFloat, ...] = Field(
            (2.0,), min_length=1, description="Sides of the anchor boxes, in strides of their pyramid level."
        )
        ratios: tuple[PositiveFloat, ...] = Field(
            (0.5, 1.0, 2.0), min_length=1, description="Height by width of the anchor boxes."
        )
        rois_per_image: int = Field(
            512,
            ge=1,
            description="Regions of interest per image that classes and masks are trained on; on a CPU they are most "
            "of the cost, and 64 suffice for small images.",
        )
        min_size: int | None = Field(
            None,
            ge=1,
            description="Pixels to resize the shorter side of every image, or tile, to; none: keep the size.",
        )
        training: Recipe = Field(
            Recipe(epochs=100, batch_size=4, optimiser="adamw", learning_rate=5e-4, gradient_clipping=10.0),
            description="How the network is trained; pos_weight has no effect here.",
        )
        nms_iou: Annotated[float, Field(gt=0, le=1)] = Field(
            0.5, description="Of boxes of one class with an IoU above this, only the best is kept."
        )
        detections: int = Field(
            300, ge=1, description="Maximum number of detections per image, or tile, before the head decides."
        )

    learns_from = frozenset({Annotation.BOXES, Annotation.MASKS, Annotation.INSTANCES})
    inference_params = frozenset({"nms_iou", "detections"})
    default_head = ("micraframe-maskrcnn/detections", {})

    def fit(
        self, train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo, context: FitContext
    ) -> MaskRcnnModel:
        """Train the network on objects."""
        network = self._network(self._backbone(), info, context.seed)
        examples = _examples(train, valid, info)
        fit(network, *examples, _total, self.params.training, context, _parts, with_targets=True)
        return MaskRcnnModel(self.params, network.to(choose_device(context.device)))

    def untrained(self, info: DatasetInfo) -> MaskRcnnModel:
        """Return the model with random weights."""
        return MaskRcnnModel(self.params, self._network(self._backbone().untrained(), info, seed=0))

    def restore(self, state: Mapping[str, Tensor], info: DatasetInfo, device: str) -> MaskRcnnModel:
        """Return the model with these weights."""
        network = self._network(self._backbone().untrained(), info, seed=0)
        network.load_state_dict(dict(state))
        return MaskRcnnModel(self.params, network.to(choose_device(device)))

    def _backbone(self) -> Backbone[Any]:
        return registry.build("backbone", self.params.backbone.name, **self.params.backbone.params)

    def _network(self, backbone: Backbone[Any], info: DatasetInfo, seed: int) -> MaskRcnnNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return MaskRcnnNetwork(*create_network(backbone, info.channels), len(info.classes), self.params)


@final
class MaskRcnnModel(Model):
    """A trained Mask R-CNN.

    Attributes:
        network: The network, in evaluation mode.
    """

    def __init__(self, params: MaskRcnn.Params, network: MaskRcnnNetwork) -> None:
        self.network = network.eval()
        self._params = params

    def score(self, images: Iterable[FloatArray], rule: ClassRule) -> Iterator[Scores]:
        """Yield the scores of each image, with objects and maps of all classes, in order; computed in float32."""
        device = next(self.network.parameters()).device
        for image in images:
            found = self.network.detect(torch.tensor(image, device=device))
            yield score_objects(found, (image.shape[1], image.shape[2]))

    def merge_tiles(self, merged: Scores, tiles: Sequence[ScoredTile]) -> Scores:
        """Return the scores of the objects of all tiles; `detections` and `min_size` then apply to a tile."""
        return score_objects(join(tiles, self._params.nms_iou), merged.size)

    def state(self) -> Mapping[str, Tensor]:
        """Return the network's weights."""
        return self.network.state_dict()


def _examples(train: Sequence[Sample], valid: Sequence[Sample], info: DatasetInfo) -> tuple[Examples, Examples]:
    """Return training and validation examples.

    Raises:
        DataError: If no training sample has an object with a known outline.
    """
    examples = Examples(train, pack, stack=stack)
    if not any(packed[:-1].any() for packed in examples.targets()):
        raise DataError(
            f"dataset {info.name!r}: expected training samples with objects of known outline, got none (scribbles do "
            "not show where an object ends); choose another annotator, such as `annotator: full`"
        )
    return examples, Examples(valid, pack, stack=stack)


def _total(losses: Tensor, targets: Tensor) -> Tensor:
    return losses.sum(1).mean()


def _parts(losses: Tensor, targets: Tensor) -> Mapping[str, Tensor]:
    return dict(zip((f"loss {name}" for name in LOSSES), losses.unbind(1), strict=True))
