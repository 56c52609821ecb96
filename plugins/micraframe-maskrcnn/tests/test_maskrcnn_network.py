from __future__ import annotations

import numpy as np
import pytest
import torch
from micraframe_maskrcnn.method import MaskRcnn
from micraframe_maskrcnn.network import (
    LOSSES,
    Anchors,
    MaskRcnnNetwork,
    ignored_share,
    known,
    levels,
    region_pool,
)
from micraframe_maskrcnn.targets import TargetObjects
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from micraframe.backbones.unet_encoder import UNetEncoder
from micraframe.errors import ConfigError
from micraframe.types import Layer

PARAMS = MaskRcnn.Params(
    strides=(2, 4, 8),
    pyramid=8,
    box_head=16,
    mask_head=(8,),
    anchors=(2.0,),
    ratios=(0.5, 1.0, 2.0),
    rois_per_image=32,
    min_size=None,
    nms_iou=0.5,
    detections=20,
)


def network(**changes) -> MaskRcnnNetwork:
    torch.manual_seed(0)
    backbone, layers = UNetEncoder(UNetEncoder.Params(widths=(4, 8, 8, 8))).create(2)
    return MaskRcnnNetwork(backbone, layers, 2, PARAMS.model_copy(update=changes))


def batch(height: int = 33, width: int = 47) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.rand(2, 2, height, width, generator=torch.Generator().manual_seed(0))
    targets = torch.zeros(2, 2, height, width, dtype=torch.int32)
    targets[0, 0, 3:12, 5:17] = 1
    targets[0, 0, 20:30, 20:28] = 4
    return images, targets


def row(*strides: int) -> list[Layer]:
    return [Layer(f"L{number}", 1, stride) for number, stride in enumerate(strides)]


def test_levels_are_the_deepest_layers_of_their_strides():
    assert levels(row(1, 1, 2, 2, 4, 4, 8, 8), (4, 8, 16, 32)) == [5, 7]
    assert levels(row(2, 4, 8, 8), (8,)) == [3]


@pytest.mark.parametrize(("strides", "expected"), [((1, 2), (4, 8)), ((4, 16), (4, 8, 16)), ((3, 6), (3, 6))])
def test_strides_that_form_no_pyramid_are_rejected(strides, expected):
    with pytest.raises(ConfigError, match="each twice the one before"):
        levels(row(*strides), expected)


def test_anchors_lie_on_their_cells_whatever_the_image_size():
    images = ImageList(torch.zeros(2, 1, 24, 24), [(17, 20)] * 2)
    features = [torch.zeros(2, 1, side, side) for side in (3, 2)]
    first, second = Anchors((8, 16), (2.0, 3.0), (1.0,))(images, features)
    assert torch.equal(first, second)
    middles, edges = (first[:, :2] + first[:, 2:]) / 2, first[:, 2:] - first[:, :2]
    assert sorted({tuple(one) for one in middles[:18].tolist()}) == [(x, y) for x in (0, 8, 16) for y in (0, 8, 16)]
    assert sorted({tuple(one) for one in middles[18:].tolist()}) == [(x, y) for x in (0, 16) for y in (0, 16)]
    assert edges[:18].unique().tolist() == [16, 24]
    assert edges[18:].unique().tolist() == [32, 48]


def test_regions_are_cropped_as_torchvision_does_where_it_derives_the_scale_correctly():
    generator = torch.Generator().manual_seed(0)
    features = {str(n): torch.rand(1, 3, 256 // s, 256 // s, generator=generator) for n, s in enumerate((4, 8, 16))}
    corners = torch.rand(20, 2, generator=generator) * 100
    boxes = [torch.cat([corners, corners + 2 + torch.rand(20, 2, generator=generator) * 150], 1)]
    theirs = MultiScaleRoIAlign(["0", "1", "2"], 7, sampling_ratio=2)(features, boxes, [(256, 256)])
    assert torch.equal(region_pool((4, 8, 16), 7)(features, boxes, [(9, 9)]), theirs)


def test_the_ignored_share_of_boxes_is_counted():
    rng = np.random.default_rng(0)
    ignore = rng.random((9, 14)) > 0.6
    corners = rng.integers(-3, 12, (60, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 9, (60, 2))], 1)
    expected = []
    for x0, y0, x1, y1 in boxes.clip(0):
        inside = ignore[y0:y1, x0:x1]
        expected.append(inside.mean() if inside.size else 1)
    shares = ignored_share(torch.from_numpy(boxes).float(), torch.from_numpy(ignore))
    assert np.allclose(shares.numpy(), expected, atol=1e-6)


def test_ignored_background_does_not_count_but_objects_do():
    ignore = torch.zeros(20, 20, dtype=torch.bool)
    ignore[:, 10:] = True
    boxes = torch.tensor([[0.0, 0, 8, 8], [11, 0, 19, 8], [12, 12, 18, 18]])
    one = TargetObjects(torch.tensor([[12.0, 12, 18, 19]]), torch.zeros(1).long(), torch.zeros(1, 20, 20), ignore)
    assert known(boxes, one).tolist() == boxes[[0, 2]].tolist()
    none = one._replace(boxes=torch.zeros(0, 4))
    assert known(boxes, none).tolist() == boxes[:1].tolist()


@pytest.mark.parametrize("min_size", [None, 24, 64])
def test_losses_reach_every_parameter(min_size):
    module = network(min_size=min_size).train()
    losses = module(*batch())
    assert losses.shape == (2, len(LOSSES))
    assert (losses > 0).all()
    losses.sum(1).mean().backward()
    silent = [name for name, one in module.named_parameters() if one.grad is None or not one.grad.isfinite().all()]
    assert not silent


def test_in_evaluation_mode_losses_are_comparable_and_nothing_changes():
    module = network().eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    torch.manual_seed(5)
    with torch.no_grad():
        first = module(*batch())
        after = torch.rand(3)
        again = module(*batch())
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)
    assert torch.equal(first, again)
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert not module.rpn.training
    assert not module.roi_heads.training


def test_nothing_is_learned_from_ignored_pixels():
    module = network().train()
    images, targets = batch()
    targets[:, 0] = 0
    targets[:, 1] = 1
    losses = module(images, targets)
    assert torch.equal(losses, torch.zeros_like(losses))
    losses.sum().backward()
    assert all(one.grad is None or not one.grad.any() for one in module.parameters())
    targets[0, 1, :16] = 0  # now there is background
    assert (module(images, targets)[:, LOSSES.index("objectness")] > 0).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (33, 47)])
def test_detected_objects_lie_in_the_image(size):
    found = network(min_size=32).eval().detect(torch.rand(2, *size, generator=torch.Generator().manual_seed(0)))
    assert len(found) == 2
    assert any(len(one.scores) for one in found)
    for one in found:
        count = len(one.scores)
        assert one.boxes.shape == (count, 4)
        assert one.masks.shape == (count, 28, 28)
        assert (one.boxes >= 0).all()
        assert (one.boxes <= np.array([*size, *size]) + 1e-3).all()
        assert (np.diff(one.scores) <= 0).all()


def test_objects_are_detected_in_exact_float32():
    tested, seen = network().eval(), []
    tested.pyramid.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.conv.fp32_precision))
    tested.detect(torch.rand(2, 33, 47))
    assert seen == ["ieee"]
